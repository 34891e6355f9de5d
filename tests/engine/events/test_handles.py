"""Handlers come and go, also while their event fires: a change shows from the next firing on."""

import pytest

from leyden.engine import Engine, Events, RemovableEventHandle


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: None)


@pytest.fixture
def seen():
    return []


def test_a_handle_removes_its_handler(engine, seen):
    handle = engine.add_event_handler(Events.STARTED, lambda: seen.append("ran"))
    assert isinstance(handle, RemovableEventHandle)
    handle.remove()
    handle.remove()  # a second call does nothing
    engine.run([1])
    assert seen == []


def test_a_handle_removes_its_handler_from_all_joined_events(engine, seen):
    handle = engine.add_event_handler(Events.STARTED | Events.ITERATION_COMPLETED(every=2), lambda: seen.append("ran"))
    handle.remove()
    engine.run([1, 2])
    assert seen == []


def test_a_handle_removes_only_its_own(engine, seen):
    def handler(name):
        seen.append(name)

    one = engine.add_event_handler(Events.STARTED, handler, "one")
    engine.add_event_handler(Events.STARTED, handler, "two")
    one.remove()
    engine.run([1])
    assert seen == ["two"]


def test_a_handler_for_the_time_of_a_block(engine, seen):
    with engine.add_event_handler(Events.STARTED, lambda: seen.append("in")):
        engine.run([1])
    engine.run([1])
    assert seen == ["in"]


def test_the_block_removes_the_handler_also_after_an_error(engine, seen):
    def handler():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError), engine.add_event_handler(Events.STARTED, handler):
        engine.run([1])
    assert not engine.has_event_handler(handler)


def test_remove_event_handler(engine, seen):
    def handler():
        seen.append("ran")

    engine.add_event_handler(Events.STARTED | Events.COMPLETED, handler)
    engine.remove_event_handler(handler, Events.STARTED)
    assert engine.has_event_handler(handler, Events.COMPLETED)
    assert not engine.has_event_handler(handler, Events.STARTED)
    engine.run([1])
    assert seen == ["ran"]


def test_removing_what_is_not_there_is_told(engine):
    def handler():
        raise AssertionError

    with pytest.raises(ValueError, match=r"handler does not listen to Events.STARTED on this engine"):
        engine.remove_event_handler(handler, Events.STARTED)


def test_has_event_handler(engine):
    class Listener:
        def hear(self):
            raise AssertionError

    listener, other = Listener(), Listener()
    engine.add_event_handler(Events.EPOCH_COMPLETED, listener.hear)
    assert engine.has_event_handler(listener.hear)
    assert engine.has_event_handler(listener.hear, Events.EPOCH_COMPLETED)
    assert not engine.has_event_handler(listener.hear, Events.STARTED)
    assert not engine.has_event_handler(other.hear)


def test_a_handler_may_remove_itself(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED)
    def once_only(engine):
        seen.append(engine.state.iteration)
        engine.remove_event_handler(once_only, Events.ITERATION_COMPLETED)

    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append("after"))
    engine.run([1, 2])
    assert seen == [1, "after", "after"]


def test_a_handler_removed_while_the_event_fires_runs_a_last_time(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED)
    def remove_the_other():
        handle.remove()

    handle = engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))
    engine.run([1, 2, 3])
    assert seen == [1]


def test_a_handler_added_while_the_event_fires_runs_from_the_next_time_on(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def add(engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))

    engine.run([1, 2, 3, 4])
    assert seen == [3, 4]


def test_a_filtered_handler_added_while_the_event_fires_keeps_its_filter(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def add(engine):
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(every=2), lambda engine: seen.append(engine.state.iteration)
        )

    engine.run(range(7))
    assert seen == [4, 6]


def test_a_handler_added_to_a_later_event_of_the_same_iteration_runs_at_once(engine, seen):
    @engine.on(Events.GET_BATCH_STARTED(once=2))
    def add(engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))

    engine.run([1, 2, 3])
    assert seen == [2, 3]


def test_removing_the_only_handler_while_it_fires(engine, seen):
    handle = engine.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: (seen.append(engine.state.iteration), handle.remove())
    )
    engine.run([1, 2, 3])
    assert seen == [1]


def test_a_handler_may_sleep_until_a_later_count(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED)
    def each(engine):
        seen.append(("each", engine.state.iteration))

    def paced(engine):
        seen.append(("paced", engine.state.iteration))
        handle.defer_until(engine.state.iteration + 3)

    handle = engine.add_event_handler(Events.ITERATION_COMPLETED, paced)
    engine.run(range(8), max_iters=8)
    assert [count for name, count in seen if name == "paced"] == [1, 4, 7]
    assert [count for name, count in seen if name == "each"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_sleeping_handler_keeps_its_filter(engine, seen):
    handle = engine.add_event_handler(
        Events.ITERATION_COMPLETED(every=2), lambda engine: seen.append(engine.state.iteration)
    )
    engine.add_event_handler(Events.ITERATION_STARTED(once=3), lambda: handle.defer_until(7))
    engine.run(range(10), max_iters=10)
    assert seen == [2, 8, 10]


def test_a_sleep_ends_with_the_run(engine, seen):
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: handle.defer_until(1000))
    engine.run(range(3))
    engine.run(range(3))
    assert seen == [1, 1]


def test_sleeping_outlasts_the_end_of_an_epoch(engine, seen):
    """A handler that paces itself by the clock must not wake because an epoch begins."""
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: handle.defer_until(6))
    engine.run(range(4), max_epochs=2)
    assert seen == [1, 6, 7, 8]
