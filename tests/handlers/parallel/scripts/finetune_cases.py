"""Replicas of which more is trained from epoch to epoch; each function is run by every rank."""

import gc

import torch
from replica_cases import Recorder, dataset, loss_fn, start_of
from torch import nn
from torch.utils.data import DataLoader

from leyden.engine import Events, UpdateEvents, supervised_trainer
from leyden.handlers import Checkpoint, DataParallel, GradientAccumulation
from leyden.handlers.model import Finetune, Freeze

PLAN = {1: "2", 2: ("1", 0.5), 3: ("0", 0.1)}


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))


def parts():
    model = net()
    return nn.Sequential(model[:2], model[2:4], model[4])


def run_plan(directory=None, stop=None, window=1):
    model = parts()
    (start,) = start_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(Finetune(PLAN), DataParallel(), GradientAccumulation(window))
    if directory is not None:
        trainer.attach(Checkpoint(directory, resume="auto"))
    recorder, synchronised = Recorder(trainer), []

    @trainer.on(UpdateEvents.GRADIENTS_READY)
    def compare(engine, update):
        from leyden import distributed as dist

        gradients = torch.cat([gradient.flatten() for gradient in update.gradients()])
        ours, theirs = dist.all_gather(gradients[None])
        synchronised.append((len(update.gradients()), torch.equal(ours, theirs)))

    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.interrupt)
    trainer.run(DataLoader(dataset(), batch_size=4), max_epochs=3)
    outcome = {"start": start, "end": model, "batches": recorder.batches, "synchronised": synchronised}
    del trainer
    gc.collect()
    return outcome


def finetuned(window=1):
    return run_plan(window=window)


def resumed(directory):
    first = run_plan(directory, stop=5)
    second = run_plan(directory)
    return {
        "start": first["start"],
        "end": second["end"],
        "batches": first["batches"] + second["batches"],
        "synchronised": first["synchronised"] + second["synchronised"],
    }


def frozen():
    model = parts()
    (start,) = start_of(model)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), loss_fn)
    trainer.attach(DataParallel(), Freeze("0"))
    recorder = Recorder(trainer)
    trainer.run(DataLoader(dataset(), batch_size=4), max_epochs=3)
    return {"start": start, "end": model, "batches": recorder.batches}
