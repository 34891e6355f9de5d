"""One model on each rank, the data dealt among them."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage
from leyden.engine.values import move_module
from leyden.handlers.parallel.deal_data import DealData
from leyden.handlers.parallel.replicas import Replicas, synchronise_batch_norm
from leyden.handlers.parallel.shares import Choice

_OPTIONS = [
    name for name in inspect.signature(DistributedDataParallel.__init__).parameters if name not in ("self", "module")
]


class DataParallel:
    """Trains replicas on all ranks that torchrun, SLURM or `launch` started; in one process it does nothing.

    Models move to the rank's device (in one process too), start equal to rank 0's and stay the user's own objects;
    their gradients are averaged, once in an accumulation window. What one rank decides about stopping holds for all.

    The data are dealt to the ranks by a `DealData` that this brings along, with the choice `deal`: "samples", which
    None means as well, "batches", or False (also "nothing") where each rank has its own. It reaches the evaluators that
    the trainer runs (`Evaluate`), too; an evaluator that needs another choice gets a DealData of its own.

    In a mesh (`dist.initialize(mesh=...)`) the replicas are the ranks along "replicate" and "shard"; those that differ
    in another dimension alone read the same samples, and begin with the same weights.

    `sync_batch_norm=True` exchanges batch norms for synchronised ones (accelerators only). Further arguments go to
    torch.nn.parallel.DistributedDataParallel (`find_unused_parameters`, `bucket_cap_mb`, `static_graph`, ...);
    raises TypeError for one that it does not have, in one process too; with `static_graph` ValueError for a step of
    several batches or backward passes.
    """

    def __init__(self, *, deal: Choice | bool | None = None, sync_batch_norm: bool = False, **options: Any) -> None:
        self.dealing = DealData.brought_by(self, deal)
        """What deals the data."""
        self._sync_batch_norm = sync_batch_norm
        if unknown := [each for each in options if each not in _OPTIONS]:
            raise TypeError(
                f"DataParallel knows no argument {unknown[0]!r}; its own are deal and sync_batch_norm, and those of "
                f"DistributedDataParallel: {', '.join(_OPTIONS)}"
            )
        self._options = options
        self._replicas: list[Replicas] = []

    @property
    def same_on_ranks(self) -> dict[str, Any]:
        """See `leyden.engine.AlikeOnRanks`."""
        return {**self.dealing.same_on_ranks, "sync_batch_norm": self._sync_batch_norm, **self._options}

    def attach(self, engine: Engine[Any, Any]) -> None:
        dist.initialize()
        if dist.world_size() == 1:
            for update in engine.updates.values():
                modules = list(update.modules.values())
                engine.setup.add(Stage.DEVICE, functools.partial(self._place, modules, engine.device))
            return
        if engine.training and not engine.updates:
            warnings.warn(
                "DataParallel deals the data, but replicates no model: the engine has no Update. Make one "
                "(Update(engine, model, optimizer)), or average gradients in the process function",
                stacklevel=3,
            )
        for update in engine.updates.values():
            replicas = Replicas(**self._options)
            self._replicas.append(replicas)
            update.slots.claim("sync", self, replicas)
            engine.setup.add(
                Stage.DEVICE, functools.partial(self._prepare, list(update.modules.values()), engine.device)
            )
            engine.setup.add(Stage.SHARD, functools.partial(replicas.replicate, update), owner=self)
        self.dealing.deal_to(engine, even=engine.training)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Deals the evaluator's data without repeating a sample; all ranks measure one model, buffers included."""
        if dist.world_size() > 1:
            self.dealing.attach_to_evaluator(engine)
            engine.add_event_handler(Events.STARTED, self._share_buffers, order=Order.METRICS)

    def _share_buffers(self) -> None:
        """Each rank has batch norms' statistics of its own batches since the last pass; rank 0's are the model's, in a
        checkpoint too.
        """
        for replicas in self._replicas:
            replicas.share_buffers()

    def _prepare(self, modules: list[torch.nn.Module], device: torch.device) -> None:
        self._place(modules, device)
        for module in modules:
            if self._sync_batch_norm:
                synchronise_batch_norm(module)

    def _place(self, modules: list[torch.nn.Module], device: torch.device) -> None:
        for module in modules:
            move_module(module, device)

    def state_dict(self) -> dict[str, Any]:
        return self.dealing.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.dealing.load_state_dict(state_dict)
