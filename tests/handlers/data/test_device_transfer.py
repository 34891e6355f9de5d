"""Batches on the device before they are needed.

There is no accelerator where these tests run. What containers become is shown with the device "meta", to which a tensor
can be moved as to any other; the order of what is done on streams with a stand-in for torch's streams, which only notes
it. That copies overlap with the work is for a run on a GPU to show.
"""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from random_samples import engine_on
from torch import nn
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events, supervised_trainer
from leyden.handlers import Evaluate
from leyden.handlers.data import CombinedLoader, DeviceTransfer, LimitBatches

Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    label: str
    made: list = field(default_factory=list, init=False)


class Moving:
    """An object with a method `to`, as HuggingFace's encodings and graphs have."""

    def __init__(self):
        self.moves = []

    def to(self, device, non_blocking=False):
        self.moves.append((str(device), non_blocking))
        return self


def transferred(batch, **arguments):
    engine, seen = engine_on(DeviceTransfer("meta", **arguments))
    engine.run([batch])
    return seen[0]


def tensor():
    return torch.ones(2)


# -- containers --------------------------------------------------------------------------------------------------------


def test_tensors_are_found_in_nested_containers_of_every_kind():
    batch = {
        "x": tensor(),
        "list": [tensor(), (tensor(), "text")],
        "point": Point(tensor(), 3),
        "sample": Sample(tensor(), "cat"),
        "ordered": OrderedDict(a=tensor()),
        "default": defaultdict(list, a=tensor()),
        "user": UserDict(a=tensor()),
        "none": None,
    }
    moved = transferred(batch)
    found = [
        moved["x"], moved["list"][0], moved["list"][1][0], moved["point"].x, moved["sample"].x, moved["ordered"]["a"],
        moved["default"]["a"], moved["user"]["a"],
    ]  # fmt: skip
    assert [each.device.type for each in found] == ["meta"] * 8
    assert {key: type(value) for key, value in moved.items()} == {key: type(value) for key, value in batch.items()}
    assert (moved["list"][1][1], moved["point"].y, moved["sample"].label, moved["none"]) == ("text", 3, "cat", None)
    assert moved["default"]["missing"] == []
    assert batch["x"].device.type == batch["sample"].x.device.type == batch["user"]["a"].device.type == "cpu"


def test_an_object_that_can_move_is_asked_to():
    assert transferred((Moving(), 1))[0].moves == [("meta", True)]
    assert transferred((Moving(), 1), non_blocking=False)[0].moves == [("meta", False)]


def test_packed_sequences():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    moved = transferred(packed)
    assert type(moved) is type(packed)
    assert moved.data.device.type == "meta"


def test_an_object_whose_move_takes_no_non_blocking_is_told_how_to():
    class Stubborn:
        def to(self, device):
            return self

    with pytest.raises(TypeError) as error:
        transferred(Stubborn())
    assert "DeviceTransfer(non_blocking=False) calls to(device)" in error.value.__notes__[0]
    assert isinstance(transferred(Stubborn(), non_blocking=False), Stubborn)


# -- where -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [None, "cpu"])
def test_on_the_cpu_the_data_is_the_users_own(device):
    data = DataLoader(range(4))
    evaluator, _ = engine_on()
    engine, _ = engine_on(DeviceTransfer(device), Evaluate(evaluator, data))
    engine.run(data)
    assert engine.state.dataloader is data
    assert evaluator.state.dataloader is data


def test_the_device_is_the_engines_own_if_none_is_given():
    model = nn.Linear(2, 2, device="meta")
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters()), nn.MSELoss(), device="meta")
    trainer.attach(DeviceTransfer())
    devices = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: devices.append(trainer.state.batch[0].device.type))
    trainer.run([(torch.ones(1, 2), torch.ones(1, 2))] * 3)
    assert devices == ["meta"] * 3


