"""Ignite's schedulers set, call by call, what Ignite itself sets."""

import copy
import importlib
import math
from collections.abc import Callable
from typing import Any

import ignite.handlers as theirs
import pytest
import torch
from ignite.engine import Engine as TheirEngine
from ignite.engine import Events as TheirEvents
from torch.optim import lr_scheduler

import leyden.contrib.ignite.handlers as ours
from leyden.contrib.ignite.engine import Engine, Events

Make = Callable[[Any, torch.optim.Optimizer], Any]


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def values_of(handlers: Any, make: Make, calls: int, rates: tuple[float, ...], name: str) -> list[list[float]]:
    optimizer = optimizer_of(*rates)
    scheduler = make(handlers, optimizer)
    values = []
    for _ in range(calls):
        scheduler(None)
        values.append([group[name] for group in optimizer.param_groups])
        optimizer.step()
    return values


CASES: dict[str, Make] = {
    "linear, there and back": lambda of, opt: of.LinearCyclicalScheduler(opt, "lr", 0.0, 1.0, 6),
    "linear, odd cycle": lambda of, opt: of.LinearCyclicalScheduler(opt, "lr", 0.5, 0.1, 5),
    "linear, monotonic": lambda of, opt: of.LinearCyclicalScheduler(opt, "lr", 1.0, 0.1, 4, monotonic=True),
    "linear, monotonic, with a way back": lambda of, opt: of.LinearCyclicalScheduler(
        opt, "lr", 1.0, 0.1, 4, monotonic=True, warmup_duration=3, cycle_mult=2.0
    ),
    "linear, longer and lower cycles": lambda of, opt: of.LinearCyclicalScheduler(
        opt, "lr", 0.1, 1.0, 4, cycle_mult=1.5, start_value_mult=0.5, end_value_mult=0.8
    ),
    "cosine": lambda of, opt: of.CosineAnnealingScheduler(opt, "lr", 0.0, 1.0, 4),
    "cosine of the momentum": lambda of, opt: of.CosineAnnealingScheduler(opt, "momentum", 0.95, 0.85, 7),
    "cosine, with a way back": lambda of, opt: of.CosineAnnealingScheduler(
        opt, "lr", 1.0, 0.0, 5, warmup_duration=2, end_value_mult=0.5
    ),
    "piecewise": lambda of, opt: of.PiecewiseLinear(opt, "lr", [(2, 0.5), (4, 0.1), (9, 0.9)]),
    "one group": lambda of, opt: of.PiecewiseLinear(opt, "lr", [(0, 0.5), (9, 0.1)], param_group_index=1),
    "StepLR": lambda of, opt: of.LRScheduler(lr_scheduler.StepLR(opt, 3, 0.5)),
    "warm-up, then ExponentialLR": lambda of, opt: of.create_lr_scheduler_with_warmup(
        lr_scheduler.ExponentialLR(opt, 0.98), 0.0, 5
    ),
    "warm-up to another end, then StepLR": lambda of, opt: of.create_lr_scheduler_with_warmup(
        lr_scheduler.StepLR(opt, 3, 0.5), 0.0, 5, warmup_end_value=0.3
    ),
    "warm-up, then a wrapped ExponentialLR": lambda of, opt: of.create_lr_scheduler_with_warmup(
        of.LRScheduler(lr_scheduler.ExponentialLR(opt, 0.9)), 0.0, 4
    ),
    "warm-up, then lines": lambda of, opt: of.create_lr_scheduler_with_warmup(
        of.PiecewiseLinear(opt, "lr", [(0, 0.1), (9, 0.01)]), 0.0, 4, warmup_end_value=0.1
    ),
    "warm-up of two calls, then a cosine": lambda of, opt: of.create_lr_scheduler_with_warmup(
        of.CosineAnnealingScheduler(opt, "lr", 0.1, 0.0, 8), 0.0, 2, warmup_end_value=0.1
    ),
    "warm-up to a jump, then a cosine": lambda of, opt: of.create_lr_scheduler_with_warmup(
        of.CosineAnnealingScheduler(opt, "lr", 0.2, 0.0, 8), 0.0, 3, warmup_end_value=0.1
    ),
    "one after the other": lambda of, opt: of.ConcatScheduler(
        [
            of.LinearCyclicalScheduler(opt, "lr", 0.5, 0.1, 6),
            of.CosineAnnealingScheduler(opt, "lr", 0.1, 0.4, 4),
            of.PiecewiseLinear(opt, "lr", [(0, 0.3), (5, 0.0)]),
        ],
        durations=[6, 8],
    ),
    "side by side": lambda of, opt: of.ParamGroupScheduler(
        [
            of.LinearCyclicalScheduler(opt, "lr", 0.5, 0.1, 6, param_group_index=0),
            of.CosineAnnealingScheduler(opt, "lr", 0.0, 0.4, 4, param_group_index=1),
        ]
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_each_call_sets_what_ignite_sets(case: str) -> None:
    # With a warm-up before torch's schedulers, Ignite treats the second group as if there were none.
    rates = (0.1,) if case.startswith("warm-up") else (0.1, 0.2)
    name = "momentum" if "momentum" in case else "lr"
    found = values_of(ours, CASES[case], 24, rates, name)
    expected = values_of(theirs, CASES[case], 24, rates, name)
    assert len({tuple(row) for row in found}) > 2
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
        lambda opt: lr_scheduler.CosineAnnealingLR(opt, 30, 0.01),
        lambda opt: lr_scheduler.OneCycleLR(opt, 0.3, total_steps=20),
        lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 4),
    ],
    ids=["ExponentialLR", "CosineAnnealingLR", "OneCycleLR", "CosineAnnealingWarmRestarts"],
)
def test_a_scheduler_of_torch_goes_as_torch_says(make: Callable[[Any], Any]) -> None:
    """Where Ignite's own first value is another than the optimizer's, under releases of torch that it does not know."""
    optimizer = optimizer_of(0.1, 0.2)
    scheduler = make(optimizer)
    expected = []
    for _ in range(19):
        expected.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert values_of(ours, lambda of, opt: of.LRScheduler(make(opt)), 19, (0.1, 0.2), "lr") == expected


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("make", "then"),
    [
        (lambda opt: lr_scheduler.ExponentialLR(opt, 0.9), lambda k: 0.1 * 0.9**k),
        (lambda opt: lr_scheduler.LambdaLR(opt, lambda k: 1 / (1 + k)), lambda k: 0.1 / (1 + k)),
        (
            lambda opt: lr_scheduler.CosineAnnealingLR(opt, 20),
            lambda k: 0.05 * (1 + math.cos(math.pi * k / 20)),
        ),
    ],
    ids=["ExponentialLR", "LambdaLR", "CosineAnnealingLR"],
)
@pytest.mark.parametrize("end", [None, 0.2])
@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_after_a_warm_up_the_scheduler_begins_where_it_would_without(
    make: Any, then: Any, end: Any, wrapped: bool
) -> None:
    def scheduler(of: Any, opt: Any) -> Any:
        torchs = make(opt)
        return ours.create_lr_scheduler_with_warmup(ours.LRScheduler(torchs) if wrapped else torchs, 0.0, 4, end)

    found = [rate for (rate,) in values_of(ours, scheduler, 12, (0.1,), "lr")]
    warm = [(end or 0.1) * k / 3 for k in range(4 if end else 3)]
    assert found[: len(warm)] == pytest.approx(warm)
    assert found[len(warm) :] == pytest.approx([then(k) for k in range(12 - len(warm))])


