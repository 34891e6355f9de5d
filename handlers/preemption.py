"""Runs whose machines are taken away: saved at the next step, and ended as the scheduler wants it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterable
from types import FrameType
from typing import Any

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, Order
from leyden.handlers.checkpoint.handler import Checkpoint
from leyden.handlers.worker_signals import ShieldedLoaders

logger = logging.getLogger(__name__)

REQUEUE_SECONDS = 60.0


class Preemption:
    """Ends a run cleanly when a scheduler takes its machine away, or at Ctrl-C: saved at a step's end, to be resumed.

    A signal sets a flag; the run is interrupted (`engine.interrupt`) once the running iteration is done, and a
    Checkpoint beside this saves then. Ranks share it: a signal to one of them is enough, and all end after the same
    iteration, where iterations are long the second at the latest that begins after it. So does an evaluation
    (Evaluate), with which the resumed run goes on. A second Ctrl-C ends the process at once (KeyboardInterrupt).

    `signals`: their names, or numbers. The handlers they had before are put back when the run has ended. Worker
    processes of DataLoaders, to which schedulers and torchrun send the signal as well, stay alive.

    When the run is closed the process ends by SystemExit, for a script that went on would take the model to be trained
    (evaluate it, export it). Its exit code is `exit_code`, or 128 + the signal's number, as a shell has it (SIGTERM:
    143): not 0, so that neither torchrun nor a job that depends on this one takes it for done. `exits=False`: run()
    returns, as after any interrupt, and `received` tells the signal. An error at the run's end is raised in
    the place of SystemExit; unless it comes from cleaning up (CLOSED), nothing is requeued.

    `requeue="slurm"`: rank 0 then calls `scontrol requeue` for its job, unless that was Ctrl-C. To be told before the
    time limit: `#SBATCH --signal=USR1@120`, and srun.

    Where run() is not in the main thread signals can't be caught, which a warning tells; call `notify` then.

    Raises ValueError for a signal that is unknown or can't be caught, or an exit code that is none.
    """

    refuses_second_engine = True
    same_on_ranks = ()

    def __init__(
        self,
        signals: str | int | Iterable[str | int] = ("SIGTERM", "SIGUSR1", "SIGINT"),
        *,
        exit_code: int | None = None,
        exits: bool = True,
        requeue: str | None = None,
    ) -> None:
        if isinstance(signals, bool) or not isinstance(signals, str | int | Iterable):
            raise TypeError(f'Preemption takes signals by name or number (["SIGTERM"]), but got {signals!r}')
        if not isinstance(exits, bool):
            raise TypeError(f"Preemption takes exits=True or False, but got {exits!r}")
        self.signals = [_signal(each) for each in ([signals] if isinstance(signals, str | int) else signals)]
        if not self.signals:
            raise ValueError("Preemption needs at least one signal to listen for")
        if exit_code is not None and (type(exit_code) is not int or not 0 <= exit_code <= 255):
            raise ValueError(f"an exit code is a number from 0 to 255, but got exit_code={exit_code!r}")
        if requeue not in (None, "slurm"):
            raise ValueError(f'Preemption can requeue="slurm", or not (None), but got {requeue!r}')
        self.exit_code = exit_code
        self.exits = exits
        self.requeue = requeue
        self.told_misplaced = False
        self.received: signal.Signals | None = None
        """The signal that ended the last run on this rank; None if none came."""
        self._engine: Engine[Any, Any] | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._ended = False
        self._runs = False
        self._early = False  # told between runs, or while one was set up
        self._told = False

    def refuses(self, other: Any) -> str | None:
        return "a signal is handled once; attach one of them" if isinstance(other, Preemption) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        if self._engine is not None:
            raise ValueError("this Preemption is attached to an engine already; attach it to the trainer alone")
        self._engine = engine
        engine.share_stops()
        engine.data_setup.add(DataStage.SEED, ShieldedLoaders(self.signals), owner=self)
        engine.add_event_handler(Events.STARTED, self.start, order=Order.FIRST)
        engine.add_event_handler(Events.INTERRUPT, self._agree, order=Order.FIRST)
        engine.add_event_handler(Events.INTERRUPT | Events.COMPLETED, self._note_end, order=Order.LAST)
        engine.add_event_handler(Events.CLOSED, self.close, order=Order.LAST)

    def on_evaluator(self) -> str:
        return (
            "it hears no signal while the trainer trains, and one that comes in an evaluation would end the process "
            "before the trainer is saved. Attach it to the trainer; its evaluations stop with it"
        )

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """The evaluator's worker processes, too, stay alive."""
        engine.data_setup.add(DataStage.SEED, ShieldedLoaders(self.signals), owner=self)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Begins to listen."""
        if self._early:
            engine.interrupt(after_step=True)
        else:
            self.received = None
        self._early = self._ended = False
        self._runs = True
        if threading.current_thread() is not threading.main_thread():
            warnings.warn(
                "Preemption can't listen for signals, because run() was called in another thread than the main one: a "
                "signal does what it did before. Call run() in the main thread, or this handler's notify(signal)",
                stacklevel=2,
            )
            self._require_checkpoint(engine)
            return
        self._require_checkpoint(engine)
        for each in self.signals:
            previous = signal.getsignal(each)
            if previous is None:
                warnings.warn(
                    f"{each.name} is handled outside of Python (by faulthandler?), and stays so: Preemption does not "
                    "hear it",
                    stacklevel=2,
                )
                continue
            self._previous[each] = previous
            signal.signal(each, self._hear)
        requeues = self.requeue is not None and dist.rank() == 0 and "SLURM_JOB_ID" in os.environ
        if requeues and shutil.which("scontrol") is None:
            warnings.warn("Preemption can't requeue this job: scontrol is not on PATH", stacklevel=2)

    def _require_checkpoint(self, engine: Engine[Any, Any]) -> None:
        told = self._told or self.told_misplaced
        if self.exits and not told and not engine.find_handlers(Checkpoint) and dist.rank() == 0:
            self._told = True
            warnings.warn(
                "Preemption is attached without a Checkpoint: when a signal comes, the run ends and the process exits, "
                'and nothing is saved. Attach Checkpoint("runs/...", resume="auto") too, or say exits=False and save '
                "what you need when run() returns",
                stacklevel=2,
            )

    def notify(self, signal_number: int = signal.SIGTERM) -> None:
        """Acts as if this signal had come: interrupts the run or, between runs, the next one as it starts. Call it from
        wherever you learn that the machine will be taken away.
        """
        self.received = signal.Signals(signal_number)
        self._early = not self._runs
        if self._engine is not None:
            self._engine.interrupt(after_step=True)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.notify(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            if os.isatty(2):  # written past Python's buffers, which this may have interrupted
                os.write(2, b"\nStopping after this step. Ctrl-C again stops at once, and saves nothing.\n")

    def _agree(self) -> None:
        """Shares a signal that came to one rank with all of them, before anything is saved."""
        number = dist.all_reduce(0 if self.received is None else int(self.received), "max")
        if number:
            self.received = signal.Signals(number)

    def _note_end(self) -> None:
        """Notes that all work at the end of the run is done, savers included; only an error in CLOSED can undo it."""
        self._ended = True

    def close(self, engine: Engine[Any, Any]) -> None:
        """Restores the previous signal handlers and, if a signal ended the run, requeues the job and ends the process.

        Raises SystemExit.
        """
        self._runs = False
        for each, previous in self._previous.items():
            signal.signal(each, previous)
        self._previous.clear()
        received = self.received
        if received is None or not self._ended:
            return
        code = 128 + received if self.exit_code is None else self.exit_code
        if dist.rank() == 0:
            at = f"epoch {engine.state.epoch}, iteration {engine.state.iteration}"
            what = f"the process ends with exit code {code}" if self.exits else "run() returns"
            logger.warning("%s ended the run at %s; %s", received.name, at, what)
            if self.requeue is not None and received is not signal.SIGINT:
                requeue_slurm_job()
        if self.exits and threading.current_thread() is threading.main_thread():
            raise SystemExit(code)


def requeue_slurm_job() -> None:
    """Asks SLURM to start this job again once it has ended; logs a line if that fails."""
    environment = os.environ
    if "SLURM_JOB_ID" not in environment:
        logger.warning("nothing is requeued: this is no job of SLURM (SLURM_JOB_ID is not set)")
        return
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        # By its own number the last task of an array would be the whole array.
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(
            ["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=REQUEUE_SECONDS
        )
        logger.warning("SLURM job %s is requeued", job)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None)
        logger.error("SLURM job %s could not be requeued: %s%s", job, error, f" {said.strip()}" if said else "")


def _signal(value: str | int) -> signal.Signals:
    """A signal by its name or number. Raises ValueError if there is no such signal, or it can't be caught."""
    try:
        found = signal.Signals[value] if isinstance(value, str) else signal.Signals(value)
    except (KeyError, ValueError):
        known = ", ".join(each.name for each in signal.Signals)
        raise ValueError(f"there is no signal {value!r} here; there are: {known}") from None
    if found.name in ("SIGKILL", "SIGSTOP"):
        raise ValueError(f"no process can catch {found.name}; schedulers send SIGTERM or SIGUSR1 before it")
    return found