def test_evaluators_that_the_trainer_runs_get_theirs():
    evaluator, evaluated = engine_on()
    own, seen_by_own = engine_on(DeviceTransfer("cpu"))
    trainer, _ = engine_on(DeviceTransfer("meta"), Evaluate(evaluator, [tensor()]), Evaluate(own, [tensor()]))
    trainer.run([tensor()], max_epochs=2)
    assert [batch.device.type for batch in evaluated] == ["meta"] * 2
    assert [batch.device.type for batch in seen_by_own] == ["cpu"] * 2


def test_no_data_and_several_loaders():
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.run(None, max_iters=2)
    assert seen == [None, None]
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.run(CombinedLoader({"a": [tensor()], "b": [tensor()]}, "sequential"))
    assert [(key, batch.device.type) for key, batch in seen] == [("a", "meta"), ("b", "meta")]


# -- reading ahead -----------------------------------------------------------------------------------------------------


class Source:
    """Data that counts what is read of it."""

    def __init__(self, total=5, fails_at=None):
        self.total = total
        self.fails_at = fails_at
        self.read = 0
        self.label = "source"

    def __iter__(self):
        for i in range(self.total):
            if i == self.fails_at:
                raise OSError("disk")
            self.read += 1
            yield i

    def __len__(self):
        return self.total


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_no_more_is_read_ahead_than_was_said(prefetch):
    engine, _ = engine_on(DeviceTransfer("meta", prefetch=prefetch))
    source, ahead = Source(), []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: ahead.append(source.read - engine.state.iteration))
    engine.run(source)
    assert ahead == [min(prefetch, 5 - used) for used in (1, 2, 3, 4, 5)]


def test_it_has_the_length_and_the_attributes_of_the_data_and_begins_anew():
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.run(Source(), max_epochs=2)
    assert seen == [0, 1, 2, 3, 4] * 2
    assert engine.state.epoch_length == 5
    assert engine.state.dataloader.label == "source"
    assert not hasattr(engine.state.dataloader, "state_dict")
    loader = DataLoader(range(6))
    engine.run(loader, max_epochs=3)
    assert engine.state.dataloader.sampler is loader.sampler


def test_a_failure_comes_when_its_batch_is_asked_for():
    engine, seen = engine_on(DeviceTransfer("meta"))
    with pytest.raises(OSError, match="disk"):
        engine.run(Source(fails_at=3))
    assert seen == [0, 1, 2]


def test_an_epoch_that_is_cut_short_loses_nothing():
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate_epoch)
    engine.run(Source(), max_epochs=2)
    assert seen == [0, 1, 0, 1, 2, 3, 4]


def test_an_iterator_loses_nothing_to_the_engine():
    """Neither at an epoch that is cut short, nor between runs; but one batch to others that read it."""
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate_epoch)
    data = iter(range(12))
    engine.run(data, max_epochs=2, epoch_length=3)
    assert seen == [0, 1, 2, 3, 4]
    assert next(data) == 6
    engine.run(data, max_epochs=3)
    assert seen == [0, 1, 2, 3, 4, 5, 7, 8]


def test_an_interrupted_run_goes_on_with_the_next_batch():
    engine, seen = engine_on(DeviceTransfer("meta"))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt)
    source = Source()
    engine.run(source)
    engine.run(source)
    assert seen == [0, 1, 2, 3, 4]


def test_a_run_restored_elsewhere_goes_on_with_the_next_batch():
    first, before = engine_on(DeviceTransfer("meta"))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=7), first.interrupt)
    first.run(Source(), max_epochs=2)
    second, after = engine_on(DeviceTransfer("meta"))
    second.load_state_dict(first.state_dict())
    second.run(Source(), max_epochs=2)
    assert before + after == [0, 1, 2, 3, 4] * 2


