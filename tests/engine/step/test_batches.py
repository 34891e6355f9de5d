"""What a supervised engine makes of a batch: a pair, by names or places, by a function; else it says what to write."""

from collections import namedtuple

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from leyden.engine import supervised_evaluator, supervised_trainer

Triple = namedtuple("Triple", ["image", "mask", "label"])


class TwoInputs(nn.Module):
    """Its two inputs do different things, so that a mistaken order shows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.layer.weight)

    def forward(self, image, mask):
        return self.layer(image) - 2 * mask


IMAGE, MASK, LABEL = torch.full((1, 1), 5.0), torch.full((1, 1), 1.0), torch.full((1, 1), 4.0)
MAPPING = {"label": LABEL, "mask": MASK, "image": IMAGE}
TRIPLE = (IMAGE, MASK, LABEL)


def evaluated(batch, **arguments):
    return supervised_evaluator(TwoInputs(), **arguments).run([batch]).output


def trained(batch, model=None, **arguments):
    model = TwoInputs() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return supervised_trainer(model, optimizer, mse_loss, **arguments).run([batch]).output


@pytest.mark.parametrize(
    ("batch", "model_inputs"),
    [
        (MAPPING, ("image", "mask")),
        (MAPPING, {"mask": "mask", "image": "image"}),
        (TRIPLE, (0, 1)),
        (list(TRIPLE), (0, 1)),
        (TRIPLE, {"mask": 1, "image": 0}),
        ((LABEL, MASK, IMAGE), (2, 1)),
        (Triple(*TRIPLE), ("image", "mask")),
        (Triple(*TRIPLE), (0, 1)),
    ],
)
def test_the_model_is_called_with_the_parts_that_are_named_and_the_rest_is_the_target(batch, model_inputs):
    y_pred, y = evaluated(batch, model_inputs=model_inputs)
    assert (y_pred.item(), y.item()) == (3.0, 4.0)
    assert trained(batch, model_inputs=model_inputs).item() == 1.0


@pytest.mark.parametrize("model_inputs", ["image", ("image",), {"input": "image"}])
def test_one_input(model_inputs):
    batch = {"image": torch.ones(1, 2), "label": torch.zeros(1, 2)}
    y_pred, y = supervised_evaluator(nn.Linear(2, 2), model_inputs=model_inputs).run([batch]).output
    assert y_pred.shape == (1, 2)
    assert y is batch["label"]


def test_what_is_left_of_a_batch_keeps_its_kind():
    _, y = supervised_evaluator(nn.Identity(), model_inputs="image").run([MAPPING]).output
    assert set(y) == {"label", "mask"}
    _, y = supervised_evaluator(nn.Identity(), model_inputs=(0,)).run([TRIPLE]).output
    assert [each.item() for each in y] == [1.0, 4.0]


def test_the_inputs_move_with_the_rest():
    model = TwoInputs()
    y_pred, y = supervised_evaluator(model, device="meta", model_inputs=("image", "mask")).run([MAPPING]).output
    assert {y_pred.device.type, y.device.type} == {"meta"}


def test_an_optimizer_with_a_closure_takes_batches_apart_too():
    model = TwoInputs()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    trainer = supervised_trainer(model, optimizer, mse_loss, model_inputs=("image", "mask"))
    assert trainer.run([MAPPING]).output.item() == 1.0


# -- what can't be taken apart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (MAPPING, ["a dict with the keys 'label', 'mask', 'image'", "model_inputs=("]),
        ({"x": IMAGE, "y": LABEL}, ["a dict with the keys 'x', 'y'", "model_inputs=('x',)"]),
        (torch.ones(2, 3), ["a tensor of shape (2, 3)", "prepare_batch="]),
        (numpy.ones((2, 3)), ["a ndarray", "prepare_batch="]),
        (TRIPLE, ["a tuple of 3", "model_inputs=(0, 1)"]),
        ([IMAGE], ["a list of 1", "prepare_batch="]),
        (Triple(*TRIPLE), ["a Triple of 3", "model_inputs=(0, 1)"]),
        ("xy", ["a str"]),
        (3, ["a int"]),
    ],
)
@pytest.mark.parametrize("run", [evaluated, trained])
@pytest.mark.parametrize("device", [None, "meta"])
def test_a_batch_that_is_no_pair_is_told_what_to_write(batch, words, run, device):
    with pytest.raises(ValueError, match=r"takes batches of \(input, target\)") as error:
        run(batch, device=device)
    for each in words:
        assert each in str(error.value)


@pytest.mark.parametrize(
    ("batch", "model_inputs", "words"),
    [
        (MAPPING, ("picture", "mask"), "names 'picture', but the batch has: 'label', 'mask', 'image'"),
        (TRIPLE, (0, 3), "names 3, but the batch has: 0, 1, 2"),
        (TRIPLE, (0, 1, 2), "leaves nothing for the target"),
        (torch.ones(2, 3), (0,), "a tensor of shape"),
    ],
)
def test_places_that_are_not_there(batch, model_inputs, words):
    with pytest.raises(ValueError, match=words):
        evaluated(batch, model_inputs=model_inputs)


def test_two_arguments_that_say_the_same_thing():
    with pytest.raises(ValueError, match="prepare_batch and model_inputs"):
        evaluated(MAPPING, model_inputs=("image",), prepare_batch=lambda batch, device, non_blocking: batch)
    with pytest.raises(ValueError, match="model_fn and model_inputs"):
        trained(MAPPING, model_inputs=("image",), model_fn=lambda model, x: model(x))


def test_a_prepare_batch_that_gives_no_pair():
    with pytest.raises(ValueError, match=r"prepare_batch gives \(input, target\), but gave a tensor of shape \(1, 1\)"):
        trained(MAPPING, prepare_batch=lambda batch, device, non_blocking: batch["image"])
