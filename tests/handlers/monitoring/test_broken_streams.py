"""Whatever a bar is to be shown on, the training goes on."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine
from leyden.handlers.monitoring import ProgressBar
from leyden.handlers.monitoring.stream import TextStream


class NoTty:
    """Has only what a logger's stand-in for stderr has."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


class Failing(io.StringIO):
    """A terminal or a log that fails from the n-th write or flush on."""

    def __init__(self, error: Exception, *, tty: bool, after: int, by: str = "write") -> None:
        super().__init__()
        self.error, self.tty, self.left, self.by = error, tty, after, by

    def isatty(self) -> bool:
        return self.tty

    def _count(self, by: str) -> None:
        self.left -= by == self.by
        if self.left < 0:
            raise self.error

    def write(self, text: str) -> int:
        self._count("write")
        return super().write(text)

    def flush(self) -> None:
        self._count("flush")


def shown(file: Any, **arguments: Any) -> int:
    """Iterations of two epochs that were done."""
    engine = Engine(lambda engine, batch: 0.5)
    engine.attach(ProgressBar(file=file, **arguments))
    return engine.run(range(6), max_epochs=2).iteration


def test_a_stream_without_isatty_and_flush_is_a_file() -> None:
    file = NoTty()
    assert shown(file) == 12
    assert [line.split(":")[0] for line in file.text.splitlines()] == ["Epoch 1/2", "Epoch 2/2"]


def test_no_stderr_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert shown(None) == 12


@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "log"])
@pytest.mark.parametrize("by", ["write", "flush"])
@pytest.mark.parametrize("after", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left"), ValueError("closed file")],
    ids=["closed pipe", "full disk", "closed file"],
)
def test_a_stream_that_fails_is_told_once(error: Exception, after: int, by: str, tty: bool) -> None:
    file = Failing(error, tty=tty, after=after, by=by)
    with pytest.warns(UserWarning, match="ProgressBar no longer shows anything .*; the training goes on") as told:
        assert shown(file, every=1) == 12
    assert len(told) == 1


def test_a_file_that_was_closed(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w", encoding="utf-8") as file:
        pass
    with pytest.warns(UserWarning, match="I/O operation on closed file"):
        assert shown(file) == 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk() -> None:
    file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115  # closing it fails as well
    with pytest.warns(UserWarning, match="No space left"):
        assert shown(file) == 12
    with pytest.raises(OSError, match="No space left"):
        file.close()


def test_a_pipe_whose_reader_went_away() -> None:
    script = (
        "from leyden.engine import Engine\nfrom leyden.handlers import ProgressBar\n"
        "engine = Engine(lambda engine, batch: 0.5)\nengine.attach(ProgressBar(every=1))\n"
        "print(engine.run(range(2000), max_epochs=2).iteration)"
    )
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=write, text=True) as process:
        os.close(write)
        os.close(read)
        assert process.communicate(timeout=60)[0] == "4000\n"


def test_a_mistake_of_the_users_is_still_an_error() -> None:
    with pytest.raises(ValueError, match="mine"):
        shown(NoTty(), output_transform=lambda output: fail())


def fail() -> None:
    raise ValueError("mine")


def test_what_the_encoding_does_not_have_is_a_question_mark() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    engine = Engine(lambda engine, batch: {"точность": 0.5})
    engine.attach(ProgressBar(file=file))
    engine.run(range(3))
    assert b"????????=0.5" in raw.getvalue()


def test_the_next_run_tries_again() -> None:
    file = Failing(OSError(errno.ENOSPC, "No space left"), tty=False, after=0)
    engine = Engine(lambda engine, batch: 0.5)
    engine.attach(ProgressBar(file=file))
    with pytest.warns(UserWarning, match="No space left"):
        engine.run(range(3), max_epochs=1)
    file.left = 100
    engine.run(range(3), max_epochs=2)
    assert file.getvalue().startswith("Epoch 2/2: 100%")


def test_no_stream_is_no_terminal() -> None:
    stream = TextStream(None)
    assert not stream.is_open
    assert not stream.isatty()
    assert stream.write("x") == 0
    stream.flush()
