"""Which events a run fires, in which order: each expected list is written out in full, one line an iteration.

EPOCH_* show `state.epoch`, ITERATION_* `state.iteration`, GET_BATCH_COMPLETED and the step the batch.
"""

import json
import warnings

import pytest

from leyden.engine import Events


class UnknownLength:
    """Batches that can be gone through again, each time others, and that don't say how many there are."""

    def __init__(self, *passes):
        self.passes = list(passes)

    def __iter__(self):
        return iter(self.passes.pop(0))


def test_two_epochs_of_three_batches(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


# -- terminate -------------------------------------------------------------------------------------------

TERMINATED_AT = {
    Events.STARTED: """
        STARTED
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.EPOCH_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.GET_BATCH_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.GET_BATCH_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE
        COMPLETED
        CLOSED
    """,
    # At the last iteration of an epoch the run ends just so: the epoch was not gone on with to its end.
    Events.ITERATION_COMPLETED(once=3): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.EPOCH_COMPLETED(once=1): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        TERMINATE
        COMPLETED
        CLOSED
    """,
    Events.EPOCH_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        TERMINATE
        COMPLETED
        CLOSED
    """,
    # Too late: the run has ended already.
    Events.COMPLETED | Events.CLOSED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
}


def name_of(event):
    return "+".join(map(str, event)) if hasattr(event, "__len__") else str(event)


@pytest.mark.parametrize("event", TERMINATED_AT, ids=name_of)
def test_terminate_at(event, recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(event, engine.terminate)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story(TERMINATED_AT[event])


def test_terminate_in_the_step(recorded, story):
    engine, journal = recorded(lambda engine, batch: engine.terminate() if batch == "b" else None)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE
        COMPLETED
        CLOSED
    """)


def test_terminate_where_the_data_ends_before_the_epoch(recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, engine.terminate)
    engine.run(["a", "b"], max_epochs=2, epoch_length=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        TERMINATE
        COMPLETED
        CLOSED
    """)


def test_terminate_at_the_end_of_a_terminated_epoch(recorded, story):
    engine, journal = recorded(lambda engine, batch: engine.terminate_epoch() if batch == "b" else None)
    engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, engine.terminate)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE_SINGLE_EPOCH
        TERMINATE
        COMPLETED
        CLOSED
    """)


@pytest.mark.parametrize("event", [Events.TERMINATE, Events.COMPLETED, Events.CLOSED], ids=str)
def test_terminate_while_terminating_changes_nothing(event, recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=1) | event, engine.terminate)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        TERMINATE
        COMPLETED
        CLOSED
    """)


