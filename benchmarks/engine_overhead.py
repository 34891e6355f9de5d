"""What the engine costs, beside a bare loop, PyTorch-Ignite and PyTorch Lightning, in one run of about a minute.

    python benchmarks/engine_overhead.py                   everything
    python benchmarks/engine_overhead.py --only b d        some parts
    python benchmarks/engine_overhead.py --where leyden    which functions a step of one loop of part (b) calls

A peer that is not installed is left out (pip install pytorch-ignite pytorch-lightning).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: nothing here is large enough for two

from _loops import LOOPS, Batches, Maker, loss_fn, model_and_optimizer
from _measure import Action, frames_of, print_table, seconds_in_turn
from _steps import COUNTED_STEPS, TIMED_REPEATS, TIMED_STEPS, StepCalls, calls_a_step, microseconds_a_step, quiet

from leyden.engine import Engine, Events, UpdateEvents, supervised_trainer

NOOP_STEPS, NOOP_REPEATS = 100_000, 7
EVERY = 1000
FILTERED_STEPS, FILTERED_REPEATS = 10_000, 31

IGNITE = find_spec("ignite") is not None
LIGHTNING = find_spec("pytorch_lightning") is not None


class Bar(NamedTuple):
    """A bar that leyden is held to, with what was seen."""

    claim: str
    seen: float
    at_most: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        return self.seen <= self.at_most

    def row(self) -> tuple[str, str, str, str]:
        return (
            self.claim,
            f"{self.at_most:.4g}{self.unit}",
            f"{self.seen:.3g}{self.unit}",
            "yes" if self.holds else "NO",
        )


def noop(engine: Any, batch: Any) -> None:
    """The step of parts (a) and (c)."""


def bare_run(data: Sequence[Any]) -> Action:
    def run() -> None:
        for batch in data:
            noop(None, batch)

    return run


def noop_run(data: Sequence[Any], every: int | None = None) -> Action:
    """A run of leyden's engine over `data` without handlers, or with one that does nothing, `every` steps."""
    engine: Engine[Any, None] = Engine(noop)
    if every is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=every), lambda: None)
    return lambda: engine.run(data, max_epochs=1)


def empty_engine() -> list[Bar]:
    """(a) An engine without handlers over no-op steps."""
    data = [None] * NOOP_STEPS
    rivals = {"bare loop": bare_run(data), "leyden": noop_run(data)}
    if IGNITE:
        import _ignite_loops

        rivals["Ignite"] = _ignite_loops.noop_run(noop, data)
    nanoseconds = {
        name: min(seconds) / NOOP_STEPS * 1e9 for name, seconds in seconds_in_turn(rivals, NOOP_REPEATS).items()
    }
    floor = nanoseconds["bare loop"]
    print_table(
        f"(a) An engine without handlers: {NOOP_STEPS:,} no-op steps, best of {NOOP_REPEATS} taken in turn",
        ("loop", "ns a step", "beyond the bare loop"),
        [(name, f"{each:.0f}", f"{each - floor:.0f}") for name, each in nanoseconds.items()],
    )
    if not IGNITE:
        return []
    share = (nanoseconds["leyden"] - floor) / (nanoseconds["Ignite"] - floor)
    return [Bar("(a) cost beyond the bare loop, as a share of Ignite's", share, 1 / 8)]


def filtered_handler() -> list[Bar]:
    """(c) What a handler that waits for every thousandth step adds to the others."""
    data = [None] * FILTERED_STEPS
    pairs = {"leyden": (noop_run(data), noop_run(data, EVERY))}
    if IGNITE:
        import _ignite_loops

        pairs["Ignite"] = (_ignite_loops.noop_run(noop, data), _ignite_loops.noop_run(noop, data, EVERY))
    rows = []
    added = {}
    for name, (without, filtered) in pairs.items():
        seconds = seconds_in_turn({"without": without, "with": filtered}, FILTERED_REPEATS)
        added[name] = (min(seconds["with"]) - min(seconds["without"])) / FILTERED_STEPS * 1e9
        each = [(b - a) / FILTERED_STEPS * 1e9 for a, b in zip(seconds["without"], seconds["with"], strict=True)]
        low, middle, high = quantiles(each, n=4)
        rows.append((name, f"{added[name]:.1f}", f"{middle:.1f}", f"{low:.1f} .. {high:.1f}"))
    print_table(
        f"(c) A handler with every={EVERY}: ns that it adds to a no-op step\n"
        f"    from {FILTERED_REPEATS} pairs of runs of {FILTERED_STEPS:,} steps without and with it, taken in turn",
        ("engine", "best with - best without", "median pair", "middle half of the pairs"),
        rows,
    )
    return [Bar(f"(c) a handler with every={EVERY} adds", added["leyden"], 100, " ns")]


def all_loops() -> dict[str, Maker]:
    loops = dict(LOOPS)
    if IGNITE:
        import _ignite_loops

        loops |= _ignite_loops.LOOPS
    if LIGHTNING:
        import _lightning_loops

        loops |= _lightning_loops.LOOPS
    return loops


