"""Ranks that share their stops: `shared_stops.py NPROC NAME...` runs the named scenarios and prints what each rank saw.

The last line is JSON: {scenario: [what rank 0 saw, what rank 1 saw, ...]}.
"""

import json
import sys
import time

from leyden import distributed as dist
from leyden.engine import Engine, Events


class Run:
    """One rank's engine; its steps last the longer the higher the rank, so that ranks drift apart."""

    def __init__(self):
        self.story = []
        self.engine = Engine(self.step)
        self.engine.share_stops()
        self.last = dist.rank() == dist.world_size() - 1
        for event in (Events.TERMINATE, Events.TERMINATE_SINGLE_EPOCH, Events.INTERRUPT, Events.EPOCH_COMPLETED):
            self.engine.add_event_handler(event, self.note, event.name)

    def step(self, engine, batch):
        time.sleep(0.0002 * dist.rank())

    def note(self, engine, name):
        self.story.append([name, engine.state.epoch, engine.state.iteration])

    def result(self):
        return {"story": self.story, "iteration": self.engine.state.iteration, "epoch": self.engine.state.epoch}


def terminate_early():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), run.engine.terminate)
    run.engine.run(range(1000), max_epochs=2)
    return run.result()


def terminate_late():
    """The ranks look at each other seldom by now."""
    run = Run()
    if dist.rank() == 0:
        run.engine.add_event_handler(Events.ITERATION_STARTED(once=700), run.engine.terminate)
    run.engine.run(range(1500), max_epochs=2)
    return run.result()


def terminate_at_started():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.STARTED, run.engine.terminate)
    run.engine.run(range(10))
    return run.result()


def terminate_at_epoch_started():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.EPOCH_STARTED(once=2), run.engine.terminate)
    run.engine.run(range(10), max_epochs=5)
    return run.result()


def terminate_at_epoch_completed():
    run = Run()
    if dist.rank() == 0:
        run.engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), run.engine.terminate)
    run.engine.run(range(10), max_epochs=5)
    return run.result()


def terminate_epoch():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=50), run.engine.terminate_epoch)
    run.engine.run(range(400), max_epochs=2)
    return run.result()


def interrupt():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=50), run.engine.interrupt)
    run.engine.run(range(400), max_epochs=2)
    run.engine.run()
    return run.result()


def uneven():
    run = Run()
    run.engine.run(range(5 + 40 * dist.rank()), max_epochs=2)
    return run.result()


def terminate_by_the_rank_that_still_works():
    run = Run()
    if run.last:
        run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=20), run.engine.terminate)
    run.engine.run(range(1000) if run.last else range(5), max_epochs=3)
    return run.result()


def terminate_after_the_end():
    run = Run()
    handle = run.engine.add_event_handler(Events.COMPLETED | Events.CLOSED, run.engine.terminate)
    run.engine.run(range(5), max_epochs=1)
    handle.remove()
    run.engine.run(range(5), max_epochs=2)
    return run.result()


def uneven_under_max_iters():
    run = Run()
    run.engine.run(range(5 + 10 * dist.rank()), max_iters=12)
    return run.result()


def uneven_exhausted():
    run = Run()
    run.engine.run(iter(range(5 + 10 * dist.rank())), max_epochs=4, epoch_length=4)
    return run.result()


def play(names):
    return [globals()[name]() for name in names]


if __name__ == "__main__":
    names = sys.argv[2:]
    by_rank = dist.launch(play, int(sys.argv[1]), args=(names,), backend="gloo", timeout=20)
    print(json.dumps({name: [results[i] for results in by_rank] for i, name in enumerate(names)}))
