"""Less is kept for the backward pass; what is learnt is the same to the bit."""

import copy
import io
from collections import Counter

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd
from models import Block, Deep, convolutional, deep, equal_tensors, norms
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from leyden.engine import Engine, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, MixedPrecision
from leyden.handlers.model import ActivationCheckpointing, Compile, Freeze


def train(model, *handlers, epochs=3, number=10):
    trainer = supervised_trainer(model, sgd(model, lr=0.01), loss_fn)
    trainer.attach(*handlers)
    torch.manual_seed(7)  # for dropout
    trainer.run(batches(number), max_epochs=epochs)
    return trainer


KINDS = {
    "all": {},
    "each second": {"every": 2},
    "of a class": {"parts": Block},
    "by a condition": {"parts": lambda name, module: name in ("blocks.0", "blocks.3")},
    "selective": {"selective": [torch.ops.aten.addmm.default]},
    "by name": {"parts": ["blocks.1", "head"]},
    "of classes": {"parts": (Block, nn.Linear)},
    "the whole model": {"parts": Deep},
}


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d], ids=["no norm", "batch norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_without_it_to_the_bit(kind, norm):
    """With dropout, and the statistics of batch norms, which see each batch once."""
    ours, theirs = deep(dropout=0.3, norm=norm), deep(dropout=0.3, norm=norm)
    train(ours, ActivationCheckpointing(**KINDS[kind]))
    train(theirs)
    assert equal_tensors(ours, theirs)


def test_a_batch_norm_that_averages_over_all_batches():
    def model():
        made = deep(norm=nn.BatchNorm1d)
        for norm in norms(made):
            norm.momentum = None
        return made

    ours, theirs = model(), model()
    train(ours, ActivationCheckpointing())
    train(theirs)
    assert equal_tensors(ours, theirs)
    assert [norm.momentum for norm in norms(ours)] == [None] * 4


def test_in_low_precision():
    ours, theirs = deep(dropout=0.3), deep(dropout=0.3)
    train(ours, ActivationCheckpointing(), MixedPrecision("bf16"))
    train(theirs, MixedPrecision("bf16"))
    assert equal_tensors(ours, theirs)


def test_beside_frozen_blocks():
    ours, theirs = deep(dropout=0.3), deep(dropout=0.3)
    train(ours, ActivationCheckpointing(), Freeze("stem", "blocks.0", "blocks.2"))
    train(theirs, Freeze("stem", "blocks.0", "blocks.2"))
    assert equal_tensors(ours, theirs)


def saved(model, *handlers):
    """(number, bytes) of the tensors that a step keeps from its forward for its backward pass."""
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in of_model:
            kept[id(tensor)] = tensor.nbytes
            alive.append(tensor)
        return tensor

    of_model = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive = []

    def process(engine, batch):
        with update.forward(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_fn(model(batch[0]), batch[1])
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    engine.attach(*handlers)
    engine.run(batches(1, size=64))
    return len(kept), sum(kept.values())


def test_less_is_kept():
    whole, half, none = (
        saved(deep(dropout=0.3)),
        saved(deep(dropout=0.3), ActivationCheckpointing(every=2)),
        saved(deep(dropout=0.3), ActivationCheckpointing()),
    )
    print(f"kept: {whole} without, {half} each second, {none} all blocks")
    assert none[0] < half[0] < whole[0]
    assert none[1] < whole[1] / 2


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.ops[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("selective", "again"),
    [
        (None, (4, 4)),  # of two products in each of 4 blocks the second is an input of nothing
        ([torch.ops.aten.addmm.default], (0, 4)),
        ([torch.ops.aten.addmm, torch.ops.aten.relu.default], (0, 0)),
    ],
    ids=["all again", "all but products", "all but products and relu"],
)
def test_what_is_computed_again(selective, again):
    model = deep()
    train(model, ActivationCheckpointing(selective=selective), epochs=1, number=1)
    loss = model(batches(1)[0][0]).sum()
    with Counting() as counting:
        loss.backward()
    assert (counting.ops["aten.addmm.default"], counting.ops["aten.relu.default"]) == again


def test_the_model_stays_the_users_own():
    model = deep()
    names, modules = list(model.state_dict()), list(model.modules())
    train(model, ActivationCheckpointing(), epochs=1)
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(type(block) is Block for block in model.blocks)


def gradients(model):
    torch.manual_seed(5)
    model.zero_grad()
    model(batches(1)[0][0]).square().sum().backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("how", ["deepcopy", "torch.save"])
@pytest.mark.parametrize(
    "options",
    [{}, {"selective": [torch.ops.aten.addmm.default]}, {"parts": nn.BatchNorm1d}],
    ids=["blocks", "selective", "batch norms alone"],
)
def test_a_copy_trains_by_itself(how, options):
    model = deep(dropout=0.3, norm=nn.BatchNorm1d)
    train(model, ActivationCheckpointing(**options), epochs=1)
    if how == "deepcopy":
        other = copy.deepcopy(model)
    else:
        torch.save(model, file := io.BytesIO())
        file.seek(0)
        other = torch.load(file, weights_only=False)
    state = copy.deepcopy(other.state_dict())
    expected = gradients(model)
    assert equal_tensors(other, state)  # the original's statistics moved, not the copy's
    assert all(map(torch.equal, gradients(other), expected))


def test_a_second_run_and_a_second_engine_checkpoint_once():
    model = deep()
    trainer = train(model, ActivationCheckpointing(), epochs=1)
    trainer.run(max_epochs=2)
    train(model, ActivationCheckpointing(), epochs=1)
    assert [type(block.forward.forward).__name__ for block in model.blocks] == ["method"] * 4
    with Counting() as counting:
        model(batches(1)[0][0]).sum().backward()
    assert counting.ops["aten.relu.default"] == 8


def test_an_evaluation_computes_once():
    model = deep(norm=nn.BatchNorm1d)
    train(model, ActivationCheckpointing(), Evaluate(supervised_evaluator(model), batches(2)), epochs=1)
    model.eval()
    with Counting() as counting, torch.no_grad():
        model(batches(1)[0][0])
    assert counting.ops["aten.relu.default"] == 4


@pytest.mark.parametrize("regional", [False, True], ids=["whole", "by blocks"])
@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d], ids=["no norm", "batch norm"])
@pytest.mark.parametrize("selective", [None, [torch.ops.aten.addmm.default]], ids=["all", "selective"])
def test_compiled(regional, norm, selective):
    """Attached in the wrong order; no graph is broken, and the numbers are those without either."""
    ours, theirs = deep(norm=norm), deep(norm=norm)
    torch._dynamo.reset()
    train(
        ours,
        Compile(backend="aot_eager", fullgraph=True, regional=regional),
        ActivationCheckpointing(selective=selective),
    )
    train(theirs)
    assert equal_tensors(ours, theirs)


