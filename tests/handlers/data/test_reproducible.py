"""Runs that can be run again: seeds of the process, of the order of samples, and of what is drawn in each."""

import copy
import functools
import os
import pickle
import random

import numpy
import pytest
import torch
from random_samples import (
    TOTAL,
    Augmented,
    AugmentedAtOnce,
    Drawing,
    Stream,
    WorkerSeeds,
    batches_seen,
    dropout_net,
    engine_on,
    equal,
    loader_of,
    mark_dataset,
    masked,
    same,
    seen_in,
    seen_on_ranks,
    train,
)
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, supervised_trainer
from leyden.handlers import Checkpoint, Evaluate
from leyden.handlers.data import CombinedLoader, LimitBatches, Reproducible, seed_everything
from leyden.handlers.parallel.dealing import Deal, deal_data


def values_by_epoch_and_index(seen, batches_an_epoch):
    """{(epoch, index): what was drawn}."""
    return {
        (1 + position // batches_an_epoch, index.item()): tuple(values.tolist())
        for position, (indices, drawn, *_) in enumerate(seen)
        for index, values in zip(indices, drawn, strict=True)
    }


# -- the process -------------------------------------------------------------------------------------------------------


def test_a_run_is_the_loop_by_hand_after_the_same_seed():
    data = [(torch.ones(3, 6), torch.zeros(3, 2))] * 5
    model = dropout_net()
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for x, y in data:
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert equal(train(data, Reproducible(7)), model)


def test_python_numpy_and_torch_are_seeded_at_the_beginning_and_the_state_knows_the_seed():
    def draws(seed):
        engine, drawn = Engine(lambda engine, batch: None), []
        engine.add_event_handler(
            Events.STARTED, lambda: drawn.append((random.random(), numpy.random.rand(), torch.rand(()).item()))
        )
        engine.attach(Reproducible(seed))
        assert engine.state.seed == seed
        engine.run([1])
        engine.state.max_epochs = None
        engine.run([1])
        return drawn

    first, again = draws(3)
    assert first == again == draws(3)[0]
    assert len({*first, *draws(4)[0]}) == 6


def test_a_run_that_is_continued_is_not_seeded_again():
    engine, drawn = Engine(lambda engine, batch: None), []
    engine.add_event_handler(Events.STARTED, lambda: drawn.append(torch.rand(()).item()))
    engine.attach(Reproducible(3))
    engine.run([1], max_epochs=1)
    engine.run([1], max_epochs=2)
    torch.manual_seed(3)
    assert drawn == [torch.rand(()).item(), torch.rand(()).item()]


def test_seed_everything_is_for_what_comes_before_the_run():
    def drawn():
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    assert seed_everything(5) == 5
    first = drawn()
    seed_everything(5)
    assert drawn() == first


def test_deterministic_algorithms_are_required_in_the_run_and_only_there(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)

    def settings():
        enabled = torch.are_deterministic_algorithms_enabled()
        return enabled, torch.is_deterministic_algorithms_warn_only_enabled(), cudnn.deterministic, cudnn.benchmark

    before = settings()
    for deterministic, warns_only in ((True, False), ("warn", True)):
        seen = []
        engine = Engine(lambda engine, batch, seen=seen: seen.append(settings()) or 1 // batch)
        engine.attach(Reproducible(deterministic=deterministic))
        with pytest.raises(ZeroDivisionError):
            engine.run([1, 0])
        assert seen == [(True, warns_only, True, False)] * 2
        assert settings() == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


# -- samples -----------------------------------------------------------------------------------------------------------


def test_training_is_equal_to_the_bit_with_any_number_of_workers():
    """With dropout, and samples that draw from python, numpy and torch."""
    models = [train(loader_of(workers), Reproducible(1)) for workers in (0, 1, 2)]
    assert equal(models[0], models[1])
    assert equal(models[0], models[2])
    assert not equal(models[0], train(loader_of(0), Reproducible(2)))


def test_what_a_sample_draws_follows_from_seed_epoch_and_index_alone():
    of_fours = values_by_epoch_and_index(seen_in(loader_of(0, Augmented()), Reproducible(1)), 4)
    of_fives = values_by_epoch_and_index(seen_in(loader_of(1, Augmented(), batch_size=5), Reproducible(1)), 3)
    in_order = values_by_epoch_and_index(seen_in(loader_of(0, Augmented(), shuffle=False), Reproducible(1)), 4)
    assert of_fours == of_fives == in_order
    assert len(set(of_fours.values())) == 2 * TOTAL
    assert len({value for values in of_fours.values() for value in values}) == 3 * 2 * TOTAL


def test_the_order_is_anew_in_each_epoch_and_the_same_in_each_run():
    def order(seed):
        seen = seen_in(loader_of(0, range(30), batch_size=30), Reproducible(seed), epochs=3)
        return [batch.tolist() for batch in seen]

    assert order(1) == order(1)
    assert len({str(each) for each in order(1) + order(2)}) == 6


@pytest.mark.parametrize(
    "make",
    [
        lambda workers: loader_of(workers, TensorDataset(torch.arange(TOTAL))),
        lambda workers: loader_of(workers, Augmented(), collate_fn=masked),
        lambda workers: loader_of(workers, list(zip(range(TOTAL), torch.rand(TOTAL), strict=True)), collate_fn=masked),
        lambda workers: loader_of(workers, AugmentedAtOnce()),
        lambda workers: loader_of(workers, Subset(Augmented(), range(3, 11))),
        lambda workers: loader_of(workers, Augmented(), batch_size=None),
        lambda workers: loader_of(workers, Augmented(), sampler=Drawing(), shuffle=False),
        lambda workers: loader_of(workers, Augmented(), sampler=WeightedRandomSampler([1.0] * TOTAL, 8), shuffle=False),
        lambda workers: loader_of(workers, Augmented(), generator=torch.Generator().manual_seed(workers)),
    ],
    ids=[
        "tensors", "a collate function that draws", "lists and such a function", "__getitems__", "a subset",
        "batch_size=None", "a sampler of one's own", "with replacement", "a generator of one's own",
    ],
)  # fmt: skip
def test_every_kind_of_loader_gives_the_same_whoever_loads(make):
    torch.manual_seed(0)
    here = make(0)
    torch.manual_seed(0)
    there = make(2)
    seen = seen_in(here, Reproducible(1))
    assert same(seen, seen_in(there, Reproducible(1)))
    assert not same(seen[: len(seen) // 2], seen[len(seen) // 2 :])


def test_a_subset_draws_per_sample_though_it_has_getitems():
    def values(batch_size):
        loader = loader_of(0, Subset(Augmented(), range(TOTAL)), batch_size=batch_size)
        return values_by_epoch_and_index(seen_in(loader, Reproducible(1)), len(loader))

    assert values(2) == values(5)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_process(workers):
    dataset = Augmented()
    states = []
    engine, _ = engine_on(Reproducible(1))
    engine.add_event_handler(
        Events.EPOCH_STARTED | Events.ITERATION_STARTED,
        lambda: states.append((random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist())),
    )
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    engine.run(loader_of(workers, dataset, collate_fn=masked, generator=generator), max_epochs=2)
    assert all(state == states[0] for state in states)
    assert torch.equal(generator.get_state(), before)


def test_the_loader_is_the_users_own_and_the_dataset_seems_to_be():
    loader = loader_of(0, Augmented())
    parts = loader.dataset, loader.sampler, loader.batch_sampler, loader.collate_fn, loader.generator
    engine, seen = engine_on(Reproducible())
    engine.run(loader)
    assert parts == (loader.dataset, loader.sampler, loader.batch_sampler, loader.collate_fn, loader.generator)
    ours = engine.state.dataloader
    assert isinstance(ours, DataLoader)
    assert (ours.dataset.name, len(ours.dataset), len(ours), ours.batch_size) == ("augmented", TOTAL, 4, 4)
    assert ours.dataset[3][0] == 3
    assert ours.batch_sampler.drop_last is False
    assert len(seen) == 4


def test_a_worker_init_fn_may_set_what_the_dataset_has():
    loader = DataLoader(Stream(), batch_size=None, num_workers=1, worker_init_fn=mark_dataset)
    assert len(seen_in(loader, Reproducible(), epochs=1)) == 3


def test_workers_are_given_the_same_seeds_in_each_run_and_others_in_each_epoch():
    """A worker_init_fn may make generators of the dataset's own from them."""
    seen = [seen_in(DataLoader(WorkerSeeds(), batch_size=20, num_workers=1), Reproducible(1)) for _ in range(2)]
    assert same(*seen)
    assert not same(seen[0][0], seen[0][1])


def test_workers_stay_from_one_evaluation_to_the_next():
    """The same loader keeps its copy, and that its workers."""
    evaluator, _ = engine_on()
    loader = loader_of(2, Augmented())
    iterators = set()
    evaluator.add_event_handler(Events.COMPLETED, lambda: iterators.add(id(evaluator.state.dataloader._iterator)))
    trainer = Engine(lambda engine, batch: None)
    trainer.attach(Evaluate(evaluator, loader), Reproducible())
    trainer.run([1], max_epochs=2)
    assert len(iterators) == 1


def test_an_evaluation_draws_the_same_each_time():
    evaluator, seen = engine_on()
    trainer = Engine(lambda engine, batch: None)
    trainer.attach(Evaluate(evaluator, loader_of(0, Augmented())), Reproducible(1))
    trainer.run(loader_of(0, Augmented()), max_epochs=3)
    assert len(seen) == 12
    assert same(seen[:4], seen[4:8])
    assert same(seen[:4], seen[8:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Augmented, Stream])
def test_workers_may_be_spawned(kind):
    def seen(**arguments):
        loader = DataLoader(kind(), batch_size=4, num_workers=1, collate_fn=masked, **arguments)
        return seen_in(loader, Reproducible(1))

    assert same(seen(), seen(multiprocessing_context="spawn", persistent_workers=True))


def test_datasets_can_be_pickled_and_copied():
    for dataset, collate in ((Augmented(), masked), (Stream(), masked)):
        engine, _ = engine_on(Reproducible())
        engine.run(DataLoader(dataset, batch_size=4, collate_fn=collate))
        loader = engine.state.dataloader
        for again in (pickle.loads(pickle.dumps(loader.dataset)), copy.copy(loader.dataset)):
            assert again.total == TOTAL
        pickle.loads(pickle.dumps(loader.collate_fn))


def test_samples_can_be_left_alone():
    loader = loader_of(0, Augmented())
    engine, _ = engine_on(Reproducible(samples=False))
    engine.run(loader)
    assert engine.state.dataloader is loader


def test_other_data_is_left_alone():
    for data in ([1, 2], iter([1, 2])):
        assert seen_in(data, Reproducible(), epochs=1) == [1, 2]
    assert seen_in(None, Reproducible(), max_iters=2) == [None, None]


# -- iterable datasets -------------------------------------------------------------------------------------------------


def test_a_stream_draws_in_this_process_what_it_draws_in_one_worker():
    for collate in (None, masked):
        here, there = (DataLoader(Stream(), 4, num_workers=workers, collate_fn=collate) for workers in (0, 1))
        assert same(seen_in(here, Reproducible(1)), seen_in(there, Reproducible(1)))


def test_workers_that_stay_draw_as_those_that_are_started_anew():
    seen = [
        seen_in(DataLoader(Stream(), 4, num_workers=2, persistent_workers=stay), Reproducible(1), epochs=3)
        for stay in (False, True)
    ]
    assert same(*seen)
    assert not same(seen[0][:4], seen[0][4:8])


# -- passes and epochs -------------------------------------------------------------------------------------------------


def test_data_that_is_begun_anew_within_an_epoch_is_drawn_anew():
    seen = seen_in(loader_of(0, Augmented(), batch_size=TOTAL), Reproducible(1), max_epochs=2, epoch_length=3)
    drawn = [str(values) for _, values in seen]
    assert len(set(drawn)) == 6


def test_loaders_of_one_engine_are_drawn_apart_and_again_when_one_begins_anew():
    def make(workers=0):
        return CombinedLoader(
            [loader_of(workers, Augmented(4), batch_size=2), loader_of(0, Augmented(8), batch_size=2)],
            "max_size_cycle",
        )

    seen = seen_in(make(), Reproducible(1), epochs=1)
    short = [row[0] for row in seen]
    assert not same(short[:2], short[2:])
    assert sorted(i for indices, _ in short[2:] for i in indices.tolist()) == [0, 1, 2, 3]
    assert same(seen, seen_in(make(1), Reproducible(1), epochs=1))
    alike = CombinedLoader([loader_of(0, range(20), batch_size=20), loader_of(0, range(20), batch_size=20)])
    ((one, other),) = seen_in(alike, Reproducible(1), epochs=1)
    assert not torch.equal(one, other)


STOPS = {
    "in mid-epoch": ({"max_epochs": 3}, 6),
    "at the end of an epoch": ({"max_epochs": 3}, 4),
    "in epochs shorter than the data": ({"max_epochs": 4, "epoch_length": 3}, 7),
    "between epochs shorter than the data": ({"max_epochs": 4, "epoch_length": 3}, 6),
    "in the second pass of a long epoch": ({"max_epochs": 2, "epoch_length": 9}, 6),
    "in a pass that began in the epoch before": ({"max_epochs": 2, "epoch_length": 7}, 8),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_resumed_run_is_the_run_that_never_stopped(stop, tmp_path):
    """In what comes and in what is learnt, with another number of workers."""
    limits, last = STOPS[stop]

    def run(workers, *handlers, ends=None):
        torch.manual_seed(torch.seed() % 2**30)
        model = dropout_net()
        trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss())
        trainer.attach(Reproducible(1), *handlers)
        seen = batches_seen(trainer)
        if ends is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=ends), trainer.interrupt)
        trainer.run(loader_of(workers), **limits)
        return model, seen

    whole, seen = run(0)
    _, before = run(0, Checkpoint(tmp_path), ends=last)
    resumed, after = run(2, Checkpoint(tmp_path, resume="auto"))
    assert same(seen, before + after)
    assert equal(whole, resumed)


def test_a_resumed_run_keeps_the_seed_it_began_with(caplog):
    first, _ = engine_on(Reproducible(1))
    first.run([1], max_epochs=1)
    second, _ = engine_on(Reproducible(2))
    second.load_state_dict(first.state_dict())
    assert second.state.seed == 1
    assert second.handlers["Reproducible"].seed == 1
    assert "goes on with its seed, 1, not with 2" in caplog.text


def test_a_run_resumed_by_another_number_of_ranks_draws_on_not_anew():
    first, _ = engine_on(Reproducible(1))
    anew = []
    first.add_event_handler(Events.STARTED, lambda: anew.append(torch.rand(()).item()))
    first.run([1, 2], max_epochs=1)
    saved = first.state_dict()
    saved["handlers"]["Reproducible"]["ranks"] = 2

    def drawn():
        second, _ = engine_on(Reproducible(1))
        second.load_state_dict(saved)
        values = []
        second.add_event_handler(Events.STARTED, lambda: values.append(torch.rand(()).item()))
        torch.manual_seed(torch.seed() % 2**30)
        second.run([1, 2], max_epochs=2)
        return values

    assert drawn() == drawn() != anew


# -- ranks -------------------------------------------------------------------------------------------------------------


def dealt(data, rank, *, seed):
    """What a rank gets to see of the data."""
    engine, seen = engine_on(Reproducible(3))
    deal = Deal(rank, 2, seed, True)
    engine.add_event_handler(Events.STARTED | Events.EPOCH_STARTED, lambda: deal.set_epoch(engine.state.epoch))
    engine.data_setup.add(DataStage.DEAL, functools.partial(deal_data, deal=deal))
    engine.run(data, max_epochs=2)
    return seen


def test_the_order_of_ranks_is_that_of_one_process_whatever_they_were_dealt_by():
    alone = seen_in(loader_of(0, Augmented()), Reproducible(3))
    for rank in (0, 1):
        share = dealt(loader_of(rank, Augmented(), batch_size=2), rank, seed=8)
        assert same(share, [[indices[rank::2], values[rank::2]] for indices, values in alone])


def test_ranks_that_take_turns_with_the_batches_of_a_stream_see_those_of_one_process():
    alone = seen_in(DataLoader(Stream(16), 4), Reproducible(3))
    for rank in (0, 1):
        assert same(dealt(DataLoader(Stream(16), 4, num_workers=rank), rank, seed=8), alone[rank::2])


@pytest.mark.slow
def test_ranks_share_the_samples_of_one_process_with_what_is_drawn_in_them():
    ours, theirs = dist.launch(seen_on_ranks, 2, args=(0,), backend="gloo", timeout=20)
    alone = seen_in(loader_of(0, Augmented()), Reproducible(3))
    for position, (indices, values) in enumerate(alone):
        mine, yours = ours[0][position], theirs[0][position]
        assert mine[0] == indices.tolist()[0::2]
        assert yours[0] == indices.tolist()[1::2]
        assert mine[1] == values.tolist()[0::2]
        assert yours[1] == values.tolist()[1::2]
    assert set(ours[1]).isdisjoint(theirs[1])  # dropout differs


# -- company and mistakes ----------------------------------------------------------------------------------------------


def test_limits_stand_after_it_in_any_order_of_attaching():
    one = seen_in(loader_of(0, Augmented()), LimitBatches(2), Reproducible(1))
    other = seen_in(loader_of(0, Augmented()), Reproducible(1), LimitBatches(2))
    assert len(one) == 4
    assert same(one, other)


def test_a_stateful_loader_goes_on_where_its_state_says():
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        return stateful.StatefulDataLoader(Augmented(), batch_size=4, shuffle=True)

    whole = seen_in(make(), Reproducible(1))
    plain = seen_in(loader_of(0, Augmented()), Reproducible(1))
    assert values_by_epoch_and_index(whole, 4) == values_by_epoch_and_index(plain, 4)
    engine, _ = engine_on(Reproducible(1))
    states = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(once=6),
        lambda: states.append((engine.state_dict(), engine.state.dataloader.state_dict())),
    )
    engine.run(make(), max_epochs=2)
    of_engine, of_loader = states[0]
    resumed, _ = engine_on(Reproducible())
    resumed.load_state_dict(of_engine)
    loader = resumed.data_setup(make())
    loader.load_state_dict(of_loader)
    assert same(list(loader), whole[6:])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_not_all_generators_take(seed):
    for make in (Reproducible, seed_everything):
        with pytest.raises(ValueError, match=f"takes a seed from 0 to .* but got {seed}"):
            make(seed)


@pytest.mark.parametrize("seed", [1.0, "1", True, None])
def test_a_seed_that_is_no_number(seed):
    for make in (Reproducible, seed_everything):
        with pytest.raises(TypeError, match="takes a whole number as its seed, but got"):
            make(seed)


def test_a_word_that_says_nothing_about_determinism():
    with pytest.raises(ValueError, match="takes deterministic=True, False or \"warn\", but got 'error'"):
        Reproducible(deterministic="error")


def test_two_of_them():
    engine, _ = engine_on(Reproducible())
    with pytest.raises(ValueError, match="a run has one seed; attach one of them"):
        engine.attach(Reproducible())
    handler = Reproducible()
    engine_on(handler)
    with pytest.raises(ValueError, match="this Reproducible seeds another engine already"):
        engine_on(handler)
