"""Each pair of handlers on one engine: the result of the loop by hand that does the same, or an error when the second
is attached. The pairs come from table.py; none is picked or left out.
"""

import itertools
import re
from pathlib import Path

import pytest
import torch
from hand_loop import train_by_hand
from refusals import REFUSED, REFUSED_WHEN_IT_MEETS_THE_DATA
from table import CASES, ROOMS, together
from task import EPOCHS, inputs_of, loader, loss_of, net, sgd

from leyden.engine import Engine, Update
from leyden.handlers.data import CombinedLoader
from leyden.handlers.training import EMA

DOCUMENT = (Path(__file__).parents[3] / "docs" / "composition.md").read_text()
PAIRS = list(itertools.combinations(CASES, 2))
TWINS = [(name, name) for name in CASES if CASES[name].make is not None]


class Trainer:
    """An engine with a step of a user's own, and what it trains."""

    def __init__(self, *names):
        torch.manual_seed(0)
        self.model = model = net()
        self.optimizer = sgd(model.parameters())
        recurrent = "TruncatedBPTT" in names

        def train_step(engine, batch):
            model.train()
            x, y = inputs_of(batch)
            with update.forward():
                prediction, hidden = model(x, engine.state.hidden if recurrent else None)
                loss = loss_of(prediction, y)
            update.backward(loss)
            if recurrent:
                engine.state.hidden = hidden
            return loss.detach()

        self.engine = Engine(train_step)
        update = Update(self.engine, model, self.optimizer)
        self.handlers = []
        for name in names:
            if CASES[name].make is not None:
                self.handlers.append(CASES[name].make(model, self.optimizer))
                self.engine.attach(self.handlers[-1])
        self.data = loader()
        if "CombinedLoader" in names:
            self.data = CombinedLoader({"a": loader(), "b": loader(seed=2, number=16)}, mode="max_size_cycle")

    def run(self):
        self.engine.run(self.data, max_epochs=EPOCHS)
        return self


def either_way(pair, table):
    return table.get(pair) or table.get(pair[::-1])


REFUSED_PAIRS = [pair for pair in (*PAIRS, *TWINS) if either_way(pair, REFUSED)]
LATE = [pair for pair in PAIRS if either_way(pair, REFUSED_WHEN_IT_MEETS_THE_DATA)]
ALLOWED = [pair for pair in (*PAIRS, *TWINS) if pair not in REFUSED_PAIRS and pair not in LATE]


def differing(ours, theirs):
    """The names of the tensors that are not the same to the bit."""
    return [name for name in {**ours, **theirs} if not torch.equal(ours.get(name, EMPTY), theirs.get(name, EMPTY))]


EMPTY = torch.empty(0)
PARTS = ("qdata", "scale", "zero_point")


def state_of(model):
    """Its tensors, those of quantized weights in their parts."""
    state = {}
    for name, value in model.state_dict().items():
        parts = [part for part in PARTS if isinstance(getattr(value, part, None), torch.Tensor)]
        state |= {f"{name}.{part}": getattr(value, part) for part in parts} if parts else {name: value}
    return state


@pytest.mark.parametrize("pair", ALLOWED, ids=" + ".join)
def test_together_they_are_the_loop_by_hand_in_either_order_of_attaching(pair):
    model, average, steps = train_by_hand(together(*pair))
    for order in (pair, pair[::-1]):
        trainer = Trainer(*order).run()
        assert trainer.engine.state.step == steps
        assert differing(state_of(trainer.model), state_of(model)) == []
        if average is not None:
            ours = next(each for each in trainer.handlers if isinstance(each, EMA)).averaged()
            theirs = {name: value.to(ours[name].dtype) for name, value in average.values.items()}
            assert differing({name: ours[name] for name in theirs}, theirs) == []


@pytest.mark.parametrize("pair", REFUSED_PAIRS, ids=" + ".join)
def test_what_cannot_go_together_is_an_error_when_the_second_is_attached(pair):
    for order in (pair, pair[::-1]):
        with pytest.raises(ValueError, match=re.escape(either_way(pair, REFUSED))):
            Trainer(*order)


@pytest.mark.parametrize("pair", LATE, ids=" + ".join)
def test_what_cannot_work_on_this_data_is_an_error_before_the_first_step(pair):
    trainer = Trainer(*pair)
    with pytest.raises(ValueError, match=re.escape(either_way(pair, REFUSED_WHEN_IT_MEETS_THE_DATA))):
        trainer.run()
    assert trainer.engine.state.iteration == 0


def test_no_pair_is_untested(capsys):
    """Each handler of these rooms is in the table; the table's pairs are run or refused by the tests above."""
    model = net()
    optimizer = sgd(model.parameters())
    known = {type(case.make(model, optimizer)) for case in CASES.values() if case.make is not None}
    exported = [getattr(room, name) for room in ROOMS for name in room.__all__]
    missing = [each.__name__ for each in exported if hasattr(each, "attach") and each not in known]
    tested = [pair for pair in ALLOWED if pair not in TWINS]
    refused = [pair for pair in REFUSED_PAIRS if pair not in TWINS]
    with capsys.disabled():
        print(
            f"\n{len(CASES)} handlers and variants, {len(PAIRS)} pairs: {len(tested)} equal to the loop by hand, "
            f"{len(refused) + len(LATE)} refused with a clear error, "
            f"{len(PAIRS) - len(tested) - len(refused) - len(LATE)} untested; the same one twice: "
            f"{len(ALLOWED) - len(tested)} equal, {len(REFUSED_PAIRS) - len(refused)} refused"
        )
    assert missing == []
    told = f"{len(CASES)} of them, {len(PAIRS)} pairs", f"{len(tested)} pairs equal, {len(refused) + len(LATE)} refused"
    assert [words for words in told if words not in " ".join(DOCUMENT.split())] == []
    assert len(tested) + len(refused) + len(LATE) == len(PAIRS)
    listed = {*REFUSED, *REFUSED_WHEN_IT_MEETS_THE_DATA}
    assert {frozenset(pair) for pair in listed} <= {frozenset(pair) for pair in (*PAIRS, *TWINS)}
