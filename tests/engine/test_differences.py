"""The engine's promises where Ignite's behaviour is a trap: each row of the table in the design, held in order.

Stop decisions that ranks share have a file of their own, stopping/test_shared_stops.py.
"""

import json
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest

from leyden.engine import Engine, EventEnum, Events, EventsList, Order
from leyden.engine import __file__ as engine_file

ROOT = Path(engine_file).parent


def no_step(engine, batch):
    return None


# -- cost ------------------------------------------------------------------------------------------------


def calls_in(engine, iterations):
    """Python and C calls that a run of so many iterations makes."""
    counts = Counter()
    data = range(iterations)
    engine.state.max_epochs = None
    sys.setprofile(lambda frame, kind, argument: counts.update([kind]))
    try:
        engine.run(data)
    finally:
        sys.setprofile(None)
    return counts


def calls_a_step(engine):
    calls_in(engine, 100)  # what the interpreter does only once
    few, many = calls_in(engine, 100), calls_in(engine, 1100)
    return (many["call"] - few["call"]) / 1000, (many["c_call"] - few["c_call"]) / 1000


def test_a_step_without_handlers_calls_the_step_and_the_iterator():
    assert calls_a_step(Engine(no_step)) == (1, 1)


@pytest.mark.parametrize(
    "gate",
    [{"every": 10_000}, {"once": 5_000}, {"after": 5_000}, {"before": 1}, {"every": 3, "after": 6_000}],
    ids=str,
)
def test_a_closed_gate_adds_no_call(gate):
    engine = Engine(no_step)
    for event in (
        Events.GET_BATCH_STARTED,
        Events.GET_BATCH_COMPLETED,
        Events.ITERATION_STARTED,
        Events.ITERATION_COMPLETED,
    ):
        engine.add_event_handler(event(**gate), lambda: None)
    assert calls_a_step(engine) == (1, 1)


def test_a_gate_that_opens_every_100_costs_nothing_in_between():
    engine = Engine(no_step)
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=100), lambda: None)
    python, _ = calls_a_step(engine)
    assert python - 1 <= 0.1  # the handler and less than ten calls to find its next turn


def test_a_removed_handler_costs_nothing():
    engine = Engine(no_step)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: None).remove()
    assert calls_a_step(engine) == (1, 1)


def test_a_handler_without_filter_costs_two_calls():
    engine = Engine(no_step)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: None)
    assert calls_a_step(engine) == (3, 1)


# -- one loop --------------------------------------------------------------------------------------------


def frames_of_ours():
    """How many frames of leyden stand between `run` and the caller of this function."""
    ours = [frame.name for frame in traceback.extract_stack() if Path(frame.filename).parent == ROOT]
    assert ours[0] == "run"
    return len(ours) - 1


def test_at_most_five_frames_stand_between_run_and_a_function_of_the_user():
    depths = {}
    engine = Engine(lambda engine, batch: depths.update(step=frames_of_ours()))
    for event in Events:
        engine.add_event_handler(event, lambda name=event.name: depths.update({name: frames_of_ours()}))
    engine.run([1], epoch_length=2)
    assert {"step", "STARTED", "ITERATION_STARTED", "EPOCH_COMPLETED", "CLOSED"} < depths.keys()
    assert max(depths.values()) <= 5, depths


RESUME = """
import json, sys
from leyden.engine import Engine

seen = []
engine = Engine(lambda engine, batch: seen.append([engine.state.epoch, engine.state.iteration, batch]))
engine.load_state_dict(json.loads(sys.argv[1]))
engine.run([10, 11, 12, 13])
print(json.dumps(seen))
"""


def test_a_run_goes_on_in_another_process():
    engine = Engine(no_step)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.interrupt)
    engine.run([10, 11, 12, 13], max_epochs=2)
    state = json.dumps(engine.state_dict())
    done = subprocess.run([sys.executable, "-c", RESUME, state], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [[2, 7, 12], [2, 8, 13]]


# -- order -----------------------------------------------------------------------------------------------


def test_handlers_run_by_order_then_as_added():
    engine = Engine(no_step)
    ran = []
    for name, order in [
        ("saver", Order.SAVERS),
        ("stopper", Order.STOPPERS),
        ("mine", Order.DEFAULT),
        ("evaluation", Order.EVALUATION),
        ("mine too", Order.DEFAULT),
        ("metric", Order.METRICS),
        ("saver too", Order.SAVERS),
        ("between", 3),
    ]:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda name=name: ran.append(name), order=order)
    engine.run([1])
    assert ran == ["metric", "evaluation", "mine", "mine too", "between", "stopper", "saver", "saver too"]


