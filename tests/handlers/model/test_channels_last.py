"""Strides change, and nothing else that a user could see."""

import copy

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd
from models import convolutional, equal_tensors, same_each_time
from torch import nn

from leyden.engine import Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate
from leyden.handlers.model import ChannelsLast


def images(number=10, size=4, shape=(3, 8, 8)):
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randn(size, 2, generator=generator))
        for _ in range(number)
    ]


@same_each_time
def volumetric():
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(32, 2))


class Watched(nn.Module):
    """Notes the strides of what it is called with, when it is called."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.seen = []

    def forward(self, x):
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.inner(x)


def train(model, *handlers, data=None, epochs=3):
    trainer = supervised_trainer(model, sgd(model, lr=0.01), loss_fn)
    trainer.attach(*handlers)
    trainer.run(images() if data is None else data, max_epochs=epochs)
    return trainer


def test_it_is_the_loop_by_hand_to_the_bit():
    ours, theirs = convolutional(), convolutional().to(memory_format=torch.channels_last)
    train(ours, ChannelsLast())
    optimizer = sgd(theirs, lr=0.01)
    for _ in range(3):
        for x, y in images():
            loss_fn(theirs(x.to(memory_format=torch.channels_last)), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert equal_tensors(ours, theirs)
    assert ours[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_parameters_stay_the_users_own():
    model = convolutional()
    before = dict(model.named_parameters())
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(ChannelsLast())
    trainer.run(images(1))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert list(model.state_dict()) == list(convolutional().state_dict())


def test_evaluators_get_such_inputs_too():
    model = Watched(convolutional())
    data = images(2)
    train(model, ChannelsLast(), Evaluate(supervised_evaluator(model), images(3)), data=data, epochs=2)
    assert model.seen == [True] * 10
    assert data[0][0].is_contiguous()  # the user's own batch is as it was


def test_a_second_run_and_a_copy():
    model = Watched(convolutional())
    trainer = train(model, ChannelsLast(), epochs=1, data=images(1))
    trainer.run(max_epochs=2)
    other = copy.deepcopy(model)
    other(images(1)[0][0])
    assert other.seen == [True] * 3


def test_inputs_in_containers_and_by_name():
    model = convolutional()
    model.forward = lambda batch, *, more: seen.extend([batch["x"], batch["sizes"], *more])
    seen = []
    engine = Engine(lambda engine, batch: None)
    Update(engine, model, sgd(model))
    engine.attach(ChannelsLast())
    engine.run([None])
    x = images(1)[0][0]
    model({"x": x, "sizes": [8, 8]}, more=(x, torch.ones(3)))
    assert [each.is_contiguous(memory_format=torch.channels_last) for each in (seen[0], seen[2])] == [True, True]
    assert seen[1] == [8, 8]
    assert seen[3].tolist() == [1, 1, 1]


def test_volumes():
    ours, theirs = volumetric(), volumetric().to(memory_format=torch.channels_last_3d)
    data = images(3, shape=(3, 4, 4, 4))
    train(ours, ChannelsLast(three_d=True), data=data, epochs=1)
    optimizer = sgd(theirs, lr=0.01)
    for x, y in data:
        loss_fn(theirs(x.to(memory_format=torch.channels_last_3d)), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert equal_tensors(ours, theirs)
    assert ours[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_each_update_that_has_such_weights_or_one():
    def changed(handler):
        models = {"one": convolutional(), "two": convolutional(), "flat": net()}
        engine = Engine(lambda engine, batch: None)
        for name, model in models.items():
            Update(engine, model, sgd(model), name=name)
        engine.attach(handler)
        engine.run([None])
        return [models[name][0].weight.is_contiguous(memory_format=torch.channels_last) for name in ("one", "two")]

    assert changed(ChannelsLast()) == [True, True]
    assert changed(ChannelsLast(update="two")) == [False, True]


def test_a_lazy_model():
    model = nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(2))
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.add_event_handler(Events.STARTED, lambda: model(images(1)[0][0]))
    trainer.attach(ChannelsLast())
    trainer.run(images(1))


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_model_without_convolutions():
    with pytest.raises(ValueError, match=r"changes 4-D weights .*and the model has none; its parameters are: 1-D, 2-D"):
        train(net(), ChannelsLast(), data=batches(1))
    with pytest.raises(ValueError, match=r"changes 5-D weights .* its parameters are: 1-D, 2-D, 4-D"):
        train(convolutional(), ChannelsLast(three_d=True))


def test_two_of_them():
    with pytest.raises(ValueError, match="both would set the memory format of the same model"):
        train(convolutional(), ChannelsLast(), ChannelsLast())


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="ChannelsLast works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(ChannelsLast())
