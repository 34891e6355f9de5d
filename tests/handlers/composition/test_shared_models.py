"""One model whose parts have an optimizer each: handlers that change the model change it once, and give no parameter to
two optimizers.
"""

import pytest
import torch
from torch import nn

from leyden.contrib import LoRA
from leyden.engine import Engine, Events, Update, UpdateEvents
from leyden.handlers.model import ChannelsLast, Finetune, Freeze
from leyden.handlers.training import EMA, SWA, ClipGradients, GradientAccumulation, MixedPrecision


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {name: nn.Linear(16, 16) for name in ("embed", "encoder", "head")}
        return nn.Sequential(nn.Sequential(parts["embed"], nn.Tanh(), parts["encoder"]), nn.Tanh(), parts["head"])


BODY, HEAD = "0", "2"


class Halves:
    """The body and the head of a model are trained in turn, by an optimizer each."""

    def __init__(self, *handlers, model=None):
        torch.manual_seed(0)
        self.model = net() if model is None else model
        self.engine = Engine(lambda engine, batch: [self.step(update, batch) for update in self.updates])
        self.updates = [
            Update(self.engine, self.model, torch.optim.SGD(part.parameters(), lr=0.1), name=name)
            for name, part in (("body", self.model[0]), ("head", self.model[2:]))
        ]
        self.engine.attach(*handlers)

    def step(self, update, batch):
        with update.forward():
            loss = self.model(batch).square().mean()
        update.backward(loss)

    def run(self, epochs=3):
        generator = torch.Generator().manual_seed(1)
        shape = (16, 1, 4, 4) if isinstance(self.model[0][0], nn.Conv2d) else (16, 16)
        self.engine.run([torch.randn(shape, generator=generator) for _ in range(4)], max_epochs=epochs)
        return self

    def held(self):
        """The names of the parameters that each optimizer has."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [
            {names[id(parameter)] for group in update.optimizer.param_groups for parameter in group["params"]}
            for update in self.updates
        ]


def by_hand(before_step=lambda parameters: None):
    model = net()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2:])]
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(16, 16, generator=generator) for _ in range(4)]
    for batch in 3 * batches:
        for optimizer in optimizers:
            model.zero_grad()
            model(batch).square().mean().backward()
            before_step([parameter for group in optimizer.param_groups for parameter in group["params"]])
            optimizer.step()
    return model


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_without_handlers_it_is_the_loop_by_hand():
    assert equal(Halves().run().model, by_hand())


def test_each_half_is_clipped_by_itself():
    clip = lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.01)  # noqa: E731
    halves = Halves(ClipGradients(norm=0.01), GradientAccumulation(1)).run()
    assert equal(halves.model, by_hand(clip))
    assert set(halves.engine.state.metrics) == {"body/grad_norm", "head/grad_norm"}


def test_a_plan_gives_no_optimizer_what_another_one_has():
    halves = Halves(Finetune({1: [HEAD, "0.2"], 2: ("0.0", 0.5)}))
    before = halves.held()
    halves.run()
    assert halves.held() == before
    assert [len(update.optimizer.param_groups) for update in halves.updates] == [2, 1]


def test_a_plan_that_leaves_one_of_them_nothing_to_train_at_first():
    with pytest.raises(ValueError, match="leaves update 'body' nothing to train in epoch 1: it unfreezes first"):
        Halves(Finetune({1: HEAD, 2: BODY}))


def test_what_was_in_no_optimizer_comes_into_one():
    halves = Halves()
    halves.updates[0].optimizer.param_groups[0]["params"].pop()
    halves.engine.attach(Finetune({1: [HEAD, BODY]}))
    halves.run()
    assert sum(map(len, halves.held())) == len(list(halves.model.parameters()))


def test_adapters_go_to_the_optimizer_of_the_weights_that_they_stand_for():
    halves = Halves(LoRA(2)).run()
    names = [f"{layer}.lora_{part}.default.weight" for layer in ("0.0", "0.2", HEAD) for part in "AB"]
    assert halves.held() == [set(names[:4]), set(names[4:])]


@pytest.mark.parametrize("options", [{"update": "head"}, {"targets": "2"}], ids=str)
def test_adapters_that_leave_one_of_them_nothing_to_train(options):
    with pytest.raises(ValueError, match="LoRA leaves update 'body' nothing to train"):
        Halves(LoRA(2, **options)).run()


@pytest.mark.parametrize("precision", ["bf16-true", "fp64-true"])
def test_a_precision_is_put_on_once(precision):
    halves = Halves(MixedPrecision(precision)).run()
    assert len(halves.model._forward_pre_hooks) == 1


def test_float8_is_put_in_once():
    pytest.importorskip("torchao")
    halves = Halves(MixedPrecision("fp8", emulate=True)).run()
    assert {type(layer).__name__ for layer in halves.model.modules()} >= {"Float8Linear"}


def test_channels_are_put_last_once():
    convolutions = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Flatten(), nn.Linear(8, 2))
    halves = Halves(ChannelsLast(), model=convolutions).run()
    assert len(convolutions._forward_pre_hooks) == 1
    assert halves.engine.state.step == 24


@pytest.mark.parametrize("make", [lambda: EMA(0.5), lambda: SWA(1)], ids=["EMA", "SWA"])
def test_an_average_of_both_halves(make):
    average = make()
    weights = []
    halves = Halves(average)
    event = UpdateEvents.STEP_COMPLETED if isinstance(average, EMA) else Events.EPOCH_COMPLETED
    note = lambda: weights.append(halves.model[0][0].weight.detach().clone())  # noqa: E731
    (halves.updates[0] if isinstance(average, EMA) else halves.engine).add_event_handler(event, note, order=-100)
    halves.run()
    if isinstance(average, EMA):
        expected = weights[0]
        for weight in weights[1:]:
            expected = expected.lerp(weight, 0.5)
        assert torch.equal(average.averaged(halves.model)["0.0.weight"], expected)
    else:
        torch.testing.assert_close(halves.model[0][0].weight, torch.stack(weights).mean(dim=0))


def test_freezing_a_part_of_one_half():
    halves = Halves(Freeze("0.0"))
    before = halves.model[0][0].weight.clone()
    halves.run()
    assert torch.equal(halves.model[0][0].weight, before)