def test_the_orders_are_those_of_the_design():
    assert {order.name: int(order) for order in Order} == {
        "FIRST": -1_000_000,
        "LIMITS": -40,
        "SEEDS": -30,
        "LOG_START": -20,
        "BEFORE_METRICS": -11,
        "METRICS": -10,
        "EVALUATION": -5,
        "DEFAULT": 0,
        "STOPPERS": 5,
        "LOGGERS": 9,
        "SAVERS": 10,
        "AFTER_SAVERS": 11,
        "LAST": 1_000_000,
    }


def test_a_logger_added_before_the_metric_sees_its_new_value():
    engine = Engine(no_step)
    seen = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: seen.append(engine.state.metrics["n"]), order=Order.SAVERS
    )
    engine.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: engine.state.metrics.update(n=engine.state.epoch),
        order=Order.METRICS,
    )
    engine.run([1], max_epochs=2)
    assert seen == [1, 2]


# -- arguments -------------------------------------------------------------------------------------------


def test_terminate_of_another_engine_as_a_handler():
    evaluator = Engine(no_step)
    trainer = Engine(no_step)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), evaluator.run, range(5))
    trainer.run(range(10))
    assert evaluator.state.iteration == 5
    assert trainer.state.iteration == 3


def test_the_engine_never_goes_into_a_parameter_with_a_default():
    got = []
    engine = Engine(no_step)
    engine.add_event_handler(Events.STARTED, lambda verbose=False: got.append(verbose))
    engine.run([1])
    assert got == [False]


# -- errors ----------------------------------------------------------------------------------------------


def test_an_exception_reaches_the_caller_also_where_a_handler_listens_to_it():
    def boom(engine, batch):
        raise KeyError("boom")

    seen = []
    engine = Engine(boom)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: seen.append(error))
    with pytest.raises(KeyError) as caught:
        engine.run([1])
    assert seen == [caught.value]


def test_after_an_error_the_engine_runs_again_at_once():
    bad = {"batch": 2}

    def step(engine, batch):
        if batch == bad["batch"]:
            raise RuntimeError("boom")
        return batch

    engine = Engine(step)
    with pytest.raises(RuntimeError):
        engine.run([1, 2, 3])
    bad["batch"] = None
    state = engine.run([1, 2, 3])
    assert (state.epoch, state.iteration, state.output) == (1, 3, 3)


@pytest.mark.parametrize("end", ["success", "terminate", "interrupt", "error"])
def test_closed_fires_once_and_last(end):
    def step(engine, batch):
        if end == "error":
            raise RuntimeError("boom")
        if end != "success":
            getattr(engine, end)()

    engine = Engine(step)
    fired = []
    for event in Events:
        engine.add_event_handler(event, lambda name=event.name: fired.append(name), order=Order.SAVERS)
    if end == "error":
        with pytest.raises(RuntimeError):
            engine.run([1])
    else:
        engine.run([1])
    assert fired.count("CLOSED") == 1
    assert fired[-1] == "CLOSED"


def test_every_handler_of_closed_runs_though_one_fails():
    closed = []

    def fail(message):
        raise OSError(message)

    engine = Engine(no_step)
    engine.add_event_handler(Events.CLOSED, lambda: fail("log not written"))
    engine.add_event_handler(Events.CLOSED, lambda: closed.append("file"))
    with pytest.raises(OSError, match="log not written"):
        engine.run([1])
    assert closed == ["file"]


def test_the_runs_own_error_goes_before_those_of_closing():
    def boom(engine, batch):
        raise RuntimeError("boom")

    def fail_to_close():
        raise OSError("log not written")

    engine = Engine(boom)
    engine.add_event_handler(Events.CLOSED, fail_to_close)
    with pytest.raises(RuntimeError, match="boom") as caught:
        engine.run([1])
    assert any("log not written" in note for note in caught.value.__notes__)


def test_several_errors_of_closing_come_together():
    def fail(message):
        raise OSError(message)

    engine = Engine(no_step)
    engine.add_event_handler(Events.CLOSED, lambda: fail("one"))
    engine.add_event_handler(Events.CLOSED, lambda: fail("two"))
    with pytest.raises(ExceptionGroup) as caught:
        engine.run([1])
    assert [str(error) for error in caught.value.exceptions] == ["one", "two"]


