"""Several loaders in one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from leyden.handlers.parallel.dealing import has_length

MODES = ("min_size", "max_size", "max_size_cycle", "sequential")


class CombinedLoader:
    """Data made of several loaders: a mapping of them gives batches that are dicts, a sequence batches that are lists.

    `mode`, what is done about their different lengths: "min_size" ends with the shortest; "max_size" ends with the
    longest, and gives None for those that have ended; "max_size_cycle" ends with the longest, and begins the others
    anew; "sequential" goes through one after the other, and gives pairs (key or position, batch).

    It is what `run` takes, and `Evaluate`: `trainer.run(CombinedLoader({"labelled": a, "unlabelled": b}))`. Dealing to
    ranks, seeds and the size of batches concern each loader, `LimitBatches` the whole. It has a length where all
    loaders have one. Each pass begins all of them anew, so they should not be iterators: those can't.

    Raises ValueError for an unknown mode and for no loader, TypeError for loaders that are neither a mapping nor a
    sequence or that are nested; ValueError in a pass for a loader that has no batch to begin anew with.
    """

    def __init__(self, loaders: Mapping[Any, Any] | Sequence[Any], mode: str = "min_size") -> None:
        if mode not in MODES:
            raise ValueError(f"CombinedLoader knows the modes {', '.join(MODES)}, but got {mode!r}")
        if isinstance(loaders, str | bytes) or not isinstance(loaders, Mapping | Sequence):
            raise TypeError(f"CombinedLoader takes a dict or a list of loaders, but got a {type(loaders).__name__}")
        self.mode = mode
        self.loaders: dict[Any, Any] | list[Any] = dict(loaders) if isinstance(loaders, Mapping) else list(loaders)
        pairs = self._pairs()
        if not pairs:
            raise ValueError("CombinedLoader needs at least one loader, but got none")
        for key, loader in pairs:
            if isinstance(loader, Mapping | CombinedLoader):
                raise TypeError(
                    f"CombinedLoader takes loaders, but {key!r} is a {type(loader).__name__}: it can't be nested"
                )

    def map_loaders(self, change: Callable[[Any], Any]) -> CombinedLoader:
        """The same with each loader changed."""
        changed = {key: change(loader) for key, loader in self._pairs()}
        return CombinedLoader(changed if isinstance(self.loaders, dict) else list(changed.values()), self.mode)

    def __iter__(self) -> Iterator[Any]:
        if self.mode == "sequential":
            return ((key, batch) for key, loader in self._pairs() for batch in loader)
        # Where the end is known, none of the loaders is asked for a batch that would be thrown away.
        return islice(self._rows(), len(self) if has_length(self) else None)

    def _rows(self) -> Iterator[Any]:
        loaders = [loader for _, loader in self._pairs()]
        if self.mode == "min_size":
            rows: Iterator[Any] = zip(*loaders, strict=False)
        elif self.mode == "max_size":
            rows = zip_longest(*loaders)
        else:
            rows = self._cycle(loaders)
        if isinstance(self.loaders, list):
            return map(list, rows)
        keys = list(self.loaders)
        return (dict(zip(keys, row, strict=True)) for row in rows)

    def _cycle(self, loaders: list[Any]) -> Iterator[list[Any]]:
        iterators = [iter(loader) for loader in loaders]
        running = set(range(len(loaders)))
        while True:
            row: list[Any] = []
            for position, loader in enumerate(loaders):
                try:
                    row.append(next(iterators[position]))
                except StopIteration:
                    running.discard(position)
                    if not running:
                        return
                    iterators[position] = iter(loader)
                    row.append(self._first(position, iterators[position]))
            yield row

    def _first(self, position: int, iterator: Iterator[Any]) -> Any:
        for batch in iterator:
            return batch
        key, loader = self._pairs()[position]
        raise ValueError(
            f'CombinedLoader begins the loader {key!r} ({type(loader).__name__}) anew (mode "max_size_cycle"), but it '
            "gave no batch: it is empty, or an iterator, which can be gone through only once"
        )

    def _pairs(self) -> list[tuple[Any, Any]]:
        return list(self.loaders.items()) if isinstance(self.loaders, dict) else list(enumerate(self.loaders))

    def __len__(self) -> int:
        lengths = [len(loader) for _, loader in self._pairs()]
        if self.mode == "sequential":
            return sum(lengths)
        return min(lengths) if self.mode == "min_size" else max(lengths)
