"""Training in replicas: each function is run by every rank, and gives plain values for the test to judge."""

import copy
import warnings

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import ClipGradients, DataParallel, Evaluate, GradientAccumulation, MixedPrecision

loss_fn = nn.MSELoss()


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def dataset(number=24):
    generator = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(number, 3, generator=generator), torch.randn(number, 2, generator=generator))


def parameters_of(*models):
    return [parameter.detach().clone() for model in models for parameter in model.parameters()]


def start_of(*models):
    """Rank 0's models as they are before the run, on every rank: what a run in one process would begin with."""
    return [dist.broadcast_object(copy.deepcopy(model)) for model in models]


class Recorder:
    """Notes the batches of a run."""

    def __init__(self, engine):
        self.batches = []
        engine.add_event_handler(Events.ITERATION_STARTED, self.note)

    def note(self, engine):
        self.batches.append(engine.state.batch)


def trained(window=1, data=None, epochs=2, model=None, on=None, handlers=()):
    model = net() if model is None else model
    (start,) = start_of(model)
    names = list(model.state_dict())
    trainer = supervised_trainer(model, optimizer_of(model), loss_fn)
    trainer.attach(DataParallel(deal="batches"), GradientAccumulation(window), *handlers)
    recorder = Recorder(trainer)
    synchronised = []

    @trainer.on(UpdateEvents.BACKWARD_COMPLETED)
    def compare(engine, update):
        gradients = torch.cat([gradient.flatten() for gradient in update.gradients()])
        ours, theirs = dist.all_gather(gradients[None])
        synchronised.append(torch.equal(ours, theirs))

    if on is not None:
        on(trainer)
    loader = DataLoader(dataset(), batch_size=4, shuffle=True) if data is None else data
    trainer.run(loader, max_epochs=epochs)
    return {
        "start": start,
        "end": model,
        "batches": recorder.batches,
        "synchronised": synchronised,
        "steps": trainer.state.step,
        "names kept": list(model.state_dict()) == names,
        "iterations": trainer.state.iteration,
    }


def plain():
    return trained()


def accumulated():
    return trained(window=2)


def clipped():
    return trained(window=2, handlers=[ClipGradients(norm=0.1)])


def cut_by_terminate_epoch():
    """One rank ends the epoch after the first of 2 batches of a window."""

    def end_epoch(trainer):
        if dist.rank() == 1:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate_epoch)

    data = DataLoader(dataset(4000), batch_size=4)
    return trained(window=1000, data=data, on=end_epoch)


def cut_by_unknown_length():
    """7 batches for 2 ranks, in windows of 2: 3 batches each, the last window half full."""
    data = dataset(28)
    return trained(window=2, data=(data[i : i + 4] for i in range(0, 28, 4)), epochs=1)


def continued():
    model = net()
    (start,) = start_of(model)
    trainer = supervised_trainer(model, optimizer_of(model), loss_fn)
    trainer.attach(DataParallel())
    recorder = Recorder(trainer)
    loader = DataLoader(dataset(), batch_size=4, shuffle=True)
    trainer.run(loader, max_epochs=1)
    trainer.run(loader, max_epochs=3)
    return {"start": start, "end": model, "batches": recorder.batches}


def own_replicas():
    """A model that the user has wrapped; its communication hook counts the buckets that are exchanged."""
    model = net()
    (start,) = start_of(model)
    wrapped = DistributedDataParallel(model)
    exchanged = []

    def count(state, bucket):
        exchanged.append(trainer.state.iteration)
        return allreduce_hook(None, bucket)

    wrapped.register_comm_hook(None, count)
    trainer = supervised_trainer(wrapped, optimizer_of(wrapped), loss_fn)
    trainer.attach(DataParallel(), GradientAccumulation(3))
    recorder = Recorder(trainer)
    trainer.run(DataLoader(dataset(64), batch_size=4), max_epochs=2)  # 8 batches a rank: windows of 3, 3 and 2
    return {"start": start, "end": model, "batches": recorder.batches, "exchanged": exchanged}


def weighted():
    """Batches with other numbers of tokens on each rank, none at all among them."""
    model = net()
    (start,) = start_of(model)
    sizes = [[1, 5, 2, 3], [4, 0, 7, 1]][dist.rank()]
    x, y = dataset(23).tensors
    mine = slice(0, 11) if dist.rank() == 0 else slice(11, 23)
    batches = list(zip(x[mine].split(sizes), y[mine].split(sizes), strict=True))

    def process(engine, batch):
        x, y = batches[engine.state.iteration - 1]
        with update.forward():
            loss = (model(x) - y).square().sum() / max(y.numel(), 1)
        update.backward(loss, weight=torch.tensor(float(len(x))))

    engine = Engine(process)
    update = Update(engine, model, optimizer_of(model))
    engine.attach(DataParallel(), GradientAccumulation(2))
    engine.run(epoch_length=4)
    return {"start": start, "end": model, "batches": batches}


