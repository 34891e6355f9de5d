"""What a logger logs and when: seen by a backend that keeps everything in lists."""

import math
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from list_logger import ListLogger, counting_engine
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events, Update, supervised_trainer
from leyden.handlers import Checkpoint, ParamSchedule, Schedule
from leyden.handlers.training import Linear


def test_every_n_iterations_the_mean_since_whatever_the_epochs() -> None:
    engine, logger = counting_engine(), ListLogger(every=4)
    engine.attach(logger)
    engine.run(range(6), max_epochs=2)
    assert logger.curves() == {"train/loss": [(4, 2.5), (8, 6.5), (12, 10.5)]}


def test_without_every_only_the_metrics_of_epochs() -> None:
    engine, logger = counting_engine(), ListLogger(every=None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=0.1 * e.state.epoch))
    engine.attach(logger)
    engine.run(range(3), max_epochs=2)
    assert logger.curves() == {"train/accuracy": [(3, 0.1), (6, 0.2)]}


def test_a_metric_put_in_by_a_handler_attached_later_is_seen() -> None:
    engine, logger = counting_engine(), ListLogger(every=None)
    engine.attach(logger)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(late=1.0))
    engine.run(range(3), max_epochs=1)
    assert logger.curves() == {"train/late": [(3, 1.0)]}


def test_within_an_epoch_only_metrics_that_changed() -> None:
    engine, logger = counting_engine(), ListLogger(every=2, output_transform=lambda output: None)

    @engine.on(Events.ITERATION_COMPLETED)
    def running() -> None:
        engine.state.metrics["running"] = torch.tensor(engine.state.iteration / 2)

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=float(e.state.epoch)))
    engine.attach(logger)
    engine.run(range(4), max_epochs=2)
    assert logger.curves() == {
        "train/running": [(2, 1.0), (4, 2.0), (6, 3.0), (8, 4.0)],
        "train/accuracy": [(4, 1.0), (8, 2.0)],
    }


def test_chosen_metrics_only() -> None:
    engine, logger = counting_engine(), ListLogger(every=None, metrics=["a"])
    engine.declare_metrics("a", "b")
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(a=1, b=2))
    engine.attach(logger)
    engine.run(range(2))
    assert logger.curves() == {"train/a": [(2, 1.0)]}


def test_a_mapping_is_logged_by_key_and_what_is_no_scalar_is_left_out() -> None:
    outputs = {"d": torch.tensor(0.25), "image": torch.zeros(2, 2), "g": torch.tensor([0.5]), "note": "text"}
    engine, logger = Engine(lambda engine, batch: outputs), ListLogger(every=1)
    measured = {"recall": {"cat": 0.5, "dog": torch.tensor(0.75)}, "confusion": torch.eye(3)}
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(measured))
    engine.attach(logger)
    engine.run(range(1))
    assert {name: points[-1] for name, points in logger.curves().items()} == {
        "train/d": (1, 0.25),
        "train/g": (1, 0.5),
        "train/recall/cat": (1, 0.5),
        "train/recall/dog": (1, 0.75),
    }


def test_learning_rates_of_each_update_and_group() -> None:
    engine, logger = Engine(lambda engine, batch: None), ListLogger(every=1)
    body, head, other = (torch.nn.Linear(1, 1) for _ in range(3))
    groups = [{"params": body.parameters(), "name": "body"}, {"params": head.parameters(), "lr": torch.tensor(0.25)}]
    Update(engine, [body, head], torch.optim.SGD(groups, lr=0.5), name="main")
    Update(engine, other, torch.optim.SGD(other.parameters(), lr=0.125), name="other")
    engine.attach(logger)
    engine.run(range(1))
    assert logger.curves() == {
        "train/lr/main/body": [(1, 0.5)],
        "train/lr/main/1": [(1, 0.25)],
        "train/lr/other": [(1, 0.125)],
    }