@pytest.mark.slow
def test_compiled_by_inductor():
    ours, theirs = deep(norm=nn.BatchNorm1d), deep(norm=nn.BatchNorm1d)
    torch._dynamo.reset()
    train(ours, ActivationCheckpointing(), Compile(fullgraph=True), epochs=1, number=3)
    train(theirs, epochs=1, number=3)
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_updates_of_one_engine():
    def checkpointed(handler):
        models = {"one": deep(), "two": deep()}
        engine = Engine(lambda engine, batch: None)
        for name, model in models.items():
            Update(engine, model, sgd(model), name=name)
        engine.attach(handler)
        engine.run([None])
        return ["forward" in vars(model.blocks[0]) for model in models.values()]

    assert checkpointed(ActivationCheckpointing()) == [True, True]
    assert checkpointed(ActivationCheckpointing(update="two")) == [False, True]


def test_the_outermost_of_nested_blocks():
    inner = [nn.Sequential(*[Block() for _ in range(2)]) for _ in range(2)]
    model = nn.Sequential(nn.Linear(6, 8), *inner, nn.Linear(8, 2))
    train(model, ActivationCheckpointing(), epochs=1)
    blocks = [module for module in model.modules() if "forward" in vars(module)]
    assert len(blocks) == 4
    assert all(type(block) is Block for block in blocks)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def attach(*handlers, model=None):
    train(deep() if model is None else model, *handlers)


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_a_number_that_is_none(every):
    with pytest.raises(ValueError, match=f"takes each 1st, 2nd, ... block, but got every={every}"):
        ActivationCheckpointing(every)


def test_no_block():
    with pytest.raises(ValueError, match=r"finds no repeated block in the model, .*: Sequential, Linear"):
        attach(ActivationCheckpointing(), model=net())


def test_a_part_that_is_not_there():
    with pytest.raises(ValueError, match=r"looks for a Block, but the model has only modules of the classes: Seq"):
        attach(ActivationCheckpointing(parts=Block), model=net())
    with pytest.raises(ValueError, match=r"looks for a module that satisfies .*lambda"):
        attach(ActivationCheckpointing(parts=lambda name, module: False), model=convolutional())
    with pytest.raises(
        ValueError, match=r"names 'blocks.4', but the model has: blocks.0, blocks.1, blocks.2, blocks.3"
    ):
        attach(ActivationCheckpointing(parts="blocks.4"))
    with pytest.raises(ValueError, match=r"finds no module at \('stem.weight',\)"):
        attach(ActivationCheckpointing(parts="stem.weight"))


def test_an_update_without_such_blocks_is_left_out():
    models = {"one": deep(), "two": net()}
    engine = Engine(lambda engine, batch: None)
    for name, model in models.items():
        Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1), name=name)
    engine.attach(ActivationCheckpointing())
    engine.run([None])
    assert ["forward" in vars(model) for model in models["one"].blocks] == [True] * 4


def test_fewer_blocks_than_every():
    with pytest.raises(ValueError, match=r"takes one block in 5, .* only 4: blocks.0, blocks.1, blocks.2, blocks.3"):
        attach(ActivationCheckpointing(5))


def test_what_is_no_part_or_no_op():
    with pytest.raises(TypeError, match="parts= takes names, classes of modules and conditions, but got 3"):
        ActivationCheckpointing(parts=[Block, 3])
    with pytest.raises(TypeError, match=r"selective= takes ops such as torch.ops.aten.mm.default, but got <built-in"):
        ActivationCheckpointing(selective=[torch.mm])


def test_two_of_them():
    with pytest.raises(ValueError, match=r"give one of them all parts, parts=\(A, B\)"):
        attach(ActivationCheckpointing(), ActivationCheckpointing(2))
