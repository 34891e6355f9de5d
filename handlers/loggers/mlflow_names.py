"""The names of parameters and metrics as MLflow takes them."""

from __future__ import annotations

import posixpath
import re
from hashlib import sha256

LONGEST_NAME = 250
REFUSED = re.compile(r"[^\w\-. :/]")  # what MLflow takes is letters and digits of any script, and these


class MLflowNames:
    """Gives each name one that MLflow takes: most their own, and no two of them the same.

    Which one it is hangs on those before only where two would else be the same; so `given` goes into checkpoints.
    """

    def __init__(self) -> None:
        self.changed: dict[str, str] = {}
        """The names that had to be changed."""
        self._owners: dict[str, str] = {}  # of each name that is taken

    def clean(self, name: str) -> str:
        if (known := self.changed.get(name)) is not None:
            return known
        clean = _valid(name)
        if self._owners.setdefault(clean, name) != name:
            clean = _marked(clean, name)
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


def _valid(name: str) -> str:
    """The nearest name that MLflow takes: it has to be a path, without characters that no file's name may have."""
    parts = [part for part in REFUSED.sub("_", name).split("/") if part]
    clean = "/".join("_" * len(part) if part in (".", "..") else part for part in parts) or "_"
    assert posixpath.normpath(clean) == clean
    return clean if len(clean) <= LONGEST_NAME else _marked(clean, name)


def _marked(clean: str, name: str) -> str:
    """The name with a mark derived from it."""
    mark = "_" + sha256(name.encode()).hexdigest()[:8]
    return clean[: LONGEST_NAME - len(mark)] + mark
