"""A stream for showing something that never ends a run: if it is closed, full or gone, nothing is shown."""

from __future__ import annotations

from typing import Any, TextIO


class TextStream:
    """Writes to `file`, if there is one; `failure` is what kept it from writing, after which nothing is written.

    What the file's encoding does not have is written as question marks.
    """

    def __init__(self, file: TextIO | None) -> None:
        self.failure: Exception | None = None
        self._file = file

    @property
    def is_open(self) -> bool:
        return self._file is not None and self.failure is None

    @property
    def in_notebook(self) -> bool:
        return type(self._file).__module__.startswith("ipykernel.")

    def isatty(self) -> bool:
        """False also for what has no such method: a logger's stand-in for stderr, say."""
        try:
            return bool(self._file is not None and self._file.isatty())
        except (AttributeError, OSError, ValueError):
            return False

    def write(self, text: str) -> int:
        if self._file is None or self.failure is not None:
            return 0
        try:
            try:
                return self._file.write(text)
            except UnicodeEncodeError:
                encoding = self._file.encoding or "ascii"
                return self._file.write(text.encode(encoding, errors="replace").decode(encoding))
        except (OSError, ValueError) as failure:  # ValueError: it is closed
            self.failure = failure
            return 0

    def flush(self) -> None:
        if self._file is None or self.failure is not None:
            return
        try:
            flush = getattr(self._file, "flush", None)
            if flush is not None:
                flush()
        except (OSError, ValueError) as failure:
            self.failure = failure

    def __getattr__(self, name: str) -> Any:
        # tqdm asks for the encoding and the terminal's size.
        if self._file is None:
            raise AttributeError(f"there is no stream that could have {name!r}")
        return getattr(self._file, name)
