"""Workers of a StatefulDataLoader whose share of a pass over iterable data was already over when the run was saved.

torchdata asks them for one batch more, to see them end. A dataset that is at its beginning again when it has given its
last sample would then begin anew, and its samples would come twice in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, get_worker_info

from leyden.distributed.compat import states_of_workers


def ended_workers(loader: Any, state: Any) -> dict[int, bool]:
    """The workers that had ended, according to a state of the loader; True for those whose iterator has its own
    state.
    """
    if not (isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)):
        return {}
    ended: dict[int, bool] = {}
    for place, told in enumerate(states_of_workers(state, loader.num_workers)):
        fetcher = told.get("fetcher_state") or {}
        of_iterator = fetcher.get("dataset_iter_state") is not None
        # Without any state, torchdata reads the pass again from its beginning.
        if fetcher.get("fetcher_ended") and (of_iterator or told.get("dataset_state") is not None):
            ended[place] = of_iterator
    return ended


def staying_ended(loader: Any, ended: Mapping[int, bool]) -> AbstractContextManager[None]:
    """A context in which the workers that the loader starts give nothing before their next pass, if they had ended."""
    if not ended or isinstance(loader.dataset, IterDataPipe):
        return nullcontext()
    return _begun_at_their_end(loader, ended)


@contextmanager
def _begun_at_their_end(loader: DataLoader[Any], ended: Mapping[int, bool]) -> Iterator[None]:
    own = loader.worker_init_fn
    loader.worker_init_fn = _AtItsEnd(own, ended)
    try:
        yield
    finally:
        loader.worker_init_fn = own


class _AtItsEnd:
    """A function that a worker begins with, after the user's own."""

    def __init__(self, own: Callable[[int], None] | None, ended: Mapping[int, bool]) -> None:
        self._own = own
        self._ended = dict(ended)

    def __call__(self, worker: int) -> None:
        if self._own is not None:
            self._own(worker)
        info = get_worker_info()
        if worker in self._ended and info is not None:
            _give_nothing_once(info.dataset, with_iterator=self._ended[worker])


def _give_nothing_once(dataset: Any, *, with_iterator: bool) -> None:
    # By its class, since Python looks for __iter__ there; of this object alone, and in the worker's process only.
    own: Any = type(dataset)

    class AtItsEnd(own):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            self.__class__ = own
            return _Nothing(iter(self)) if with_iterator else iter(())

    dataset.__class__ = AtItsEnd


class _Nothing(Iterator[Any]):
    """No samples, with the state of the iterator that had given its last."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __next__(self) -> Any:
        raise StopIteration

    def state_dict(self) -> Any:
        return self._iterator.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._iterator.load_state_dict(state)
