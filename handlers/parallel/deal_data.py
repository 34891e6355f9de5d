"""Which rank reads which part of the data."""

from __future__ import annotations

from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, Order
from leyden.handlers.parallel.dealing import Deal, set_epoch_of_sampler
from leyden.handlers.parallel.shares import Choice, Shares, checked_choice


class DealData:
    """Deals a run's data to the ranks that see different data, which lets them end their passes together.

    `DataParallel` brings one along. By itself it is for an engine whose gradients something else exchanges, and for an
    evaluator that needs another choice than the trainer. A loader's samples are dealt anew in each epoch, its batch
    size being that of one rank; evaluators that the trainer runs (`Evaluate`) see each sample once, uneven shares
    included. In a mesh the ranks along "replicate" and "shard" get different samples; those that differ along another
    dimension alone read the same. In one process nothing is dealt.

    `deal` says what is dealt, to evaluators too. "samples", which None means as well: what loaders with random access
    give, except where a sampler has a rank of its own (DistributedSampler and its like). Data without random access (an
    IterableDataset, a list of batches, a generator) stays what each rank made of it, since it may be dealt already; a
    warning tells unless you choose, or the data itself says so (split_dataset_by_node of Hugging Face or WebDataset).
    In training its passes end on all ranks where the first rank's data ends. "batches": such data is dealt too; each
    rank reads all of it and keeps its share of the batches. False or "nothing": each rank has its own data, whatever it
    is.

    Raises ValueError for another choice; when a run starts, for data of which each rank has a share already where they
    are to be dealt.
    """

    def __init__(self, deal: Choice | bool | None = None) -> None:
        self._choice = checked_choice(deal, "DealData")
        self._said_by = "DealData"
        self._engine: Engine[Any, Any] | None = None
        self._deals: list[Deal] = []

    @classmethod
    def brought_by(cls, handler: object, deal: Choice | bool | None) -> DealData:
        """One that the handler attaches to its engine by `deal_to`, in whose state its own is; an engine's own
        `DealData` goes before it.
        """
        name = type(handler).__name__
        brought = cls(checked_choice(deal, name))
        brought._said_by = name
        return brought

    @property
    def same_on_ranks(self) -> dict[str, Any]:
        """See `leyden.engine.AlikeOnRanks`."""
        return {"deal": self._choice}

    def refuses(self, other: Any) -> str | None:
        return "the data of a run are dealt once; attach one of them" if isinstance(other, DealData) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        dist.initialize()
        self.deal_to(engine, even=engine.training)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Deals the evaluator's data without repeating a sample, unless it has a choice of its own."""
        own = any(isinstance(getattr(each, "dealing", each), DealData) for each in engine.handlers.values())
        if self._goes_first() and not own:
            self.deal_to(engine, even=False)

    def deal_to(self, engine: Engine[Any, Any], *, even: bool) -> None:
        """Adds the dealing to the setup of the engine's data; `even`: to each rank as many, as training needs it."""
        if dist.world_size() == 1:
            return
        self._engine = self._engine or engine
        engine.share_stops()
        deal = Deal(None, None, dist.broadcast(torch.initial_seed() % 2**62), even=even)
        self._deals.append(deal)
        shares = Shares(self._choice, deal, self._said_by)
        engine.data_setup.may_give_none = not even
        engine.data_setup.add(DataStage.BATCH, deal.begin_data)
        engine.data_setup.add(
            DataStage.DEAL, lambda data: shares(data) if self._goes_first(engine) else data, owner=self._said_by
        )

        def begin_epoch() -> None:
            deal.set_epoch(engine.state.epoch)
            set_epoch_of_sampler(engine.state.dataloader, engine.state.epoch)

        def go_on() -> None:  # a run that is resumed in mid-epoch does not begin that epoch again
            deal.go_on_in(engine.state.epoch)
            set_epoch_of_sampler(engine.state.dataloader, engine.state.epoch)

        engine.add_event_handler(Events.STARTED, go_on, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_STARTED, begin_epoch, order=Order.METRICS)

    def _goes_first(self, engine: Engine[Any, Any] | None = None) -> bool:
        """False for one that was brought along, where the user attached one to its engine, or to this one."""
        engines = [each for each in (self._engine, engine) if each is not None]
        return not any(each is not self for engine in engines for each in engine.find_handlers(DealData))

    def state_dict(self) -> dict[str, Any]:
        return {"seeds": [deal.seed for deal in self._deals]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Saved by another number of ranks, there may be none, or none wanted.
        for deal, seed in zip(self._deals, state_dict["seeds"], strict=False):
            deal.reseed(seed)
