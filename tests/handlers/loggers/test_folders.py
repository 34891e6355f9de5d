"""A folder for each run of TensorBoardLogger, whoever else begins one."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leyden.engine import Engine, Events
from leyden.handlers import TensorBoardLogger
from leyden.handlers.loggers.folders import Claim, make_new


def logged_run(logger: TensorBoardLogger) -> Engine:
    engine = Engine(lambda engine, batch: 0.5)
    engine.attach(logger)
    engine.run(range(2))
    return engine


def test_runs_that_begin_within_a_second_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loggers = [TensorBoardLogger() for _ in range(3)]
    engine = logged_run(loggers[0])
    first = loggers[0].log_dir
    engine.run(max_epochs=1)  # from the beginning: a new one
    for logger in loggers[1:]:
        logged_run(logger)
    folders = {first, *(logger.log_dir for logger in loggers)}
    assert len(folders) == 4
    assert sorted(tmp_path.glob("runs/*")) == sorted(tmp_path / str(folder) for folder in folders)
    assert all(len(list(folder.iterdir())) == 1 for folder in tmp_path.glob("runs/*"))


def test_many_at_one_moment(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: make_new(tmp_path / "runs"), range(64)))
    assert len(set(folders)) == 64


def test_the_home_directory_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    logger = TensorBoardLogger("~/tb")
    logged_run(logger)
    assert logger.log_dir == tmp_path / "home" / "tb"
    assert not (tmp_path / "~").exists()


def test_two_loggers_of_one_engine_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = Engine(lambda engine, batch: None)
    engine.attach(TensorBoardLogger("tb"), TensorBoardLogger("other"), TensorBoardLogger())
    with pytest.raises(ValueError, match=r"both write to .*tb, where they would hide each other's curves"):
        engine.attach(TensorBoardLogger(tmp_path / "tb"))


def test_two_runs_at_one_moment_in_one_folder_are_told(tmp_path: Path) -> None:
    outer, inner = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    outer.attach(TensorBoardLogger(tmp_path))
    inner.attach(TensorBoardLogger(tmp_path))
    inner.run(range(1))  # one after the other is nothing to tell
    outer.add_event_handler(Events.STARTED, lambda: inner.run(range(1)))
    with pytest.warns(UserWarning, match=r"TensorBoardLogger: another run writes to .* at this moment") as told:
        outer.run(range(1))
    assert len(told) == 1


def test_another_process_is_seen_and_forgotten_when_it_ends(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from leyden.handlers.loggers.folders import Claim\n"
        f"claim = Claim(); print(claim.take(Path({str(tmp_path)!r})), flush=True); input()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not Claim().take(tmp_path)
        process.kill()
    claim = Claim()
    assert claim.take(tmp_path)
    claim.give_back()
