"""A run that is ended again and again, and what the design promises of it, checked each time and counted."""

import json
import socket
import time
import warnings
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from fault_processes import until
from run_to_kill import BATCH, SAMPLES

from leyden.handlers.checkpoint import verify


@dataclass
class Counts:
    """What was seen. `inside_saves`: of the ends, those that left something half written."""

    ended: int = 0
    inside_saves: int = 0
    resumes: int = 0
    looks: int = 0
    damaged: int = 0
    lost: int = 0
    wrong_losses: int = 0
    leftovers: int = 0
    repeated: int = 0
    iterations: int = 0

    def __str__(self):
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in vars(self).items())

    def faults(self):
        return {name: getattr(self, name) for name in ("damaged", "lost", "wrong_losses", "leftovers")}


NO_FAULTS = {"damaged": 0, "lost": 0, "wrong_losses": 0, "leftovers": 0}


@dataclass
class Log:
    """What a run wrote down over all its lives."""

    begun: list = field(default_factory=list)
    """The iteration at which each life began."""
    pids: list = field(default_factory=list)
    """The process of each life."""
    losses: list = field(default_factory=list)
    """(iteration, loss), in the order in which they came."""
    ended: list = field(default_factory=list)
    """The digests of the weights at the ends."""

    @classmethod
    def read(cls, path):
        log = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            if not line.endswith(" ."):
                continue
            word, value, *_ = line.split()
            if word == "begins":
                log.begun.append(int(value))
                log.pids.append(int(line.split()[2]))
            elif word == "ended":
                log.ended.append(value)
            else:
                log.losses.append((int(word), value))
        return log