def test_parameters_are_found_out_and_a_users_own_win(make_trainer: Any) -> None:
    x, y = torch.randn(12, 2), torch.randn(12, 1)
    loader = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    trainer, logger = make_trainer(), ListLogger(params={"model": "my line", "data": {"source": "noise", "rows": 12}})
    trainer.attach(logger)
    trainer.run(loader, max_epochs=2)
    expected = {
        "max_epochs": "2",
        "epoch_length": "3",
        "batch_size": "4",
        "world_size": "1",
        "device": "cpu",
        "model": "my line",
        "parameters": "3",
        "trainable_parameters": "3",
        "optimizer": "SGD",
        "optimizer/lr": "0.5",
        "optimizer/momentum": "0",
        "data/source": "noise",
        "data/rows": "12",
    }
    assert expected.items() <= logger.kept_params.items()


def test_parameters_of_the_optimizer_are_the_scripts_not_those_that_a_schedule_or_a_checkpoint_set(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    shown = []
    for epochs in (1, 2):
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.25)
        trainer, logger = supervised_trainer(model, optimizer, torch.nn.functional.mse_loss), ListLogger()
        if shown:
            logger.kept_params |= shown[0]
        trainer.attach(
            Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), per="epoch"),
            ParamSchedule("weight_decay", Linear(0.0, 1.0, 10)),
            Checkpoint(tmp_path, resume="auto"),
            logger,
        )
        trainer.run([(torch.randn(4, 2), torch.randn(4, 1))] * 3, max_epochs=epochs)
        shown.append(dict(logger.kept_params))
    assert trainer.state.iteration == 6
    for params in shown:
        assert (params["optimizer/lr"], params["optimizer/weight_decay"]) == ("0.5", "0.25")
    assert not [each for each in recwarn if "optimizer/" in str(each.message)]


def test_a_users_handlers_may_log_before_within_and_after_the_run() -> None:
    engine, logger = counting_engine(), ListLogger(every=None)
    engine.attach(logger)
    logger.log_metrics({"before": 1.0}, step=0)
    logger.log_params({"early": 1})

    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def note() -> None:
        logger.log_metrics({"within": {"a": torch.tensor(2.0)}}, step=engine.state.iteration)
        logger.log_params({"middle": 2})

    engine.run(range(3))
    logger.log_metrics({"after": 3.0}, step=3)
    logger.log_params({"late": 3})
    assert logger.curves() == {"before": [(0, 1.0)], "within/a": [(2, 2.0)], "after": [(3, 3.0)]}
    assert {"early": "1", "middle": "2", "late": "3"}.items() <= logger.kept_params.items()
    with pytest.raises(TypeError, match="log_metrics takes numbers and scalar tensors, but 'image' is a Tensor"):
        logger.log_metrics({"image": torch.zeros(2)}, step=0)


def test_parameters_that_differ_keep_their_first_value_and_are_told() -> None:
    engine, logger = counting_engine(), ListLogger()
    engine.attach(logger)
    engine.run(range(2), max_epochs=1)
    with pytest.warns(UserWarning, match=r"ListLogger: .* keep their first value: max_epochs \(logged: 1, now: 2\)$"):
        engine.run(range(2), max_epochs=2)
    assert logger.kept_params["max_epochs"] == "1"


@pytest.mark.parametrize(
    ("act", "ending"),
    [
        (lambda engine: engine.terminate(), "finished"),
        (lambda engine: engine.interrupt(), "stopped"),
        (lambda engine: math.sqrt(-1), "failed by ValueError('math domain error')"),
        (lambda engine: signal_like_ctrl_c(), "stopped by KeyboardInterrupt()"),
    ],
    ids=["terminate", "interrupt", "error", "ctrl-c"],
)
def test_the_backend_is_closed_with_how_the_run_ended(act: Any, ending: str) -> None:
    engine, logger = counting_engine(), ListLogger(every=1)
    engine.attach(logger)
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), act)
    with suppress(ValueError, KeyboardInterrupt):
        engine.run(range(3), max_epochs=2)
    assert logger.story == ["opened", ending]
    assert logger.curves()["train/loss"][0] == (1, 1.0), "what was logged before the end has arrived"
    handle.remove()


def signal_like_ctrl_c() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_a_run_from_the_beginning_is_a_new_one() -> None:
    engine, logger = counting_engine(), ListLogger(every=1)
    engine.attach(logger)
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda e: e.interrupt())
    engine.run(range(3), max_epochs=1)
    handle.remove()
    engine.run()
    engine.run(max_epochs=1)
    assert logger.story == ["opened", "stopped", "continued", "finished", "opened", "finished"]
    assert [step for step, _ in logger.curves()["train/loss"]] == [1, 2, 3, 1, 2, 3]


