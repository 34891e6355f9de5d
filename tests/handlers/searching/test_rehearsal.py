"""Steps that leave no trace."""

import random

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from trainings import (
    adamw,
    batches,
    everything,
    loss_fn,
    net,
    plain_net,
    same,
    samples,
    seed_all,
    shuffled,
    trainer_of,
)

from leyden.engine import Engine, Events, Stage, Update, UpdateEvents, supervised_trainer
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision, Schedule
from leyden.handlers.searching.rehearsal import Rehearsal


def rehearse(engine, data, steps=5):
    with Rehearsal(engine, data) as rehearsal:
        return [rehearsal.step() for _ in range(steps)]


def trained(*handlers, epochs=1, data=None):
    """A trainer that has run, so that there is something to put back everywhere."""
    model = net()
    trainer = trainer_of(model, adamw(model), *handlers)
    trainer.state.note = [1, {"two": torch.tensor(2.0)}]
    seed_all()
    trainer.run(shuffled() if data is None else data, max_epochs=epochs)
    return trainer


KINDS = {
    "alone": lambda: (),
    "accumulation": lambda: (GradientAccumulation(3),),
    "accumulation by epoch": lambda: (GradientAccumulation({1: 1, 3: 4}),),
    "clipping": lambda: (ClipGradients(norm=0.1),),
    "bf16": lambda: (MixedPrecision("bf16"),),
    "fp16": lambda: (MixedPrecision("fp16", growth_interval=2),),
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_as_it_was(kind):
    trainer = trained(*KINDS[kind]())
    before = everything(trainer)
    outputs = rehearse(trainer, shuffled())
    assert same(before, everything(trainer))
    assert len({float(output) for output in outputs}) == 5  # it did step: the batches' losses are numbers of their own


def test_it_really_trains_in_between():
    trainer = trained()
    model = trainer.updates["default"].modules["model"]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with Rehearsal(trainer, shuffled()) as rehearsal:
        rehearsal.step()
        assert trainer.updates["default"].steps == 1
        assert not any(torch.equal(old, now) for old, now in zip(before, model.parameters(), strict=True))
        assert model.passes == 11
    assert all(torch.equal(old, now) for old, now in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_run_nothing_is_there_afterwards(kind):
    model = net()
    trainer = trainer_of(model, adamw(model), *KINDS[kind]())
    trainer.setup.run(Stage.DEVICE, Stage.RESTORE)
    before = everything(trainer)
    rehearse(trainer, shuffled())
    after = everything(trainer)
    assert same(before, after)
    assert after["updates"]["default"]["holds"] == [0]


def test_objects_stay_the_same_ones():
    trainer = trained()
    update = trainer.updates["default"]
    model, optimizer = update.modules["model"], update.optimizer

    def ids():
        entries = [id(value) for entry in optimizer.state.values() for value in entry.values()]
        tensors = [id(t) for t in (*model.parameters(), *model.buffers())]
        return (
            entries,
            tensors,
            [t.data_ptr() for t in model.parameters()],
            [id(group) for group in optimizer.param_groups],
        )

    before = ids()
    rehearse(trainer, shuffled())
    assert ids() == before


def test_gradients_that_a_user_left_stay():
    trainer = trained()
    first, second, *_ = trainer.updates["default"].modules["model"].parameters()
    first.grad, second.grad = torch.ones_like(first), None
    mine = first.grad
    rehearse(trainer, shuffled())
    assert first.grad is mine
    assert torch.equal(mine, torch.ones_like(first))
    assert second.grad is None


def test_what_the_process_function_changes_on_the_way_is_put_back():
    model = net()

    def process(engine, batch):
        model.layers[1].eval()
        model.layers[0].weight.requires_grad_(False)
        optimizer.param_groups[0]["lr"] *= 2
        engine.state.seen += 1
        engine.state.seen_last.append(batch)
        engine.state.new = True
        engine.state.metrics["loss"] = 1.0
        with update.forward():
            loss = loss_fn(model(batch[0]), batch[1])
        update.backward(loss)

    trainer = Engine(process)
    optimizer = adamw(model)
    update = Update(trainer, model, optimizer)
    trainer.state.seen, trainer.state.seen_last = 0, []
    rehearse(trainer, batches())
    assert (trainer.state.seen, trainer.state.seen_last, hasattr(trainer.state, "new")) == (0, [], False)
    assert len(trainer.state.metrics) == 0
    assert model.layers[1].training
    assert model.layers[0].weight.requires_grad
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_several_updates():
    models = {"fast": net(), "slow": net()}

    def process(engine, batch):
        x, y = batch
        for update in (fast, slow):
            with update.forward():
                loss = loss_fn(models[update.name](x), y)
            update.backward(loss)

    engine = Engine(process)
    fast, slow = (Update(engine, model, adamw(model), name=name) for name, model in models.items())
    engine.attach(GradientAccumulation(3, update="slow"))
    engine.run(batches())
    before = everything(engine)
    with Rehearsal(engine, batches()) as rehearsal:
        for _ in range(7):
            rehearsal.step()
        assert (fast.steps, slow.steps) == (7, 2)
    assert same(before, everything(engine))


def test_an_optimizer_that_keeps_lists_of_tensors():
    model = plain_net()
    trainer = trainer_of(model, torch.optim.LBFGS(model.parameters(), max_iter=3))
    trainer.run(batches(2))
    before = everything(trainer)
    rehearse(trainer, batches())
    assert same(before, everything(trainer))


# -- who sees it -------------------------------------------------------------------------------------------------------


def test_no_handler_sees_it_but_those_that_shape_the_gradient():
    trainer = trained()
    seen = []
    for event in [*Events, *UpdateEvents]:
        trainer.add_event_handler(event, lambda event=event: seen.append(event))
    trainer.register_events("mine")
    trainer.add_event_handler("mine", seen.append, "mine")
    process = trainer.process

    def process_that_fires(engine, batch):
        engine.fire_event("mine")
        return process(engine, batch)

    trainer.process = process_that_fires
    rehearse(trainer, batches(), steps=1)
    assert seen == [
        UpdateEvents.FORWARD_STARTED,
        UpdateEvents.FORWARD_COMPLETED,
        UpdateEvents.BACKWARD_STARTED,
        UpdateEvents.BACKWARD_COMPLETED,
        UpdateEvents.GRADIENTS_READY,
    ]


def test_a_skipped_step_is_not_seen_either():
    model = net()
    trainer = trainer_of(model, adamw(model), MixedPrecision("fp16", init_scale=2.0**60))
    trainer.setup.run(Stage.DEVICE, Stage.RESTORE)
    seen = []
    trainer.add_event_handler(UpdateEvents.STEP_SKIPPED, seen.append, "skipped")
    with Rehearsal(trainer, batches()) as rehearsal:
        rehearsal.step()
        assert rehearsal.skipped == {"default": 1}
    assert seen == []


def test_schedules_do_not_move():
    model = net()
    optimizer = adamw(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    trainer = trainer_of(model, optimizer, Schedule(scheduler))
    rehearse(trainer, batches())
    assert (scheduler.last_epoch, scheduler.get_last_lr(), optimizer.param_groups[0]["lr"]) == (0, [1e-3], 1e-3)


def test_filters_count_as_if_it_had_not_been():
    trainer = trainer_of(model := net(), adamw(model))
    counts = []
    trainer.add_event_handler(UpdateEvents.GRADIENTS_READY(once=2), lambda: counts.append(trainer.state.iteration))
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED(every=4), lambda: counts.append(trainer.state.iteration))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), rehearse, batches())
    trainer.run(batches(9))
    assert counts == [2, 3 + 2, 4, 8]  # GRADIENTS_READY is heard in the rehearsal, which counts from 1