def test_terminate_goes_before_terminate_epoch_and_interrupt(recorded, story):
    def stop_in_every_way(engine, batch):
        engine.interrupt()
        engine.terminate_epoch()
        engine.terminate()

    engine, journal = recorded(stop_in_every_way)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        TERMINATE
        COMPLETED
        CLOSED
    """)


def test_terminate_before_the_run_is_forgotten(recorded, story):
    engine, journal = recorded()
    engine.terminate()
    engine.run(["a"])
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)


# -- terminate_epoch -------------------------------------------------------------------------------------

EPOCH_TERMINATED_AT = {
    Events.EPOCH_STARTED(once=1): """
        STARTED
        EPOCH_STARTED 1
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.GET_BATCH_STARTED(event_filter=lambda engine, count: engine.state.epoch == 1 and count == 2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 3, step b, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 4, step c, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.GET_BATCH_COMPLETED(event_filter=lambda engine, count: engine.state.epoch == 1 and count == 2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 3, step b, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 4, step c, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 5, step c, ITERATION_COMPLETED 5
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 5, step c, ITERATION_COMPLETED 5
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    # In the last epoch the run ends with it, as it would have.
    Events.ITERATION_COMPLETED(once=5): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    # No epoch is open here, so none is ended: not the one before, and not the next.
    Events.STARTED | Events.EPOCH_COMPLETED | Events.COMPLETED | Events.CLOSED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
}


def short_name(event):
    return name_of(event).split("event_filter", maxsplit=1)[0]


@pytest.mark.parametrize("event", EPOCH_TERMINATED_AT, ids=short_name)
def test_terminate_epoch_at(event, recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(event, engine.terminate_epoch)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story(EPOCH_TERMINATED_AT[event])


def test_terminate_epoch_in_the_step(recorded, story):
    engine, journal = recorded(lambda engine, batch: engine.terminate_epoch() if batch == "b" else None)
    engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_terminate_epoch_where_the_data_ends_before_the_epoch(recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION(once=3), engine.terminate_epoch)
    engine.run(["a", "b"], max_epochs=2, epoch_length=4)
    # Epoch 1 ended at the end of a pass, in whose place iteration 3 finds the next one.
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_terminate_epoch_while_the_epoch_terminates_spares_the_next_one(recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.terminate_epoch)
    engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, engine.terminate_epoch)
    engine.run(["a", "b"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 3, step b, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


# -- errors ----------------------------------------------------------------------------------------------


def test_an_exception_in_the_step(recorded, story):
    def fail_at_b(engine, batch):
        if batch == "b":
            raise RuntimeError("boom")

    engine, journal = recorded(fail_at_b)
    with pytest.raises(RuntimeError, match="boom"):
        engine.run(["a", "b", "c"], max_epochs=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b
        EXCEPTION_RAISED boom
        CLOSED
    """)


def test_an_exception_in_the_data(recorded, story):
    def batches():
        yield "a"
        raise OSError("disk gone")

    engine, journal = recorded()
    with pytest.raises(OSError, match="disk gone"):
        engine.run(batches(), max_epochs=2, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED
        EXCEPTION_RAISED disk gone
        CLOSED
    """)


FAILED_AT = {
    Events.STARTED: """
        STARTED
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.EPOCH_STARTED: """
        STARTED
        EPOCH_STARTED 1
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.GET_BATCH_STARTED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.GET_BATCH_COMPLETED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.ITERATION_STARTED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.ITERATION_COMPLETED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.DATALOADER_STOP_ITERATION: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.EPOCH_COMPLETED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EXCEPTION_RAISED boom
        CLOSED
    """,
    Events.COMPLETED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        COMPLETED
        EXCEPTION_RAISED boom
        CLOSED
    """,
    # Last of all: nothing comes after it, but the caller gets the error.
    Events.CLOSED: """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 2, step a, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """,
}


def fail():
    raise RuntimeError("boom")


@pytest.mark.parametrize("event", FAILED_AT, ids=str)
def test_an_exception_in_a_handler_of(event, recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(event, fail)
    with pytest.raises(RuntimeError, match="boom"):
        engine.run(["a"], epoch_length=2)
    assert journal == story(FAILED_AT[event])


@pytest.mark.parametrize(
    ("stop", "event", "expected"),
    [
        (
            "terminate",
            Events.TERMINATE,
            """
            STARTED
            EPOCH_STARTED 1
            GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
            TERMINATE
            EXCEPTION_RAISED boom
            CLOSED
            """,
        ),
        (
            "terminate_epoch",
            Events.TERMINATE_SINGLE_EPOCH,
            """
            STARTED
            EPOCH_STARTED 1
            GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
            TERMINATE_SINGLE_EPOCH
            EXCEPTION_RAISED boom
            CLOSED
            """,
        ),
        (
            "interrupt",
            Events.INTERRUPT,
            """
            STARTED
            EPOCH_STARTED 1
            GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
            INTERRUPT
            EXCEPTION_RAISED boom
            CLOSED
            """,
        ),
    ],
    ids=["TERMINATE", "TERMINATE_SINGLE_EPOCH", "INTERRUPT"],
)
def test_an_exception_in_a_handler_of_a_stop(stop, event, expected, recorded, story):
    engine, journal = recorded(lambda engine, batch: getattr(engine, stop)())
    engine.add_event_handler(event, fail)
    with pytest.raises(RuntimeError, match="boom"):
        engine.run(["a", "b"], max_epochs=2)
    assert journal == story(expected)


def test_an_exception_in_a_handler_of_an_exception(recorded, story):
    def fail_otherwise(engine, error):
        raise ValueError(f"while reporting {error}")

    engine, journal = recorded(lambda engine, batch: fail())
    engine.add_event_handler(Events.EXCEPTION_RAISED, fail_otherwise)
    with pytest.raises(ValueError, match="while reporting boom") as caught:
        engine.run(["a"])
    assert isinstance(caught.value.__context__, RuntimeError)  # the first error is not lost
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a
        EXCEPTION_RAISED boom
        CLOSED
    """)


def test_a_keyboard_interrupt_is_an_error_of_the_run(recorded, story):
    def press_keys(engine, batch):
        raise KeyboardInterrupt("Ctrl-C")

    engine, journal = recorded(press_keys)
    with pytest.raises(KeyboardInterrupt):
        engine.run(["a"])
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a
        EXCEPTION_RAISED Ctrl-C
        CLOSED
    """)


# -- data and limits -------------------------------------------------------------------------------------


def test_an_iterator_of_unknown_length_is_one_epoch(recorded, story):
    engine, journal = recorded()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no more was asked for than there was
        engine.run(iter("ab"))
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)
    assert engine.state.epoch_length == 2


def test_an_exhausted_iterator_of_unknown_length_is_told(recorded, story):
    engine, journal = recorded()
    with pytest.warns(UserWarning, match=r"exhausted after 2 iterations.*max_epochs=3"):
        engine.run(iter("ab"), max_epochs=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED
        EPOCH_COMPLETED 1
        DATALOADER_STOP_ITERATION
        COMPLETED
        CLOSED
    """)


def test_an_iterator_exhausted_in_mid_epoch_is_told(recorded, story):
    engine, journal = recorded()
    with pytest.warns(UserWarning, match="exhausted after 3 iterations, in epoch 2"):
        engine.run(iter("abc"), max_epochs=3, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_an_iterator_that_gives_just_what_is_asked_for(recorded, story):
    engine, journal = recorded()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.run(iter("abcd"), max_epochs=2, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED d, ITERATION_STARTED 4, step d, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_fresh_data_is_given_where_an_iterator_ends(recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, lambda: engine.set_data(iter("xyz")))
    engine.run(iter("a"), max_epochs=2, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED x, ITERATION_STARTED 2, step x, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED y, ITERATION_STARTED 3, step y, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED z, ITERATION_STARTED 4, step z, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_epochs_of_unknown_and_different_lengths(recorded, story):
    engine, journal = recorded()
    engine.run(UnknownLength("ab", "c", "def"), max_epochs=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        GET_BATCH_STARTED
        EPOCH_COMPLETED 2
        EPOCH_STARTED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED d, ITERATION_STARTED 4, step d, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED e, ITERATION_STARTED 5, step e, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED f, ITERATION_STARTED 6, step f, ITERATION_COMPLETED 6
        GET_BATCH_STARTED
        EPOCH_COMPLETED 3
        COMPLETED
        CLOSED
    """)


def test_data_of_unknown_length_that_dries_up_is_told(recorded, story):
    engine, journal = recorded()
    with pytest.warns(UserWarning, match="exhausted after 1 iterations, in epoch 2"):
        engine.run(UnknownLength("a", ""), max_epochs=5)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_max_iters_in_mid_epoch(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b", "c"], max_iters=4)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_max_iters_at_the_end_of_an_epoch(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b"], max_iters=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)


def test_max_iters_over_data_without_end(recorded, story):
    def letters():
        while True:
            yield from "ab"

    engine, journal = recorded()
    engine.run(letters(), max_iters=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)


def test_epochs_shorter_than_the_data(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b", "c"], max_epochs=2, epoch_length=2)
    # The pass goes on over the bounds of epochs, so that all of the data is seen.
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_epochs_longer_than_the_data(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b"], max_epochs=2, epoch_length=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 5, step a, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 6, step b, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_epochs_as_long_as_the_data(recorded, story):
    engine, journal = recorded()
    engine.run(["a", "b"], max_epochs=2, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_without_data_every_batch_is_none(recorded, story):
    engine, journal = recorded()
    engine.run(max_epochs=2, epoch_length=2)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED None, ITERATION_STARTED 1, step None, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED None, ITERATION_STARTED 2, step None, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED None, ITERATION_STARTED 3, step None, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED None, ITERATION_STARTED 4, step None, ITERATION_COMPLETED 4
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


# -- interrupt and resume --------------------------------------------------------------------------------

STOPPED_AFTER_ITERATION_2 = """
    STARTED
    EPOCH_STARTED 1
    GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
    GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
    INTERRUPT
    CLOSED
    STARTED
    GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
    EPOCH_COMPLETED 1
    EPOCH_STARTED 2
    GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
    GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
    GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
    EPOCH_COMPLETED 2
    COMPLETED
    CLOSED
"""

INTERRUPTED_AT = {
    Events.STARTED: """
        STARTED
        INTERRUPT
        CLOSED
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.EPOCH_STARTED(once=1): """
        STARTED
        EPOCH_STARTED 1
        INTERRUPT
        CLOSED
        STARTED
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    # Before a step: the resumed run begins with this very batch.
    Events.GET_BATCH_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED
        INTERRUPT
        CLOSED
        STARTED
        GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.GET_BATCH_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b
        INTERRUPT
        CLOSED
        STARTED
        ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_STARTED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2
        INTERRUPT
        CLOSED
        STARTED
        step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.ITERATION_COMPLETED(once=2): STOPPED_AFTER_ITERATION_2,
    # At the last iteration of an epoch: its end belongs to the resumed run.
    Events.ITERATION_COMPLETED(once=3): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        INTERRUPT
        CLOSED
        STARTED
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    Events.EPOCH_COMPLETED(once=1): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        INTERRUPT
        CLOSED
        STARTED
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """,
    # At the end of the last epoch: what is left is to complete the run.
    Events.EPOCH_COMPLETED(once=2): """
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 4, step a, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 5, step b, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 6, step c, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        INTERRUPT
        CLOSED
        STARTED
        COMPLETED
        CLOSED
    """,
}


def go_on_in_this_process(engine, journal, recorded):
    return engine


def go_on_in_a_fresh_engine(engine, journal, recorded):
    fresh, _ = recorded(journal=journal)
    fresh.load_state_dict(json.loads(json.dumps(engine.state_dict())))  # plain data: it survives a file
    return fresh


go_on_both_ways = pytest.mark.parametrize("go_on", [go_on_in_this_process, go_on_in_a_fresh_engine])


@go_on_both_ways
@pytest.mark.parametrize("event", INTERRUPTED_AT, ids=str)
def test_interrupt_and_resume_at(event, go_on, recorded, story):
    data = ["a", "b", "c"]
    engine, journal = recorded()
    with engine.add_event_handler(event, engine.interrupt):
        engine.run(data, max_epochs=2)
    go_on(engine, journal, recorded).run(data)
    assert journal == story(INTERRUPTED_AT[event])


@go_on_both_ways
def test_interrupt_in_the_step_and_resume(go_on, recorded, story):
    data = ["a", "b", "c"]
    engine, journal = recorded(lambda engine, batch: engine.interrupt() if engine.state.iteration == 2 else None)
    engine.run(data, max_epochs=2)
    go_on(engine, journal, recorded).run(data)
    assert journal == story(STOPPED_AFTER_ITERATION_2)


@go_on_both_ways
def test_interrupt_where_the_data_ends_before_the_epoch_and_resume(go_on, recorded, story):
    data = ["a", "b"]
    engine, journal = recorded()
    with engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, engine.interrupt):
        engine.run(data, max_epochs=2, epoch_length=3)
    go_on(engine, journal, recorded).run(data, epoch_length=3)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        INTERRUPT
        CLOSED
        STARTED
        GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, DATALOADER_STOP_ITERATION
        GET_BATCH_COMPLETED a, ITERATION_STARTED 5, step a, ITERATION_COMPLETED 5
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 6, step b, ITERATION_COMPLETED 6
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


@go_on_both_ways
def test_interrupt_and_resume_under_max_iters(go_on, recorded, story):
    data = ["a", "b"]
    engine, journal = recorded()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.interrupt):
        engine.run(data, max_iters=3)
    go_on(engine, journal, recorded).run(data)
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        INTERRUPT
        CLOSED
        STARTED
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        EPOCH_COMPLETED 2
        COMPLETED
        CLOSED
    """)


def test_an_interrupted_iterator_goes_on_where_it_stands(recorded, story):
    engine, journal = recorded()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.interrupt):
        engine.run(iter("abc"))
    engine.run()
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        INTERRUPT
        CLOSED
        STARTED
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 3, step c, ITERATION_COMPLETED 3
        GET_BATCH_STARTED
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)


@pytest.mark.parametrize("event", [Events.COMPLETED, Events.CLOSED], ids=str)
def test_interrupt_after_the_end_changes_nothing(event, recorded, story):
    engine, journal = recorded()
    engine.add_event_handler(event, engine.interrupt)
    engine.run(["a"])
    assert journal == story("""
        STARTED
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        EPOCH_COMPLETED 1
        COMPLETED
        CLOSED
    """)


@go_on_both_ways
@pytest.mark.parametrize("where", ["in the step", "at TERMINATE_SINGLE_EPOCH"])
def test_a_terminated_epoch_stays_ended_when_the_run_is_interrupted_with_it(where, go_on, recorded, story):
    """Leaving out the stop and the start, the interrupted run equals the one that was not interrupted."""
    data = ["a", "b", "c"]

    def stop(engine, batch):
        if engine.state.iteration == 2:
            engine.terminate_epoch()
            if where == "in the step":
                engine.interrupt()

    engine, journal = recorded(stop)
    if where == "at TERMINATE_SINGLE_EPOCH":
        engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, engine.interrupt)
    engine.run(data, max_epochs=2)
    go_on(engine, journal, recorded).run(data)
    stop_and_start = {"INTERRUPT", "CLOSED", "STARTED"}
    assert [entry for entry in journal if entry not in stop_and_start] == story("""
        EPOCH_STARTED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 1, step a, ITERATION_COMPLETED 1
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 2, step b, ITERATION_COMPLETED 2
        TERMINATE_SINGLE_EPOCH
        EPOCH_COMPLETED 1
        EPOCH_STARTED 2
        GET_BATCH_STARTED, GET_BATCH_COMPLETED a, ITERATION_STARTED 3, step a, ITERATION_COMPLETED 3
        GET_BATCH_STARTED, GET_BATCH_COMPLETED b, ITERATION_STARTED 4, step b, ITERATION_COMPLETED 4
        GET_BATCH_STARTED, GET_BATCH_COMPLETED c, ITERATION_STARTED 5, step c, ITERATION_COMPLETED 5
        EPOCH_COMPLETED 2
        COMPLETED
    """)
