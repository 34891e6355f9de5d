"""DataLoader and torchdata's StatefulDataLoader: the pass that is under way, and the states that they give.

torch has no public way to begin a pass somewhere in its middle, nor to make batches of another size of one loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from leyden.distributed.compat.relied_on import Reasons

PASS = "_iterator"
"""Where a loader holds the pass that is under way."""

RELIED_ON: Reasons = {
    "torch.utils.data.DataLoader": {
        "_iterator": "engine/data tells whether workers that stay were started, and ends them",
        "_get_iterator": "engine/data tells loaders with an iteration of their own from torch's",
        "_IterableDataset_len_called": "handlers/data/batch_size makes a loader of another length",
    },
    "torch.utils.data.dataloader._BaseDataLoaderIter": {
        "_index_sampler": "engine/data/index_order begins a pass of workers that stay at another index",
        "_dataset_fetcher": "engine/data/stateful_loaders asks a stream that is at its end for its next pass",
    },
    "torch.utils.data.dataloader._MultiProcessingDataLoaderIter": {
        "_shutdown_workers": "engine/data/index_order ends workers that a resumed pass starts anew",
    },
    "torchdata.stateful_dataloader.StatefulDataLoader": {
        "_initial_iter_for_state_dict": "copies of a loader begin without the pass that the original has begun",
    },
    "torchdata.stateful_dataloader.StatefulDataLoader.state_dict": {
        "_iterator_finished": "engine/data/stateful_loaders tells a state at the end of a pass from one within it",
        "_snapshot": "engine/data/ended_workers finds the states of the workers",
    },
    "torchdata.stateful_dataloader.StatefulDataLoader.state_dict of workers": {
        "_worker_snapshots": "engine/data/ended_workers finds the workers whose share of a stream was over",
    },
}


def begun_pass(loader: DataLoader[Any]) -> Any:
    """The iterator that the loader holds: that of workers that stay, or of a StatefulDataLoader; None without one."""
    return getattr(loader, PASS, None)


def forget_pass(loader: DataLoader[Any]) -> None:
    """Lets the loader begin with its next pass as if there had been none before: for copies, which share nothing."""
    replace_part(loader, PASS, None)
    replace_part(loader, "_IterableDataset_len_called", None)
    if hasattr(loader, "_initial_iter_for_state_dict"):  # of a StatefulDataLoader
        replace_part(loader, "_initial_iter_for_state_dict", False)


def end_workers(loader: DataLoader[Any]) -> None:
    """Ends workers that stay, if there are any; the next pass starts others."""
    if (iterator := begun_pass(loader)) is not None:
        iterator._shutdown_workers()
        loader._iterator = None


def replace_part(loader: DataLoader[Any], name: str, value: Any) -> None:
    """Sets what a DataLoader forbids to assign, since its own iterator may be at work."""
    object.__setattr__(loader, name, value)


def take_indices_from(iterator: Any, sampler: Any) -> None:
    """Lets an iterator of a loader draw its next pass from this sampler."""
    iterator._index_sampler = sampler


def iterates_itself(loader: DataLoader[Any]) -> bool:
    """True for a loader of a class with an __iter__ of its own, which may do anything with torch's batches."""
    methods = type(loader).__iter__, type(loader)._get_iterator
    return not all(method.__module__.startswith(("torch.utils.data.", "torchdata.")) for method in methods)


def stream_at_its_end(iterator: Any) -> Iterator[Any] | None:
    """The samples of an iterable dataset of which this iterator has read the last; None if it is none, or has not."""
    fetcher: Any = getattr(iterator, "_dataset_fetcher", None)
    stream: Iterator[Any] | None = getattr(fetcher, "dataset_iter", None)
    return stream if stream is not None and fetcher.ended else None


def is_within_a_pass(state: Any) -> bool:
    """True for a state of a StatefulDataLoader whose pass is not over."""
    return isinstance(state, Mapping) and not state.get("_iterator_finished", True)


def is_over(state: Any) -> bool:
    """True for a state of a StatefulDataLoader whose pass has met its end."""
    return isinstance(state, Mapping) and state.get("_iterator_finished") is True


def states_of_workers(state: Any, workers: int) -> list[Mapping[str, Any]]:
    """What a state of a StatefulDataLoader has of each worker; empty mappings where it has none."""
    snapshots = state.get("_snapshot", {}).get("_worker_snapshots", {}) if isinstance(state, Mapping) else {}
    return [snapshots.get(f"worker_{place}") or {} for place in range(workers)]