def test_the_state_of_a_handler_that_acts_in_a_step_is_put_back():
    class Norms:
        def __init__(self):
            self.norms, self.largest = [], torch.zeros(())

        def attach(self, engine):
            engine.add_event_handler(UpdateEvents.GRADIENTS_READY, self.note)

        def note(self, engine, update):
            self.norms.append(torch.nn.utils.get_total_norm(update.gradients()))
            torch.maximum(self.largest, self.norms[-1], out=self.largest)

    norms = Norms()
    trainer = trained(norms)
    before = list(norms.norms), norms.largest.clone()
    rehearse(trainer, [(10 * x, y) for x, y in batches()])
    assert norms.norms == before[0]
    assert torch.equal(norms.largest, before[1])


# -- windows -----------------------------------------------------------------------------------------------------------


def test_a_window_that_is_open_goes_on_afterwards():
    runs = []
    for rehearsed in (False, True):
        model = net()
        trainer = trainer_of(model, adamw(model), GradientAccumulation(4))
        seed_all()
        data = batches(10)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), trainer.interrupt)
        trainer.run(data, max_epochs=2)
        if rehearsed:
            rehearse(trainer, shuffled())
        trainer.run(data, max_epochs=2)
        runs.append(everything(trainer))
    assert same(*runs)


