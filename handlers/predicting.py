"""The outputs of an evaluator over a whole data set, whatever the number of ranks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.distributed.compat import replace_part
from leyden.engine import DataStage, Engine, Events
from leyden.engine.data import has_random_access, index_sampler, place_of_indices
from leyden.engine.values import move_nested
from leyden.handlers.data.seeded_loaders import fresh_copy
from leyden.handlers.parallel.dealing import Deal, DealtSampler, deal_data, own_place
from leyden.handlers.parallel.split_datasets import hold_other_samples, shard_of_stream


def predict(evaluator: Engine[Any, Any], data: Iterable[Any], deal: str = "batches") -> list[Any]:
    """Runs an evaluator over data and returns its outputs, one for each batch, in the order of the data, on the CPU.

        evaluator = supervised_evaluator(model, output_transform=lambda x, y, y_pred: y_pred)
        predictions = torch.cat(predict(evaluator, loader))

    Of several ranks each evaluates its share of the batches, which are those of one process, and all get the whole
    list: each batch is in it once. All ranks call this at the same point, with the same data; a warning says so for
    data without random access, which may be a share already. A loader that shuffles gives the outputs in the order that
    it drew. `deal="nothing"`: each rank's data is a share of its own; the outputs are those of rank 0, then those of
    rank 1, and so on.

    Raises ValueError for data of which each rank has a share already, and for another word.
    """
    if deal not in ("batches", "nothing"):
        raise ValueError(
            f'predict takes deal="batches" or, where ranks have shares already, "nothing", but got {deal!r}'
        )
    dist.initialize()
    ranks = dist.data_size()
    outputs: list[Any] = []
    setup = evaluator.data_setup
    may_give_none, setup.may_give_none = setup.may_give_none, setup.may_give_none or ranks > 1
    collecting = evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: outputs.append(move_nested(evaluator.state.output, _to_host))
    )
    try:
        # Before the handlers' own dealing, which leaves alone what is dealt.
        with collecting, setup.lending(DataStage.BATCH, _share_of_batches if deal == "batches" else _as_it_is):
            evaluator.run(data, max_epochs=1)
    finally:
        setup.may_give_none = may_give_none
    shares = dist.all_gather_object(outputs, over="data")
    if deal == "nothing":
        return [output for share in shares for output in share]
    return [shares[i % ranks][i // ranks] for i in range(sum(map(len, shares)))]


def _as_it_is(data: Any) -> Any:
    return data


def _share_of_batches(data: Any) -> Any:
    """Every n-th batch of the data, beginning with this rank's."""
    if dist.data_size() == 1:
        return data
    deal = Deal(dist.data_rank(), dist.data_size(), dist.broadcast(torch.initial_seed() % 2**62), even=False)
    split = shard_of_stream(data) is not None
    if split or (isinstance(data, DataLoader) and hold_other_samples(data.dataset)):
        raise ValueError(
            f"predict deals the batches to the ranks itself, but the {type(getattr(data, 'dataset', data)).__name__} "
            'of each rank holds a share already (split by node, a Subset): say deal="nothing", or batches get lost'
        )
    if not has_random_access(data):
        if dist.rank() == 0:
            name = type(getattr(data, "dataset", data)).__name__
            warnings.warn(
                f"predict takes the data ({name}) to be the same on all ranks: each reads all of it and keeps its "
                'share of the batches. Where each rank reads a share of its own, batches get lost: say deal="nothing"',
                stacklevel=2,
            )
        return deal_data(data, deal)
    if own_place(data) is not None:
        raise ValueError(
            "predict deals the batches to the ranks itself, so that each sample comes once and in order, but the "
            'loader is dealt already: give it one without a sampler that has a rank, or say deal="nothing"'
        )
    dealt = fresh_copy(data)
    replace_part(dealt, place_of_indices(data), DealtSampler(index_sampler(data), deal))
    return dealt


def _to_host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):  # a copy: the step may give the same buffer each time
        return value.detach().to("cpu", copy=True)
    return value.to("cpu")
