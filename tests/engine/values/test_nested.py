"""Values in containers: one walk for all that engines, metrics and handlers do with nested data."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update, supervised_trainer
from leyden.engine.values import detached, first_tensor, leaves_by_name, leaves_of, map_leaves, map_tensors, tensors_of
from leyden.handlers import MixedPrecision, TerminateOnNan, TruncatedBPTT
from leyden.metrics import Loss

Pair = namedtuple("Pair", ["x", "y"])


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    name: str = "frozen"


@dataclass
class HalfMade:
    x: Any
    later: Any = field(init=False)


@dataclass
class ModelOutput(OrderedDict):
    """As Hugging Face's: a mapping and a dataclass in one, whose values are attributes too, and without update()."""

    logits: Any = None

    def __post_init__(self):
        OrderedDict.__setitem__(self, "logits", self.logits)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self):
        return (ModelOutput, (self.logits,))

    def update(self, *args, **kwargs):
        raise TypeError("You cannot use update on a ModelOutput")


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding."""

    def to(self, device, non_blocking=False):
        return Encoding({key: value.to(device) for key, value in self.items()})


class Labelled(list):
    label = None


def labelled(*items):
    made = Labelled(items)
    made.label = "cats"
    return made


def one():
    return torch.ones(1, requires_grad=True)


CONTAINERS = {
    "a tuple": lambda: (one(), 3),
    "a list": lambda: [one(), "text"],
    "a named tuple": lambda: Pair(one(), None),
    "a dict": lambda: {"x": one(), 7: 3},
    "an OrderedDict": lambda: OrderedDict(x=one()),
    "a defaultdict": lambda: defaultdict(list, x=one()),
    "a mapping that can't be changed": lambda: MappingProxyType({"x": one()}),
    "a UserDict": lambda: Encoding(x=one()),
    "a ModelOutput": lambda: ModelOutput(one()),
    "a dataclass, frozen and with slots": lambda: Frozen(one()),
    "a dataclass with a field that has no value yet": lambda: HalfMade(one()),
    "a list subclass": lambda: labelled(one(), 2),
    "a tuple of torch's": lambda: torch.ones(2, 2, requires_grad=True).max(0),
    "nested": lambda: {"a": [Frozen((one(),)), Pair(ModelOutput(one()), [2])], "b": ()},
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_tensors_are_changed_in_containers_of_the_same_type(make):
    value = make()
    found = list(tensors_of(value))
    assert any(tensor.requires_grad for tensor in found)
    changed = detached(value)
    assert type(changed) is type(value)
    assert not any(tensor.requires_grad for tensor in tensors_of(changed))
    assert [tensor.tolist() for tensor in tensors_of(changed)] == [tensor.tolist() for tensor in found]
    assert [leaf for leaf in leaves_of(changed) if not isinstance(leaf, torch.Tensor)] == [
        leaf for leaf in leaves_of(value) if not isinstance(leaf, torch.Tensor)
    ]
    assert all(before is after for before, after in zip(found, tensors_of(value), strict=True)), "the value was altered"


def test_a_container_keeps_what_else_it_has():
    assert detached(defaultdict(list, x=one())).default_factory is list
    assert detached(labelled(one())).label == "cats"
    output = detached(ModelOutput(one()))
    assert output.logits is output["logits"]
    assert not output.logits.requires_grad
    assert not hasattr(detached(HalfMade(one())), "later")


def test_leaves_come_in_order_and_are_changed_one_by_one():
    value = {"a": (1, [2.0, None]), "b": Pair("three", {4})}
    assert list(leaves_of(value)) == [1, 2.0, None, "three", {4}]
    assert list(leaves_of("text")) == ["text"]
    assert map_leaves(value, str) == {"a": ("1", ["2.0", "None"]), "b": Pair("three", "{4}")}
    assert map_tensors(value, torch.neg) == value


def test_the_first_tensor_is_found():
    x, y = torch.zeros(1), torch.ones(1)
    assert first_tensor([None, "text", {"a": Frozen(x)}, y]) is x
    assert first_tensor(y) is y
    assert first_tensor([None, {}]) is None


def test_leaves_of_mappings_have_names():
    assert list(leaves_by_name({"a": {"b": 1, 2: [3]}, "c": {}})) == [("a/b", 1), ("a/2", [3])]
    assert list(leaves_by_name(5, "loss")) == [("loss", 5)]
    assert list(leaves_by_name({"x": {"y": 1}}, "val", ".")) == [("val.x.y", 1)]


class Classifier(nn.Module):
    """Gives its prediction as models of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return ModelOutput(self.linear(x))


def cross_entropy(output, y):
    return nn.functional.cross_entropy(output.logits, y)


BATCH = (torch.ones(3, 2), torch.tensor([0, 1, 1]))


def test_metrics_of_a_trainer_measure_a_prediction_of_the_models_own_kind():
    model = Classifier()
    seen = []

    def loss_fn(output, y):
        seen.append((type(output), output.logits.requires_grad))
        return cross_entropy(output, y)

    metric = Loss(loss_fn, batch_size=len)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.1), cross_entropy, metrics={"l": metric})
    trainer.run([BATCH])
    assert seen == [(ModelOutput, False)]


def test_a_hidden_state_is_cut_from_its_graph_in_every_kind_of_container():
    model = nn.Linear(2, 2)
    hidden_of_chunks = []

    def step(engine, batch):
        hidden_of_chunks.append(engine.state.hidden)
        with update.forward():
            out = model(batch)
        update.backward(out.sum())
        engine.state.hidden = Frozen(ModelOutput(out))

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    engine.attach(TruncatedBPTT(1))
    engine.run([torch.ones(1, 2, 2)])
    first, second = hidden_of_chunks
    assert first is None
    assert type(second.x) is ModelOutput
    assert not second.x.logits.requires_grad  # was left in its graph, which would have grown with each chunk


def test_chunks_are_containers_of_the_batchs_own_type():
    model = nn.Linear(2, 2)
    chunks = []

    def step(engine, batch):
        chunks.append(batch)
        update.backward(model.weight.sum())

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    engine.attach(TruncatedBPTT(2))
    engine.run([Frozen(Encoding(tokens=torch.arange(4).reshape(1, 4)), "cats")])
    assert [type(chunk.x) for chunk in chunks] == [Encoding, Encoding]
    assert [chunk.x["tokens"].tolist() for chunk in chunks] == [[[0, 1]], [[2, 3]]]
    assert [chunk.name for chunk in chunks] == ["cats", "cats"]


def test_a_number_that_is_not_finite_is_found_in_every_kind_of_container():
    engine = Engine(lambda engine, batch: Frozen(ModelOutput(torch.tensor(float("nan")))))
    engine.attach(TerminateOnNan())
    with pytest.warns(UserWarning, match="is not finite"):
        state = engine.run([1, 2, 3])
    assert state.iteration == 1  # was 3


def test_inputs_follow_a_true_precision_in_every_kind_of_container():
    seen = []

    class Model(nn.Linear):
        def forward(self, batch):
            seen.append({key: value.dtype for key, value in batch.items()})
            return super().forward(batch["x"])

    model = Model(2, 2)

    def step(engine, batch):
        with update.forward():
            loss = model(batch).sum()
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    engine.attach(MixedPrecision("bf16-true"))
    engine.run([Encoding(x=torch.ones(1, 2), ids=torch.tensor([1]))])
    assert seen == [{"x": torch.bfloat16, "ids": torch.int64}]
