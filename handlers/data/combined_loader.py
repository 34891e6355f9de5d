"""Several loaders in one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from leyden.engine.data import Rest, keeps_its_length
from leyden.handlers.data.combined_pass import CombinedPass
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
        self._pass: CombinedPass | None = None
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
        self._pass = self._next_pass().begin()
        return self._rows(self._pass)

    def _next_pass(self) -> CombinedPass:
        return self._pass if self._pass is not None and self._pass.waits else self._new_pass(None)

    def _new_pass(self, states: Any) -> CombinedPass:
        return CombinedPass(self._pairs(), self.mode, len(self) if self.keeps_its_length else None, states)

    def _rows(self, rows: CombinedPass) -> Iterator[Any]:
        if self.mode == "sequential" or isinstance(self.loaders, list):
            return rows
        keys = list(self.loaders)
        return (dict(zip(keys, row, strict=True)) for row in rows)

    def apart(self) -> CombinedLoader:
        """The same with passes of its own."""
        return self.map_loaders(lambda loader: loader)

    def pass_state(self, position: int) -> Any:
        """Where each loader stands after `position` batches of the present pass."""
        if self._pass is None:
            self._pass = self._new_pass(None)
        return self._pass.state_dict(position)

    def load_pass_state(self, state: Any) -> None:
        """Called before the next pass is begun or gone on with."""
        self._pass = self._new_pass(state if state is not None and len(state) == len(self.loaders) else None)

    def go_on_at(self, position: int) -> Rest:
        """What is left of a pass after `position` batches."""
        self._pass = self._next_pass().go_on_at(position)
        return Rest(self._rows(self._pass), self._pass.left())

    def end_pass(self) -> None:
        """The pass is over, also one that was loaded, and the next has not begun."""
        self._pass = self._next_pass().end()

    @property
    def keeps_its_length(self) -> bool:
        """True if each pass has as many batches as len() says, since that holds for each loader."""
        return all(has_length(loader) and keeps_its_length(loader) for _, loader in self._pairs())

    @property
    def dealt_anew(self) -> bool:
        """True if what was left of a loader was dealt to another number of ranks."""
        return self._pass is not None and self._pass.dealt_anew

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pass": None}  # a pass stays where it is

    def _pairs(self) -> list[tuple[Any, Any]]:
        return list(self.loaders.items()) if isinstance(self.loaders, dict) else list(enumerate(self.loaders))

    def __len__(self) -> int:
        lengths = [len(loader) for _, loader in self._pairs()]
        if self.mode == "sequential":
            return sum(lengths)
        return min(lengths) if self.mode == "min_size" else max(lengths)
