"""A GPT with Muon on its matrices and AdamW on the rest, in one update, beside the loop by hand."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_trainer
from leyden.handlers import (
    EMA,
    Checkpoint,
    ClipGradients,
    Finetune,
    GradientAccumulation,
    LearningRateFinder,
    MixedPrecision,
    ParamSchedule,
    Schedule,
)
from leyden.handlers.loggers.values import learning_rates
from leyden.handlers.training.shapes import Linear

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from language_model import GPT, Shape

sys.path.pop(0)

SHAPE = Shape(layers=1, heads=2, width=16, context=8, vocabulary=32)
MUON = getattr(torch.optim, "Muon", None)
KINDS = ["sgd", *(["muon"] if MUON else [])]


def gpt():
    torch.manual_seed(0)
    return GPT(SHAPE)


def loss_fn(prediction, target):
    return F.cross_entropy(prediction.flatten(0, 1), target.flatten())


def data(number=7):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 32, (number, 2, 9), generator=generator)
    return [(each[:, :-1], each[:, 1:]) for each in tokens]


def optimizers_of(model, kind="muon"):
    matrices = [p for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2]
    if not matrices:
        matrices = [p for p in model.parameters() if p.ndim == 2][1:]
    ids = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in ids]
    one = MUON(matrices, lr=0.02) if kind == "muon" else torch.optim.SGD(matrices, lr=0.1, momentum=0.9)
    return [one, torch.optim.AdamW(rest, lr=1e-2)]


def by_hand(batches, kind, window=1, clip=None, scaler=None, factor=None, epochs=1):
    model = gpt()
    optimizers = optimizers_of(model, kind)
    schedulers = [] if factor is None else [lr_scheduler.ExponentialLR(each, factor) for each in optimizers]
    scaler = None if scaler is None else torch.amp.GradScaler("cpu", **scaler)
    steps = 0
    for _ in range(epochs):
        for start in range(0, len(batches), window):
            part = batches[start : start + window]
            for x, y in part:
                with torch.autocast("cpu", torch.float16, enabled=scaler is not None):
                    loss = loss_fn(model(x), y)
                loss = loss if len(part) == 1 else loss / len(part)
                (loss if scaler is None else scaler.scale(loss)).backward()
            overflow = False
            if scaler is not None:
                for each in optimizers:
                    scaler.unscale_(each)
                overflow = any(not p.grad.isfinite().all() for p in model.parameters())
            if clip is not None:
                nn.utils.clip_grad_norm_([p for each in optimizers for p in each.param_groups[0]["params"]], clip)
            if not overflow:
                steps += 1
                for each in optimizers:
                    each.step()
                for each in schedulers:
                    each.step()
            if scaler is not None:
                scaler.update()
            for each in optimizers:
                each.zero_grad()
    return model, steps


def trainer_of(kind="muon", *handlers):
    model = gpt()
    optimizers = optimizers_of(model, kind)
    trainer = supervised_trainer(model, optimizers, loss_fn)
    trainer.attach(*handlers)
    return trainer, model, optimizers


def assert_same(ours, theirs):
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_backward_pass_and_a_step_of_both(kind) -> None:
    trainer, model, _ = trainer_of(kind)
    stepped = []
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine: stepped.append(engine.state.step))
    trainer.run(data(), max_epochs=1)
    hand, _ = by_hand(data(), kind)
    assert_same(model, hand)
    assert stepped == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_clipping_and_a_schedule(kind) -> None:
    schedule = Schedule(lambda optimizer, steps: lr_scheduler.ExponentialLR(optimizer, 0.9))
    trainer, model, _ = trainer_of(kind, schedule, ClipGradients(norm=0.3), GradientAccumulation(2))
    trainer.run(data(), max_epochs=2)
    hand, steps = by_hand(data(), kind, window=2, clip=0.3, factor=0.9, epochs=2)
    assert_same(model, hand)
    assert trainer.state.step == steps == 8


@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_skips_both(kind) -> None:
    options = {"init_scale": 2.0**40, "growth_interval": 3}
    trainer, model, optimizers = trainer_of(kind, MixedPrecision("fp16", **options))
    skipped = []
    trainer.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine: skipped.append(engine.state.iteration))
    trainer.run(data(30), max_epochs=1)
    hand, steps = by_hand(data(30), kind, scaler=options)
    assert 0 < steps < 30
    assert len(skipped) == 30 - steps
    assert trainer.state.step == steps
    assert_same(model, hand)
    adamw = optimizers[1]
    assert {int(state["step"]) for state in adamw.state.values()} == {steps}


@pytest.mark.parametrize("stop", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_and_an_exact_resume(kind, stop, tmp_path) -> None:
    def handlers():
        return [
            Schedule(lambda optimizer, steps: lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps + 1)),
            MixedPrecision("fp16", init_scale=2.0**10),
            ClipGradients(norm=0.3),
            GradientAccumulation(2),
            EMA(0.9),
        ]

    straight, model, _ = trainer_of(kind, *handlers())
    straight.run(data(), max_epochs=2)
    first, _, _ = trainer_of(kind, *handlers(), Checkpoint(tmp_path, every=1, resume="auto"))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=stop), first.interrupt)
    first.run(data(), max_epochs=2)
    first.request_save()
    second, resumed, optimizers = trainer_of(kind, *handlers(), Checkpoint(tmp_path, every=1, resume="auto"))
    second.run(data(), max_epochs=2)
    assert_same(resumed, model)
    assert second.state.step == straight.state.step
    for one, other in zip(optimizers, straight.updates["default"].optimizers, strict=True):
        ours, theirs = one.state_dict(), other.state_dict()
        assert ours["param_groups"] == theirs["param_groups"]
        for key, state in ours["state"].items():
            for name, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["state"][key][name]))


def test_a_checkpoint_of_other_optimizers_is_refused(tmp_path) -> None:
    trainer, _, _ = trainer_of("sgd", Checkpoint(tmp_path, resume="auto"))
    trainer.run(data(2), max_epochs=1)
    model = gpt()
    other = supervised_trainer(model, torch.optim.AdamW(model.parameters()), loss_fn)
    other.attach(Checkpoint(tmp_path, resume="auto"))
    with pytest.raises(ValueError, match=r"is AdamW, in the checkpoint SGD \+ AdamW"):
        other.run(data(2), max_epochs=2)


def test_a_scheduler_of_one_of_them() -> None:
    model = gpt()
    one, two = optimizers_of(model, "sgd")
    trainer = supervised_trainer(model, [one, two], loss_fn)
    trainer.attach(Schedule(lr_scheduler.StepLR(one, 1, 0.5)), Schedule(lr_scheduler.StepLR(two, 2, 0.1)))
    trainer.run(data(4), max_epochs=1)
    assert one.param_groups[0]["lr"] == pytest.approx(0.1 / 16)
    assert two.param_groups[0]["lr"] == pytest.approx(1e-4)
    assert learning_rates(trainer) == pytest.approx({"lr/0": 0.1 / 16, "lr/1": 1e-4})


def test_two_schedules_of_one_of_them_are_refused() -> None:
    model = gpt()
    one, two = optimizers_of(model, "sgd")
    trainer = supervised_trainer(model, [one, two], loss_fn)
    trainer.attach(Schedule(lr_scheduler.LambdaLR(one, lambda step: 1)))
    with pytest.raises(ValueError, match="whatever the other one did"):
        trainer.attach(Schedule(lr_scheduler.LambdaLR(one, lambda step: 1)))


def test_a_warm_up_of_each() -> None:
    rates = []
    schedule = Schedule(lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, 1.0), warmup=2, warmup_start=0.5)
    trainer, _, _ = trainer_of("sgd", schedule)
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda engine: rates.append(tuple(learning_rates(engine).values()))
    )
    trainer.run(data(3), max_epochs=1)
    assert rates == [pytest.approx((0.05, 0.005)), pytest.approx((0.075, 0.0075)), pytest.approx((0.1, 0.01))]


def test_driven_numbers_reach_both() -> None:
    trainer, _, optimizers = trainer_of("sgd", ParamSchedule("weight_decay", Linear(0.0, 0.4, 4)))
    trainer.run(data(4), max_epochs=1)
    assert [each.param_groups[0]["weight_decay"] for each in optimizers] == pytest.approx([0.4, 0.4])


def test_a_search_keeps_the_ratio_of_their_learning_rates() -> None:
    schedule = Schedule(lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, 1.0))
    finder = LearningRateFinder(1e-3, 100.0, steps=40)
    trainer, _, optimizers = trainer_of("sgd", schedule, finder)
    trainer.run(data(4), max_epochs=1)
    suggestion = finder.result.suggestion
    assert suggestion is not None
    rates = [each.param_groups[0]["lr"] for each in optimizers]
    assert rates == pytest.approx([suggestion, suggestion / 10])


def test_finetune_keeps_each_part_with_its_optimizer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    matrices, biases = ([p for p in model.parameters() if p.ndim == n] for n in (2, 1))
    optimizers = [torch.optim.SGD(matrices, lr=0.1), torch.optim.AdamW(biases, lr=0.01)]
    trainer = supervised_trainer(model, optimizers, nn.MSELoss())
    trainer.attach(Finetune({1: "2", 2: ("0", 0.1)}))
    before = [p.detach().clone() for p in model.parameters()]
    trainer.run([(torch.randn(3, 4), torch.randn(3, 1))], max_epochs=1)
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert changed == [False, False, True, True]
    trainer.run([(torch.randn(3, 4), torch.randn(3, 1))], max_epochs=2)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [[group["lr"] for group in each.param_groups] for each in optimizers] == [
        pytest.approx([0.1, 0.01]),
        pytest.approx([0.01, 0.001]),
    ]


def test_what_is_no_list_of_optimizers_is_told() -> None:
    model = gpt()
    one, two = optimizers_of(model, "sgd")
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(ValueError, match="is trained by SGD and by AdamW"):
        Update(engine, model, [one, torch.optim.AdamW(model.parameters())])
    with pytest.raises(ValueError, match="the list is empty"):
        Update(engine, model, [])
    with pytest.raises(TypeError, match="or a list of them"):
        Update(engine, model, [one, "adamw"])
    with pytest.raises(ValueError, match="LBFGS"):
        Update(engine, model, [one, torch.optim.LBFGS(two.param_groups[0]["params"])])
    update = Update(engine, model, [one, two])
    assert update.optimizers == (one, two)
    assert "SGD + AdamW on GPT" in str(engine)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.LBFGS])
@pytest.mark.parametrize("listed", [lambda one: [one], lambda one: (one,)])
def test_a_list_of_one_is_that_one(make, listed) -> None:
    trained = []
    for arrange in (lambda one: one, listed):
        model = gpt()
        optimizer = make(model.parameters(), lr=1e-2)
        trainer = supervised_trainer(model, arrange(optimizer), loss_fn)
        assert trainer.updates["default"].optimizer is optimizer
        trainer.run(data(2))
        trained.append(model.state_dict())
    assert all(map(torch.equal, trained[0].values(), trained[1].values()))


def test_a_function_may_make_a_list_of_one() -> None:
    trainer = supervised_trainer(gpt(), lambda parameters: [torch.optim.SGD(parameters, lr=0.1)], loss_fn)
    trainer.run(data(2))
    assert type(trainer.updates["default"].optimizer) is torch.optim.SGD


def test_a_step_of_one_of_them_by_hand_is_told() -> None:
    model = gpt()
    one, two = optimizers_of(model, "sgd")

    def step(engine, batch):
        with update.forward():
            loss = loss_fn(model(batch[0]), batch[1])
        update.backward(loss)
        one.step()

    engine = Engine(step)
    update = Update(engine, model, [one, two])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        engine.run(data(3), max_epochs=1)
    assert any("a step of SGD" in str(each.message) for each in told)


@pytest.mark.parametrize("kind", [set, lambda each: dict(enumerate(each))])
def test_what_has_no_order_is_told(kind) -> None:
    """A set's order is another in each process, so that no checkpoint would fit its own script."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model]
    with pytest.raises(TypeError, match=r"a list of them, in their order, but got a (set|dict)"):
        Update(Engine(lambda engine, batch: None), model, kind(optimizers))
