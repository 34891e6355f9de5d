"""What a logger logs and when: seen by a backend that keeps everything in lists."""

import math
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from types import FrameType
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events, Update
from leyden.handlers.loggers import Ending, Logger, Value


class ListLogger(Logger):
    """A whole backend: what a new one has to define."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.values: list[Value] = []
        self.kept_params: dict[str, str] = {}
        self.story: list[str] = []
        self.broken = False

    def _open(self, engine: Engine, continues: bool) -> dict[str, str]:
        self.story.append("continued" if continues and self.story else "opened")
        return self.kept_params

    def _write(self, values: list[Value]) -> None:
        if self.broken:
            raise OSError("the disk is full")
        self.values += values

    def _write_params(self, params: dict[str, str]) -> None:
        self.kept_params = self.kept_params | params

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        self.story.append(f"{ending.value if ending else 'closed'}{'' if error is None else ' by ' + repr(error)}")

    def _place(self) -> str:
        return "a list"

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for value in self.values:
            found.setdefault(value.name, []).append((value.step, value.number))
        return found


def counting_engine() -> Engine:
    """Its output is the number of the iteration."""
    return Engine(lambda engine, batch: float(engine.state.iteration))


def test_training_values_every_n_iterations_and_at_the_end_of_an_epoch() -> None:
    engine, logger = counting_engine(), ListLogger(every=4)
    engine.attach(logger)
    engine.run(range(6), max_epochs=2)
    assert logger.curves() == {"train/loss": [(4, 4.0), (6, 6.0), (8, 8.0), (12, 12.0)]}


def test_without_every_only_the_metrics_of_epochs() -> None:
    engine, logger = counting_engine(), ListLogger(every=None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=0.1 * e.state.epoch))
    engine.attach(logger)
    engine.run(range(3), max_epochs=2)
    assert logger.curves() == {"accuracy": [(3, 0.1), (6, 0.2)]}


def test_a_metric_put_in_by_a_handler_attached_later_is_seen() -> None:
    engine, logger = counting_engine(), ListLogger(every=None)
    engine.attach(logger)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(late=1.0))
    engine.run(range(3), max_epochs=1)
    assert logger.curves() == {"late": [(3, 1.0)]}


def test_within_an_epoch_only_metrics_that_changed() -> None:
    engine, logger = counting_engine(), ListLogger(every=2, output_transform=lambda output: None)

    @engine.on(Events.ITERATION_COMPLETED)
    def running() -> None:
        engine.state.metrics["running"] = torch.tensor(engine.state.iteration / 2)

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=float(e.state.epoch)))
    engine.attach(logger)
    engine.run(range(4), max_epochs=2)
    assert logger.curves() == {
        "running": [(2, 1.0), (4, 2.0), (4, 2.0), (6, 3.0), (8, 4.0), (8, 4.0)],
        "accuracy": [(4, 1.0), (8, 2.0)],
    }


def test_chosen_metrics_only() -> None:
    engine, logger = counting_engine(), ListLogger(every=None, metrics=["a"])
    engine.declare_metrics("a", "b")
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(a=1, b=2))
    engine.attach(logger)
    engine.run(range(2))
    assert logger.curves() == {"a": [(2, 1.0)]}


def test_a_mapping_is_logged_by_key_and_what_is_no_scalar_is_left_out() -> None:
    outputs = {"d": torch.tensor(0.25), "image": torch.zeros(2, 2), "g": torch.tensor([0.5]), "note": "text"}
    engine, logger = Engine(lambda engine, batch: outputs), ListLogger(every=1)
    engine.state.metrics["recall"] = {"cat": 0.5, "dog": torch.tensor(0.75)}
    engine.state.metrics["confusion"] = torch.eye(3)
    engine.attach(logger)
    engine.run(range(1))
    assert {name: points[-1] for name, points in logger.curves().items()} == {
        "train/d": (1, 0.25),
        "train/g": (1, 0.5),
        "recall/cat": (1, 0.5),
        "recall/dog": (1, 0.75),
    }


def test_learning_rates_of_each_update_and_group() -> None:
    engine, logger = Engine(lambda engine, batch: None), ListLogger(every=1)
    body, head, other = (torch.nn.Linear(1, 1) for _ in range(3))
    groups = [{"params": body.parameters(), "name": "body"}, {"params": head.parameters(), "lr": torch.tensor(0.25)}]
    Update(engine, [body, head], torch.optim.SGD(groups, lr=0.5), name="main")
    Update(engine, other, torch.optim.SGD(other.parameters(), lr=0.125), name="other")
    engine.attach(logger)
    engine.run(range(1))
    assert logger.curves() == {"lr/main/body": [(1, 0.5)], "lr/main/1": [(1, 0.25)], "lr/other": [(1, 0.125)]}


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

    with pytest.warns(UserWarning, match="a list takes no values at present .*the disk is full") as told:
        engine.run(range(60))
    assert len(told) == 1
    assert [step for step, _ in logger.curves()["train/loss"]] == list(range(1, 61))
    assert logger.story == ["opened", "finished"]


def test_what_could_not_be_delivered_in_the_end_is_counted() -> None:
    engine, logger = counting_engine(), ListLogger(every=1, patience=0.3)
    engine.attach(logger)
    logger.broken = True
    with pytest.warns(UserWarning, match=r"5 values and the end .* not be delivered to a list within 0.3 s .*disk is"):
        engine.run(range(5))
    assert logger.story == ["opened"]


class Counted(torch.Tensor):
    """A tensor that counts what copies it to the host."""

    copies: ClassVar[Counter[str]] = Counter()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in ("item", "cpu", "tolist", "__float__", "numpy", "to"):
            cls.copies[name] += 1
        return super().__torch_function__(function, types, args, kwargs or {})


def test_values_are_copied_to_the_host_at_logging_points_only() -> None:
    loss = torch.tensor(0.5).as_subclass(Counted)
    engine, logger = Engine(lambda engine, batch: loss), ListLogger(every=10)
    copies_at = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: copies_at.append(sum(Counted.copies.values())), order=99
    )
    engine.attach(logger)
    Counted.copies.clear()
    engine.run(range(30))
    assert copies_at == [0] * 9 + [1] * 10 + [2] * 10 + [3]


def calls_per_iteration(engine: Engine) -> list[int]:
    """Python and C calls from each iteration to the next."""
    calls, at = 0, []

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def process(engine: Engine, batch: object) -> float:
        at.append(calls)
        return 1.0

    engine.process = process
    sys.setprofile(count)
    try:
        engine.run(range(40))
    finally:
        sys.setprofile(None)
    return [after - before for before, after in pairwise(at)]


def test_between_logging_points_nothing_is_called() -> None:
    plain, logged = counting_engine(), counting_engine()
    logged.attach(ListLogger(every=20))
    without, beside = calls_per_iteration(plain), calls_per_iteration(logged)
    more = [
        index for index, (calls, others) in enumerate(zip(beside, without, strict=True), start=1) if calls != others
    ]
    # The first iteration, and the one after a point, find out when the next point comes.
    assert more == [1, 20, 21]


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
    with pytest.raises(ValueError, match="every of an event must be at least 1, but is 0"):
        counting_engine().attach(ListLogger(every=0))
    logger = ListLogger()
    counting_engine().attach(logger)
    with pytest.raises(ValueError, match="logs another engine already"):
        counting_engine().attach(logger)
