"""How each scheduler of torch is made, and how a loop by hand steps it."""

import inspect
from itertools import count

import torch
from by_hand import batches, loss_fn, net, train_by_hand
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from leyden.engine import Events, UpdateEvents, supervised_trainer
from leyden.handlers import GradientAccumulation, Schedule

MAKE = {
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=2),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=9),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 11]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.97),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=35, power=2),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
    "SWALR": lambda o: SWALR(o, swa_lr=0.02, anneal_epochs=8),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[5]
    ),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
}

METRIC = {"ReduceLROnPlateau"}
"""Those that watch a metric, so that they step per epoch only."""

LOSSES = [5.0, 6.0, 4.0, 7.0, 3.0, 3.5, 3.6, 3.7]
"""A metric's value after each epoch."""


def schedulers_of_torch(base=lr_scheduler.LRScheduler):
    """The names of all schedulers that torch has, wherever it keeps them."""
    names = set()
    for kind in base.__subclasses__():
        if kind.__module__.startswith("torch.") and not kind.__name__.startswith("_") and not inspect.isabstract(kind):
            names.add(kind.__name__)
        names |= schedulers_of_torch(kind)
    return names


def sgd(model):
    """Of two groups with learning rates of their own, as schedulers have to keep them."""
    return torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.05}], lr=0.1, momentum=0.9
    )


def values_of(optimizer):
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


def by_hand(make, per="step", every=1, window=1, epochs=3):
    """Trains by hand with a scheduler; gives the model, and the values that each step had. A `make` may give a function
    of the epoch's loss instead of a scheduler."""
    model, values = net(), []
    optimizer = sgd(model)
    scheduler = make(optimizer)
    done, losses = {"step": count(1), "epoch": count(1)}, iter(LOSSES)

    def step(what):
        if what == per and next(done[what]) % every == 0:
            watches = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or not hasattr(scheduler, "step")
            step_once = getattr(scheduler, "step", scheduler)
            step_once(loss) if watches else step_once()

    def after_epoch():
        nonlocal loss
        loss = next(losses)
        step("epoch")

    loss = None
    train_by_hand(
        model, optimizer, batches(10), epochs=epochs, window=window,
        clip=lambda parameters: values.append(values_of(optimizer)),
        after_step=lambda: step("step"), after_epoch=after_epoch,
    )  # fmt: skip
    return model, values


def trainer_with(make, *handlers, window=1, **arguments):
    """A trainer with a Schedule; gives also its model and the list of values that its steps will have."""
    model, values = net(), []
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.declare_metrics("loss")

    @trainer.on(Events.EPOCH_COMPLETED, order=-1)
    def evaluate():
        trainer.state.metrics["loss"] = LOSSES[trainer.state.epoch - 1]

    scheduler = make(optimizer)
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        arguments["metric"] = "loss"
    trainer.attach(Schedule(scheduler, **arguments), GradientAccumulation(window), *handlers)
    trainer.add_event_handler(UpdateEvents.GRADIENTS_READY, lambda: values.append(values_of(optimizer)))
    return trainer, model, values


def by_handler(make, epochs=3, **arguments):
    trainer, model, values = trainer_with(make, **arguments)
    trainer.run(batches(10), max_epochs=epochs)
    return model, values