def call_bars(calls: Mapping[str, StepCalls]) -> list[Bar]:
    floor = calls["bare loop"].total
    return [
        Bar("(b) calls a step, nothing attached", calls["leyden"].total / floor, 1.25, " × bare"),
        Bar("(b) calls a step, all attached", calls["leyden, all attached"].total / floor, 2, " × bare"),
    ]


def training_step() -> list[Bar]:
    """(b) A real step: calls and time."""
    makers = all_loops()
    with tempfile.TemporaryDirectory() as name:
        calls = {loop: calls_a_step(maker, Path(name, loop)) for loop, maker in makers.items()}
        times = microseconds_a_step(makers, Path(name, "times"))
    floor, fastest = calls["bare loop"].total, times["bare loop"]
    print_table(
        "(b) A training step: Linear(32, 2), batch 4, SGD, on the CPU\n"
        "    bare loop: zero_grad, model, loss, backward, step in a `for`, with nothing attached\n"
        "    all attached: running average, progress bar every 100, clipping by norm, a scheduler per step,\n"
        "        TensorBoard every 50\n"
        "    calls: of Python and C functions, from the difference of runs of "
        f"{COUNTED_STEPS[0]} and {COUNTED_STEPS[1]} steps; in the training thread,\n"
        "        which is what is compared, and in threads that a logger started\n"
        f"    µs: best of {TIMED_REPEATS} runs of {TIMED_STEPS} steps, taken in turn; for information",
        ("loop", "calls a step", "× bare", "in other threads", "µs a step", "× bare"),
        [
            (
                loop,
                f"{each.total:.1f}",
                f"{each.total / floor:.2f}",
                f"{each.elsewhere:.1f}",
                f"{times[loop]:.0f}",
                f"{times[loop] / fastest:.2f}",
            )
            for loop, each in calls.items()
        ],
    )
    return call_bars(calls)


def leyden_frames() -> dict[str, int]:
    """Frames of leyden, `run` among them, above functions of a user's."""
    seen = {}

    def process(engine: Engine[Any, Any], batch: object) -> None:
        seen["process function"] = frames_of("leyden.")

    def handler() -> None:
        seen["handler of an iteration"] = frames_of("leyden.")

    def loss(y_pred: Any, y: Any) -> Any:
        seen["loss function of supervised_trainer"] = frames_of("leyden.")
        return loss_fn(y_pred, y)

    def gradients_handler() -> None:
        seen["handler of an update"] = frames_of("leyden.")

    engine: Engine[Any, Any] = Engine(process)
    engine.add_event_handler(Events.ITERATION_COMPLETED, handler)
    engine.run([None], max_epochs=1)
    trainer = supervised_trainer(*model_and_optimizer(), loss)
    trainer.add_event_handler(UpdateEvents.GRADIENTS_READY, gradients_handler)
    trainer.run(Batches(1), max_epochs=1)
    return seen


def frames() -> list[Bar]:
    """(d) How deep a user's function stands."""
    seen = {"leyden": leyden_frames()}
    if IGNITE:
        import _ignite_loops

        seen["Ignite"] = _ignite_loops.frames()
    if LIGHTNING:
        import _lightning_loops

        with tempfile.TemporaryDirectory() as name, quiet():
            seen["Lightning"] = _lightning_loops.frames(Path(name))
    print_table(
        "(d) Frames of the engine's package from `run` (`fit`), itself included, to a user's function",
        ("user's function", *seen),
        [(where, *(str(each.get(where, "")) for each in seen.values())) for where in seen["leyden"]],
    )
    own = seen["leyden"]
    return [
        Bar("(d) frames from `run` to the process function", own["process function"], 5),
        Bar("(d) frames from `run` to a handler of an iteration", own["handler of an iteration"], 5),
    ]


PARTS = {"a": empty_engine, "b": training_step, "c": filtered_handler, "d": frames}


def print_where(loop: str) -> None:
    """The functions that a step of one loop calls, most often called first."""
    makers = all_loops()
    if loop not in makers:
        raise SystemExit(f"there is no loop {loop!r}; there are: {', '.join(makers)}")
    with tempfile.TemporaryDirectory() as name:
        calls = calls_a_step(makers[loop], Path(name))
    rows = [(function, f"{number:.2f}") for function, number in calls.by_function.items()]
    print_table(f"{loop}: {calls.total:.1f} calls a step", ("function", "calls a step"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to run")
    parser.add_argument("--where", metavar="LOOP", help="print the functions that a step of this loop calls, and end")
    arguments = parser.parse_args()
    if arguments.where is not None:
        print_where(arguments.where)
        return
    for package, there in (("pytorch-ignite", IGNITE), ("pytorch-lightning", LIGHTNING)):
        if not there:
            print(f"{package} is not installed: left out")
    bars = [bar for part in arguments.only for bar in PARTS[part]()]
    print_table("Bars", ("what", "bar", "seen", "holds"), [bar.row() for bar in bars])


if __name__ == "__main__":
    main()
