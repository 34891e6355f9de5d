"""An epoch is one pass over the data, however long its len() says it is."""

import warnings

import pytest
import torch
from passes import Indices
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

from leyden.engine import Engine, Events, Update, supervised_trainer
from leyden.handlers import CombinedLoader, GradientAccumulation, LimitBatches


class Says(IterableDataset):
    """The numbers from 0 on, shared out to workers as torch's documentation does."""

    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from (float(i) for i in range(first, self.gives, step))


class Some(Sampler):
    """Says `says` indices and gives `gives`."""

    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(range(self.gives))


class SaysBatches:
    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(torch.arange(self.gives))


def gone_through(data, epochs=1, attached=(), **limits):
    """The samples of each epoch, and the epoch_length that the state had at the end of each."""
    seen = [[] for _ in range(epochs)]
    lengths = []
    engine = Engine(
        lambda engine, batch: seen[engine.state.epoch - 1].extend(torch.as_tensor(batch).flatten().tolist())
    )
    engine.attach(*attached)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: lengths.append(engine.state.epoch_length))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Length of IterableDataset")  # torch's own word on it
        engine.run(data, max_epochs=epochs, **limits)
    return seen, lengths


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterable_dataset_gives_all_that_its_workers_have(workers):
    seen, lengths = gone_through(DataLoader(Says(10, 10), 4, num_workers=workers), epochs=2)
    assert [sorted(samples) for samples in seen] == [list(range(10))] * 2
    assert lengths == [{0: 3, 2: 4}[workers]] * 2


@pytest.mark.parametrize("data", [
    lambda: DataLoader(Says(10, 6), 2),
    lambda: DataLoader(Indices(10), 2, sampler=Some(10, 6)),
    lambda: DataLoader(Indices(10), batch_sampler=SaysBatches(5, 3)),
    lambda: DataLoader(torch.arange(10), None, sampler=Some(10, 6)),
    lambda: SaysBatches(10, 6),
])  # fmt: skip
def test_a_pass_that_ends_early_ends_the_epoch_and_is_not_begun_anew(data):
    loader = data()
    if isinstance(getattr(loader, "batch_sampler", None), SaysBatches):
        loader.batch_sampler.__class__ = type("Batches", (SaysBatches,), {
            "__iter__": lambda self: iter([[2 * i, 2 * i + 1] for i in range(self.gives)]),
        })  # fmt: skip
    seen, lengths = gone_through(loader, epochs=2)
    assert seen == [list(range(6))] * 2
    assert lengths == [3 if len(loader) == 5 else 6] * 2


@pytest.mark.parametrize("data", [
    lambda: DataLoader(Indices(10), 2, sampler=Some(4, 10)), lambda: SaysBatches(4, 10)
])  # fmt: skip
def test_a_pass_that_goes_on_after_its_length_is_gone_through(data):
    seen, _ = gone_through(data(), epochs=2)
    assert seen == [list(range(10))] * 2


def test_a_limit_is_one_of_the_pass():
    assert gone_through(SaysBatches(4, 10), epochs=2, attached=[LimitBatches(3)])[0] == [[0, 1, 2]] * 2
    assert gone_through(SaysBatches(4, 2), epochs=2, attached=[LimitBatches(3)])[0] == [[0, 1]] * 2


@pytest.mark.parametrize(("mode", "ends"), [("min_size", 2), ("max_size", 5)])
def test_loaders_together_end_as_their_passes_do(mode, ends):
    counts = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: counts.append(engine.state.iteration))
    engine.run(CombinedLoader([SaysBatches(3, 2), SaysBatches(3, 5)], mode), max_epochs=2)
    assert counts == [ends, 2 * ends]


def test_an_epoch_length_that_the_user_gives_is_kept():
    assert gone_through(SaysBatches(10, 3), epochs=2, epoch_length=4)[0] == [[0, 1, 2, 0], [1, 2, 0, 1]]


def test_a_length_that_is_right_for_sure_is_known_before_the_pass_ends():
    ends = []
    engine = Engine(lambda engine, batch: ends.append(engine.last_iteration))
    for data in [range(3), DataLoader(Indices(6), 2, shuffle=True)]:
        engine.run(data, max_epochs=1)
    assert ends == [3] * 6


def test_a_dataset_that_grows_between_epochs_is_gone_through_as_it_is_then():
    dataset = Indices(4)
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch.tolist()))
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(dataset, "total", 2 + 2 * engine.state.epoch))
    lengths = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: lengths.append(engine.state.epoch_length))
    engine.run(DataLoader(dataset, 2), max_epochs=3)
    assert lengths == [2, 3, 4]
    assert seen[5:] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_window_that_is_open_when_a_pass_ends_early_keeps_its_mean():
    """Windows of 4 batches; the pass gives 6 of the 10 it says."""
    targets = torch.arange(10.0)

    def weight(says):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), torch.nn.functional.mse_loss)
        trainer.attach(GradientAccumulation(4))
        trainer.run(DataLoader(torch.utils.data.TensorDataset(targets[:, None], 2 * targets[:, None]), 1,
                               sampler=Some(says, 6)), max_epochs=2)  # fmt: skip
        return model.weight.item(), trainer.state.step

    by_hand = torch.ones(())
    for _ in range(2):
        for window in (targets[:4], targets[4:6]):
            by_hand = by_hand - 0.01 * (2 * (by_hand * window - 2 * window) * window).mean()
    for says in (3, 6, 10):
        assert weight(says) == (pytest.approx(by_hand.item(), rel=1e-5), 4)


def test_data_without_end_whose_length_is_meant_for_epochs_is_told():
    class Endless:
        def __len__(self):
            return 20

        def __iter__(self):
            while True:
                yield 0

    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=60), engine.terminate)
    with pytest.warns(UserWarning, match=r"Endless.* has the length 20, but has given 40 batches.*epoch_length"):
        engine.run(Endless(), max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Engine(lambda engine, batch: None).run(Endless(), 5, epoch_length=20).iteration == 100


def test_an_update_by_hand_steps_once_for_what_an_early_end_leaves():
    parameter = torch.nn.Parameter(torch.zeros(()))
    module = torch.nn.ParameterList([parameter])

    def step(engine, batch):
        update.backward((module[0] - batch.float()) ** 2)

    engine = Engine(step)
    update = Update(engine, module, torch.optim.SGD(module.parameters(), lr=0.5))
    engine.attach(GradientAccumulation(4))
    engine.run(SaysBatches(10, 2), max_epochs=1)
    assert parameter.item() == 0.5  # one step of the mean of 0 and 1