def test_the_state_of_the_data_is_that_of_what_was_used():
    class Stateful(Source):
        def state_dict(self):
            return {"read": self.read}

        def load_state_dict(self, state):
            self.read = state["read"]

    engine, _ = engine_on(DeviceTransfer("meta"))
    states = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: states.append(engine.state.dataloader.state_dict()["read"])
    )
    source = Stateful()
    engine.run(source)
    assert states == [1, 2, 3, 4, 5]
    engine.state.dataloader.load_state_dict({"read": 3})
    assert engine.state.dataloader.state_dict() == {"read": 3}


def test_limits_stand_before_it():
    source = Source()
    engine, seen = engine_on(DeviceTransfer("meta"), LimitBatches(2))
    engine.run(source)
    assert (seen, source.read) == ([0, 1], 2)


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def notes(monkeypatch):
    """What is done on a stand-in for the streams of a device, in order."""
    noted = []

    class Stream:
        def __init__(self, name="side", device=None):
            self.name = name

        def wait_stream(self, other):
            noted.append(f"{self.name} waits for {other.name}")

        def record_event(self):
            noted.append(f"{self.name} records")
            return f"event {sum('records' in note for note in noted)}"

        def wait_event(self, event):
            noted.append(f"{self.name} waits for {event}")

    @contextmanager
    def stream(stream):
        noted.append(f"into {stream.name}")
        yield
        noted.append(f"out of {stream.name}")

    current = Stream("current")
    module = SimpleNamespace(Stream=Stream, stream=stream, current_stream=lambda device: current)
    monkeypatch.setattr(torch, "meta", module, raising=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: noted.append("pinned") or self)
    return noted


def test_each_batch_is_copied_beside_the_work_on_the_one_before(notes):
    """The copy waits for the work that is queued already, since its memory may be that of a batch let go; the work on a
    batch waits for its own copy alone."""
    engine = Engine(lambda engine, batch: notes.append(f"work on {engine.state.iteration}"))
    engine.attach(DeviceTransfer("meta"))
    engine.run([tensor()] * 3)
    copied = ["side waits for current", "into side", "pinned", "side records", "out of side"]
    assert notes == [
        *copied, *copied, "current waits for event 1", "work on 1",
        *copied, "current waits for event 2", "work on 2",
        "current waits for event 3", "work on 3",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [{"prefetch": 0}, {"non_blocking": False}])
def test_without_reading_ahead_or_without_asynchronous_copies_there_is_no_stream(arguments, notes):
    engine, _ = engine_on(DeviceTransfer("meta", **arguments))
    engine.run([tensor()] * 2)
    assert [note for note in notes if note != "pinned"] == []


def test_memory_is_pinned_only_if_that_is_wanted_and_of_use(notes):
    engine, _ = engine_on(DeviceTransfer("meta", pin_memory=False))
    engine.run([tensor()])
    assert "pinned" not in notes
    notes.clear()
    engine, _ = engine_on(DeviceTransfer("meta"))
    engine.run([torch.ones(2, device="meta"), torch.eye(2).to_sparse()])
    assert "pinned" not in notes


def test_a_loader_is_asked_to_pin_and_stays_the_users_own(notes):
    loader = DataLoader([tensor()] * 2)
    engine, _ = engine_on(DeviceTransfer("meta"))
    with pytest.warns(UserWarning, match="no accelerator is found"):
        engine.run(loader)
    assert engine.state.dataloader.pin_memory is True
    assert loader.pin_memory is False


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_numbers_that_are_none():
    with pytest.raises(ValueError, match="can't read -1 batches ahead"):
        DeviceTransfer(prefetch=-1)
    for prefetch in (True, 1.0, None):
        with pytest.raises(TypeError, match="takes a whole number of batches as prefetch, but got"):
            DeviceTransfer(prefetch=prefetch)


def test_two_of_them():
    engine, _ = engine_on(DeviceTransfer())
    with pytest.raises(ValueError, match="both move its batches; attach one of them"):
        engine.attach(DeviceTransfer())
