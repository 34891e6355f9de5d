"""A run goes on at its very batch in another process: the order, the random numbers of the steps, what is read."""

import contextlib
import pickle
import random
import time
import warnings

import numpy
import passes
import pytest
import torch
from passes import BATCH, BATCHES, LOADERS, OTHERS, SAMPLES, Indices, differs, generator, plain, run, stops
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler

from leyden.engine import Engine, Events

quiet = pytest.mark.filterwarnings("ignore:to go on where the run was", "ignore:'set_vital' is deprecated")


@quiet
@pytest.mark.parametrize("epoch_length", [None, 5, 19])
@pytest.mark.parametrize("kind", [*LOADERS, *OTHERS])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(kind, epoch_length):
    make = (LOADERS | OTHERS)[kind]
    wrong = {stop: differs(make, stop, epoch_length=epoch_length) for stop in stops(epoch_length)}
    assert {stop: found for stop, found in wrong.items() if found is not None} == {}


@quiet
@pytest.mark.parametrize("kind", [*LOADERS, *OTHERS])
def test_a_run_stopped_between_two_epochs_may_be_stopped_again_as_the_next_one_opens(kind):
    make = (LOADERS | OTHERS)[kind]
    before, state = run(make, stop=(Events.EPOCH_COMPLETED, 1))
    nothing, state = run(make, stop=(Events.EPOCH_STARTED, 2), state=state)
    assert nothing == []
    assert before + run(make, state=state) == run(make)


def test_no_skipped_sample_is_read():
    class Slow(Indices):
        def __getitem__(self, index):
            time.sleep(0.001)
            return super().__getitem__(index)

    def make():
        return DataLoader(Slow(40_000), 4, shuffle=True)

    torch.manual_seed(1)
    first = Engine(lambda engine, batch: None)
    first.load_state_dict({"epoch": 1, "iteration": 8999, "epoch_length": 10_000, "max_epochs": 1})
    first.add_event_handler(Events.ITERATION_COMPLETED(once=9000), first.interrupt)
    loader = make()
    first.run(loader)
    assert len(loader.dataset.read) == 4
    state = first.state_dict()

    second = Engine(lambda engine, batch: None)
    second.load_state_dict(state)
    second.add_event_handler(Events.ITERATION_COMPLETED(once=9100), second.interrupt)
    loader = make()
    second.run(loader)
    assert len(loader.dataset.read) == 400


def test_what_is_left_of_an_epoch_is_read_once_and_what_was_used_is_not():
    def make():
        return DataLoader(Indices(), BATCH, shuffle=True)

    loaders = make(), make()
    _, state = run(lambda: loaders[0], stop=(Events.ITERATION_COMPLETED, 5), epochs=1)
    run(lambda: loaders[1], state=state, epochs=1)
    before, after = (loader.dataset.read for loader in loaders)
    assert len(before) == 5 * BATCH
    assert sorted(before + after) == list(range(SAMPLES))


def test_data_with_random_access_is_asked_from_there_on():
    class Batches:
        def __init__(self):
            self.read = []

        def __len__(self):
            return BATCHES

        def __getitem__(self, place):
            if place >= BATCHES:
                raise IndexError
            self.read.append(place)
            return place

    _, state = run(Batches, stop=(Events.ITERATION_COMPLETED, 6), epochs=1)
    data = Batches()
    seen = run(lambda: data, state=state, epochs=1)
    assert data.read == [place for _, _, place, _ in seen] == [6, 7]


def test_reading_again_is_told_with_what_it_costs():
    def make():
        return DataLoader(passes.Stream(), BATCH)

    _, state = run(make, stop=(Events.ITERATION_COMPLETED, 6), epochs=1)
    with pytest.warns(UserWarning, match=r"first 6 batches of a DataLoader over Stream are read again.*state_dict"):
        run(make, state=state, epochs=1)


