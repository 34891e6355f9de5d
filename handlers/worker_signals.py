"""Worker processes of DataLoaders that outlive a signal which is meant for the run."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader

from leyden.handlers.data.seeded_loaders import fresh_copy
from leyden.handlers.parallel.dealing import DealtBatches


class ShieldedLoaders:
    """A change of a run's data: its loaders' workers don't die of the signals, which schedulers (and torchrun, at its
    own end) send to all processes. Without it a run would end by a dead worker instead of being saved.

    The same loader keeps its copy, and so its workers.
    """

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self._copies: WeakKeyDictionary[DataLoader[Any], DataLoader[Any]] = WeakKeyDictionary()

    def __call__(self, data: Any) -> Any:
        if isinstance(data, DealtBatches) and not isinstance(data, Iterator):
            dealt = copy.copy(data)
            dealt.batches = self._shield(data.batches)
            return dealt
        return self._shield(data)

    def _shield(self, data: Any) -> Any:
        if not isinstance(data, DataLoader) or data.num_workers == 0:
            return data
        if data not in self._copies:
            shielded = fresh_copy(data)
            shielded.worker_init_fn = Shield(self._signals, data.worker_init_fn)
            self._copies[data] = shielded
        return self._copies[data]


class Shield:
    """Called as a worker process begins, before the user's own function."""

    def __init__(self, signals: tuple[signal.Signals, ...], function: Callable[[int], None] | None) -> None:
        self.signals = signals
        self.function = function

    def __call__(self, worker: int) -> None:
        for each in self.signals:
            if each is not signal.SIGTERM:
                signal.signal(each, signal.SIG_IGN)
        if signal.SIGTERM in self.signals and hasattr(signal, "sigwaitinfo"):
            _heed_sigterm_of_parent_alone()
        if self.function is not None:
            self.function(worker)


def _heed_sigterm_of_parent_alone() -> None:
    """The parent ends workers by SIGTERM, so it can't be ignored altogether; who sent one only sigwaitinfo tells."""
    process = multiprocessing.parent_process()
    parent = os.getppid() if process is None else process.pid  # a fork server may stand between
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in the threads that come later, too

    def watch() -> None:
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
                os._exit(0)

    threading.Thread(target=watch, name="leyden-sigterm", daemon=True).start()
