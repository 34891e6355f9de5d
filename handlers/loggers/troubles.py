"""Tells what did not arrive at a backend, and why; each trouble once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from leyden.handlers.loggers.entries import Image, LogEntry, name_of


class Troubles:
    """Warns of failures once a run, of what is refused or changed once for each name.

    `warn` gets each message; `place` says where the values go.
    """

    def __init__(self, warn: Callable[[str], None], place: Callable[[], str]) -> None:
        self._warn, self._place = warn, place
        self._told: set[str] = set()  # in this run
        self._refused: set[str] = set()
        self._cut: set[str] = set()

    def begin(self) -> None:
        """A run begins, in which failures are told anew."""
        self._told = set()

    def tell_failures(self, failures: Mapping[str, Exception]) -> None:
        """By kind; what is kept and tried again."""
        for kind, cause in failures.items():
            if kind not in self._told:
                self._told.add(kind)
                self._warn(
                    f"{self._place()} accepts no {kind} at present ({type(cause).__name__}: {cause}); the training "
                    "goes on, they are kept and tried again"
                )

    def tell_left_out(self, entries: Sequence[LogEntry]) -> None:
        """Images that would be too many to keep."""
        if entries and "left out" not in self._told:
            self._told.add("left out")
            self._warn(f"too many images wait for {self._place()}: from {name_of(entries[0])!r} on they are left out")

    def tell_refused(self, refused: Sequence[tuple[LogEntry, Exception]]) -> None:
        """What the backend will never take."""
        reasons = {name_of(entry): error for entry, error in refused}
        new = {name: error for name, error in reasons.items() if name not in self._refused}
        if new:
            self._refused |= new.keys()
            told = "; ".join(f"{name!r} ({error})" for name, error in new.items())
            self._warn(f"{self._place()} refuses these, which are left out: {told}")

    def tell_lost(self, lost: Mapping[str, Exception | None], waiting: Sequence[LogEntry], patience: float) -> None:
        """What was given up at the end of a run; its causes by kind."""
        images = sum(isinstance(entry, Image) for entry in waiting)
        what = {"images": f"{images} images", "values": f"{len(waiting) - images} values and the end of the run"}
        for kind, cause in lost.items():
            self._warn(
                f"{what[kind]} could not be delivered to {self._place()} within {patience:g} s and are lost, unless "
                f"the run goes on, here or from a checkpoint that has them; the cause: {cause!r}"
            )

    def tell_cut(self, name: str, least: float, most: float) -> None:
        """An image whose floats leave 0..1."""
        if name not in self._cut:
            self._cut.add(name)
            self._warn(
                f"the image {name!r} has numbers from {least:.3g} to {most:.3g}; floats are shown from 0 to 1, and "
                "these are cut: scale them, or give uint8 of 0 to 255"
            )
