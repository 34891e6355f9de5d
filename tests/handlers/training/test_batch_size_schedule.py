"""Another batch size from epoch to epoch: batches, lengths and weights as the loop by hand has them."""

from collections import Counter

import pytest
import torch
from batch_size_ranks import batches_of_rank
from by_hand import equal, loss_fn, net, sgd
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, supervised_trainer
from leyden.handlers import GradientAccumulation
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.parallel.dealing import Deal, deal_data
from leyden.handlers.training import Linear, Piecewise
from leyden.handlers.training.batch_size_schedule import BatchSizeSchedule

SIZES = {1: 2, 2: 5, 4: 8}
OF_EPOCH = [2, 5, 5, 8]


def samples(number=20):
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(number, 6, generator=generator), torch.randn(number, 2, generator=generator))


def loader(size=1, **settings):
    return DataLoader(samples(), batch_size=size, **settings)


def watched(*handlers, data, process=None, **limits):
    """{epoch: its batches of numbers}, and what EPOCH_STARTED and EPOCH_COMPLETED found: (epoch_length, iteration)."""
    seen, started, completed = {}, [], []
    engine = Engine(lambda engine, batch: seen.setdefault(engine.state.epoch, []).append(batch.tolist()))
    engine.attach(*handlers)
    for event, notes in ((Events.EPOCH_STARTED, started), (Events.EPOCH_COMPLETED, completed)):
        engine.add_event_handler(
            event, lambda notes=notes: notes.append((engine.state.epoch_length, engine.state.iteration))
        )
    engine.run(data, **limits)
    return seen, started, completed, engine


