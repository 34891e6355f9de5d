"""TensorBoard's event files, read back record by record."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine, Events
from leyden.handlers.loggers import TensorBoardLogger

from .stored_images import read_events


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars by name, as TensorBoard shows them: a restart hides earlier ones with its step or a later one."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(folder):
        if event.HasField("session_log"):
            curves = {name: [point for point in points if point[0] < event.step] for name, points in curves.items()}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def number_engine() -> Engine:
    """Its output is the number of the iteration."""
    return Engine(lambda engine, batch: float(engine.state.iteration))


def test_curves_and_parameters(tmp_path: Path, make_trainer: Callable[[], Engine], batches: Any) -> None:
    trainer, losses = make_trainer(), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output.item()))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=e.state.epoch / 4))
    trainer.attach(TensorBoardLogger(tmp_path / "run", every=2, params={"note": "a|b"}))
    trainer.run(batches, max_epochs=2)
    assert len(list((tmp_path / "run").iterdir())) == 1
    curves = read_curves(tmp_path / "run")
    means = [(losses[step - 2] + losses[step - 1]) / 2 for step in (2, 4, 6, 8)]
    assert [step for step, _ in curves["train/loss"]] == [2, 4, 6, 8]
    assert [mean for _, mean in curves.pop("train/loss")] == pytest.approx(means)
    assert curves == {
        "train/lr": [(2, 0.5), (4, 0.5), (6, 0.5), (8, 0.5)],
        "train/epoch": [(2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0)],
        "train/accuracy": [(4, 0.25), (8, 0.5)],
    }
    texts = [
        value.tensor.string_val[0].decode()
        for e in read_events(tmp_path / "run")
        for value in e.summary.value
        if value.tensor.string_val
    ]
    assert len(texts) == 1
    assert {"|parameter|value|", "|optimizer/lr|0.5|", "|note|a&#124;b|"} <= set(texts[0].splitlines())


def test_values_are_on_the_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    engine = number_engine()
    engine.attach(TensorBoardLogger(tmp_path, every=1))

    @engine.on(Events.ITERATION_COMPLETED(once=3))
    def wait_for_them() -> None:
        deadline = time.monotonic() + 20
        while len(read_curves(tmp_path).get("train/loss", [])) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert read_curves(tmp_path)["train/loss"][:2] == [(1, 1.0), (2, 2.0)]

    engine.run(range(4))


def test_resumed_training_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before, logger_before = number_engine(), TensorBoardLogger(every=1)
    before.attach(logger_before)
    states = []
    before.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: states.append(before.state_dict()))
    before.run(range(3), max_epochs=1)

    after, logger_after = Engine(lambda engine, batch: 10.0 * engine.state.iteration), TensorBoardLogger(every=1)
    after.attach(logger_after)
    after.load_state_dict(states[0])
    after.run(range(3), max_epochs=2)
    assert logger_after.log_dir == logger_before.log_dir
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [logger_after.log_dir.name]
    points = read_curves(tmp_path / logger_after.log_dir)["train/loss"]
    assert points == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0), (6, 60.0)]


def test_what_is_logged_after_the_run_hides_nothing(tmp_path: Path) -> None:
    engine, logger = number_engine(), TensorBoardLogger(tmp_path, every=1)
    engine.attach(logger)
    engine.run(range(2))
    logger.log_metrics({"test/accuracy": 0.5}, step=2)
    curves = read_curves(tmp_path)
    assert curves.pop("train/epoch") == [(1, 1.0), (2, 1.0)]
    assert curves == {"train/loss": [(1, 1.0), (2, 2.0)], "test/accuracy": [(2, 0.5)]}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = number_engine()
    engine.attach(TensorBoardLogger(tmp_path / "file" / "run"))
    with pytest.raises(NotADirectoryError):
        engine.run(range(1))


def test_a_missing_package_is_told_when_the_logger_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r'TensorBoardLogger needs .* pip install "leyden\[tensorboard\]"'):
        TensorBoardLogger()


def test_the_command_that_shows_the_folder() -> None:
    command = TensorBoardLogger("runs/my digits").dashboard_command()
    assert command.endswith(" --logdir 'runs/my digits'")


def test_the_command_is_one_that_the_extra_brings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without the environment's own commands
    command = shlex.split(TensorBoardLogger("runs").dashboard_command())
    done = subprocess.run([*command[:-2], "--version"], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip()[0].isdigit()