def test_the_names_are_where_ignite_has_them() -> None:
    for module in ("param_scheduler", "checkpoint", "tensorboard_logger", "mlflow_logger", "tqdm_logger", "timing"):
        theirs_too = importlib.import_module(f"ignite.handlers.{module}")
        there = importlib.import_module(f"leyden.contrib.ignite.handlers.{module}")
        for name in set(ours.__all__) | {"GradsHistHandler", "OptimizerParamsHandler", "OutputHandler"}:
            if hasattr(theirs_too, name) and getattr(theirs_too, name).__module__ == theirs_too.__name__:
                assert hasattr(there, name), f"{module}.{name}"


def test_a_scheduler_is_a_handler() -> None:
    optimizer = optimizer_of(1.0)
    seen = []
    engine = Engine(lambda engine, batch: seen.append(optimizer.param_groups[0]["lr"]))
    engine.add_event_handler(Events.ITERATION_STARTED, ours.CosineAnnealingScheduler(optimizer, "lr", 0.0, 1.0, 4))
    engine.run([0] * 5, max_epochs=1)
    assert seen == pytest.approx([0.0, 0.146447, 0.5, 0.853553, 0.0], abs=1e-6)


@pytest.mark.parametrize("case", [name for name in CASES if "LR" in name or "after" in name or "lower" in name])
@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_a_scheduler_goes_on_from_its_state(case: str) -> None:
    straight = values_of(ours, CASES[case], 20, (0.1, 0.2), "lr")
    optimizer = optimizer_of(0.1, 0.2)
    scheduler = CASES[case](ours, optimizer)
    for _ in range(9):
        scheduler(None)
        optimizer.step()
    saved = copy.deepcopy((scheduler.state_dict(), optimizer.state_dict()))

    optimizer = optimizer_of(0.1, 0.2)
    scheduler = CASES[case](ours, optimizer)
    scheduler.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    resumed = []
    for _ in range(11):
        scheduler(None)
        resumed.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
    assert resumed == straight[9:]