def test_no_end_of_an_epoch_cuts_a_window():
    trainer = trainer_of(model := net(), adamw(model), GradientAccumulation(4))
    trainer.run(batches(10), max_epochs=1)
    with Rehearsal(trainer, batches(3)) as rehearsal:
        steps = []
        for _ in range(9):
            rehearsal.step()
            steps.append(trainer.updates["default"].steps)
    assert steps == [0, 0, 0, 1, 1, 1, 1, 2, 2]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize(
    "event", [UpdateEvents.FORWARD_STARTED, UpdateEvents.BACKWARD_COMPLETED, UpdateEvents.GRADIENTS_READY]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_error_inside_puts_everything_back(error, event, precision):
    trainer = trained(MixedPrecision(precision), GradientAccumulation(2))
    before = everything(trainer)

    def fail():
        if trainer.updates["default"].steps == 1:
            raise error

    with trainer.add_event_handler(event, fail), pytest.raises(error):
        rehearse(trainer, shuffled(), steps=9)
    assert same(before, everything(trainer))
    rehearse(trainer, shuffled())
    assert same(before, everything(trainer))


def test_a_step_of_the_optimizer_that_fails():
    trainer = trained(MixedPrecision("fp16"))
    before = everything(trainer)

    def fail(*_):
        raise ZeroDivisionError

    handle = trainer.updates["default"].optimizer.register_step_post_hook(fail)
    with pytest.raises(ZeroDivisionError):
        rehearse(trainer, shuffled())
    handle.remove()
    assert same(before, everything(trainer))
    trainer.run(shuffled(), max_epochs=2)  # the scaler has not kept that it is in the middle of a step


def test_a_model_without_shapes_yet():
    model = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(2))
    trainer = trainer_of(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="parameters without a shape yet"):
        rehearse(trainer, batches())


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [iter, lambda data: (batch for batch in data)])
def test_data_that_can_be_gone_through_only_once_is_not_touched(kind):
    trainer = trained()
    data = kind(batches(3))
    with pytest.raises(ValueError, match="can be gone through only once; give data that can be iterated again"):
        rehearse(trainer, data)
    assert len(list(data)) == 3


def test_short_data_is_begun_anew():
    trainer = trained()
    with Rehearsal(trainer, batches(2)) as rehearsal:
        for _ in range(5):
            rehearsal.step()
        assert (rehearsal.batches, rehearsal.passes) == (5, 3)


def test_empty_data():
    with pytest.raises(ValueError, match="the data of the run is empty: _Nothing gave no batch"):
        rehearse(trained(), _Nothing())


class _Nothing:
    def __iter__(self):
        return iter(())


def test_generators_of_the_loader_its_sampler_and_its_dataset_are_put_back():
    class Noisy(Dataset):
        def __init__(self):
            self.generators = {
                "torch": torch.Generator().manual_seed(2),
                "numpy": numpy.random.default_rng(2),
                "legacy": numpy.random.RandomState(2),
                "python": random.Random(2),
            }
            self.calls = 0

        def __getitem__(self, index):
            self.calls += 1
            g = self.generators
            noise = g["numpy"].random() + g["legacy"].random() + g["python"].random() + self.calls
            return torch.randn(6, generator=g["torch"]) + noise, torch.zeros(2)

        def __len__(self):
            return 12

    def loader():
        dataset = Noisy()
        sampler = torch.utils.data.RandomSampler(dataset, generator=torch.Generator().manual_seed(4))
        return DataLoader(dataset, 4, sampler=sampler, generator=torch.Generator().manual_seed(3))

    def rounds(data):
        return [x for _ in range(2) for x, _ in data]

    expected = rounds(loader())
    data = loader()
    rehearse(trained(), data)
    assert all(torch.equal(mine, its) for mine, its in zip(rounds(data), expected, strict=True))


def test_a_stream_that_knows_where_it_is_stands_there_again():
    class Stream(IterableDataset):
        place = 0

        def __iter__(self):
            while self.place < 40:
                self.place += 1
                yield torch.full((6,), float(self.place)), torch.zeros(2)

    data = DataLoader(Stream(), batch_size=2)
    rehearse(trained(), data, steps=3)
    assert [float(x[0, 0]) for x, _ in data][:2] == [1.0, 3.0]


class Augmented(Dataset):
    """Draws in the workers, which keep their generators as long as they stay."""

    def __getitem__(self, index):
        return torch.randn(6), torch.zeros(2)

    def __len__(self):
        return 12


def test_workers_that_stay_are_not_drawn_in():
    passes = []
    for rehearsed in (False, True):
        seed_all()
        data = DataLoader(Augmented(), 4, num_workers=1, persistent_workers=True)
        seen = [x for x, _ in data]
        trainer = trainer_of(model := net(), adamw(model))
        if rehearsed:
            rehearse(trainer, data)
        passes.append([*seen, *(x for x, _ in data)])
    assert all(torch.equal(mine, its) for mine, its in zip(*passes, strict=True))


def test_no_data_at_all():
    model = plain_net()
    x, y = samples(8).tensors

    def process(engine, batch):
        assert batch is None
        with update.forward():
            loss = loss_fn(model(x), y)
        update.backward(loss)
        return loss.detach()

    trainer = Engine(process)
    update = Update(trainer, model, adamw(model))
    assert len(rehearse(trainer, None)) == 5


def test_its_batches_are_those_of_the_run():
    """The first pass of a rehearsal and that of the run after it draw the same random numbers."""
    model = net()
    trainer = supervised_trainer(model, adamw(model), loss_fn)
    seed_all()
    data = shuffled()
    outputs = rehearse(trainer, data)
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output))
    trainer.run(data)
    assert all(torch.equal(mine, its) for mine, its in zip(outputs, losses[:5], strict=True))