def gan():
    critic, generator = nn.Linear(3, 1), nn.Linear(2, 3)
    start = start_of(critic, generator)

    def process(engine, batch):
        real, noise = batch
        with critic_update.forward():
            loss = critic(generator(noise)).square().mean() - critic(real).mean()
        critic_update.backward(loss)
        with generator_update.forward():
            loss = (critic(generator(noise)) - 1).square().mean()
        generator_update.backward(loss)

    engine = Engine(process)
    critic_update = Update(engine, critic, optimizer_of(critic), name="critic")
    generator_update = Update(engine, generator, optimizer_of(generator), name="generator")
    engine.attach(DataParallel(), GradientAccumulation(2, update="critic"))
    recorder = Recorder(engine)
    engine.run(DataLoader(dataset(), batch_size=4, shuffle=True), max_epochs=2)
    return {"start": start, "end": [critic, generator], "batches": recorder.batches}


def in_parts():
    """A model that is called by its parts, one of them twice, and never as a whole."""
    model = nn.ModuleDict({"embed": nn.Linear(3, 4), "mix": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    (start,) = start_of(model)

    def process(engine, batch):
        x, y = batch
        with update.forward():
            hidden = model["mix"](model["mix"](model["embed"](x)))
            loss = loss_fn(model["head"](hidden), y)
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, optimizer_of(model))
    engine.attach(DataParallel())
    recorder = Recorder(engine)
    engine.run(DataLoader(dataset(), batch_size=4))
    return {"start": start, "end": model, "batches": recorder.batches}


def unused_parameters():
    """Each step uses one of two branches."""
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    (start,) = start_of(model)

    def process(engine, batch):
        x, y = batch
        with update.forward():
            loss = loss_fn(model[engine.state.iteration % 2](x), y)
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(DataParallel(find_unused_parameters=True))
    recorder = Recorder(engine)
    engine.run(DataLoader(dataset(), batch_size=4), max_epochs=2)
    return {"start": start, "end": model, "batches": recorder.batches}


def frozen():
    """A frozen part of the model, and a frozen module beside it."""
    model, teacher = net(), net().requires_grad_(False)
    model[0].requires_grad_(False)
    start = start_of(model, teacher)

    def process(engine, batch):
        x, _ = batch
        with update.forward():
            loss = loss_fn(model(x), teacher(x))
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, [model, teacher], optimizer_of(model))
    engine.attach(DataParallel())
    recorder = Recorder(engine)
    engine.run(DataLoader(dataset(), batch_size=4))
    return {"start": start, "end": [model, teacher], "batches": recorder.batches}


def overflow_on_one_rank():
    model = net()

    def process(engine, batch):
        x, y = batch
        with update.forward():
            loss = loss_fn(model(x), y)
            if dist.rank() == 1 and engine.state.iteration == 2:
                loss = loss * float("inf")
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, optimizer_of(model))
    skipped = []
    engine.attach(DataParallel(), MixedPrecision("fp16", init_scale=64.0))
    engine.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine: skipped.append(engine.state.iteration))
    engine.run(DataLoader(dataset(), batch_size=4))
    scale = engine.state_dict()["updates"]["default"]["scaler"]["scale"]
    return {"end": model, "skipped": skipped, "scale": scale}


def evaluated():
    """Evaluations in mid-epoch: the statistics of the batch norm that each rank measures with, and its own before."""
    model = nn.Sequential(nn.BatchNorm1d(3), net())
    evaluator = supervised_evaluator(model)
    trained_with, measured_with = [], []
    evaluator.add_event_handler(Events.ITERATION_STARTED, lambda: measured_with.append(model[0].running_mean.clone()))
    event = Events.ITERATION_COMPLETED(every=2)

    def note(trainer):
        trainer.add_event_handler(event, lambda: trained_with.append(model[0].running_mean.clone()), order=-100)

    evaluation = Evaluate(evaluator, DataLoader(dataset(8), batch_size=4), on=event)
    outcome = trained(model=model, on=note, handlers=(evaluation,))
    return outcome | {"trained with": trained_with, "measured with": measured_with}


def mistakes():
    model = net()
    trainer = supervised_trainer(model, optimizer_of(model), loss_fn)
    trainer.attach(DataParallel())
    try:
        trainer.attach(DataParallel())
        twice = None
    except ValueError as error:
        twice = str(error)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Engine(lambda engine, batch: None).attach(DataParallel())
    trainer = supervised_trainer(model, optimizer_of(model), loss_fn)
    trainer.attach(DataParallel(static_graph=True), GradientAccumulation(2))
    try:
        trainer.run(DataLoader(dataset(), batch_size=4))
        static = None
    except ValueError as error:
        static = str(error)
    told = [str(warning.message) for warning in caught]
    return {"twice": twice, "without an update": told, "a static graph and a window": static}


CASES = [
    plain, accumulated, clipped, cut_by_terminate_epoch, cut_by_unknown_length, continued, own_replicas, weighted, gan,
    in_parts, unused_parameters, frozen, overflow_on_one_rank, evaluated,
    mistakes,
]  # fmt: skip
