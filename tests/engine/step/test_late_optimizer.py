"""An optimizer that is made when the run starts, of what is then trained."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from leyden.engine import Engine, Stage, Update, supervised_trainer
from leyden.handlers import (
    EMA,
    Checkpoint,
    ClipGradients,
    Finetune,
    Freeze,
    MixedPrecision,
    ParamSchedule,
    Schedule,
)
from leyden.handlers.training.shapes import Linear

loss_fn = nn.MSELoss()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def data(number=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, 4, 3, generator=generator)
    return [(each, each.sum(1, keepdim=True)) for each in x]


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2)


def trained(late, *handlers, model=None, epochs=2):
    model = model or net()
    trainer = supervised_trainer(model, adamw if late else adamw(model.parameters()), loss_fn)
    trainer.attach(*handlers)
    trainer.run(data(), max_epochs=epochs)
    return trainer, model


def assert_same(ours, theirs):
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@pytest.mark.parametrize(
    "handlers",
    [
        list,
        lambda: [ClipGradients(norm=0.1), EMA(0.9), MixedPrecision("fp16", init_scale=8.0)],
        lambda: [Schedule(lambda optimizer, steps: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + 1))],
        lambda: [ParamSchedule("lr", Linear(0.01, 0.1, 8)), ClipGradients(value=0.1)],
        lambda: [Freeze("0")],
        lambda: [Finetune({1: "2", 2: ("0", 0.1)})],
        lambda: [MixedPrecision("bf16-true")],
    ],
)
def test_it_trains_as_one_made_before(handlers) -> None:
    _, late = trained(True, *handlers())
    _, early = trained(False, *handlers())
    assert_same(late, early)


def test_it_gets_what_is_trained_in_the_run() -> None:
    model, seen = net(), []

    def make(parameters):
        seen.append(parameters)
        return torch.optim.SGD(parameters, lr=0.1)

    trainer = supervised_trainer(model, make, loss_fn)
    trainer.attach(Freeze("0"))

    def exchange():  # as sharding does
        for module in (model[0], model[2]):
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)

    trainer.setup.add(Stage.SHARD, exchange)
    assert seen == []
    trainer.run(data(), max_epochs=1)
    trainer.run(data(), max_epochs=2)
    (parameters,) = seen
    assert [id(p) for p in parameters] == [id(p) for p in model[2].parameters()]
    assert trainer.updates["default"].optimizers[0].param_groups[0]["params"] == parameters


def test_it_may_be_several() -> None:
    model = net()

    def make(parameters):
        return [
            torch.optim.SGD([p for p in parameters if p.ndim == 2], lr=0.1),
            torch.optim.AdamW([p for p in parameters if p.ndim == 1], lr=0.01),
        ]

    trainer = supervised_trainer(model, make, loss_fn)
    trainer.run(data(), max_epochs=1)
    assert [type(each).__name__ for each in trainer.updates["default"].optimizers] == ["SGD", "AdamW"]
    assert "SGD + AdamW" in str(trainer)


def test_a_checkpoint_goes_on_exactly_and_a_script_may_override(tmp_path) -> None:
    straight, model = trained(True)
    trained(True, Checkpoint(tmp_path, every=1, resume="auto"), epochs=1)
    _, resumed = trained(True, Checkpoint(tmp_path, every=1, resume="auto"), epochs=2)
    assert_same(resumed, model)
    assert straight.state.step == 12
    other = supervised_trainer(net(), lambda parameters: torch.optim.AdamW(parameters, lr=0.5), loss_fn)
    other.attach(Checkpoint(tmp_path, resume="auto", override=("lr",)))
    other.run(data(), max_epochs=3)
    assert other.updates["default"].optimizer.param_groups[0]["lr"] == 0.5


def test_before_a_run_it_is_told_that_none_is_there() -> None:
    model = net()
    engine = Engine(lambda engine, batch: None)
    update = Update(engine, model, adamw)
    assert "an optimizer that is made when the run starts on Sequential" in str(engine)
    assert len(update.trainable()) == 4
    with pytest.raises(RuntimeError, match="is made when a run starts"):
        update.backward(model(torch.ones(1, 3)).sum())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda parameters: "adamw", TypeError, "is to give an optimizer or a list of them, but gave 'adamw'"),
        (lambda parameters: None, TypeError, "but gave None"),
        (lambda parameters: adamw([nn.Parameter(torch.ones(1))]), ValueError, "took parameters that it was not given"),
    ],
)
def test_what_makes_no_optimizer_of_them_is_told(make, error, message) -> None:
    trainer = supervised_trainer(net(), make, loss_fn)
    with pytest.raises(error, match=message):
        trainer.run(data(), max_epochs=1)


def test_two_that_drive_one_number_are_told_when_the_run_starts() -> None:
    trainer = supervised_trainer(net(), adamw, loss_fn)
    trainer.attach(ParamSchedule("lr", Linear(0.01, 0.1, 8)), ParamSchedule("lr", Linear(0.01, 0.2, 8)))
    with pytest.raises(ValueError, match="both set the same"):
        trainer.run(data(), max_epochs=1)


def test_a_scheduler_of_torch_made_too_early_is_told_how() -> None:
    model = net()
    trainer = supervised_trainer(model, adamw, loss_fn)
    with pytest.raises(RuntimeError, match="'lr' of the optimizer of update 'default' is not known yet"):
        lr_scheduler.ExponentialLR(trainer.updates["default"].optimizer, 0.9)
