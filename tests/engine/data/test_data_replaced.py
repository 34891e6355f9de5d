"""Data that takes the place of other data in mid-run, and iterators that can't be begun anew."""

import warnings

import pytest

from leyden.engine import Engine, Events


def epoch_ends(engine):
    ends = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: ends.append(engine.state.iteration))
    return ends


def eleven():
    yield from range(11)


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: None)


@pytest.mark.parametrize("event", [Events.DATALOADER_STOP_ITERATION, Events.EPOCH_COMPLETED])
@pytest.mark.parametrize("epoch_length", [None, 11])
def test_an_iterator_of_unknown_length_is_followed_by_another(engine, event, epoch_length):
    ends = epoch_ends(engine)
    engine.add_event_handler(event, lambda: engine.set_data(eleven()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = engine.run(eleven(), max_epochs=5, epoch_length=epoch_length)
    assert (state.epoch, state.iteration, ends) == (5, 55, [11, 22, 33, 44, 55])


def test_an_iterator_that_nobody_follows_ends_the_run(engine):
    stops = []
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, lambda: stops.append(engine.state.iteration))
    with pytest.warns(UserWarning, match="exhausted after 11 iterations, in epoch 1, before max_epochs=5"):
        state = engine.run(eleven(), max_epochs=5)
    assert (state.epoch, state.iteration, stops) == (1, 11, [11])


def test_no_more_data_is_asked_for_than_the_run_needs(engine):
    stops = []
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, lambda: stops.append(engine.state.iteration))
    engine.run(eleven(), max_epochs=1)
    assert stops == []


def test_a_run_that_is_resumed_after_such_an_iterator_asks_for_the_next(engine):
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), engine.interrupt)
    engine.run(eleven(), max_epochs=2)
    second = Engine(lambda engine, batch: None)
    second.load_state_dict(engine.state_dict())
    second.add_event_handler(Events.DATALOADER_STOP_ITERATION, lambda: second.set_data(eleven()))
    with pytest.warns(UserWarning, match="read again"):
        state = second.run(eleven())
    assert (state.epoch, state.iteration) == (2, 22)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("at", [Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.ITERATION_COMPLETED])
def test_epochs_stay_as_long_as_they_were(engine, at, interrupted):
    ends = epoch_ends(engine)
    count = {Events.EPOCH_STARTED: 2, Events.EPOCH_COMPLETED: 1, Events.ITERATION_COMPLETED: 12}[at]
    engine.add_event_handler(at(once=count), lambda: engine.set_data([0] * 5))
    if interrupted:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=13), engine.interrupt)
        engine.run([0] * 11, max_epochs=4)
    engine.run(None if interrupted else [0] * 11, max_epochs=4)
    assert ends == [11, 22, 33, 44]


def test_data_whose_length_is_only_said_is_followed_at_that_length(engine):
    class Says:
        def __len__(self):
            return 4

        def __iter__(self):
            return iter(range(4))

    ends = epoch_ends(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: engine.set_data([0] * 3))
    engine.run(Says(), max_epochs=3)
    assert ends == [4, 8, 12]


def test_other_data_for_the_next_run_brings_its_own_length(engine):
    ends = epoch_ends(engine)
    engine.run([0] * 11, max_epochs=1)
    engine.set_data([0] * 5)
    engine.run(max_epochs=3)
    assert ends == [11, 16, 21]


def stopped_on_other_data():
    first = Engine(lambda engine, batch: None)
    first.add_event_handler(Events.EPOCH_STARTED(once=2), lambda: first.set_data(list("abcde")))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=13), first.interrupt)
    first.run([0] * 11, max_epochs=3)
    return first.state_dict()


def test_a_resume_on_data_that_had_been_replaced_is_told():
    second = Engine(lambda engine, batch: None)
    second.load_state_dict(stopped_on_other_data())
    with pytest.warns(UserWarning, match=r"set_data.*list of 5 batches.*list of 11 batches.*set_data"):
        second.run([0] * 11)


def test_a_resume_on_the_data_that_was_in_use_goes_on_in_it():
    seen = []
    second = Engine(lambda engine, batch: seen.append(batch))
    ends = epoch_ends(second)
    second.load_state_dict(stopped_on_other_data())
    second.set_data(list("abcde"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.run()
    assert seen[:4] == ["c", "d", "e", "a"]
    assert ends == [22, 33]
