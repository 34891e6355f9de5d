"""A run that stopped and went on from its checkpoint is, to the bit, the run that never stopped."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents
from leyden.handlers import ClipGradients, EarlyStopping, MixedPrecision, Schedule
from leyden.handlers.checkpoint import Checkpoint


class Bf16WithFullState(torch.optim.Optimizer):
    """Keeps its momentum in float32 whatever the parameters are, as optimizers for low precision do."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    momentum = state.setdefault("momentum", torch.zeros_like(parameter, dtype=torch.float32))
                    momentum.mul_(0.9).add_(parameter.grad.float())
                    parameter.sub_(group["lr"] * momentum)


def groups_with_an_idle_parameter(net):
    idle = nn.Parameter(torch.zeros(2))
    net.register_parameter("idle", idle)
    return torch.optim.AdamW(
        [{"params": net[3].parameters(), "lr": 1e-3, "weight_decay": 0.1}, {"params": [idle, *net[0].parameters()]}],
        lr=torch.tensor(1e-2),
    )


OPTIMIZERS = {
    "SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "SGD without state": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    "AdamW amsgrad": lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2, amsgrad=True),
    "Adafactor": lambda net: torch.optim.Adafactor(net.parameters()),
    "ASGD": lambda net: torch.optim.ASGD(net.parameters()),
    "RMSprop": lambda net: torch.optim.RMSprop(net.parameters(), momentum=0.5, centered=True),
    "Rprop": lambda net: torch.optim.Rprop(net.parameters()),
    "LBFGS": lambda net: torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3, history_size=4),
    "groups, a tensor as rate, a parameter without gradient": groups_with_an_idle_parameter,
    "some parameters frozen": lambda net: torch.optim.Adam(net[0].requires_grad_(False) and net[3].parameters()),
    "named parameters": lambda net: torch.optim.Adam(net.named_parameters()),
}


def state_of(run):
    return {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}


def assert_goes_on_alike(make_run, same, tmp_path, handlers=list, epochs=(2, 4), **kinds):
    """Runs to the end at once, and in two parts; both must have the same losses, weights and optimizer states."""
    whole = make_run(*handlers(), **kinds)
    whole.trainer.run(whole.data, max_epochs=epochs[1])
    first = make_run(*handlers(), Checkpoint(tmp_path / "kept"), **kinds)
    first.trainer.run(first.data, max_epochs=epochs[0])
    torch.rand(17)  # the second part has used random numbers of its own before it goes on
    second = make_run(*handlers(), Checkpoint(tmp_path / "kept", resume="auto"), **kinds)
    second.trainer.run(second.data, max_epochs=epochs[1])
    assert same(first.losses + second.losses, whole.losses)
    assert same(state_of(second), state_of(whole))
    assert vars(second.trainer.state)["step"] == whole.trainer.state.step
    return whole, second


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_any_optimizer(kind, make_run, same, tmp_path) -> None:
    assert_goes_on_alike(make_run, same, tmp_path, optimizer=OPTIMIZERS[kind])


def test_an_optimizer_that_keeps_more_digits_than_its_parameters(make_run, same, tmp_path) -> None:
    def low():
        return nn.Sequential(nn.Linear(4, 2)).bfloat16()

    data = [(x.bfloat16(), y) for x, y in make_run().data]
    assert_goes_on_alike(
        make_run, same, tmp_path, model=low, optimizer=lambda n: Bf16WithFullState(n.parameters()), data=data
    )


def test_tied_weights_stay_tied(make_run, same, tmp_path) -> None:
    def tied():
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        net[1].weight = net[0].weight
        return net

    _, second = assert_goes_on_alike(make_run, same, tmp_path, model=tied)
    assert second.model[1].weight is second.model[0].weight


