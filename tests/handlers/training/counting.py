"""What a step costs in calls of Python and C functions: counted, so it is the same on every machine."""

import gc
import sys


def calls_of(function):
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def calls_a_step(run):
    """How many calls one more step makes: `run(n)` goes n steps, in one epoch."""
    run(3)  # what is made once is made here
    # Whatever else calls in between (a collection of garbage and who listens to it) only adds: the least is the run's.
    gc.collect()
    gc.disable()
    try:
        few = min(calls_of(lambda: run(20)) for _ in range(3))
        many = min(calls_of(lambda: run(60)) for _ in range(3))
    finally:
        gc.enable()
    return (many - few) / 40