def test_a_broken_backend_is_told_once_and_gets_everything_when_it_works_again() -> None:
    engine, logger = counting_engine(), ListLogger(every=1)
    engine.attach(logger)
    logger.broken = True

    @engine.on(Events.ITERATION_COMPLETED(once=[30, 60]))
    def meanwhile() -> None:
        time.sleep(1.3)  # longer than values are gathered
        logger.broken = engine.state.iteration < 60

    with pytest.warns(UserWarning, match="a list accepts no values at present .*the disk is full") as told:
        engine.run(range(60))
    assert len(told) == 1
    assert [step for step, _ in logger.curves()["train/loss"]] == list(range(1, 61))
    assert logger.story == ["opened", "finished"]


def test_what_could_not_be_delivered_in_the_end_is_counted() -> None:
    engine, logger = counting_engine(), ListLogger(every=1, patience=0.3)
    engine.attach(logger)
    logger.broken = True
    with pytest.warns(UserWarning, match=r"10 values and the end .* not be delivered to a list within 0.3 s .*disk is"):
        engine.run(range(5))
    assert logger.story == ["opened"]


class HostReads(TorchDispatchMode):
    """Counts what copies a tensor's value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten._to_copy.default)
        return function(*args, **(kwargs or {}))


def test_values_are_copied_to_the_host_at_logging_points_only() -> None:
    loss = torch.tensor(0.5, dtype=torch.float64)  # as it is added up, so that no copy is made for that
    engine, logger = Engine(lambda engine, batch: loss), ListLogger(every=10)
    reads_at = []
    engine.attach(logger)
    with HostReads() as reads:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: reads_at.append(reads.count), order=99)
        engine.run(range(30))
    # Where a window begins, its first number is copied on its device.
    assert [after - before for before, after in pairwise([0, *reads_at])] == [1, *[0] * 8, 1] * 3


def calls_per_iteration(engine: Engine, output: Any = 1.0) -> list[int]:
    """Python and C calls from each iteration to the next."""
    calls, at = 0, []

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def process(engine: Engine, batch: object) -> Any:
        at.append(calls)
        return output

    engine.process = process
    sys.setprofile(count)
    try:
        engine.run(range(40))
    finally:
        sys.setprofile(None)
    return [after - before for before, after in pairwise(at)]


@pytest.mark.parametrize("output", [0.5, torch.tensor(0.5), {"a": torch.tensor(0.5)}, None], ids=str)
def test_between_logging_points_the_output_is_added_up_and_nothing_else_is_called(output: Any) -> None:
    plain, logged = counting_engine(), counting_engine()
    logged.attach(ListLogger(every=20))
    without, beside = calls_per_iteration(plain, output), calls_per_iteration(logged, output)
    added = [calls - others for calls, others in zip(beside, without, strict=True)]
    # The first iteration, and the one after a point, find out when the next point comes.
    between = {calls for place, calls in enumerate(added, start=1) if place not in (1, 2, 20, 21, 22, 40)}
    assert len(between) == 1
    assert between.pop() <= 10


def test_without_every_nothing_is_called_between_the_epochs() -> None:
    plain, logged = counting_engine(), counting_engine()
    logged.attach(ListLogger(every=None))
    assert calls_per_iteration(plain) == calls_per_iteration(logged)


def test_an_unknown_metric_is_an_error_at_the_start() -> None:
    engine, logger = counting_engine(), ListLogger(metrics=["val/acuracy"])
    engine.declare_metrics("val/accuracy")
    engine.attach(logger)
    with pytest.raises(ValueError, match='ListLogger watches "val/acuracy", but the engine has: val/accuracy'):
        engine.run(range(2))
    assert logger.story == []


def test_mistakes_are_told_where_they_are_made() -> None:
    with pytest.raises(TypeError, match=r'ListLogger\(metrics=\) takes "all", a list of names, or None, but got'):
        ListLogger(metrics="accuracy")
    with pytest.raises(ValueError, match=r"ListLogger\(every=\) must be at least 1, or None for never, but is 0"):
        ListLogger(every=0)
    logger = ListLogger()
    counting_engine().attach(logger)
    with pytest.raises(ValueError, match="logs another engine already"):
        counting_engine().attach(logger)
