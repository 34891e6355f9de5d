"""Averages of a model on several ranks: each function is run by two of them, and gives plain values for the test."""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from leyden import distributed as dist
from leyden.engine import Events, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, DataParallel, Evaluate
from leyden.handlers.training.ema import EMA
from leyden.handlers.training.swa import SWA

loss_fn = nn.MSELoss()


def net():
    """Seven rows on two ranks: the shards differ in size."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))


def batches(number=5):
    generator = torch.Generator().manual_seed(1 + dist.rank())
    return [(torch.randn(4, 6, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(number)]


def whole(tensors):
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in tensors.items()
    }


def sharded_run(*handlers, epochs=3, on=None):
    """Trains; gives the model and its weights, whole, after each optimizer step."""
    model = net()
    for part in (model[0], model[2], model):  # the last layer belongs to the root, which stays gathered after a forward
        fully_shard(part)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    steps = []
    trainer.attach(*(handler(model) if callable(handler) else handler for handler in handlers))
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda: steps.append(whole(dict(model.named_parameters()))))
    if on is not None:
        on(trainer)
    trainer.run(batches(), max_epochs=epochs)
    return model, steps


def evaluating(seen):
    """A handler that evaluates and notes what the model gives."""

    def make(model):
        evaluator = supervised_evaluator(model)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(evaluator.state.output[0]))
        return Evaluate(evaluator, [(torch.ones(2, 6), torch.ones(2, 1))])

    return make


def by_hand(steps, decay=0.9):
    average = copy.deepcopy(steps[0])
    for weights in steps[1:]:
        for name, mean in average.items():
            mean.lerp_(weights[name], 1 - decay)
    return average


def memory(tensors):
    return {value.to_local().untyped_storage().data_ptr() for value in tensors.values()}


class Collectives(TorchDispatchMode):
    """Counts the collectives that are called."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.namespace in ("c10d", "_c10d_functional")
        return function(*args, **(kwargs or {}))


def equal(tree, other):
    return tree.keys() == other.keys() and all(torch.equal(tree[name], other[name]) for name in tree)


def averaged_and_evaluated():
    _, plain = sharded_run()
    ema, seen, epochs = EMA(0.9), [], []

    def note(trainer):
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: epochs.append(whole(ema.averaged())))

    _, steps = sharded_run(EMA(0.9), evaluating([]))  # nothing but the evaluation touches the model
    model, _ = sharded_run(ema, evaluating(seen), on=note)
    kept = ema.state_dict()["updates"]["default"]["averages"]
    expected = []
    for average in epochs:
        alone = net()
        alone.load_state_dict(average)
        expected.append(alone(torch.ones(2, 6)))
    copied = net()
    ema.copy_to(copied)
    return {
        "training goes on as if there were none": all(map(equal, steps, plain)),
        "the average is that by hand": equal(whole(ema.averaged()), by_hand(plain)),
        "an average is a shard": all(isinstance(value, DTensor) for value in kept.values()),
        "no memory is shared": not memory(kept) & memory(model.state_dict()),
        "evaluations are of the averages": all(map(torch.allclose, seen, expected)) and len(seen) == 3,
        "it can be copied to a whole model": equal(dict(copied.state_dict()), by_hand(plain)),
    }


def nothing_is_gathered():
    def run(*handlers):
        model = net()
        for part in (model[0], model):
            fully_shard(part)
        trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn)
        trainer.attach(*handlers)
        with Collectives() as mode:
            trainer.run(batches(), max_epochs=2)
        return mode.count

    plain, averaged = run(), run(EMA(0.9))
    return {"steps make collectives": plain > 0, "averages make none": plain == averaged}


def gone_on(base):
    """Interrupted at batch 7 or, since ranks agree beside the work, soon after, and from a checkpoint to the end; the
    averages as they were, and as they are.
    """
    ema = EMA(0.9)
    _, steps = sharded_run(ema, Checkpoint(Path(base) / "whole"))
    _, begun = sharded_run(
        EMA(0.9),
        Checkpoint(Path(base) / "kept"),
        on=lambda trainer: trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), trainer.interrupt),
    )
    second = EMA(0.9)
    _, rest = sharded_run(second, Checkpoint(Path(base) / "kept", resume="auto"))
    return {
        "the rest is run": len(steps) == 15 and 7 <= len(begun) < 15 and len(begun) + len(rest) == 15,
        "the weights are the same": equal(steps[-1], rest[-1]),
        "the averages are the same": equal(whole(ema.averaged()), whole(second.averaged())),
    }


def swa():
    average = SWA(2)
    _, plain = sharded_run()
    model, _ = sharded_run(average)
    expected = copy.deepcopy(plain[9])
    for name, mean in expected.items():
        mean.copy_(mean + (plain[14][name] - mean) / 2)
    return {"the model has the average": equal(whole(model.state_dict()), expected)}


def statistics_of_replicas():
    """Batch norm in replicas: the pass at the end sees the data of both ranks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(DataParallel(deal="batches"), SWA(2))
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(4, 6, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(6)]
    trainer.run(data, max_epochs=3)
    features = [model[0](x) for x, _ in data]
    mean = torch.stack([each.mean(0) for each in features]).mean(0)
    var = torch.stack([each.var(0) for each in features]).mean(0)
    everyone = dist.all_gather(torch.cat([value.double().flatten() for value in model.state_dict().values()])[None])
    return {
        "replicas are equal": torch.equal(*everyone),
        "statistics are of all ranks": torch.allclose(model[1].running_mean, mean, atol=1e-6)
        and torch.allclose(model[1].running_var, var, atol=1e-6),
    }


def cases(base):
    return {
        **averaged_and_evaluated(),
        **nothing_is_gathered(),
        **gone_on(base),
        **{f"swa: {name}": value for name, value in (swa() | statistics_of_replicas()).items()},
    }