@pytest.mark.parametrize("kind", ["shuffle", "weighted", "a loader with state", "a list"])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_where_nothing_is_read_again_nothing_is_told(kind):
    make = (LOADERS | OTHERS)[kind]
    _, state = run(make, stop=(Events.ITERATION_COMPLETED, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")
        run(make, state=state)


def test_a_sampler_that_is_told_its_epoch():
    """By a handler, as one does by hand; in an epoch that was begun by another process nobody tells it."""

    class Told(RandomSampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def make():
        return DataLoader(Indices(), BATCH, sampler=Told(range(SAMPLES)))

    def tell(engine):
        def set_epoch():
            engine.state.dataloader.sampler.set_epoch(engine.state.epoch)

        engine.add_event_handler(Events.EPOCH_STARTED, set_epoch)

    for stop in stops(None):
        assert differs(make, stop, setup=tell) is None


def test_a_sampler_of_ones_own_between_steps_that_draw_nothing_takes_no_room_in_what_is_saved():
    class Backwards(Sampler):
        def __len__(self):
            return 200

        def __iter__(self):
            return iter(range(199, -1, -1))

    def go(stop, state=None):
        seen = []
        engine = Engine(lambda engine, batch: seen.extend(batch.tolist()))
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
        if state is not None:
            engine.load_state_dict(state)
        engine.run(DataLoader(Indices(200), 1, sampler=Backwards()))
        return seen, engine.state_dict()

    before, early = go(10)
    then, late = go(110, early)
    assert before + then + go(200, late)[0] == list(range(199, -1, -1))
    assert len(pickle.dumps(late)) - len(pickle.dumps(early)) < 10 * 100


def test_a_state_that_was_not_gone_on_with_is_saved_as_it_was():
    before, state = run(LOADERS["shuffle"], stop=(Events.ITERATION_COMPLETED, 3))
    engine = Engine(lambda engine, batch: None)
    engine.load_state_dict(state[0])
    again = engine.state_dict(), state[1]
    assert before + run(LOADERS["shuffle"], state=again) == run(LOADERS["shuffle"])


def test_the_counts_alone_are_enough_to_skip():
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch.tolist()))
    engine.load_state_dict({"epoch": 1, "iteration": 6, "epoch_length": BATCHES, "max_epochs": 1})
    loader = DataLoader(Indices(), BATCH)
    engine.run(loader)
    assert seen == [[18, 19, 20], [21, 22]]
    assert loader.dataset.read == [18, 19, 20, 21, 22]


# -- in one process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shuffle", "shuffle by a generator", "a batch sampler that draws all along"])
def test_after_an_error_the_epoch_goes_on_with_the_samples_that_were_not_seen(kind):
    seen = []

    def process(engine, batch):
        seen.extend(batch.tolist())
        if engine.state.iteration == 5 and not failed:
            failed.append(True)
            raise ArithmeticError

    failed = []
    engine = Engine(process)
    loader = LOADERS[kind]()
    with pytest.raises(ArithmeticError):
        engine.run(loader, max_epochs=2)
    engine.run(loader, max_epochs=2)
    assert sorted(seen) == sorted([*range(SAMPLES)] * 2)


def stopped(make, stop, ends, epoch_length=None):
    """What a run saw that came to its end at a moment, and went on in the same process; None: that never did."""
    torch.manual_seed(5)
    seen, data = [], make()
    engine = Engine(lambda engine, batch: seen.append((engine.state.epoch, plain(batch), torch.rand(()).item())))

    def end():
        if ends == "terminate":
            engine.terminate()
        else:
            raise ArithmeticError

    once = None if stop is None else engine.add_event_handler(stop[0](once=stop[1]), end)
    try:
        with contextlib.suppress(ArithmeticError):
            engine.run(data, max_epochs=2, epoch_length=epoch_length)
        if once is not None:
            once.remove()
            engine.run(data, max_epochs=2, epoch_length=epoch_length)
        return seen
    finally:
        passes.end_workers(data)


@pytest.mark.parametrize("ends", ["terminate", "error"])
def test_a_pass_begun_by_workers_that_stay_goes_on_in_its_order(ends):
    def make():
        return LOADERS["shuffle"](num_workers=1, persistent_workers=True)

    assert stopped(make, (Events.ITERATION_COMPLETED, 3), ends) == stopped(make, None, ends)


@pytest.mark.parametrize("ends", ["terminate", "error"])
@pytest.mark.parametrize("kind", ["shuffle", "a loader with state", "a list"])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_a_pass_over_the_bounds_of_epochs_goes_on_where_the_run_ended_between_two(kind, ends):
    make = (LOADERS | OTHERS)[kind]
    assert stopped(make, (Events.EPOCH_COMPLETED, 1), ends, 5) == stopped(make, None, ends, 5)


def test_a_larger_limit_goes_on_with_a_pass_over_the_bounds_of_epochs():
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    data = "abcdefgh"
    engine.run(data, max_epochs=1, epoch_length=5)
    engine.run(data, max_epochs=2)
    assert "".join(seen) == "abcdefghab"
    engine.run(data, max_epochs=2, epoch_length=5)  # from the beginning
    assert "".join(seen[10:]) == "abcdefghab"


def by_hand(loader, epochs):
    seen = []
    for _ in range(epochs):
        for batch in loader:
            seen.append(plain(batch))
            torch.rand(2)
        torch.rand(1)
    return seen


def by_engine(loader, epochs):
    seen = []

    def process(engine, batch):
        seen.append(plain(batch))
        torch.rand(2)

    engine = Engine(process)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: torch.rand(1))
    engine.run(loader, max_epochs=epochs)
    return seen


@pytest.mark.parametrize("kind", [kind for kind in LOADERS if "state" not in kind])
def test_each_epoch_has_the_order_of_the_loop_by_hand(kind):
    orders = []
    for loop in (by_hand, by_engine):
        torch.manual_seed(2)
        passes.random.seed(2)
        numpy.random.seed(2)
        orders.append(loop(LOADERS[kind](), 4))
    assert orders[0] == orders[1]


