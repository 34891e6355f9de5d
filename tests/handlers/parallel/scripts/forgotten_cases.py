"""Updates in a world of several ranks, with and without something that exchanges their gradients; run by every rank."""

import torch
from data_cases import trainer_of
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update, supervised_trainer
from leyden.handlers import DataParallel


def error_of(function):
    try:
        function()
    except RuntimeError as error:
        return str(error)
    return None


def forgotten():
    """Both kinds of trainer; the STARTED that never comes."""
    started = []
    trainer = trainer_of()
    trainer.add_event_handler(Events.STARTED, lambda: started.append(1))
    model = nn.Linear(1, 1)
    supervised = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    return error_of(lambda: trainer.run([[0]])), error_of(lambda: supervised.run([[0]])), started


def seen_to():
    """What exchanges gradients, or says that nothing shall be."""

    def attached():
        trainer = trainer_of()
        trainer.attach(DataParallel(deal="nothing"))
        return trainer

    def independent():
        trainer = trainer_of()
        trainer.updates["default"].independent = True
        return trainer

    def of(model):
        engine = Engine(lambda engine, batch: None)
        Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
        return engine

    def sharded():
        model = nn.Linear(2, 2)
        fully_shard(model)
        return of(model)

    def frozen():
        model = nn.Linear(2, 2).requires_grad_(False)
        return of(model)

    makers = {
        "DataParallel": attached,
        "independent": independent,
        "a wrapped model": lambda: of(DistributedDataParallel(nn.Linear(1, 1))),
        "a sharded model": sharded,
        "nothing to train": frozen,
    }
    return {name: error_of(lambda make=make: make().run([0])) for name, make in makers.items()}


def an_engine_without_an_update():
    return error_of(lambda: Engine(lambda engine, batch: dist.rank()).run([0]))
