"""The names of parameters, metrics and images as MLflow takes them."""

from __future__ import annotations

import posixpath
import re
from hashlib import sha256

LONGEST_NAME = 250
REFUSED = re.compile(r"[^\w\-. :/]")  # what MLflow takes is letters and digits of any script, and these
LONGEST_OF_IMAGE = 120  # it becomes the name of a file, with step, time and an id
REFUSED_OF_IMAGE = re.compile(r"[^a-zA-Z0-9_\-. /]")


class MLflowNames:
    """Gives each name one that MLflow takes: most their own, and no two of them the same.

    Which one it is hangs on those before only where two would else be the same; so `given` goes into checkpoints.
    """

    def __init__(self, refused: re.Pattern[str] = REFUSED, longest: int = LONGEST_NAME) -> None:
        self._refused, self._longest = refused, longest
        self.changed: dict[str, str] = {}
        """The names that had to be changed."""
        self._owners: dict[str, str] = {}  # of each name that is taken

    def clean(self, name: str) -> str:
        if (known := self.changed.get(name)) is not None:
            return known
        clean = self._valid(name)
        if self._owners.setdefault(clean, name) != name:
            clean = self._marked(clean, name)
            self._owners[clean] = name
        if clean != name:
            self.changed[name] = clean
        return clean

    @property
    def given(self) -> dict[str, str]:
        """What each name became. Names that stayed are included, as no other name may take theirs."""
        return {name: clean for clean, name in self._owners.items()}

    def restore(self, given: dict[str, str]) -> None:
        """Goes on with what the names became in the run before."""
        self.changed |= {name: clean for name, clean in given.items() if clean != name}
        self._owners |= {clean: name for name, clean in given.items()}

    def _valid(self, name: str) -> str:
        """The nearest name that MLflow takes: it has to be a path, without characters that no file's name may have."""
        parts = [part for part in self._refused.sub("_", name).split("/") if part]
        clean = "/".join("_" * len(part) if part in (".", "..") else part for part in parts) or "_"
        assert posixpath.normpath(clean) == clean
        return clean if len(clean) <= self._longest else self._marked(clean, name)

    def _marked(self, clean: str, name: str) -> str:
        """The name with a mark derived from it."""
        mark = "_" + sha256(name.encode()).hexdigest()[:8]
        return clean[: self._longest - len(mark)] + mark