# -- the loop by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
def test_it_is_the_loop_by_hand_to_the_bit(drop_last):
    ours, theirs = net(), net()
    settings = {"shuffle": True, "drop_last": drop_last}
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(BatchSizeSchedule(SIZES))
    torch.manual_seed(3)
    trainer.run(loader(**settings), max_epochs=4)

    optimizer = sgd(theirs)
    torch.manual_seed(3)
    for size in OF_EPOCH:
        for x, y in loader(size, **settings):
            loss_fn(theirs(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert equal(ours, theirs)


def test_it_is_so_too_under_accumulation():
    """The epoch's last window is as long as the new length leaves it."""
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(3), BatchSizeSchedule(SIZES))
    trainer.run(loader(), max_epochs=4)

    optimizer = sgd(theirs)
    for size in OF_EPOCH:
        data = list(loader(size))
        for i, (x, y) in enumerate(data):
            window = min(3, len(data) - i // 3 * 3)
            (loss_fn(theirs(x), y) / window).backward()
            if (i + 1) % 3 == 0 or i + 1 == len(data):
                optimizer.step()
                optimizer.zero_grad()
    assert equal(ours, theirs)


def test_a_window_that_is_carried_over_is_filled_by_a_longer_epoch():
    """Epochs of 1 and 4 batches, windows of 3: full after the 3rd batch; what the end of the run leaves is stepped."""
    model, steps = net(), []
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(BatchSizeSchedule({1: 4, 2: 1}), GradientAccumulation(3, tail="carry"))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: steps.append(trainer.state.step))
    trainer.run(DataLoader(samples(4)), max_epochs=2)
    assert steps == [0, 0, 1, 1, 2]


# -- what an epoch sees ------------------------------------------------------------------------------------------------


def test_each_epoch_sees_each_sample_once_in_batches_of_its_size():
    seen, started, completed, _ = watched(
        BatchSizeSchedule(SIZES), data=DataLoader(range(20), shuffle=True), max_epochs=5
    )
    for epoch, size in zip(range(1, 6), [*OF_EPOCH, 8], strict=True):
        assert Counter(number for batch in seen[epoch] for number in batch) == Counter(range(20))
        assert {len(batch) for batch in seen[epoch][:-1]} == {size}
    assert started == [(10, 0), (4, 10), (4, 14), (3, 18), (3, 21)]
    assert completed == [(10, 10), (4, 14), (4, 18), (3, 21), (3, 24)]


def test_before_its_first_epoch_the_loader_has_its_own_size():
    data = DataLoader(range(6), batch_size=3)
    seen, _, _, engine = watched(BatchSizeSchedule({2: 2}), data=data, max_epochs=2)
    assert seen == {1: [[0, 1, 2], [3, 4, 5]], 2: [[0, 1], [2, 3], [4, 5]]}
    assert (data.batch_size, len(data)) == (3, 2)
    assert engine.state.dataloader.batch_size == 2


@pytest.mark.parametrize("shape", [Linear(1, 3, 2), Piecewise({0: 1, 1: 2.4, 2: 2.9}, interpolate=False)])
def test_a_shape_of_the_epoch(shape):
    _, started, _, _ = watched(BatchSizeSchedule(shape), data=DataLoader(range(6)), max_epochs=4)
    assert [length for length, _ in started] == [6, 3, 2, 2]


def test_smaller_batches_make_longer_epochs():
    _, started, _, _ = watched(BatchSizeSchedule({1: 4, 2: 2, 3: 1}), data=DataLoader(range(8)), max_epochs=3)
    assert started == [(2, 0), (4, 2), (8, 6)]


def test_data_is_made_anew_only_where_the_size_changes():
    made = []

    class Noted(BatchSizeSchedule):
        def attach(self, engine):
            super().attach(engine)
            engine.data_setup.add(DataStage.SEED, lambda data: made.append(data.batch_size) or data)

    watched(Noted({1: 2, 3: 4, 5: 4}), data=DataLoader(range(8)), max_epochs=6)
    assert made == [2, 4]


def test_a_run_of_iterations_ends_where_it_should():
    seen, _, _, engine = watched(BatchSizeSchedule({1: 2, 2: 4}), data=DataLoader(range(8)), max_iters=7)
    assert seen == {1: [[0, 1], [2, 3], [4, 5], [6, 7]], 2: [[0, 1, 2, 3], [4, 5, 6, 7]], 3: [[0, 1, 2, 3]]}
    assert engine.state.epoch == 3


def test_where_the_user_fixed_the_length_a_new_size_begins_the_data_anew():
    seen, started, _, _ = watched(
        BatchSizeSchedule({1: 1, 3: 2}), data=DataLoader(range(5)), max_epochs=4, epoch_length=2
    )
    assert seen == {1: [[0], [1]], 2: [[2], [3]], 3: [[0, 1], [2, 3]], 4: [[4], [0, 1]]}
    assert [length for length, _ in started] == [2, 2, 2, 2]


def test_an_iterable_dataset():
    class Numbers(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    seen, _, completed, _ = watched(BatchSizeSchedule({1: 1, 2: 3}), data=DataLoader(Numbers()), max_epochs=2)
    assert seen == {1: [[0], [1], [2], [3]], 2: [[0, 1, 2], [3]]}
    assert completed == [(4, 4), (2, 6)]


def test_a_restarted_run_begins_with_the_first_size():
    schedule = BatchSizeSchedule({1: 2, 2: 4})
    seen, _, _, engine = watched(schedule, data=DataLoader(range(4)), max_epochs=2)
    before = dict(seen)
    seen.clear()
    engine.run(DataLoader(range(4)), max_epochs=2)
    assert seen == before
    engine.run(DataLoader(range(4)), max_epochs=3)
    assert seen[3] == [[0, 1, 2, 3]]


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", [3, 10, 13, 14, 19])
def test_a_run_killed_anywhere_goes_on_from_its_checkpoint(killed_at, tmp_path):
    def run(*handlers, dies_at=0):
        model, seen = net(), []
        trainer = supervised_trainer(model, sgd(model), loss_fn)
        trainer.attach(BatchSizeSchedule(SIZES), *handlers)

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(engine):
            if engine.state.iteration == dies_at:
                raise KeyboardInterrupt
            seen.append(
                (engine.state.epoch, engine.state.iteration, engine.state.epoch_length, len(engine.state.batch[0]))
            )

        trainer.run(loader(), max_epochs=4)
        return model, seen

    expected, all_seen = run()
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED), dies_at=killed_at + 1)
    again, seen = run(Checkpoint(tmp_path, resume="auto"))
    assert seen == all_seen[killed_at:]
    assert equal(again, expected)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_of_fixed_length_goes_on_between_two_epochs(epochs):
    """Also where the next one has another size, and so begins the data anew."""

    def make():
        seen = []
        engine = Engine(lambda engine, batch: seen.append(batch.tolist()))
        engine.attach(BatchSizeSchedule({1: 1, 2: 2}))
        return engine, seen

    engine, expected = make()
    engine.run(DataLoader(range(8)), max_epochs=4, epoch_length=2)
    engine, first = make()
    engine.run(DataLoader(range(8)), max_epochs=epochs, epoch_length=2)
    state = engine.state_dict()
    engine, second = make()
    engine.load_state_dict(state)
    engine.run(DataLoader(range(8)), max_epochs=4)
    assert first + second == expected


