"""What averages of weights and chunks of time cost, in calls a step."""

import pytest
import torch
from by_hand import batches, net, sgd
from counting import calls_a_step
from torch import nn

from leyden.engine import Engine, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate
from leyden.handlers.training.ema import EMA
from leyden.handlers.training.swa import SWA
from leyden.handlers.training.truncated_bptt import TruncatedBPTT

LIMIT = 25


def by_engine(*handlers, frozen=False, dtype=torch.float32):
    model = net().to(dtype)
    if frozen:
        model[0].requires_grad_(False)
    trainer = supervised_trainer(model, sgd(model), nn.MSELoss())
    trainer.attach(*handlers)
    data = {number: [(x.to(dtype), y.to(dtype)) for x, y in batches(number)] for number in (3, 20, 60)}

    def run(number):
        trainer.state.max_epochs = None
        trainer.run(data[number])

    return calls_a_step(run)


@pytest.fixture(scope="module")
def nothing_attached():
    return by_engine()


@pytest.mark.parametrize(
    "make",
    [lambda: EMA(every=1000), lambda: EMA(start_step=1000), lambda: SWA(1), lambda: SWA(1, evaluate=True)],
    ids=["EMA each 1000 steps", "EMA after 1000 steps", "SWA", "SWA that is evaluated"],
)
def test_one_with_nothing_to_do_in_a_step_costs_nothing(make, nothing_attached):
    assert by_engine(make()) == nothing_attached


def test_annealing_costs_the_one_call_that_torch_puts_around_a_step(nothing_attached):
    assert by_engine(SWA(1, lr=0.1, anneal_epochs=1)) == nothing_attached + 1


@pytest.mark.parametrize("make", [lambda: EMA(), lambda: EMA(warmup=True)], ids=["constant", "warm-up"])
def test_an_average_adds_few_calls(make, nothing_attached, record_property):
    added = by_engine(make()) - nothing_attached
    record_property("calls", added)
    print(f"EMA: {added:.2f} calls a step")
    assert added <= LIMIT


def test_so_it_does_where_parameters_are_frozen():
    assert by_engine(EMA(), frozen=True) - by_engine(frozen=True) <= LIMIT


def test_so_it_does_in_32_bits_for_weights_of_16():
    assert by_engine(EMA(), dtype=torch.bfloat16) - by_engine(dtype=torch.bfloat16) <= LIMIT


def test_an_evaluation_leaves_nothing_behind_that_costs(nothing_attached):
    model = net()
    evaluator = supervised_evaluator(model)
    added = by_engine(EMA(), Evaluate(evaluator, batches(1))) - nothing_attached
    assert added <= LIMIT


def recurrent(cuts_itself, *handlers):
    """Calls a batch of two chunks, which the process function cuts itself, or the handler."""
    data = {number: [(torch.randn(4, 6, 3), torch.randn(4, 6, 5))] * number for number in (3, 20, 60)}
    model = nn.LSTM(3, 5, batch_first=True)

    def train_on(chunk, hidden):
        x, y = chunk
        with update.forward():
            output, hidden = model(x, hidden)
            loss = nn.functional.mse_loss(output, y)
        update.backward(loss)
        return loss.detach(), hidden

    def train_step(engine, chunk):
        loss, engine.state.hidden = train_on(chunk, engine.state.hidden)
        return loss

    def train_step_in_chunks(engine, batch):
        hidden, losses = None, []
        for chunk in zip(*(part.split(3, 1) for part in batch), strict=True):
            loss, hidden = train_on(chunk, hidden)
            losses.append(loss)
            hidden = tuple([each.detach() for each in hidden])
        return sum(losses) / len(losses)

    engine = Engine(train_step_in_chunks if cuts_itself else train_step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(*handlers)

    def run(number):
        engine.state.max_epochs = None
        engine.run(data[number])

    return calls_a_step(run)


def test_chunks_cost_few_calls(record_property):
    added = (recurrent(False, TruncatedBPTT(3)) - recurrent(True)) / 2
    record_property("calls", added)
    print(f"TruncatedBPTT: {added:.2f} calls a chunk beside a process function that cuts its batch itself")
    assert added <= LIMIT
