"""A folder for each run, and one run at a time for a folder."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from itertools import count
from pathlib import Path


def make_new(parent: Path) -> Path:
    """A new folder, named by time and host. Several runs may begin in one second, in several processes."""
    parent.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{socket.gethostname()}"
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


class Claim:
    """Marks a folder as being written to, until the process ends. Without locks in the file system or the platform, no
    folder is ever found marked.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, folder: Path) -> bool:
        """False if another holds it."""
        self.give_back()
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
        except (ImportError, OSError):
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            return True
        self._descriptor = descriptor
        return True

    def give_back(self) -> None:
        if self._descriptor is None:
            return
        import fcntl

        # Children that were forked have the descriptor too; unlocking it is for all of them.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None