def test_an_interrupted_run_goes_on():
    def run(stops):
        seen, data = [], DataLoader(range(8))
        engine = Engine(lambda engine, batch: seen.append(batch.tolist()))
        engine.attach(BatchSizeSchedule({1: 2, 2: 4}))
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stops), engine.interrupt)
        for _ in range(len(stops) + 1):
            engine.run(data, max_epochs=2)
        return seen

    assert run(stops=[3, 4, 5]) == run(stops=[100])[:6]


# -- beside a dealer ---------------------------------------------------------------------------------------------------


def test_the_size_is_that_of_one_rank():
    shares = []
    for rank in range(2):
        deal = Deal(rank, 2, seed=7, even=True)

        class Dealer:
            def attach(self, engine, deal=deal):
                engine.data_setup.add(DataStage.DEAL, lambda data: deal_data(data, deal))

        shares.append(watched(Dealer(), BatchSizeSchedule({1: 2, 2: 3}), data=DataLoader(range(12)), max_epochs=2))
    for (seen, started, _, _), (other, _, _, _) in (shares, shares[::-1]):
        assert [len(batch) for batch in seen[1]] == [2, 2, 2]
        assert [len(batch) for batch in seen[2]] == [3, 3]
        assert started == [(3, 0), (2, 3)]
        for epoch in (1, 2):
            assert sorted(n for share in (seen, other) for batch in share[epoch] for n in batch) == list(range(12))


@pytest.mark.slow
def test_two_ranks():
    ours, theirs = dist.launch(batches_of_rank, 2, backend="gloo", timeout=20)
    for epoch, size in ((1, 2), (2, 2), (3, 3)):
        batches = ours[0][epoch] + theirs[0][epoch]
        assert {len(batch) for batch in batches} == {size}
        assert sorted(number for batch in batches for number in batch) == list(range(24))
    assert ours[0][1] != ours[0][2]  # the order is drawn anew
    assert ours[1] == theirs[1] == [6, 6, 4]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "error", "said"),
    [
        (32, TypeError, "takes {epoch: size} or a shape of the epoch, but got 32"),
        ({}, TypeError, "takes {epoch: size} or a shape of the epoch, but got {}"),
        ({1: 2.5}, TypeError, r"a batch size is a whole number, but got 2\.5"),
        ({1: 0}, ValueError, "a batch size is at least 1, but got 0"),
        ({-1: 2}, ValueError, "has the epoch -1; epochs are counted from 1"),
        ({0: 2, 3: 4}, ValueError, "has the epoch 0; epochs are counted from 1, as state.epoch .* add 1 to each"),
        ({"1": 2}, TypeError, "has the epoch '1'; epochs are whole numbers"),
    ],
)
def test_what_is_no_schedule(sizes, error, said):
    with pytest.raises(error, match=said):
        BatchSizeSchedule(sizes)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ([[1], [2]], TypeError, "only a torch DataLoader's batch size can be changed, but the data is a list"),
        (DataLoader(range(4), batch_size=None), ValueError, "does not batch"),
        (DataLoader(range(4), batch_sampler=[[0, 1], [2]]), ValueError, "has a batch sampler of its own"),
        (
            DataLoader(range(4), drop_last=True),
            ValueError,
            r"batches of 5, of which .* \(4 samples, drop_last=T",
        ),
    ],
    ids=["a list", "no batching", "a batch sampler", "too short"],
)
def test_data_that_cannot_be_batched_is_told_before_the_first_epoch(data, error, said):
    engine = Engine(lambda engine, batch: None)
    engine.attach(BatchSizeSchedule({4: 5}))
    with pytest.raises(error, match=said):
        engine.run(data, max_epochs=4)
    assert engine.state.iteration == 0


def test_a_shape_that_falls_below_one():
    with pytest.raises(ValueError, match="a batch size is at least 1, but got 0"):
        watched(BatchSizeSchedule(Linear(2, 0, 2)), data=DataLoader(range(4)), max_epochs=3)


def test_two_of_them():
    engine = Engine(lambda engine, batch: None)
    engine.attach(BatchSizeSchedule({1: 2}))
    with pytest.raises(ValueError, match="BatchSizeSchedule and BatchSizeSchedule can't both be attached"):
        engine.attach(BatchSizeSchedule({1: 3}))