class Chain:
    """One run in many lives, in `base`.

    ranks: how many processes each life has. kept: where the checkpoints are. quiet: what goes to stderr is in `error()`
    instead. saves_may_fail: the disk is full at times. The other options are those of `train`.
    """

    def __init__(self, processes, base, options):
        self.processes = processes
        self.base = base
        self.ranks = options.pop("ranks", 1)
        self.kept = options.pop("kept", base / "kept")
        self.log = base / "log"
        self.saves_may_fail = options.pop("saves_may_fail", False)
        self.options = {"every": 5, **options}
        if self.options.pop("quiet", False):
            self.options["errors"] = str(base / "errors")
        self.host = socket.gethostname()
        self.counts = Counts()
        self.life = []
        self.passed_over = set()
        """Names of checkpoints that the test damaged itself."""
        self._whole = {}  # names of checkpoints that were seen to be whole, of those that are still there
        base.mkdir(parents=True)

    # -- one life --------------------------------------------------------------------------------------------

    def start(self, max_epochs=100_000, *, cold=False, **options):
        """Begins a life, and checks from where it went on once it has begun its steps."""
        newest = self.newest()
        before = [len(log.begun) for log in self.logs()]
        arguments = self.arguments(max_epochs=max_epochs, **options)
        if self.ranks > 1:
            self.life = self.processes.fork_ranks(self.ranks, **arguments)
        else:
            self.life = [(self.processes.begin if cold else self.processes.fork)(**arguments)]
        self._expected = (newest, before)

    def arguments(self, **options):
        """Those of `train` for one life."""
        return {**self.options, **options, "log": str(self.log), "directory": str(self.kept)}

    def as_text(self, **options):
        """The same for a script's command line."""
        return json.dumps(self.arguments(**options))

    def wait_for_begin(self, limit=60):
        """Waits until every rank has begun or ended; the newest checkpoint is the one that it has to go on from."""
        before = self._expected[1]

        def begun():
            return all(
                len(log.begun) > count or not process.alive()
                for log, count, process in zip(self.logs(), before, self.life, strict=True)
            )

        until(begun, limit, "the run does not begin")
        self._check_begin()

    def _check_begin(self):
        """A life that was ended before it began tells nothing."""
        newest, before = self._expected
        logs = self.logs()
        if all(len(log.begun) > count for log, count in zip(logs, before, strict=True)):
            self._expected = (newest, [len(log.begun) for log in logs])
            begun = [log.begun[-1] for log in logs]
            if newest is not None:
                if begun == [newest] * self.ranks:
                    self.counts.resumes += 1
                else:
                    self.counts.lost += 1
                    warnings.warn(f"the newest checkpoint was of {newest}, the run began at {begun}", stacklevel=2)
            elif begun != [0] * self.ranks:
                self.counts.lost += 1
            self.counts.leftovers += len(self.left_by_others())

    def finish(self, limit=100):
        """Waits for the end of a life that is not ended from outside. Returns the exit codes."""
        codes = [each.wait(limit) for each in self.life]
        self._check_begin()
        return codes

    def end_by(self, number):
        """Ends this life by a signal to each rank, and looks at what it left. Returns the exit codes."""
        for each in self.life:
            each.send(number)
        codes = [each.wait() for each in self.life]
        self.after_end()
        return codes

    def after_end(self):
        """Looks at what a life left that has ended somehow."""
        self._check_begin()
        self.counts.ended += 1
        self.counts.inside_saves += any(self.kept.glob(".tmp-epoch=*"))
        self.look()

    def watch(self, looks, every):
        """Stops the process that often for a look at the disk, which nothing changes meanwhile."""
        for _ in range(looks):
            time.sleep(every())
            with self.life[0].stopped() as stands:
                assert stands
                self.look()

    # -- what is on disk -------------------------------------------------------------------------------------

    def look(self):
        """Counts checkpoints that are damaged, or lost: gone, or none where there was one. Nothing may be writing."""
        self.counts.looks += 1
        whole = {}
        for path in self.kept.glob("epoch=*"):
            if path.name in self.passed_over:
                continue
            try:
                whole[path.name] = self._whole.get(path.name) or verify(path)
            except ValueError as error:
                self.counts.damaged += 1
                warnings.warn(str(error), stacklevel=2)
        newest_before = max((manifest.serial for manifest in self._whole.values()), default=0)
        if newest_before > max((manifest.serial for manifest in whole.values()), default=0):
            self.counts.lost += 1
            warnings.warn(f"{sorted(self._whole)} were there, now {sorted(whole)} are", stacklevel=2)
        # A save is on disk before the next one begins, and at most one is under way beside the steps.
        begun = max((iteration for log in self.logs() for iteration, _ in log.losses), default=0)
        every = self.options["every"]
        promised = (begun - 1) // every * every - every
        if not self.saves_may_fail and promised > max((manifest.iteration for manifest in whole.values()), default=0):
            self.counts.lost += 1
            warnings.warn(f"{begun} iterations were done, but only {sorted(whole)} are there", stacklevel=2)
        self._whole = whole

    def forget(self, folder):
        """What is done to this checkpoint from now on is the test's doing."""
        del self._whole[folder.name]
        self.passed_over.add(folder.name)

    def forget_all(self):
        """The same for all of them."""
        self._whole = {}

    def newest(self):
        """The iteration of the newest whole checkpoint; None if there is none."""
        whole = []
        for path in self.kept.glob("epoch=*"):
            try:
                manifest = verify(path)
            except ValueError:
                continue
            whole.append((manifest.serial, manifest.iteration))
        return max(whole)[1] if whole else None

    def left_by_others(self):
        """Half-written folders that are not of the processes of this life."""
        own = tuple(f"@{self.host}@{each.pid}" for each in self.life)
        return [path for path in self.kept.glob(".tmp-epoch=*") if not path.name.endswith(own)]

    # -- what was computed -----------------------------------------------------------------------------------

    def logs(self):
        """One of each rank."""
        names = [self.log] if self.ranks == 1 else [Path(f"{self.log}.{rank}") for rank in range(self.ranks)]
        return [Log.read(name) for name in names]

    def progress(self):
        """Steps done since this life began."""
        log = self.logs()[0]
        return log.losses[-1][0] - log.begun[-1] if log.losses and log.begun else 0

    def error(self):
        """What the processes told on stderr."""
        return Path(self.options["errors"]).read_text()

    def compare(self):
        """Goes on to the end of the epoch after the furthest, and compares it all with a run that never stopped."""
        steps = max(iteration for log in self.logs() for iteration, _ in log.losses)
        epochs = steps // self._epoch_length() + 1
        self.start(epochs)
        codes = self.finish()
        assert codes == [0] * self.ranks
        self.look()
        self.counts.leftovers += len(list(self.kept.glob(".tmp-*")))
        reference = self._reference(epochs)
        for own, whole in zip(self.logs(), reference, strict=True):
            right = dict(whole.losses)
            self.counts.wrong_losses += sum(right.get(iteration) != loss for iteration, loss in own.losses)
            self.counts.wrong_losses += len(right.keys() - dict(own.losses).keys())
            self.counts.wrong_losses += own.ended[-1] != whole.ended[-1]
            self.counts.repeated = len(own.losses) - len(right)
            self.counts.iterations = len(right)
        return self.counts.faults()

    def _epoch_length(self):
        return ceil(ceil(SAMPLES / self.ranks) / BATCH)

    def _reference(self, epochs):
        """The logs of the run that never stopped."""
        other = Chain(self.processes, self.base / "reference", {"ranks": self.ranks, **self.options})
        arguments = {**other.options, "slow_fsync": 0, "log": str(other.log), "max_epochs": epochs}
        fork = self.processes.fork
        life = self.processes.fork_ranks(self.ranks, **arguments) if self.ranks > 1 else [fork(**arguments)]
        assert [each.wait() for each in life] == [0] * self.ranks
        return other.logs()
