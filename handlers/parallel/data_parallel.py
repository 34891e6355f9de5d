"""One model on each rank, the data dealt among them."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, Order, Stage
from leyden.engine.values import move_module
from leyden.handlers.parallel.dealing import Deal, set_epoch_of_sampler
from leyden.handlers.parallel.replicas import Replicas, synchronise_batch_norm
from leyden.handlers.parallel.shares import Choice, Shares, check_choice


class DataParallel:
    """Trains replicas on all ranks that torchrun, SLURM or `launch` started; in one process it does nothing.

    Models move to the rank's device (in one process too), start equal to rank 0's and stay the user's own objects;
    their gradients are averaged, once in an accumulation window. A loader's samples are dealt to the ranks anew in each
    epoch, its batch size being that of one rank; evaluators that the trainer runs (`Evaluate`) see each sample once,
    uneven shards included. What one rank decides about stopping holds for all.

    `deal` says what is dealt, to evaluators too. "samples", which None means as well: what loaders with random access
    give, except where a sampler has a rank of its own (DistributedSampler and its like). Data without random access (an
    IterableDataset, a list of batches, a generator) stays what each rank made of it, since it may be dealt already; a
    warning tells unless you choose. In training its passes end on all ranks where the first rank's data ends.
    "batches": such data is dealt too; each rank reads all of it and keeps its share of the batches. "nothing": each
    rank has its own data, whatever it is. An evaluator that needs another choice gets a DataParallel of its own.

    `sync_batch_norm=True` exchanges batch norms for synchronised ones (accelerators only). Further arguments go to
    torch.nn.parallel.DistributedDataParallel (`find_unused_parameters`, `bucket_cap_mb`, `static_graph`, ...).
    """

    def __init__(self, *, deal: Choice | None = None, sync_batch_norm: bool = False, **options: Any) -> None:
        check_choice(deal)
        self._choice = deal
        self._sync_batch_norm = sync_batch_norm
        self._options = options
        self._deals: list[Deal] = []
        self._replicas: list[Replicas] = []

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
        self._deal(engine, even=engine.training)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Deals the evaluator's data without repeating a sample; all ranks measure one model, buffers included."""
        if dist.world_size() > 1:
            if not engine.find_handlers(DataParallel):
                self._deal(engine, even=False)
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

    def _deal(self, engine: Engine[Any, Any], even: bool) -> None:
        engine.share_stops()
        seed = dist.broadcast(torch.initial_seed() % 2**62)
        deal = Deal(dist.rank(), dist.world_size(), seed, even)
        self._deals.append(deal)
        engine.data_setup.may_give_none = not even
        engine.data_setup.add(DataStage.BATCH, deal.begin_data)
        engine.data_setup.add(DataStage.DEAL, Shares(self._choice, deal), owner=self)

        def begin_epoch() -> None:
            deal.set_epoch(engine.state.epoch)
            set_epoch_of_sampler(engine.state.dataloader, engine.state.epoch)

        def go_on() -> None:  # a run that is resumed in mid-epoch does not begin that epoch again
            deal.go_on_in(engine.state.epoch)
            set_epoch_of_sampler(engine.state.dataloader, engine.state.epoch)

        engine.add_event_handler(Events.STARTED, go_on, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_STARTED, begin_epoch, order=Order.METRICS)

    def state_dict(self) -> dict[str, Any]:
        return {"seeds": [deal.seed for deal in self._deals]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Saved by another number of ranks, there may be none, or none wanted.
        for deal, seed in zip(self._deals, state_dict["seeds"], strict=False):
            deal.reseed(seed)
