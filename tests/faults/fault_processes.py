"""Training processes: forked from one that has imported everything (0.03 s), or begun from nothing (2 s).

Either is a process of its own, whose death by a signal is a real one.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
from run_to_kill import train
from torch.distributed import TCPStore

SCRIPT = Path(__file__).parent / "scripts" / "run_to_kill.py"


class Process:
    """One rank. `ended_by` is its exit code, or the negative number of the signal."""

    def __init__(self, process):
        self._process = process
        self.pid = process.pid

    def alive(self):
        return self.exit_code() is None

    def exit_code(self):
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode

    def wait(self, limit=60):
        """The exit code; it fails if the process has not ended after `limit` seconds."""
        until(lambda: not self.alive(), limit, f"process {self.pid} does not end")
        return self.exit_code()

    def send(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        return self.wait()

    @contextmanager
    def stopped(self):
        """Nothing of the process moves meanwhile. Gives False if it had ended before."""
        self.send(signal.SIGSTOP)
        until(lambda: not self.alive() or self._status() in (psutil.STATUS_STOPPED, None), 10, "it does not stop")
        try:
            yield self.alive()
        finally:
            self.send(signal.SIGCONT)

    def _status(self):
        try:
            return psutil.Process(self.pid).status()
        except psutil.NoSuchProcess:
            return None


class Processes:
    """Starts them and keeps them."""

    _context = None

    def __init__(self):
        self._all = []
        self._stores = []

    def fork(self, **options):
        """A process forked from one that has imported everything."""
        process = self._forkserver().Process(target=train, kwargs=options)
        process.start()
        return self._keep(process)

    def fork_ranks(self, count, **options):
        """`count` ranks of one job."""
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # it serves: no race for a port
        self._stores.append(store)
        place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
        place |= {"TORCHELASTIC_USE_AGENT_STORE": True}
        text = {name: str(value) for name, value in place.items()}
        return [
            self.fork(place={**text, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options) for rank in range(count)
        ]

    def begin(self, environment=None, **options):
        """A process begun from nothing, with `environment` beside that of the test."""
        command = [sys.executable, str(SCRIPT), json.dumps(options)]
        return self._keep(subprocess.Popen(command, env={**os.environ, **(environment or {})}))

    def kill_all(self):
        for each in self._all:
            each.kill()

    def _keep(self, process):
        self._all.append(Process(process))
        return self._all[-1]

    @classmethod
    def _forkserver(cls):
        if cls._context is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["run_to_kill"])
            path = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SCRIPT.parent), path)))
            try:
                multiprocessing.forkserver.ensure_running()  # it preloads from its own path
            finally:
                if path is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = path
            cls._context = context
        return cls._context


def until(condition, limit, complaint):
    """Waits for a condition; AssertionError after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{complaint} after {limit} s"
        time.sleep(0.002)
