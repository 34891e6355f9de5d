"""A run that only shows whether everything works."""

import logging

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, UpdateEvents, supervised_trainer
from leyden.handlers import Checkpoint, EarlyStopping, Evaluate, GradientAccumulation, Logger, TensorBoardLogger
from leyden.handlers.data import CombinedLoader, DryRun, LimitBatches, Overfit


class Touching(Logger):
    """Notes each touch of its backend."""

    def __init__(self):
        super().__init__(every=1)
        self.touched = []

    def _open(self, engine, continues):
        self.touched.append("open")
        return {}

    def _write(self, values):
        self.touched.append("write")

    def _write_params(self, params):
        self.touched.append("params")

    def _close(self, ending, error):
        self.touched.append("close")

    def _place(self):
        return "nowhere"


def watched():
    """An engine and the batches it saw."""
    seen = []
    return Engine(lambda engine, batch: seen.append(batch) or 0.5), seen


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())


def data(total=20):
    return [(torch.ones(4, 3), torch.zeros(4, 2))] * total


@pytest.mark.parametrize(
    "limits", [{"max_epochs": 7}, {"max_iters": 90}, {"max_epochs": 3, "epoch_length": 50}, {}], ids=str
)
@pytest.mark.parametrize("batches", [1, 3])
def test_one_epoch_of_so_many_batches_whatever_the_limits(limits, batches):
    engine, seen = watched()
    epochs = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: epochs.append(engine.state.epoch))
    engine.attach(DryRun(batches))
    engine.run(range(20), **limits)
    assert seen == list(range(batches))
    assert epochs == [1]


@pytest.mark.parametrize(
    "of", [lambda: iter(range(20)), lambda: None, lambda: range(2)], ids=["iterator", "none", "few"]
)
def test_other_data_too(of):
    engine, seen = watched()
    engine.attach(DryRun(3))
    engine.run(of(), max_epochs=4, epoch_length=9)
    assert len(seen) == 3
    assert engine.state.epoch == 1


def test_the_limits_given_are_there_again_after_it():
    engine, seen = watched()
    engine.attach(DryRun(2))
    assert engine.run(range(20), max_epochs=4).max_epochs == 4
    engine.run(range(20), max_epochs=4)
    assert seen == [0, 1] * 2
    engine.state.max_epochs = None
    engine.run(range(20), max_iters=30)
    assert (engine.state.max_iters, engine.state.iteration, len(seen)) == (30, 2, 6)


def test_data_with_fewer_batches_is_one_epoch_still():
    engine, seen = watched()
    engine.attach(DryRun(3))
    engine.run(range(2), max_epochs=4)
    assert seen == [0, 1]


def test_the_whole_list_of_events():
    engine, _ = watched()
    events = []
    for event in Events:
        if event is not Events.EXCEPTION_RAISED:
            engine.add_event_handler(event, lambda name=event.name: events.append(name))
    engine.attach(DryRun())
    engine.run(range(20), max_epochs=5)
    assert events == [
        "STARTED", "EPOCH_STARTED", "GET_BATCH_STARTED", "GET_BATCH_COMPLETED", "ITERATION_STARTED",
        "ITERATION_COMPLETED", "EPOCH_COMPLETED", "COMPLETED", "CLOSED",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "when",
    [
        {},
        {"every": 5},
        {"on": Events.ITERATION_COMPLETED(every=500)},
        {"on": Events.ITERATION_COMPLETED(every=1)},
        {"on": Events.STARTED | Events.COMPLETED},
        {"epoch_length": 90},
        {"on": UpdateEvents.STEP_COMPLETED(every=50)},
    ],
    ids=str,
)
def test_each_evaluation_is_run_once_with_as_many_batches(when, trainer):
    evaluator, evaluated = watched()
    other, evaluated_by_other = watched()
    trainer.attach(Evaluate(evaluator, range(30), **when), DryRun(2), Evaluate(other, iter(range(30, 60))))
    trainer.run(data(), max_epochs=3)
    assert evaluated == [0, 1]
    assert evaluated_by_other == [30, 31]
    assert trainer.state.iteration == 2


def test_stoppers_see_what_was_evaluated(trainer):
    evaluator, _ = watched()
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(score=evaluator.state.iteration)
    )
    evaluator.declare_metrics("score")
    trainer.attach(DryRun(2), EarlyStopping("val/score"), Evaluate(evaluator, range(9), prefix="val/", every=4))
    trainer.run(data(), max_epochs=8)
    assert trainer.state.metrics["val/score"] == 2


