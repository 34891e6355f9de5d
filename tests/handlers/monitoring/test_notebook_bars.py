"""In a notebook, whose stream is no terminal, tqdm's own choice of bars is drawn."""

import io
import sys

import pytest
import tqdm.auto

from leyden.engine import Engine, Events
from leyden.handlers.monitoring import ProgressBar


class OutStream(io.StringIO):
    """A kernel's stream, by the name of its module."""


OutStream.__module__ = "ipykernel.iostream"


def test_a_kernels_stderr_gets_a_bar_of_tqdm_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Seen(tqdm.auto.tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(tqdm.auto, "tqdm", Seen)
    stream = OutStream()
    monkeypatch.setattr(sys, "stderr", stream)
    engine = Engine(lambda engine, batch: 0.5)
    engine.attach(ProgressBar(every=1))
    engine.run(range(3), max_epochs=2)
    assert [each["desc"] for each in made] == ["Epoch 1/2", "Epoch 2/2"]
    assert all(each["file"] is None for each in made), "the notebook's bar has no stream"


def test_a_file_that_was_given_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", OutStream())
    engine, file = Engine(lambda engine, batch: 0.5), io.StringIO()
    engine.attach(ProgressBar(file=file))
    engine.add_event_handler(Events.COMPLETED, lambda: None)
    engine.run(range(3))
    assert file.getvalue().startswith("Epoch 1/1: 100%")
