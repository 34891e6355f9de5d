"""A run that stops among the handlers of an event, because an engine that runs in one of them was stopped."""

import pytest

from leyden.engine import Engine, Events


def nested(event=Events.EPOCH_COMPLETED):
    """An engine that runs another one in a handler, and the list of what happens."""
    outer, inner = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    seen = []
    inner.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))

    def run_inner(engine):
        with engine.hosting(inner):
            inner.run("abc", max_epochs=1)

    outer.add_event_handler(event, lambda: seen.append("before"))
    outer.add_event_handler(event, run_inner)
    outer.add_event_handler(event, lambda: seen.append("after"))
    return outer, inner, seen


def test_an_interrupt_stops_both_and_the_next_run_goes_on_in_that_handler() -> None:
    outer, inner, seen = nested()
    inner.add_event_handler(Events.ITERATION_COMPLETED(once=2), outer.interrupt)
    for event in (Events.INTERRUPT, Events.CLOSED):
        inner.add_event_handler(event, lambda event=event: seen.append(f"inner {event.name}"))
        outer.add_event_handler(event, lambda event=event: seen.append(f"outer {event.name}"))
    outer.run("ab", max_epochs=2)
    assert seen == ["before", 1, 2, "inner INTERRUPT", "inner CLOSED", "outer INTERRUPT", "outer CLOSED"]
    assert (outer.interrupted, outer.suspended.event, outer.suspended.index) == (True, Events.EPOCH_COMPLETED, 1)
    seen.clear()
    outer.run()
    assert seen == [
        3,
        "inner CLOSED",
        "after",
        "before",
        1,
        2,
        "inner INTERRUPT",
        "inner CLOSED",
        "outer INTERRUPT",
        "outer CLOSED",
    ]
    outer.run()
    assert (outer.interrupted, outer.suspended, outer.state.epoch) == (False, None, 2)


def test_filters_of_the_other_handlers_hold() -> None:
    outer, inner, seen = nested()
    outer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: seen.append("every second"))
    outer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: seen.append("first"))
    inner.add_event_handler(Events.ITERATION_COMPLETED(once=2), outer.interrupt)
    outer.run("ab", max_epochs=3)
    outer.run()
    outer.run()
    outer.run()
    assert [each for each in seen if not isinstance(each, int)] == [
        *("before", "after", "first"),
        *("before", "after", "every second"),
        *("before", "after"),
    ]


def test_three_deep() -> None:
    outer, middle, seen = nested()
    innermost = Engine(lambda engine, batch: None)

    def run_innermost(engine):
        with engine.hosting(innermost):
            innermost.run("xyz", max_epochs=1)

    middle.add_event_handler(Events.EPOCH_COMPLETED, run_innermost)
    innermost.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(f"{engine.state.iteration}."))
    innermost.add_event_handler(Events.ITERATION_COMPLETED(once=2), outer.interrupt)
    outer.run("a")
    assert seen == ["before", 1, 2, 3, "1.", "2."]
    outer.run()
    assert seen[6:] == ["3.", "after"]


def test_at_the_start_of_a_run_all_its_handlers_run_once_more() -> None:
    outer, inner, seen = nested(Events.STARTED)
    inner.add_event_handler(Events.ITERATION_COMPLETED(once=2), outer.interrupt)
    outer.run("a")
    outer.run()
    assert seen == ["before", 1, 2, "before", 3, "after"]


def test_an_engine_that_is_not_hosted_is_left_alone() -> None:
    outer, inner, _ = nested()
    outer.run("a")
    inner.run("abc", max_epochs=2)
    inner.add_event_handler(Events.ITERATION_COMPLETED, outer.interrupt)
    inner.run("abc", max_epochs=3)
    assert not inner.interrupted


def test_an_error_in_the_inner_engine_is_an_error_of_the_outer_one() -> None:
    outer, inner, _ = nested()

    @inner.on(Events.ITERATION_COMPLETED(once=2))
    def fail():
        outer.interrupt()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outer.run("a")
    assert (outer.interrupted, outer.suspended) == (False, None)


def test_a_wish_during_the_setup_is_not_lost() -> None:
    from leyden.engine import Stage

    engine = Engine(lambda engine, batch: None)
    engine.setup.add(Stage.DATA, engine.interrupt)
    engine.run("ab")
    assert (engine.interrupted, engine.state.iteration) == (True, 0)
