"""Events of a user's own: enums or strings, registered on an engine, fired by whoever likes."""

import pytest

from leyden.engine import Engine, EventEnum, Events, UpdateEvents


class BackpropEvents(EventEnum):
    """Moments in a step of one's own."""

    BACKWARD_DONE = "backward_done"
    STEP_DONE = "step_done"


def step(engine, batch):
    engine.fire_event(BackpropEvents.BACKWARD_DONE)
    engine.state.steps += 1
    engine.fire_event(BackpropEvents.STEP_DONE)


@pytest.fixture
def engine():
    engine = Engine(step)
    engine.register_events(*BackpropEvents, event_to_attr={BackpropEvents.STEP_DONE: "steps"})
    return engine


def test_events_of_an_enum_fire_where_the_step_says(engine):
    seen = []
    engine.add_event_handler(BackpropEvents.BACKWARD_DONE, lambda engine: seen.append(("backward", engine.state.steps)))
    engine.add_event_handler(BackpropEvents.STEP_DONE, lambda engine: seen.append(("step", engine.state.steps)))
    engine.run([1, 2])
    assert seen == [("backward", 0), ("step", 1), ("backward", 1), ("step", 2)]


def test_events_may_be_strings():
    engine = Engine(lambda engine, batch: engine.fire_event("half_way") if batch == 2 else None)
    engine.register_events("half_way")
    seen = []
    engine.add_event_handler("half_way", lambda engine: seen.append(engine.state.iteration))
    engine.run([1, 2, 3])
    assert seen == [2]


@pytest.mark.parametrize("name", ["started", "STARTED", UpdateEvents.STEP_COMPLETED.value])
def test_a_string_is_another_event_than_an_enum_of_its_value(name):
    engine = Engine(lambda engine, batch: None)
    engine.register_events(name)
    seen = []
    engine.add_event_handler(name, lambda: seen.append(name))
    engine.run([1])
    assert seen == []
    engine.fire_event(name)
    assert seen == [name]


def test_own_events_join_with_others(engine):
    seen = []
    engine.register_events("mine")
    engine.add_event_handler(
        Events.STARTED | BackpropEvents.STEP_DONE(every=2) | "mine", lambda engine: seen.append(engine.state.steps)
    )
    engine.run([1, 2, 3])
    engine.fire_event("mine")
    assert seen == [0, 2, 3]


def test_a_counter_is_made_as_zero(engine):
    assert engine.state.steps == 0


def test_a_counter_that_is_there_stays():
    engine = Engine(lambda engine, batch: None)
    engine.state.tokens = 7
    engine.register_events("tokens_seen", event_to_attr={"tokens_seen": "tokens"})
    assert engine.state.tokens == 7


def test_events_with_a_counter_are_filtered(engine):
    seen = []
    engine.add_event_handler(BackpropEvents.STEP_DONE(every=2), lambda engine: seen.append(engine.state.steps))
    engine.run(range(5))
    assert seen == [2, 4]


def test_a_filter_follows_a_counter_that_goes_back():
    """A count within a sequence, say, that begins anew with each one."""

    class Chunks(EventEnum):
        DONE = "done"

    engine = Engine(lambda engine, batch: None)
    engine.register_events(Chunks.DONE, event_to_attr={Chunks.DONE: "chunk"})
    seen = []
    engine.add_event_handler(Chunks.DONE(every=2), lambda engine: seen.append(engine.state.chunk))
    for chunk in [1, 2, 3, 1, 2, 3, 4]:
        engine.state.chunk = chunk
        engine.fire_event(Chunks.DONE)
    assert seen == [2, 2, 4]


def test_an_event_of_the_engine_may_be_fired_by_hand(engine):
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append("ran"))
    engine.fire_event(Events.EPOCH_COMPLETED)
    assert seen == ["ran"]


def test_own_events_are_read_by_their_names():
    assert str(BackpropEvents.STEP_DONE) == "BackpropEvents.STEP_DONE"


def test_firing_an_unknown_event_is_told(engine):
    with pytest.raises(ValueError, match="unknown event 'nothing'"):
        engine.fire_event("nothing")


def test_firing_a_filtered_event_is_told(engine):
    with pytest.raises(ValueError, match="fire_event takes an event of the engine without a filter"):
        engine.fire_event(BackpropEvents.STEP_DONE(every=2))


def test_an_event_registered_twice_is_told(engine):
    with pytest.raises(ValueError, match=r"event 'BackpropEvents.STEP_DONE' can't be registered"):
        engine.register_events(BackpropEvents.STEP_DONE)


def test_what_is_neither_enum_nor_string_is_told(engine):
    with pytest.raises(TypeError, match="an event must be a member of an EventEnum or a string, but is 3"):
        engine.register_events(3)


def test_a_counter_for_an_event_that_is_not_registered_is_told(engine):
    with pytest.raises(ValueError, match="event_to_attr names 'other'"):
        engine.register_events("mine", event_to_attr={"other": "count"})


def test_a_refused_registration_registers_nothing(engine):
    with pytest.raises(ValueError, match="can't be registered"):
        engine.register_events("fresh", BackpropEvents.STEP_DONE)
    with pytest.raises(ValueError, match="unknown event"):
        engine.add_event_handler("fresh", lambda: None)


def test_a_count_that_nobody_keeps_is_told_once():
    engine = Engine(lambda engine, batch: engine.fire_event(BackpropEvents.STEP_DONE))
    engine.register_events(BackpropEvents.STEP_DONE, event_to_attr={BackpropEvents.STEP_DONE: "steps"})
    engine.add_event_handler(BackpropEvents.STEP_DONE(every=2), lambda: None)
    with pytest.warns(UserWarning, match=r"STEP_DONE\(every=2\).*state\.steps \+= 1 before fire_event") as told:
        engine.run(range(6))
    assert len(told) == 1


def test_an_engine_tells_which_events_it_knows(engine):
    assert engine.has_registered_events(BackpropEvents.STEP_DONE, Events.STARTED)
    assert not engine.has_registered_events(Events.STARTED, "nothing")
