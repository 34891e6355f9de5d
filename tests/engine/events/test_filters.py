"""When a filtered handler runs: `Events.X(every=, once=, before=, after=, event_filter=)`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.engine import Engine, Events, FilteredEvent


def counts_of(event, batches=10, epochs=1, **limits):
    """The iterations at which a handler of the event runs."""
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(event, lambda engine: seen.append(engine.state.iteration))
    engine.run(range(batches), max_epochs=epochs, **limits)
    return seen


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"every": 1}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"every": 3}, [3, 6, 9]),
        ({"every": 11}, []),
        ({"once": 4}, [4]),
        ({"once": [7, 2, 7]}, [2, 7]),
        ({"once": 11}, []),
        ({"before": 4}, [1, 2, 3]),
        ({"after": 7}, [8, 9, 10]),
        ({"after": 0}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"before": 0}, []),
        ({"after": 3, "before": 6}, [4, 5]),
        ({"after": 6, "before": 6}, []),
        ({"every": 3, "before": 9}, [3, 6]),
        ({"every": 3, "after": 3}, [6, 9]),
        ({"every": 2, "after": 3, "before": 8}, [4, 6]),
        ({"event_filter": lambda engine, count: count in (1, 5)}, [1, 5]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value),
)
def test_counts_of_iterations(rule, expected):
    assert counts_of(Events.ITERATION_COMPLETED(**rule)) == expected


def test_an_event_filter_may_be_given_by_position():
    assert counts_of(Events.ITERATION_COMPLETED(lambda engine, count: count > 8)) == [9, 10]


rules = st.one_of(
    st.fixed_dictionaries({"once": st.lists(st.integers(1, 30), min_size=1, max_size=5)}),
    st.fixed_dictionaries(
        {"every": st.integers(1, 12)}, optional={"before": st.integers(0, 30), "after": st.integers(0, 30)}
    ),
    st.fixed_dictionaries({"before": st.integers(0, 30)}, optional={"after": st.integers(0, 30)}),
    st.fixed_dictionaries({"after": st.integers(0, 30)}),
)


def admitted(rule, count):
    """The definition, asked of each count by itself."""
    return (
        ("once" not in rule or count in rule["once"])
        and ("every" not in rule or count % rule["every"] == 0)
        and ("before" not in rule or count < rule["before"])
        and ("after" not in rule or count > rule["after"])
    )


@given(rules=st.lists(rules, min_size=1, max_size=4), batches=st.integers(1, 9), epochs=st.integers(1, 4))
def test_several_filtered_handlers_each_keep_their_definition(rules, batches, epochs):
    seen = [[] for _ in rules]
    engine = Engine(lambda engine, batch: None)
    for rule, counts in zip(rules, seen, strict=True):
        engine.add_event_handler(
            Events.ITERATION_STARTED(**rule), lambda engine, counts=counts: counts.append(engine.state.iteration)
        )
    engine.run(range(batches), max_epochs=epochs)
    expected = [[count for count in range(1, batches * epochs + 1) if admitted(rule, count)] for rule in rules]
    assert seen == expected


@given(rule=rules, stop=st.integers(1, 20), fresh=st.booleans())
def test_filters_count_on_after_a_resume(rule, stop, fresh):
    seen = []

    def make():
        engine = Engine(lambda engine, batch: None)
        engine.add_event_handler(Events.ITERATION_COMPLETED(**rule), lambda engine: seen.append(engine.state.iteration))
        return engine

    data = range(7)
    engine = make()
    with engine.add_event_handler(Events.ITERATION_STARTED(once=stop), engine.interrupt):
        engine.run(data, max_epochs=3)
    if fresh:
        state = engine.state_dict()
        engine = make()
        engine.load_state_dict(state)
    engine.run(data)
    assert seen == [count for count in range(1, 22) if admitted(rule, count)]


def test_filters_count_anew_in_a_run_from_the_beginning():
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: seen.append(engine.state.iteration))
    engine.run(range(5))
    engine.run(range(5))
    assert seen == [2, 2]


def test_filters_follow_when_a_handler_sets_the_iteration_back():
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda engine: seen.append(engine.state.iteration))
    rewound = []

    @engine.on(Events.ITERATION_COMPLETED)
    def rewind(engine):
        if engine.state.iteration == 7 and not rewound:
            rewound.append(True)
            engine.state.iteration = 2

    engine.run(range(20), max_iters=9)
    assert seen == [3, 6, 3, 6, 9]


def test_filters_follow_when_a_handler_sets_the_iteration_ahead():
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda engine: seen.append(engine.state.iteration))

    @engine.on(Events.ITERATION_COMPLETED(once=4))
    def skip(engine):
        engine.state.iteration = 10

    engine.run(range(20), max_iters=15)
    assert seen == [3, 12, 15]


@pytest.mark.parametrize("event", [Events.EPOCH_STARTED, Events.EPOCH_COMPLETED], ids=str)
def test_epoch_events_count_epochs(event):
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(event(every=2), lambda engine: seen.append(engine.state.epoch))
    engine.run(range(3), max_epochs=5)
    assert seen == [2, 4]


@pytest.mark.parametrize("event", [Events.GET_BATCH_STARTED, Events.GET_BATCH_COMPLETED], ids=str)
def test_an_event_before_the_step_counts_the_iteration_it_belongs_to(event):
    counts = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(event(event_filter=lambda engine, count: counts.append(count)), lambda: None)
    engine.run(range(3), max_epochs=2)
    assert counts == [1, 2, 3, 4, 5, 6]


def test_the_end_of_the_data_counts_the_iteration_that_wants_a_batch():
    counts = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(
        Events.DATALOADER_STOP_ITERATION(event_filter=lambda engine, count: counts.append(count)), lambda: None
    )
    engine.run(range(3), max_epochs=2, epoch_length=5)
    assert counts == [4, 7, 10]


def test_completed_counts_epochs():
    counts = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.COMPLETED(lambda engine, count: counts.append(count)), lambda: None)
    engine.run(range(3), max_epochs=4)
    assert counts == [4]


def test_an_event_filter_is_given_the_engine():
    engine = Engine(lambda engine, batch: None)
    asked = []
    engine.add_event_handler(Events.ITERATION_STARTED(lambda *arguments: asked.append(arguments)), lambda: None)
    engine.run(range(2))
    assert asked == [(engine, 1), (engine, 2)]


def test_joined_events_keep_their_filters():
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(
        Events.STARTED | Events.ITERATION_COMPLETED(every=2) | Events.EPOCH_COMPLETED(once=2),
        lambda engine: seen.append((engine.state.epoch, engine.state.iteration)),
    )
    engine.run(range(3), max_epochs=2)
    assert seen == [(0, 0), (1, 2), (2, 4), (2, 6), (2, 6)]


def test_one_handler_may_listen_under_several_filters():
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(once=1) | Events.ITERATION_COMPLETED(every=3),
        lambda engine: seen.append(engine.state.iteration),
    )
    engine.run(range(7))
    assert seen == [1, 3, 6]


def test_filtered_events_are_equal_by_value_and_readable():
    event = Events.ITERATION_COMPLETED(every=50, before=1000)
    assert event == Events.ITERATION_COMPLETED(every=50, before=1000)
    assert isinstance(event, FilteredEvent)
    assert str(event) == "Events.ITERATION_COMPLETED(every=50, before=1000)"


@pytest.mark.parametrize("name", ["every", "once", "before", "after"])
def test_a_negative_number_is_an_error(name):
    with pytest.raises(ValueError, match=rf"{name} of an event must be at least \d, but is -1"):
        Events.ITERATION_COMPLETED(**{name: -1})


@pytest.mark.parametrize("name", ["every", "once"])
def test_zero_is_an_error_where_counts_start_at_one(name):
    with pytest.raises(ValueError, match=f"{name} of an event must be at least 1, but is 0"):
        Events.ITERATION_COMPLETED(**{name: 0})


@pytest.mark.parametrize("value", [1.5, "2", True], ids=repr)
@pytest.mark.parametrize("name", ["every", "once", "before", "after"])
def test_what_is_not_a_whole_number_is_an_error(name, value):
    with pytest.raises(TypeError, match=f"{name} of an event must be a whole number, but is"):
        Events.ITERATION_COMPLETED(**{name: value})


def test_no_rule_is_an_error():
    with pytest.raises(ValueError, match="an event takes one rule"):
        Events.ITERATION_COMPLETED()


@pytest.mark.parametrize(
    "rule",
    [
        {"every": 2, "once": 3},
        {"every": 2, "event_filter": lambda engine, count: True},
        {"once": 3, "event_filter": lambda engine, count: True},
        {"once": 3, "before": 5},
        {"after": 3, "event_filter": lambda engine, count: True},
    ],
    ids=lambda rule: "+".join(rule),
)
def test_rules_that_exclude_each_other_are_an_error(rule):
    with pytest.raises(ValueError, match="an event takes one rule"):
        Events.ITERATION_COMPLETED(**rule)


def test_an_empty_once_is_an_error():
    with pytest.raises(ValueError, match="once of an event names no count"):
        Events.ITERATION_COMPLETED(once=[])


def test_an_event_filter_that_is_no_function_is_an_error():
    with pytest.raises(TypeError, match=r"event_filter must be a function of \(engine, count\), but is 3"):
        Events.ITERATION_COMPLETED(event_filter=3)