# -- max_iters and interrupt -----------------------------------------------------------------------------


def test_the_last_short_epoch_of_max_iters_is_completed():
    engine = Engine(no_step)
    completed = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: completed.append((engine.state.epoch, engine.state.iteration))
    )
    engine.run(range(4), max_iters=6)
    assert completed == [(1, 4), (2, 6)]


def test_interrupt_stops_after_the_iteration_and_run_goes_on_with_the_next_one():
    seen = []

    def step(engine, batch):
        seen.append(batch)
        if batch == 2 and engine.state.epoch == 1:
            engine.interrupt()

    engine = Engine(step)
    engine.run(range(4), max_epochs=2)
    assert seen == [0, 1, 2]
    engine.run()
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3]


# -- attributes ------------------------------------------------------------------------------------------


class Mine(EventEnum):
    READY = "ready"


class Theirs(EventEnum):
    READY = "ready"


def test_register_events_touches_this_engine_only():
    one, other = Engine(no_step), Engine(no_step)
    one.register_events(Mine.READY, event_to_attr={Mine.READY: "ready_count"})
    with pytest.raises(ValueError, match=r"unknown event 'Mine.READY'"):
        other.add_event_handler(Mine.READY, lambda: None)
    assert one.state.ready_count == 0
    assert not hasattr(other.state, "ready_count")


def test_events_of_two_enums_with_equal_names_are_different_events():
    engine = Engine(no_step)
    engine.register_events(*Mine, *Theirs)
    fired = []
    engine.add_event_handler(Mine.READY, lambda: fired.append("mine"))
    engine.add_event_handler(Theirs.READY, lambda: fired.append("theirs"))
    engine.fire_event(Theirs.READY)
    assert fired == ["theirs"]
    engine.fire_event(Mine.READY)
    assert fired == ["theirs", "mine"]


def test_joining_events_changes_neither():
    left = Events.STARTED | Events.COMPLETED
    right = Events.EPOCH_COMPLETED(every=2) | Events.CLOSED
    both = left | right
    assert [len(left), len(right), len(both)] == [2, 2, 4]
    assert isinstance(both, EventsList)
    assert list(left) == [Events.STARTED, Events.COMPLETED]
    assert list(both) == [Events.STARTED, Events.COMPLETED, Events.EPOCH_COMPLETED(every=2), Events.CLOSED]


def test_filtering_an_event_changes_neither_it_nor_another_engine():
    filtered = Events.ITERATION_COMPLETED(every=3)
    filtered | Events.STARTED
    one, other = Engine(no_step), Engine(no_step)
    counts = Counter()
    one.add_event_handler(filtered, lambda: counts.update(["every third"]))
    other.add_event_handler(Events.ITERATION_COMPLETED, lambda: counts.update(["each"]))
    one.run(range(6))
    other.run(range(6))
    assert counts == {"every third": 2, "each": 6}


# -- mistakes: each told at attach time, naming what is there --------------------------------------------


def test_a_misspelt_metric_is_told_with_those_that_are_there():
    engine = Engine(no_step)
    engine.declare_metrics("val/accuracy", lambda: ["val/loss"])
    engine.require_metric("val/loss", "EarlyStopping")
    with pytest.raises(
        ValueError, match=r'EarlyStopping watches "val/acuracy", but the engine has: val/accuracy, val/loss'
    ):
        engine.require_metric("val/acuracy", "EarlyStopping")


class Hook:
    """A handler object that does nothing."""

    def attach(self, engine):
        self.engine = engine


def test_a_handler_attached_twice_is_told():
    engine, hook = Engine(no_step), Hook()
    engine.attach(hook)
    with pytest.raises(ValueError, match="this Hook is attached to this engine already"):
        engine.attach(hook)


@pytest.mark.parametrize(
    "event",
    [
        Events.TERMINATE,
        Events.TERMINATE_SINGLE_EPOCH,
        Events.INTERRUPT,
        Events.EXCEPTION_RAISED,
        Events.CLOSED,
        Mine.READY,
    ],
    ids=str,
)
def test_a_filter_on_an_event_without_a_count_is_told(event):
    engine = Engine(no_step)
    engine.register_events(Mine.READY)
    with pytest.raises(ValueError, match=rf"{event} has no count, so it can't be filtered by every=2"):
        engine.add_event_handler(event(every=2), lambda: None)
