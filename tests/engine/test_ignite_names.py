"""Names and habits of Ignite's users, beside the same call of the installed Ignite."""

import contextlib
import logging
import time

import pytest
import torch
from ignite import engine as ignite
from ignite import handlers as ignite_handlers

from leyden import engine as leyden
from leyden import handlers as leyden_handlers

NOTED = ("STARTED", "EPOCH_STARTED", "TERMINATE", "TERMINATE_SINGLE_EPOCH", "EPOCH_COMPLETED", "COMPLETED", "INTERRUPT")
BOTH = pytest.mark.parametrize("library", [ignite, leyden], ids=["ignite", "leyden"])


def journal_of(library, stop, at, max_epochs=3):
    """The names of the events that an engine of that library fires, and its steps, with what `stop(engine)` does."""
    engine = library.Engine(lambda engine, batch: journal.append(f"step {engine.state.iteration}"))
    journal = []
    for name in NOTED:
        engine.add_event_handler(getattr(library.Events, name), lambda engine, name=name, **_: journal.append(name))
    engine.add_event_handler(at(library.Events), stop)
    engine.run([1, 2, 3], max_epochs=max_epochs)
    return journal


def set_should_terminate(engine):
    engine.should_terminate = True


def set_should_terminate_single_epoch(engine):
    engine.should_terminate_single_epoch = True


def set_should_interrupt(engine):
    engine.should_interrupt = True


@pytest.mark.parametrize(
    "stop",
    [
        set_should_terminate,
        set_should_terminate_single_epoch,
        set_should_interrupt,
        lambda engine: engine.terminate(),
        lambda engine: engine.terminate(skip_completed=True),
        lambda engine: engine.terminate_epoch(),
        lambda engine: engine.terminate_epoch(skip_epoch_completed=True),
        lambda engine: engine.interrupt(),
    ],
)
@pytest.mark.parametrize("moment", ["ITERATION_COMPLETED", "EPOCH_COMPLETED", "ITERATION_STARTED"])
def test_stops_fire_the_same_events(stop, moment):
    def at(events):
        return getattr(events, moment)(once=2)

    theirs, ours = journal_of(ignite, stop, at), journal_of(leyden, stop, at)
    if moment == "ITERATION_STARTED":  # Ignite counts what it did not train
        theirs = [entry for entry in theirs if not entry.startswith("step")]
        ours = [entry for entry in ours if not entry.startswith("step")]
    if moment == "EPOCH_COMPLETED" and "TERMINATE_SINGLE_EPOCH" in theirs:
        # Between two epochs there is none to end; Ignite ends the next one, before its first step.
        assert "TERMINATE_SINGLE_EPOCH" not in ours
        return
    assert ours == theirs


@BOTH
def test_stops_that_were_asked_for_can_be_read_and_taken_back(library):
    engine = library.Engine(lambda engine, batch: None)
    seen = []

    @engine.on(library.Events.ITERATION_COMPLETED(once=2))
    def take_back(engine):
        seen.append(bool(engine.should_terminate))
        engine.terminate()
        seen.append(bool(engine.should_terminate))
        engine.should_terminate = False
        engine.terminate_epoch()
        seen.append(bool(engine.should_terminate_single_epoch))
        engine.should_terminate_single_epoch = False
        engine.interrupt() if library is leyden else setattr(engine, "should_interrupt", True)
        seen.append(bool(engine.should_interrupt))
        engine.should_interrupt = False

    engine.run([1, 2, 3])
    assert seen == [False, True, True, True]
    assert engine.state.iteration == 3


@BOTH
def test_arguments_by_their_names(library):
    seen = []
    engine = library.Engine(process_function=lambda engine, batch: None)

    def note(engine, what):
        seen.append(what)

    engine.add_event_handler(event_name=library.Events.STARTED, handler=note, what="added")
    engine.on(event_name=library.Events.STARTED, what="decorated")(note)
    assert engine.has_event_handler(handler=note, event_name=library.Events.STARTED)
    engine.fire_event(event_name=library.Events.STARTED)
    engine.remove_event_handler(handler=note, event_name=library.Events.STARTED)
    assert seen == ["added", "decorated"]


@BOTH
def test_one_handler_of_several_events_sees_which_one_it_is(library):
    engine, seen = library.Engine(lambda engine, batch: None), []
    events = library.Events
    engine.add_event_handler(
        events.STARTED | events.ITERATION_COMPLETED(every=2) | events.COMPLETED,
        lambda engine: seen.append(engine.last_event_name.name),
    )
    engine.run([1, 2, 3])
    assert seen == ["STARTED", "ITERATION_COMPLETED", "COMPLETED"]
    assert engine.last_event_name == events.COMPLETED


@pytest.mark.parametrize(
    ("library", "handlers"), [(ignite, ignite_handlers), (leyden, leyden_handlers)], ids=["ignite", "leyden"]
)
def test_terminate_on_nan_as_a_plain_handler(library, handlers):
    losses = [1.0, float("nan"), 1.0]
    engine = library.Engine(lambda engine, batch: torch.tensor(losses[batch]))
    engine.add_event_handler(library.Events.ITERATION_COMPLETED, handlers.TerminateOnNan())
    with contextlib.nullcontext() if library is ignite else pytest.warns(UserWarning, match="is not finite"):
        engine.run([0, 1, 2])
    assert engine.state.iteration == 2


@pytest.mark.parametrize(
    ("library", "handlers"), [(ignite, ignite_handlers), (leyden, leyden_handlers)], ids=["ignite", "leyden"]
)
def test_a_time_limit_as_a_plain_handler(library, handlers):
    engine = library.Engine(lambda engine, batch: time.sleep(0.3))
    engine.add_event_handler(library.Events.ITERATION_COMPLETED, handlers.TimeLimit(1))
    engine.run(range(100))
    assert 2 <= engine.state.iteration <= 10


@BOTH
def test_a_logger_of_the_engine_may_be_put_in(library, caplog):
    engine = library.Engine(lambda engine, batch: None)
    engine.logger = logging.getLogger("mine")
    with caplog.at_level(logging.INFO):
        engine.run([1, 2], max_epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "mine"]
    assert len(lines) == 4  # where it starts, each epoch, where it ends
