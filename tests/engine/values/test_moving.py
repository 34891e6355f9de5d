"""Batches on a device, whatever their tensors lie in: one function for the engines and for DeviceTransfer."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from leyden.engine import Engine, Update, supervised_evaluator, supervised_trainer, to_device
from leyden.handlers import DataParallel, DeviceTransfer
from leyden.metrics import Loss

META = torch.device("meta")
Pair = namedtuple("Pair", ["x", "y"])


@dataclass(frozen=True)
class Sample:
    image: torch.Tensor
    name: str


class Graph:
    """Has a method of its own, as PyG's Data and Hugging Face's BatchEncoding have."""

    def __init__(self, nodes):
        self.nodes = nodes

    def to(self, device, non_blocking=False):
        return Graph(self.nodes.to(device))


class Encoding(UserDict):
    """As BatchEncoding: a mapping, and moved by its own method."""

    def to(self, device, non_blocking=False):
        return Encoding({key: value.to(device) for key, value in self.items()})


def ones():
    return torch.ones(2)


BATCHES = {
    "a tensor": ones,
    "a pair": lambda: (ones(), 3),
    "a list": lambda: [ones(), "text"],
    "a named tuple": lambda: Pair(ones(), None),
    "a dict": lambda: {"x": ones(), "id": 3},
    "an OrderedDict": lambda: OrderedDict(x=ones()),
    "a defaultdict": lambda: defaultdict(list, x=ones()),
    "a mapping that can't be changed": lambda: MappingProxyType({"x": ones()}),
    "a PackedSequence": lambda: pack_sequence([torch.ones(3), torch.ones(2)]),
    "a dataclass": lambda: Sample(ones(), "cat"),
    "an object with to": lambda: Graph(ones()),
    "a mapping with to": lambda: Encoding(x=ones()),
    "nested": lambda: {"a": [Sample(ones(), "dog"), (Graph(ones()),)]},
}


def devices(value):
    """The devices of all tensors, wherever they are."""
    if isinstance(value, torch.Tensor):
        return {value.device.type}
    if isinstance(value, PackedSequence):
        return {value.data.device.type}
    if isinstance(value, dict | UserDict | MappingProxyType):
        return {device for each in value.values() for device in devices(each)}
    if isinstance(value, list | tuple):
        return {device for each in value for device in devices(each)}
    return {device for each in getattr(value, "__dict__", {}).values() for device in devices(each)}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_moves_and_keeps_its_type(kind):
    batch = BATCHES[kind]()
    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert devices(moved) == {"meta"}
    assert devices(batch) == {"cpu"}


def test_a_defaultdict_keeps_its_factory_and_all_else_stays_as_it_is():
    assert to_device(BATCHES["a defaultdict"](), META)["other"] == []
    assert to_device(BATCHES["a dataclass"](), META).name == "cat"
    assert to_device({"id": 3, "none": None}, META) == {"id": 3, "none": None}
    assert to_device(ones(), "meta").device == META


@pytest.mark.parametrize("kind", BATCHES)
def test_the_supervised_engines_and_device_transfer_do_the_same(kind):
    seen = []

    def model_fn(model, x):
        seen.append(x)
        return model(torch.ones(1, 1, device="meta"))

    evaluator = supervised_evaluator(nn.Linear(1, 1), device="meta", model_fn=model_fn)
    evaluator.run([(BATCHES[kind](), 0)])
    engine = Engine(lambda engine, batch: seen.append(batch[0]))
    engine.attach(DeviceTransfer("meta"))
    engine.run([(BATCHES[kind](), 0)])
    assert [devices(each) for each in seen] == [{"meta"}] * 2
    assert {type(each) for each in seen} == {type(BATCHES[kind]())}


def test_the_weights_of_a_loss_move_with_its_model():
    model = nn.Linear(2, 3)
    loss_fn = nn.CrossEntropyLoss(weight=torch.ones(3))
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, device="meta")
    trainer.run([(torch.ones(4, 2), torch.ones(4, dtype=torch.int64))])
    assert loss_fn.weight.device == model.weight.device == META


def test_the_weights_of_a_loss_that_is_a_metric_come_to_the_predictions():
    loss = Loss(nn.CrossEntropyLoss(weight=torch.ones(3)))
    loss.update((torch.ones(4, 3, device="meta"), torch.ones(4, dtype=torch.int64, device="meta")))
    assert loss.loss_fn.weight.device == META


def test_a_model_moves_in_one_process_as_it_does_under_several_ranks():
    model = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    engine.device = META
    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(DataParallel())
    engine.run([0])
    assert model.weight.device == META
