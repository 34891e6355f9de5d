"""Which process made a lock, told apart from a later one of the same number and from those of other machines."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """host and machine: where it runs, `machine` being this boot of it and, in a container, the container. started:
    what the machine says of when the process began; clocks that are set don't change it.
    """

    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> ProcessIdentity:
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def of(cls, values: dict[str, Any]) -> ProcessIdentity:
        """Raises ValueError for what describes no process."""
        try:
            return cls(str(values["host"]), str(values["machine"]), int(values["pid"]), str(values["started"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no process: {error}") from None

    @property
    def is_near(self) -> bool:
        """True if it ran on this machine, so that one can see whether it still does."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def is_alive(self) -> bool:
        """True if it runs; asked only of one that is near."""
        started = _started(self.pid)
        return _is_hidden(self.pid) if started is None else started == self.started


def _machine() -> str:
    if not sys.platform.startswith("linux"):
        return sys.platform
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # a sandbox that does not show them
        return sys.platform


def _started(pid: int) -> str | None:
    """When a process began, by the machine's own count; None if there is none, or only what it leaves to its parent."""
    try:
        if sys.platform.startswith("linux"):
            # What follows the name, which may have spaces and brackets: the state first, the start as the 20th.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except (OSError, psutil.Error):
        return None


def _is_hidden(pid: int) -> bool:
    """True if there is such a process of another user, of which no more is shown."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