def test_a_pass_ends_as_a_for_loop_ends_it():
    class Closing(IterableDataset):
        ended = 0

        def __len__(self):
            return 3

        def __iter__(self):
            yield from range(3)
            Closing.ended += 1

    Engine(lambda engine, batch: None).run(DataLoader(Closing(), None), max_epochs=2)
    assert Closing.ended == 2


@pytest.mark.parametrize("epoch_length", [None, 3])
def test_data_that_goes_on_after_its_length_is_cut_where_the_user_says_so(epoch_length):
    asked = []

    class Longer:
        def __len__(self):
            return 3

        def __iter__(self):
            for i in range(5):
                asked.append(i)
                yield i

    seen = []
    Engine(lambda engine, batch: seen.append(batch)).run(Longer(), max_epochs=3, epoch_length=epoch_length)
    assert seen == asked == list(range(epoch_length or 5)) * 3


# -- set_data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        Events.GET_BATCH_STARTED,
        Events.GET_BATCH_COMPLETED,
        Events.ITERATION_STARTED,
        Events.ITERATION_COMPLETED,
        Events.DATALOADER_STOP_ITERATION,
    ],
)
@pytest.mark.parametrize("stop", [5, 7, 9])
def test_data_that_was_exchanged_goes_on_where_it_was(event, stop):
    """Another process is given the data that was there when it was saved."""

    def exchange(engine):
        once = event if event is Events.DATALOADER_STOP_ITERATION else event(once=4)
        engine.add_event_handler(once, lambda: engine.set_data("vwxyz"))

    def exchanged_before(engine):
        pass

    whole = run(lambda: "abc", setup=exchange, epochs=2, epoch_length=6)
    before, state = run(
        lambda: "abc", setup=exchange, epochs=2, epoch_length=6, stop=(Events.ITERATION_COMPLETED, stop)
    )
    after = run(lambda: "vwxyz", setup=exchanged_before, epochs=2, state=state)
    if event is Events.DATALOADER_STOP_ITERATION and stop > 8:
        return  # exchanged once more
    assert [each[:3] for each in before + after][: len(before) + 1] == [each[:3] for each in whole][: len(before) + 1]


def test_generators_that_nobody_else_has_are_restored_too():
    """Of a dataset, in one process: what it draws for its samples."""

    class Noisy(Indices):
        def __init__(self):
            super().__init__()
            self.generator = generator()
            self.numpy = numpy.random.default_rng(4)

        def __getitem__(self, index):
            return index + torch.rand((), generator=self.generator).item() + self.numpy.random()

    for stop in stops(None):
        assert differs(lambda: DataLoader(Noisy(), BATCH, shuffle=True), stop) is None


def drawing(engine):
    engine.add_event_handler(Events.GET_BATCH_STARTED, lambda: (random.random(), numpy.random.rand(), torch.rand(())))


@quiet
@pytest.mark.parametrize("epoch_length", [None, 5])
@pytest.mark.parametrize("kind", [*LOADERS, *OTHERS])
def test_a_handler_may_draw_before_each_batch_is_asked_for(kind, epoch_length):
    make = (LOADERS | OTHERS)[kind]
    wrong = {stop: differs(make, stop, epoch_length=epoch_length, setup=drawing) for stop in stops(epoch_length)}
    assert {stop: found for stop, found in wrong.items() if found is not None} == {}


def draws_its_order():
    while True:
        yield from torch.randperm(4).tolist()


def draws_each():
    while True:
        yield [random.random(), float(numpy.random.rand()), torch.rand(()).item()]


class DrawsItsOrder(IterableDataset):
    def __iter__(self):
        return iter(torch.randperm(SAMPLES).tolist())


@quiet
@pytest.mark.parametrize("setup", [None, drawing])
@pytest.mark.parametrize(
    ("make", "epoch_length"), [(draws_each, 5), (lambda: DataLoader(DrawsItsOrder(), BATCH), None)]
)
def test_what_is_read_again_draws_nothing_from_the_numbers_of_the_run(make, epoch_length, setup):
    for stop in stops(epoch_length):
        assert differs(make, stop, epoch_length=epoch_length, setup=setup) is None


@quiet
def test_an_iterator_that_draws_an_order_when_it_begins_goes_on_in_it():
    for stop in [(Events.ITERATION_COMPLETED, 1), (Events.ITERATION_COMPLETED, 3)]:
        assert differs(draws_its_order, stop, epochs=1, epoch_length=4, setup=drawing) is None


def test_reading_again_is_told_with_what_it_draws():
    _, state = run(draws_each, stop=(Events.ITERATION_COMPLETED, 6), epoch_length=5)
    with pytest.warns(UserWarning, match=r"first 6 batches of the generator.*global generators.*generator of its own"):
        run(draws_each, state=state, epoch_length=5)