def test_a_window_of_accumulation_closes_at_the_end(trainer):
    trainer.attach(DryRun(3), GradientAccumulation(2))
    trainer.run(data(), max_epochs=8)
    assert trainer.state.step == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["attached first", "attached last"])
def test_no_file_and_no_server_whatever_the_order_of_attaching(order, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touching = Touching()
    handlers = [DryRun(), touching, Checkpoint(tmp_path / "kept", event=Events.ITERATION_COMPLETED(every=1))]
    trainer.attach(*(handlers[i] for i in order), TensorBoardLogger(), TensorBoardLogger(tmp_path / "logs"))
    trainer.run(data(), max_epochs=3)
    trainer.run(data(), max_epochs=6)
    touching.log_metrics({"after": 1.0}, step=1)
    assert touching.touched == []
    assert list(tmp_path.iterdir()) == []
    assert handlers[2].save(trainer) == tmp_path / "kept"
    assert list(tmp_path.iterdir()) == []


def test_the_evaluators_own_loggers_write_nothing_either(trainer, caplog):
    evaluator, evaluated = watched()
    touching = Touching()
    evaluator.attach(touching)
    trainer.attach(Evaluate(evaluator, range(30)), DryRun())
    trainer.run(data(), max_epochs=3)
    assert evaluated == [0]
    assert touching.touched == []
    assert evaluator.state.dry_run
    assert "left out, as if not attached: Touching" in caplog.text


def test_a_run_that_is_kept_in_a_directory_is_neither_resumed_nor_touched(trainer, tmp_path):
    engine, _ = watched()
    engine.attach(Checkpoint(tmp_path))
    engine.run(range(2), max_epochs=2)
    before = sorted(tmp_path.iterdir())
    for resume in ("auto", None):
        dry, seen = watched()
        dry.attach(DryRun(), Checkpoint(tmp_path, resume=resume))
        dry.run(range(2), max_epochs=5)
        assert seen == [0]
        assert dry.state.iteration == 1
    assert sorted(tmp_path.iterdir()) == before
    last = Engine(lambda engine, batch: None)
    last.attach(Checkpoint(tmp_path), DryRun())  # in this order, too
    last.run(range(2), max_epochs=5)
    assert sorted(tmp_path.iterdir()) == before


def test_one_line_tells_what_is_left_out(trainer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="leyden"):
        trainer.attach(Checkpoint(tmp_path / "kept"), DryRun(2), Touching())
        trainer.run(data())
    assert [record.getMessage() for record in caplog.records if record.name.startswith("leyden")] == [
        "dry run: one epoch of 2 batches, and 2 batches of each evaluation; left out, as if not attached: "
        "Checkpoint, Touching"
    ]


def test_a_users_own_handler_can_ask_or_be_told():
    class Writer:
        muted = False

        def attach(self, engine):
            pass

        def mute(self):
            self.muted = True

    writer = Writer()
    engine, _ = watched()
    engine.attach(writer, DryRun())
    assert engine.state.dry_run
    engine.run(range(2))
    assert writer.muted


@pytest.mark.parametrize(
    ("handler", "batches", "seen"), [(LimitBatches(0.5), 3, 3), (LimitBatches(2), 3, 2), (Overfit(0.1), 3, 2)]
)
def test_other_limits_hold_too_in_any_order_of_attaching(handler, batches, seen):
    for order in (1, -1):
        engine, came = watched()
        engine.attach(*[type(handler)(getattr(handler, "limit", None) or handler.batches), DryRun(batches)][::order])
        engine.run(range(20), max_epochs=2)
        assert came == list(range(seen))


def test_several_loaders():
    engine, seen = watched()
    engine.attach(DryRun(2))
    engine.run(CombinedLoader([range(3), range(5)], "max_size_cycle"), max_epochs=4)
    assert seen == [[0, 0], [1, 1]]


def test_print_shows_it(trainer):
    trainer.attach(DryRun())
    assert "DEVICE  DryRun" in str(trainer)


def test_mistakes():
    with pytest.raises(ValueError, match="DryRun needs at least 1 batch, but got 0"):
        DryRun(0)
    for number in (True, 0.5, "1"):
        with pytest.raises(TypeError, match="DryRun takes a whole number of batches, but got"):
            DryRun(number)
    engine, _ = watched()
    engine.attach(DryRun())
    with pytest.raises(ValueError, match="one dry run is enough"):
        engine.attach(DryRun())