class HalvesWhatIsOld(nn.Linear):
    """A module whose first version meant another thing by its weights, as it knows by the version saved with them."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version", 1) < 2:
            state_dict[prefix + "weight"] = state_dict[prefix + "weight"] / 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def test_modules_whose_loading_depends_on_their_version(make_run, same, tmp_path) -> None:
    assert_goes_on_alike(make_run, same, tmp_path, model=lambda: nn.Sequential(HalvesWhatIsOld(4, 4), nn.Linear(4, 2)))


def test_a_compiled_model_goes_on_as_a_plain_one(make_run, same, tmp_path) -> None:
    first = make_run(Checkpoint(tmp_path), model=lambda: torch.compile(nn.Sequential(nn.Linear(4, 2)), backend="eager"))
    first.trainer.run(first.data, max_epochs=1)
    second = make_run(Checkpoint(tmp_path, resume="auto"), model=lambda: nn.Sequential(nn.Linear(4, 2)))
    second.trainer.run(second.data, max_epochs=1)
    assert same(dict(second.model.state_dict()), dict(first.model._orig_mod.state_dict()))


SCHEDULERS = {
    "OneCycleLR": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
    "MultiStepLR": lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 12]),
    "CosineAnnealingWarmRestarts": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    "SequentialLR": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [torch.optim.lr_scheduler.LinearLR(optimizer), torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [4],
    ),
    "LambdaLR": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.95**step),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_any_scheduler(kind, make_run, same, tmp_path) -> None:
    def scheduled(directory, resume, epochs):
        run = make_run(Checkpoint(directory, resume=resume))
        schedule = Schedule(SCHEDULERS[kind](run.optimizer))
        run.trainer.attach(schedule)
        rates = []
        run.trainer.add_event_handler(
            UpdateEvents.STEP_COMPLETED, lambda: rates.append(run.optimizer.param_groups[0]["lr"]), order=1
        )
        run.trainer.run(run.data, max_epochs=epochs)
        return rates, schedule.state_dict()

    whole, state = scheduled(tmp_path / "whole", None, 4)
    first, _ = scheduled(tmp_path / "kept", None, 2)
    second, state_after = scheduled(tmp_path / "kept", "auto", 4)
    assert first + second == whole
    assert same(state_after, state)


def test_low_precision_with_loss_scaling(make_run, same, tmp_path) -> None:
    def handlers():
        return [MixedPrecision("fp16", init_scale=1024.0, growth_interval=3), ClipGradients(norm=1.0)]

    whole, second = assert_goes_on_alike(make_run, same, tmp_path, handlers=handlers)
    scaler = second.trainer.updates["default"].slots.scaler
    assert scaler.state_dict() == whole.trainer.updates["default"].slots.scaler.state_dict()
    assert scaler.state_dict()["scale"] > 1024.0


@pytest.fixture
def adversaries():
    """A function that makes an engine of two updates, the states of its optimizers, and its models."""

    def make(*handlers):
        torch.manual_seed(0)
        critic, generator = nn.Linear(4, 1), nn.Linear(2, 4)

        def step(engine, batch):
            with updates[0].forward():
                loss = critic(batch).mean() - critic(generator(batch[:, :2]).detach()).mean()
            updates[0].backward(loss)
            with updates[1].forward():
                loss = critic(generator(batch[:, :2])).mean()
            updates[1].backward(loss)

        engine = Engine(step)
        updates = [
            Update(engine, critic, torch.optim.RMSprop(critic.parameters()), name="critic"),
            Update(engine, [generator], torch.optim.Adam(generator.parameters()), name="generator"),
        ]
        engine.attach(*handlers)
        return engine, (critic, generator)

    return make


def test_two_updates_on_one_engine(adversaries, same, tmp_path) -> None:
    data = list(torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(2)))
    engine, whole = adversaries()
    engine.run(data, max_epochs=4)
    engine, _ = adversaries(Checkpoint(tmp_path))
    engine.run(data, max_epochs=2)
    engine, parts = adversaries(Checkpoint(tmp_path, resume="auto"))
    engine.run(data, max_epochs=4)
    assert all(same(dict(a.state_dict()), dict(b.state_dict())) for a, b in zip(parts, whole, strict=True))
    assert [update.steps for update in engine.updates.values()] == [16, 16]


def test_saved_after_the_step_of_one_update_the_other_one_is_not_left_out(adversaries, same, tmp_path) -> None:
    data = list(torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(2)))
    engine, whole = adversaries()
    engine.run(data, max_epochs=2)
    engine, _ = adversaries(Checkpoint(tmp_path / "all", event=UpdateEvents.STEP_COMPLETED(every=3), keep=None))
    engine.run(data, max_epochs=2)
    first = min((tmp_path / "all").iterdir())
    assert first.name.endswith("03")  # the critic's third step comes before the generator's
    engine, parts = adversaries(Checkpoint(tmp_path / "on", resume=first))
    engine.run(data, max_epochs=2)
    assert all(same(dict(a.state_dict()), dict(b.state_dict())) for a, b in zip(parts, whole, strict=True))
    assert [update.steps for update in engine.updates.values()] == [8, 8]


def test_random_numbers_go_on(make_run, tmp_path) -> None:
    def drawing(*handlers, epochs):
        run = make_run(*handlers)
        run.trainer.run(run.data, max_epochs=epochs)
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(0)
    np.random.seed(0)
    drawn = drawing(Checkpoint(tmp_path), epochs=1)
    random.seed(5)
    np.random.seed(5)
    assert drawing(Checkpoint(tmp_path, resume="auto"), epochs=1) == drawn


class Counter:
    """A handler with a state of its own: plain data and tensors, nested."""

    def __init__(self):
        self.seen = {"count": 0, "last": (None, []), 7: torch.zeros(2, dtype=torch.bfloat16)}

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)

    def count(self, engine):
        self.seen["count"] += 1
        self.seen["last"] = (engine.state.iteration, [float("inf"), b"\x00"])
        self.seen[7] += 1

    def state_dict(self):
        return self.seen

    def load_state_dict(self, state_dict):
        self.seen = state_dict


def test_states_of_handlers_user_keys_metrics_and_extras(make_run, same, metric_of, tmp_path) -> None:
    def run_with(counter, extra, resume):
        stopper = EarlyStopping("score", patience=5)
        run = make_run(counter, stopper, Checkpoint(tmp_path, resume=resume, extra={"mine": extra}))
        metric_of(run.trainer, [0.5, 0.4, 0.3, 0.2])
        run.trainer.state_dict_user_keys.append("note")
        run.trainer.state.note = None
        return run, stopper

    counter, extra = Counter(), nn.Linear(2, 2)
    run, stopper = run_with(counter, extra, None)
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: setattr(run.trainer.state, "note", {"a": [1, "b"]}))
    run.trainer.run(run.data, max_epochs=2)
    counter_after, extra_after = Counter(), nn.Linear(2, 2)
    after, stopper_after = run_with(counter_after, extra_after, "auto")
    after.trainer.run(after.data, max_epochs=2)
    assert same(counter_after.seen, counter.seen)
    assert same(dict(extra_after.state_dict()), dict(extra.state_dict()))
    assert stopper_after.state_dict() == stopper.state_dict() == {"best": 0.5, "waited": 1, "times_set": 2}
    assert after.trainer.state.note == {"a": [1, "b"]}
    assert dict(after.trainer.state.metrics) == {"score": 0.4}
    assert (after.trainer.state.epoch, after.trainer.state.iteration) == (2, 10)


@pytest.mark.parametrize("stop_at", [1, 7, 10, 13])
def test_stopped_at_any_iteration(stop_at, make_run, same, tmp_path) -> None:
    whole = make_run()
    whole.trainer.run(whole.data, max_epochs=3)
    first = make_run(Checkpoint(tmp_path))
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_at), first.trainer.interrupt)
    first.trainer.run(first.data, max_epochs=3)
    second = make_run(Checkpoint(tmp_path, resume="auto"))
    second.trainer.run(second.data, max_epochs=3)
    assert len(first.losses) == stop_at
    assert same(first.losses + second.losses, whole.losses)
    assert same(state_of(second), state_of(whole))
