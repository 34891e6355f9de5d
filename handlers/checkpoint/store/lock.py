"""One run writes to a directory: a file there names it, for as long as it runs."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
import weakref
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from leyden.handlers.checkpoint.errors import DirectoryInUseError
from leyden.handlers.checkpoint.store.paths import RemotePath, StoragePath
from leyden.handlers.checkpoint.store.processes import ProcessIdentity
from leyden.handlers.checkpoint.store.storage import make_directory

LOCK = ".lock"
BEAT_EVERY = 10.0
"""Seconds between two signs of life."""
SILENT_FOR = 45.0
"""Seconds without one after which a process of another machine is taken to be dead; its sign is watched, as the clocks
of two machines may differ."""
LONG_AGO = 3600.0
"""Seconds after which nobody is waited for: no two clocks differ by that."""

logger = logging.getLogger(__name__)
_held: weakref.WeakValueDictionary[str, DirectoryLock] = weakref.WeakValueDictionary()


class _Holder(NamedTuple):
    """What a lock file says, and what shows that who made it lives: its bytes and when they were touched."""

    token: str
    process: ProcessIdentity
    since: str
    sign: tuple[bytes, int]
    touched: float


class DirectoryLock:
    """The right to write to a directory; taken and given back by rank 0 for all ranks."""

    def __init__(self, directory: StoragePath) -> None:
        self.directory = directory
        self.held = False
        self._file = directory / LOCK
        self._token = ""
        self._since = ""
        self._beat = 0
        self._made_directory = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Makes the directory, if need be, and the file; what a dead process left is taken away.

        Raises DirectoryInUseError, naming the process, if another run has it.
        """
        if self.held:
            return
        self._token = uuid.uuid4().hex
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._made_directory = make_directory(self.directory)
        while not self._create():
            holder = self._holder()
            if holder is not None:
                self._judge(holder)
                self._take_away(holder)
        self.held = True
        _held[self._token] = self
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(self._stop,), name="leyden-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises DirectoryInUseError if another run has taken the directory from this one, which was silent too long;
        where the file is gone, as with the whole directory, it is made again.
        """
        holder = self._holder()
        if holder is None:
            make_directory(self.directory)
            self._create()
            holder = self._holder()
        if holder is None or holder.token != self._token:
            raise DirectoryInUseError(f"{self.directory} was taken over{'' if holder is None else _by(holder)}")

    def give_back(self) -> None:
        """Takes the file away, and the directory if it was made for it and nothing else came to lie there."""
        if not self.held:
            return
        self.held = False
        self._stop.set()
        if self._thread is not None:
            self._thread.join(BEAT_EVERY)
        _held.pop(self._token, None)
        try:
            holder = self._holder()
            if holder is not None and holder.token == self._token:
                self._file.unlink()
            if self._made_directory and isinstance(self.directory, Path):
                self.directory.rmdir()
        except Exception as error:  # of any file system; a directory, too, that has something in it stays
            logger.debug("%s stays: %s", self._file, error)

    def _create(self) -> bool:
        """False if there is a file already."""
        try:
            if isinstance(self._file, Path):
                with self._file.open("xb") as file:
                    file.write(self._content())
                return True
            _write_new(self._file, self._content())
        except FileExistsError:
            return False
        holder = self._holder()  # not every store refuses the second of two who write at once
        return holder is not None and holder.token == self._token

    def _content(self) -> bytes:
        values = {"token": self._token, "since": self._since, "beat": self._beat, "at": time.time()}
        return json.dumps(values | asdict(ProcessIdentity.own())).encode()

    def _holder(self) -> _Holder | None:
        """Who has the directory; None if nobody has."""
        for _ in range(20):
            try:
                data = self._file.read_bytes()
                touched = self._file.stat().st_mtime if isinstance(self._file, Path) else None
            except FileNotFoundError:
                return None
            try:
                values: dict[str, Any] = json.loads(data)
                process = ProcessIdentity.of(values)
                when = float(values["at"]) if touched is None else touched
                sign = data, int(when * 1e6)
                return _Holder(str(values["token"]), process, str(values["since"]), sign, when)
            except (ValueError, KeyError, TypeError):
                time.sleep(0.1)  # it is being written
        self._file.unlink()  # its writer died over it
        return None

    def _judge(self, holder: _Holder) -> None:
        """Raises DirectoryInUseError if the holder lives."""
        process = holder.process
        if process.is_near:
            own = process == ProcessIdentity.own()
            if (holder.token in _held) if own else process.is_alive:
                raise self._in_use(holder)
            return
        until = time.monotonic() + SILENT_FOR
        if time.time() - holder.touched < LONG_AGO:
            logger.warning(
                "%s is held%s; whether that lives is seen within %.0f s", self.directory, _by(holder), SILENT_FOR
            )
            while time.monotonic() < until:
                time.sleep(min(1.0, SILENT_FOR / 10))
                now = self._holder()
                if now is None or now.token != holder.token:
                    return
                if now.sign != holder.sign:
                    raise self._in_use(holder)

    def _take_away(self, holder: _Holder) -> None:
        """Deletes the file of a dead holder, and no other that came in its place meanwhile."""
        now = self._holder()
        if now is None or now.token != holder.token:
            return
        if not isinstance(self._file, Path):
            self._file.unlink()
            return
        aside = self._file.with_name(f"{LOCK}-{self._token}")
        try:
            self._file.rename(aside)
        except FileNotFoundError:  # somebody else was quicker
            return
        if f'"{holder.token}"'.encode() not in aside.read_bytes():
            os.link(aside, self._file)
        aside.unlink()

    def _in_use(self, holder: _Holder) -> DirectoryInUseError:
        return DirectoryInUseError(
            f"another run writes its checkpoints to {self.directory}{_by(holder)}. Give this one a directory of its "
            f"own, or begin when that one has ended (its mark is {self._file})"
        )

    def _live(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT_EVERY):
            try:
                holder = self._holder()
                if holder is None or holder.token != self._token:
                    continue  # `check` tells of it, where something would be written
                if isinstance(self._file, Path):
                    os.utime(self._file)
                else:
                    self._beat += 1
                    self._file.write_bytes(self._content())
            except Exception as error:  # of any file system; the next beat may do
                logger.debug("no sign of life in %s: %s", self._file, error)


def _by(holder: _Holder) -> str:
    return f" by process {holder.process.pid} of {holder.process.host}, since {holder.since}"


def _write_new(path: RemotePath, data: bytes) -> None:
    """Raises FileExistsError if there is a file already, where the store can tell."""
    if path.exists():
        raise FileExistsError(path.url)
    try:
        path.filesystem.pipe_file(path.key, data, mode="create")
    except (NotImplementedError, TypeError, ValueError):  # a store that has no such mode
        path.write_bytes(data)
    except OSError:
        if path.exists():
            raise FileExistsError(path.url) from None
        raise
