"""What the benchmarks measure with: times of rivals that take turns, calls counted, frames on the stack, tables."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

Action = Callable[[], object]


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: it would come to one of the rivals and not to another."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def seconds_in_turn(rivals: Mapping[str, Action], repeats: int) -> dict[str, list[float]]:
    """The seconds of each call, `repeats` of each rival; they take turns, so that a slow moment meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    with no_collection():
        for _ in range(repeats):
            for name, action in rivals.items():
                started_at = time.perf_counter()
                action()
                seconds[name].append(time.perf_counter() - started_at)
    return seconds


class Calls:
    """Python and C functions called (the events "call" and "c_call" of sys.setprofile) while an action runs."""

    def __init__(self, action: Action) -> None:
        self.here: Counter[str] = Counter()
        """By the name of the function, in the thread that runs the action."""
        self.elsewhere = 0
        """In threads that it started."""
        thread = threading.get_ident()

        def note(frame: FrameType, event: str, function: Any) -> None:
            if event not in ("call", "c_call"):
                return
            if threading.get_ident() != thread:
                self.elsewhere += 1
            elif event == "call":
                self.here[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"] += 1
            else:
                self.here[f"{function.__qualname__} (C)"] += 1

        with no_collection():
            threading.setprofile(note)
            sys.setprofile(note)
            try:
                action()
            finally:
                sys.setprofile(None)
                threading.setprofile(None)


def frames_of(package: str | tuple[str, ...]) -> int:
    """Frames on the stack, above the caller's own, of functions that a package's modules define."""
    frame = sys._getframe(1)
    found = 0
    while frame.f_back is not None:
        frame = frame.f_back
        found += frame.f_globals.get("__name__", "").startswith(package)
    return found


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(("  " + "  ".join(cells)).rstrip())
