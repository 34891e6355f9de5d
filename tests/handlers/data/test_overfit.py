"""The same few batches in each epoch."""

import itertools

import pytest
import torch
from random_samples import Augmented, batches_seen, engine_on, loader_of, masked, same, seen_in, train

from leyden.engine import Engine, Events
from leyden.handlers import Checkpoint
from leyden.handlers.data import CombinedLoader, LimitBatches, Overfit, Reproducible


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("handlers", [(), (Reproducible,)], ids=["alone", "with Reproducible"])
def test_each_epoch_has_the_same_batches_in_the_same_order(workers, handlers):
    loader = loader_of(workers, Augmented(), collate_fn=masked)
    seen = seen_in(loader, Overfit(2), *(make(4) for make in handlers), epochs=3)
    assert len(seen) == 6
    assert not same(seen[0], seen[1])
    assert same(seen[:2], seen[2:4])
    assert same(seen[:2], seen[4:])


def test_the_batches_are_the_same_whoever_loads_them_and_in_any_order_of_attaching():
    seen = [
        seen_in(loader_of(workers, Augmented()), *handlers)
        for workers, handlers in (
            (0, (Overfit(2), Reproducible(4))),
            (1, (Reproducible(4), Overfit(2))),
        )
    ]
    assert same(*seen)
    assert same(seen_in(loader_of(0, Augmented()), Overfit(2)), seen_in(loader_of(1, Augmented()), Overfit(2)))


@pytest.mark.parametrize("handlers", [(), (Reproducible,)], ids=["alone", "with Reproducible"])
@pytest.mark.parametrize("last", [2, 3, 5])
def test_a_resumed_run_has_the_same_batches(handlers, last, tmp_path):
    def run(workers, *more, ends=None):
        torch.manual_seed(torch.seed() % 2**30)
        engine = Engine(lambda engine, batch: None)
        engine.attach(*(make(4) for make in handlers), Overfit(2), *more)
        seen = batches_seen(engine)
        if ends:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=ends), engine.interrupt)
        engine.run(loader_of(workers, Augmented()), max_epochs=4)
        return seen

    whole = run(0)
    before = run(0, Checkpoint(tmp_path), ends=last)
    after = run(1, Checkpoint(tmp_path, resume="auto"))
    assert same(whole, before + after)


def test_they_are_loaded_once():
    class Counting(Augmented):
        loaded = 0

        def __getitem__(self, index):
            self.loaded += 1
            return super().__getitem__(index)

    dataset = Counting()
    seen_in(loader_of(0, dataset), Overfit(2), epochs=5)
    assert dataset.loaded == 8


def test_a_process_function_may_work_in_place():
    seen = []

    def process(engine, batch):
        seen.append(batch.tolist())
        batch.zero_()

    engine = Engine(process)
    engine.attach(Overfit(1))
    data = [torch.tensor([1, 2])]
    engine.run(data, max_epochs=2)
    assert seen == [[1, 2]] * 2
    assert data[0].tolist() == [1, 2]


def test_a_fraction_and_the_length():
    engine, seen = engine_on(Overfit(0.25))
    engine.run(list(range(64)), max_epochs=2)
    assert seen == list(range(16)) * 2
    assert (engine.state.epoch_length, len(engine.state.dataloader)) == (16, 16)


def test_data_with_fewer_batches_and_data_without_a_length():
    assert seen_in([1, 2], Overfit(5)) == [1, 2] * 2
    assert seen_in(itertools.count(), Overfit(2), epochs=3) == [0, 1] * 3
    assert seen_in(None, Overfit(2), max_iters=3) == [None] * 3


def test_an_iterator_keeps_its_batches_for_the_next_run():
    engine, seen = engine_on(Overfit(2))
    data = iter(range(10))
    engine.run(data, max_epochs=1)
    engine.run(data, max_epochs=2)
    assert seen == [0, 1] * 2


def test_several_loaders():
    data = CombinedLoader({"a": loader_of(0, Augmented()), "b": loader_of(0, Augmented())})
    seen = seen_in(data, Overfit(2), epochs=2)
    assert same(seen[:2], seen[2:])
    assert not same(seen[0]["a"], seen[0]["b"])


def test_a_model_learns_them_alike_with_any_number_of_workers():
    models = [train(loader_of(workers), Overfit(2), Reproducible(1)) for workers in (0, 2)]
    assert all(map(torch.equal, *(model.parameters() for model in models)))


@pytest.mark.parametrize("other", [Overfit, LimitBatches])
def test_another_that_says_how_many_batches_there_are(other):
    for first, second in ((Overfit, other), (other, Overfit)):
        engine = Engine(lambda engine, batch: None)
        engine.attach(first(2))
        with pytest.raises(ValueError, match="both say how many batches an epoch has; attach one of them"):
            engine.attach(second(2))


def test_numbers_that_are_none():
    with pytest.raises(ValueError, match="Overfit needs at least 1 batch, but got 0"):
        Overfit(0)
    with pytest.raises(TypeError, match="Overfit takes a number of batches"):
        Overfit("1")
    engine, _ = engine_on(Overfit(0.01))
    with pytest.raises(ValueError, match=r"Overfit\(0.01\) of 3 batches is 0 batches"):
        engine.run([1, 2, 3])