def test_values_are_told_before_a_run() -> None:
    arguments = {"param_name": "lr", "start_value": 0.0, "end_value": 1.0, "cycle_size": 4}
    expected = theirs.CosineAnnealingScheduler.simulate_values(num_events=6, **arguments)
    assert ours.CosineAnnealingScheduler.simulate_values(num_events=6, **arguments) == [
        pytest.approx(row) for row in expected
    ]


@pytest.mark.filterwarnings("ignore:Seems like:UserWarning")
def test_simulated_values_of_a_warm_up_fill_the_list_and_touch_nothing() -> None:
    optimizer = optimizer_of(0.1)
    values: list[Any] = [None] * 6
    scheduler = ours.create_lr_scheduler_with_warmup(
        lr_scheduler.ExponentialLR(optimizer, 0.5), 0.0, 3, output_simulated_values=values
    )
    assert [rate for _, rate in values] == pytest.approx([0.0, 0.05, 0.1, 0.05, 0.025, 0.0125])
    assert optimizer.param_groups[0]["lr"] == 0.1
    scheduler(None)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_the_history_is_kept_where_ignite_keeps_it() -> None:
    histories = []
    for handlers, kind, events in ((ours, Engine, Events), (theirs, TheirEngine, TheirEvents)):
        optimizer = optimizer_of(0.1, 0.2)
        engine = kind(lambda engine, batch: None)
        scheduler = handlers.PiecewiseLinear(optimizer, "lr", [(0, 1.0), (2, 0.0)], save_history=True)
        engine.add_event_handler(events.ITERATION_STARTED, scheduler)
        engine.run([0] * 3, max_epochs=1)
        histories.append(engine.state.param_history)
    assert histories[0] == histories[1] == {"lr": [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda opt: ours.LinearCyclicalScheduler(opt, "lr", 0, 1, 1), "at least 2 calls"),
        (lambda opt: ours.LinearCyclicalScheduler(opt, "lr", 0, 1, 4, warmup_duration=2), "monotonic"),
        (lambda opt: ours.LRScheduler(opt), "scheduler of torch"),
        (lambda opt: ours.create_lr_scheduler_with_warmup(lr_scheduler.StepLR(opt, 1), 0.0, 1), "at least 2 calls"),
        (lambda opt: ours.PiecewiseLinear("lr", "lr", [(0, 1.0)]), "param_groups"),
        (lambda opt: ours.ConcatScheduler([ours.PiecewiseLinear(opt, "lr", [(0, 1.0)])], []), "two schedulers or more"),
    ],
)
def test_arguments_that_cannot_be_meant_are_told(make: Callable[[Any], Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make(optimizer_of(0.1))
