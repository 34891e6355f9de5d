"""Fewer batches an epoch: a number or a fraction of them."""

import pytest
from random_samples import Stream, engine_on, seen_in
from torch.utils.data import DataLoader

from leyden.engine import Engine
from leyden.handlers import Evaluate
from leyden.handlers.data import CombinedLoader, LimitBatches


def batches_in_an_epoch(limit, total):
    engine, seen = engine_on(LimitBatches(limit))
    engine.run(list(range(total)), max_epochs=1)
    assert engine.state.epoch_length == len(seen)
    return len(seen)


@pytest.mark.parametrize(
    ("limit", "total", "batches"),
    [(0.25, 64, 16), (1.0, 64, 64), (1, 64, 1), (10, 64, 10), (64, 10, 10), (0.29, 100, 29), (0.999, 3, 2)],
)
def test_how_many_batches_a_limit_means(limit, total, batches):
    assert batches_in_an_epoch(limit, total) == batches


def test_each_epoch_begins_the_data_anew():
    assert seen_in([1, 2, 3, 4], LimitBatches(2), epochs=3) == [1, 2] * 3


def test_no_batch_is_read_that_is_not_used():
    class Counting:
        read = 0

        def __iter__(self):
            for i in range(10):
                self.read += 1
                yield i

    data = Counting()
    assert seen_in(data, LimitBatches(3)) == [0, 1, 2] * 2
    assert data.read == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_and_without_workers(workers):
    loader = DataLoader(range(20), batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    seen = seen_in(loader, LimitBatches(0.3))
    assert [batch.tolist() for batch in seen] == [[0, 1], [2, 3], [4, 5]] * 2


def test_data_without_a_length_is_limited_by_a_number():
    assert len(seen_in(DataLoader(Stream(), batch_size=2), LimitBatches(3))) == 6
    assert len(seen_in(DataLoader(Stream(4), batch_size=2), LimitBatches(3))) == 4


def test_what_the_loader_has_can_be_had_from_the_limited_one():
    engine, _ = engine_on(LimitBatches(2))
    loader = DataLoader(range(20), batch_size=2)
    engine.run(loader)
    assert engine.state.dataloader.sampler is loader.sampler
    assert len(engine.state.dataloader) == 2
    assert not hasattr(engine.state.dataloader, "state_dict")


def test_it_limits_the_whole_of_several_loaders():
    assert seen_in(CombinedLoader([[1, 2, 3], [4, 5, 6]], "sequential"), LimitBatches(4), epochs=1) == [
        (0, 1), (0, 2), (0, 3), (1, 4),
    ]  # fmt: skip


def test_it_is_for_one_engine():
    evaluator, evaluated = engine_on()
    trainer, trained = engine_on(LimitBatches(2), Evaluate(evaluator, range(5)))
    trainer.run(range(9))
    assert (len(trained), len(evaluated)) == (2, 5)
    evaluator, evaluated = engine_on(LimitBatches(2))
    trainer, trained = engine_on(Evaluate(evaluator, range(5)))
    trainer.run(range(9))
    assert (len(trained), len(evaluated)) == (9, 2)


def test_a_run_without_data_has_nothing_to_limit():
    assert seen_in(None, LimitBatches(2), max_iters=3) == [None] * 3


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_fraction_of_which_no_batch_is_left():
    engine, seen = engine_on(LimitBatches(0.001))
    with pytest.raises(ValueError, match=r"LimitBatches\(0.001\) of 64 batches is 0 batches; give at least 0.016"):
        engine.run(list(range(64)))
    assert seen == []


def test_a_fraction_of_data_without_a_length():
    engine, _ = engine_on(LimitBatches(0.5))
    with pytest.raises(ValueError, match="a fraction of the data's batches, but the length of DataLoader is not known"):
        engine.run(DataLoader(Stream(), batch_size=2))


def test_an_iterator():
    engine, _ = engine_on(LimitBatches(2))
    with pytest.raises(ValueError, match=r"which an iterator \(list_iterator\) can't; run\(data, epoch_length=n\)"):
        engine.run(iter([1, 2, 3]))


@pytest.mark.parametrize("limit", [0, -1, 0.0, 1.5, -0.5, float("nan")])
def test_numbers_that_are_no_limit(limit):
    with pytest.raises(ValueError, match=f"but got {limit}"):
        LimitBatches(limit)


@pytest.mark.parametrize("limit", [True, None, "10"])
def test_what_is_no_number(limit):
    with pytest.raises(TypeError, match=r"takes a number of batches .* or a fraction of them .* but got"):
        LimitBatches(limit)


def test_two_of_them():
    engine = Engine(lambda engine, batch: None)
    engine.attach(LimitBatches(2))
    with pytest.raises(ValueError, match="both say how many batches an epoch has; attach one of them"):
        engine.attach(LimitBatches(2))
