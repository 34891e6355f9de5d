"""How long training waits for a save of a state of 500 MB: leyden beside torch.save, Lightning and torch's DCP.

    python benchmarks/checkpoint_stall.py                           about two minutes
    python benchmarks/checkpoint_stall.py --megabytes 50 --repeats 9 --directory /mnt/fast

A training goes on all the while; the rivals save it in turn, each when the one before is on disk. What is saved is
compared with what was there when the save began. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a core is left for who writes

import torch
from _measure import no_collection, print_table
from _saving_rivals import LIGHTNING, RIVALS, Rival, Training

from leyden.engine import Events

AT_MOST = 1.1
QUIET_STEPS = 3
PLAIN, KEPT, LEYDEN = "a copy of the tensors", "a copy into memory that is kept", "leyden"


@dataclass
class Seen:
    """Of one rival, in seconds: the save as training waits for it, until it is on disk, and steps before and beside."""

    stalls: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    right: bool = True
    """What was saved is what was there when the save began."""

    def slower(self) -> float:
        """Of a step while the save is written, how many times as long as another; 1 if there was none."""
        return median(self.beside) / median(self.quiet) if self.beside else 1.0


def measure(training: Training, rivals: dict[str, Rival], repeats: int) -> dict[str, Seen]:
    """Trains for as long as it takes to have each rival save `repeats` times, after a first time that is not kept."""
    seen = {name: Seen() for name in rivals}
    turns = _take_turns(training, rivals, repeats, seen)

    @training.engine.on(Events.ITERATION_COMPLETED)
    def after_a_step() -> None:
        if next(turns, "end") == "end":
            training.engine.terminate()

    with no_collection():
        training.engine.run([training.batch], epoch_length=10**9)
    return seen


def _take_turns(training: Training, rivals: dict[str, Rival], repeats: int, seen: dict[str, Seen]) -> Iterator[None]:
    """Each `yield` is a step of training."""
    for repeat in range(repeats + 1):
        for name, rival in rivals.items():
            notes = seen[name] if repeat else Seen()
            yield  # a first step, after what was done to clear up
            for _ in range(QUIET_STEPS):
                notes.quiet.append((yield from _step()))
            rival.begin(repeat)
            weight = training.model[0].weight.detach().clone()
            begun_at = time.perf_counter()
            rival.save()
            notes.stalls.append(time.perf_counter() - begun_at)
            while not rival.done():
                notes.beside.append((yield from _step()))
            notes.durable.append(time.perf_counter() - begun_at)
            yield
            seen[name].right &= torch.equal(rival.first_weight(), weight)
            rival.clear()


def _step() -> Generator[None, None, float]:
    begun_at = time.perf_counter()
    yield
    return time.perf_counter() - begun_at


def bars(seen: dict[str, Seen]) -> list[tuple[str, str, str, str]]:
    best = {name: min(each.stalls) for name, each in seen.items()}
    ratio = best[LEYDEN] / min(best[PLAIN], best[KEPT])
    rows = [("leyden's stall", f"{AT_MOST} × the faster copy", f"{ratio:.2f} ×", "yes" if ratio <= AT_MOST else "NO")]
    right = all(each.right for each in seen.values())
    return [*rows, ("what was saved is what was there", "all", "all" if right else "not all", "yes" if right else "NO")]


def report(seen: dict[str, Seen], megabytes: float) -> None:
    plain, slowest = min(seen[PLAIN].stalls), min(seen["torch.save"].stalls)
    rows = [
        (
            name,
            f"{min(each.stalls) * 1e3:.1f}",
            f"{median(each.stalls) * 1e3:.1f}",
            f"{min(each.stalls) / plain:.2f}",
            f"1/{slowest / min(each.stalls):.1f}",
            f"{median(each.durable) * 1e3:.0f}",
            f"{each.slower():.2f}",
        )
        for name, each in seen.items()
    ]
    print_table(
        f"A save of {megabytes:.0f} MB in the midst of training, {len(seen[PLAIN].stalls)} of each, taken in turn\n"
        f"    on: CPU, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}\n"
        "    stall: how long training waits for the call\n"
        "    written: until the checkpoint is there; leyden alone then has hashed it and waited for the disk\n"
        "    steps meanwhile: the median of those beside the writing over that of quiet ones",
        ("saved by", "stall, best ms", "median ms", "× a copy", "of torch.save", "written, ms", "steps meanwhile, ×"),
        rows,
    )
    print_table("Bars", ("what", "bar", "seen", "holds"), bars(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=500, help="of model and optimizer together")
    parser.add_argument("--repeats", type=int, default=5, help="saves of each")
    parser.add_argument("--directory", type=Path, help="where to save; the default is the system's for temporary files")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # DCP's, of a process that is alone
    if not LIGHTNING:
        print("pytorch-lightning is not installed: left out")
    training = Training(options.megabytes)
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        rivals = {each: make(training, Path(name, str(number))) for number, (each, make) in enumerate(RIVALS.items())}
        seen = measure(training, rivals, options.repeats)
    report(seen, training.megabytes())


if __name__ == "__main__":
    main()
