"""Batch norm statistics of an average, from batches that are no pair of tensors."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, update_bn

from leyden.engine import Engine, Update, supervised_trainer
from leyden.handlers import SWA


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


def dicts(number=5):
    generator = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(6, 3, generator=generator), "y": torch.randn(6, 1, generator=generator)}
        for _ in range(number)
    ]


def prepare_batch(batch, device, non_blocking):
    return batch["x"], batch["y"]


def statistics(model):
    return model[1].running_mean.clone(), model[1].running_var.clone()


def by_hand(batches, epochs=3):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average = AveragedModel(model)
    for epoch in range(epochs):
        for batch in batches:
            mse_loss(model(batch["x"]), batch["y"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch >= 1:
            average.update_parameters(model)
    update_bn([batch["x"] for batch in batches], average)
    return statistics(average.module)


def equal(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_prepare_batch_says_how_a_batch_is_passed_through():
    expected = by_hand(dicts())
    model = net()
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.1), mse_loss, prepare_batch=prepare_batch)
    trainer.attach(SWA(2))
    trainer.run(dicts(), max_epochs=3)
    assert equal(statistics(model), expected)


def test_model_fn_says_it_too():
    model = net()
    trainer = supervised_trainer(
        model, torch.optim.SGD(model.parameters(), 0.1), mse_loss,
        prepare_batch=lambda batch, device, non_blocking: (batch, batch["y"]),
        model_fn=lambda model, batch: model(batch["x"]),
    )  # fmt: skip
    trainer.attach(SWA(2))
    trainer.run(dicts(), max_epochs=3)
    assert equal(statistics(model), by_hand(dicts()))


def own_trainer(model):
    def step(engine, batch):
        with update.forward():
            loss = mse_loss(model(batch["x"]), batch["y"])
        update.backward(loss)

    trainer = Engine(step)
    update = Update(trainer, model, torch.optim.SGD(model.parameters(), 0.1))
    return trainer


def test_a_batch_that_nobody_can_pass_through_is_told_before_the_first_step():
    model = net()
    trainer = own_trainer(model)
    trainer.attach(SWA(2))
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with pytest.raises(TypeError) as raised:
        trainer.run(dicts(), max_epochs=3)
    assert "tried with the first batch what it is to do at the end" in raised.value.__notes__[0]
    assert "forward=, a function of the batch, says how that is done" in raised.value.__notes__[0]
    assert trainer.state.step == 0
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))
    assert all(module.training for module in model.modules())


def test_with_a_forward_it_works():
    model = net()
    trainer = own_trainer(model)
    trainer.attach(SWA(2, forward=lambda batch: model(batch["x"])))
    trainer.run(dicts(), max_epochs=3)
    assert equal(statistics(model), by_hand(dicts()))


def test_the_try_leaves_no_trace():
    """Of batches that can be passed: weights, statistics and random numbers (dropout's) as without it."""
    results = []
    for handlers in ((), (SWA(3),)):
        model = net()

        def step(engine, batch, model=model):
            update = engine.updates["default"]
            with update.forward():
                loss = mse_loss(model(batch[0]), batch[1])
            update.backward(loss)

        trainer = Engine(step)
        Update(trainer, model, torch.optim.SGD(model.parameters(), 0.1))
        trainer.attach(*handlers)
        trainer.run([(batch["x"], batch["y"]) for batch in dicts()], max_epochs=2)
        results.append([tensor.clone() for tensor in model.state_dict().values()])
    assert equal(*results)
