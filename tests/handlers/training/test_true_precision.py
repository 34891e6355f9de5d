"""Models that are in another precision altogether: parameters, buffers, optimizer states, inputs and outputs."""

from collections import namedtuple

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with
from torch import nn

from leyden.engine import Engine, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import ClipGradients, Evaluate, GradientAccumulation, MixedPrecision
from leyden.metrics import Loss

TRUE = {"bf16-true": torch.bfloat16, "fp64-true": torch.float64}


@pytest.mark.parametrize("precision", TRUE)
def test_it_is_the_loop_on_a_model_of_that_dtype_to_the_bit(precision):
    ours, theirs = net(), net().to(TRUE[precision])
    train_with(MixedPrecision(precision), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), [(x.to(TRUE[precision]), y) for x, y in batches(10)])
    assert equal(ours, theirs)


@pytest.mark.parametrize("precision", TRUE)
def test_parameters_buffers_and_optimizer_states_are_in_it(precision):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    before = list(model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    train_with(MixedPrecision(precision), model=model, optimizer=optimizer, data=batches(2))
    dtypes = {tensor.dtype for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()}
    assert dtypes == {TRUE[precision]}
    assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {TRUE[precision]}
    assert all(old is new for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "LBFGS"])
def test_what_an_optimizer_has_from_an_earlier_training_follows(kind):
    """As in torch's own Optimizer.load_state_dict: all of it but the count of steps."""
    options = {"momentum": 0.9} if kind == "SGD" else {}
    ours, theirs = net(), net()
    optimizers = [getattr(torch.optim, kind)(model.parameters(), lr=0.01, **options) for model in (ours, theirs)]
    data = batches(3)

    def train(model, optimizer, data, *handlers):
        engine = Engine(lambda engine, batch: update.step(lambda: loss_fn(model(batch[0]), batch[1])))
        update = Update(engine, model, optimizer)
        engine.attach(*handlers)
        engine.run(data)

    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        train(model, optimizer, data)
    theirs.double()
    optimizers[1].load_state_dict(optimizers[1].state_dict())
    train(ours, optimizers[0], data, MixedPrecision("fp64-true"))
    train(theirs, optimizers[1], [(x.double(), y) for x, y in data])
    assert equal(ours, theirs)


def test_with_accumulation_and_clipping_to_the_bit():
    ours, theirs = net(), net().double()
    handlers = (ClipGradients(norm=0.7), GradientAccumulation(3), MixedPrecision("fp64-true"))
    train_with(*handlers, model=ours, optimizer=sgd(ours), data=batches(10))
    data = [(x.double(), y) for x, y in batches(10)]
    train_by_hand(theirs, sgd(theirs), data, window=3, clip=lambda p: nn.utils.clip_grad_norm_(p, 0.7))
    assert equal(ours, theirs)


def test_floating_inputs_follow_and_no_others():
    seen = {}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, pair, index, *, named):
            seen.update(pair=[x.dtype for x in pair], index=index.dtype, named=named["x"].dtype, fields=pair._fields)
            return (pair.left * self.scale).sum()

    Pair = namedtuple("Pair", "left right")
    model = Model()

    def process(engine, batch):
        with update.forward():
            loss = model(Pair(batch, batch), torch.arange(3), named={"x": batch, "name": "text"})
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    engine.attach(MixedPrecision("bf16-true"))
    engine.run([torch.ones(2)])
    assert seen == {
        "pair": [torch.bfloat16] * 2,
        "index": torch.int64,
        "named": torch.bfloat16,
        "fields": ("left", "right"),
    }


def test_packed_sequences_follow():
    model = nn.LSTM(3, 4)

    def process(engine, batch):
        with update.forward():
            loss = model(batch)[0].data.mean()
        update.backward(loss)
        return loss.dtype

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    engine.attach(MixedPrecision("fp64-true"))
    engine.run([nn.utils.rnn.pack_sequence([torch.ones(2, 3), torch.ones(1, 3)])])
    assert engine.state.output == torch.float64


def test_an_evaluator_of_the_same_model_takes_its_usual_data():
    model = net()
    evaluator = supervised_evaluator(model, metrics={"loss": Loss(loss_fn)})
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(Evaluate(evaluator, batches(2)), MixedPrecision("fp64-true"))
    trainer.run(batches(2))
    assert evaluator.state.output[0].dtype == torch.float64


def test_an_evaluator_alone_has_no_model_to_change():
    evaluator = supervised_evaluator(net())
    with pytest.raises(ValueError, match=r"an evaluator has none; attach it to the trainer .* model\.to\(dtype\)"):
        evaluator.attach(MixedPrecision("bf16-true"))


def test_one_precision_an_update():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(MixedPrecision("bf16-true"))
    with pytest.raises(ValueError, match="MixedPrecision and MixedPrecision both set autocast of one update"):
        trainer.attach(MixedPrecision("bf16"))
