"""What the engine's tests share: an engine that writes down what happens, and a way to write down what should."""

import pytest

from leyden.engine import Engine, Events

SHOWN = {
    Events.EPOCH_STARTED: "epoch",
    Events.EPOCH_COMPLETED: "epoch",
    Events.GET_BATCH_COMPLETED: "batch",
    Events.ITERATION_STARTED: "iteration",
    Events.ITERATION_COMPLETED: "iteration",
}


@pytest.fixture
def recorded():
    """A function that makes (engine, journal): all events of the engine and its steps are noted in the journal.

    `step(engine, batch)` is what the process function does; with `journal`, an engine writes on in another's.
    """

    def make(step=lambda engine, batch: None, journal=None):
        notes = [] if journal is None else journal

        def process(engine, batch):
            notes.append(f"step {batch}")
            return step(engine, batch)

        engine = Engine(process)

        def note(event):
            shown = f" {getattr(engine.state, SHOWN[event])}" if event in SHOWN else ""
            notes.append(f"{event.name}{shown}")

        for event in Events:
            if event is Events.EXCEPTION_RAISED:
                engine.add_event_handler(event, lambda engine, error: notes.append(f"EXCEPTION_RAISED {error}"))
            else:
                engine.add_event_handler(event, note, event)
        return engine, notes

    return make


@pytest.fixture
def story():
    """A function from the text of a run to the list that the journal should hold: entries by commas and lines."""

    def entries(text):
        return [entry.strip() for line in text.splitlines() for entry in line.split(",") if entry.strip()]

    return entries
