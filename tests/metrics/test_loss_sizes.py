"""How many samples a batch has for Loss, and losses that are no mean."""

from functools import partial

import pytest
import torch
from torch import nn

from leyden.metrics import Loss


def value(metric, *outputs):
    for output in outputs:
        metric.update(output)
    return metric.compute().item()


def first(y_pred):
    while not isinstance(y_pred, torch.Tensor):
        y_pred = next(iter(y_pred.values())) if isinstance(y_pred, dict) else y_pred[0]
    return y_pred.mean()


def outputs(pack_prediction, pack_target):
    """Batches of 4 and 1 samples, with losses of 2 and 5: together 2.6."""
    return [
        (pack_prediction(torch.full((4, 3), 2.0)), pack_target(torch.zeros(4))),
        (pack_prediction(torch.full((1, 3), 5.0)), pack_target(torch.zeros(1))),
    ]


@pytest.mark.parametrize(
    "pack_target",
    [
        lambda y: y,
        lambda y: {"boxes": y, "labels": y, "areas": y},
        lambda y: (y, y),
        lambda y: [y, y],
        lambda y: None,
        lambda y: ["text"] * len(y),
    ],
    ids=["tensor", "mapping", "pair", "list", "none", "texts"],
)
@pytest.mark.parametrize(
    "pack_prediction", [lambda p: p, lambda p: {"logits": p, "hidden": [p, p]}, lambda p: (p, p)], ids=type
)
def test_batches_weigh_by_their_samples(pack_prediction, pack_target) -> None:
    found = value(Loss(lambda y_pred, y: first(y_pred)), *outputs(pack_prediction, pack_target))
    assert found == pytest.approx(2.6)


def test_a_size_that_can_not_be_told_is_asked_for() -> None:
    batches = outputs(lambda p: {"logits": p, "memory": torch.zeros(7)}, lambda y: {"labels": y})
    with pytest.raises(TypeError, match=r"can't tell how many samples .* Loss\(loss_fn, batch_size=lambda y: ...\)"):
        value(Loss(lambda y_pred, y: first(y_pred)), *batches)
    told = Loss(lambda y_pred, y: first(y_pred), batch_size=lambda y: len(y["labels"]))
    assert value(told, *batches) == pytest.approx(2.6)
    with pytest.raises(TypeError, match="can't tell how many samples"):
        Loss(lambda y_pred, y: y_pred).update((torch.tensor(1.0), {"tokens": 30}))


@pytest.mark.parametrize(
    "loss_fn",
    [nn.MSELoss(reduction="sum"), partial(nn.functional.mse_loss, reduction="sum")],
    ids=["module", "partial"],
)
def test_a_sum_is_refused(loss_fn) -> None:
    with pytest.raises(ValueError, match=r'has reduction="sum", but Loss weighs the mean .* give it reduction="mean"'):
        Loss(loss_fn)


def test_a_sum_by_keyword_is_refused() -> None:
    metric = Loss(nn.functional.mse_loss)
    with pytest.raises(ValueError, match='keyword arguments of Loss has reduction="sum"'):
        metric.update((torch.zeros(2), torch.zeros(2), {"reduction": "sum"}))


def test_a_size_may_be_a_tensor_and_stays_a_number() -> None:
    """As where the labels that count are counted: (y != -100).sum()."""
    metric = Loss(nn.CrossEntropyLoss(), batch_size=lambda y: (y != -100).sum())
    scores = torch.eye(3)[[0, 0, 0]]
    metric.update((scores, torch.tensor([0, -100, -100])))
    metric.update((scores, torch.tensor([1, 1, 1])))
    metric.update((scores, torch.tensor([-100, -100, -100])))
    assert type(metric.count) is int
    hit, miss = (nn.functional.cross_entropy(scores[:1], torch.tensor([y])).item() for y in (0, 1))
    assert metric.compute().item() == pytest.approx((hit + 3 * miss) / 4)


def test_a_size_that_is_no_whole_number() -> None:
    with pytest.raises(TypeError, match=r"a number of samples, must be a whole number, but is 2\.5"):
        Loss(nn.MSELoss(), batch_size=lambda y: 2.5).update((torch.zeros(2), torch.ones(2)))
