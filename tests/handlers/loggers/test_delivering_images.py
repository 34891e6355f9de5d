"""How images get to their stores: beside the training and the values, each once, also in a run that goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leyden.engine import Engine, Events
from leyden.handlers.loggers import Image, Logger, MLflowLogger, TensorBoardLogger
from leyden.handlers.loggers.deliveries import MOST_BYTES

from .list_logger import ListLogger
from .stored_images import Stored, images_of_mlflow, images_of_tensorboard


class ImageListLogger(ListLogger):
    """Keeps images, too; `away`: raises this where one comes."""

    def __init__(self, away: Exception | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.images: list[tuple[str, int, int]] = []
        self.away = away

    def _write_image(self, image: Image) -> None:
        if self.away is not None and "good" not in image.name:
            raise self.away
        self.images.append((image.name, image.step, int(image.pixels[0, 0])))


def number_engine(*loggers: Logger) -> Engine:
    engine = Engine(lambda engine, batch: float(engine.state.iteration))
    engine.attach(*loggers)
    return engine


def plain(number: int) -> torch.Tensor:
    return torch.full((4, 6), number, dtype=torch.uint8)


def log_each_iteration(engine: Engine, *loggers: Logger) -> None:
    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        for logger in loggers:
            logger.log_image("val/samples", plain(engine.state.iteration), engine.state.iteration)


def client(place: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")


def numbers(stored: Stored) -> dict[str, list[tuple[int, int]]]:
    return {name: [(step, int(pixels[0, 0])) for step, pixels in images] for name, images in stored.items()}


def test_mlflow_has_them_by_name_and_step(workspace: Path) -> None:
    logger = MLflowLogger("images", every=1)
    engine = number_engine(logger)
    colour = torch.randint(256, (4, 9, 300), dtype=torch.uint8)
    log_each_iteration(engine, logger)
    engine.add_event_handler(Events.STARTED, lambda: logger.log_image("inputs", colour, step=0))
    engine.run(range(3))
    stored = images_of_mlflow(client(workspace), logger.run_id)
    ((step, pixels),) = stored.pop("inputs")
    assert step == 0
    assert np.array_equal(pixels, colour.permute(1, 2, 0))
    assert numbers(stored) == {"val/samples": [(1, 1), (2, 2), (3, 3)]}


def test_tensorboard_reads_them(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, every=1)
    engine = number_engine(logger)
    log_each_iteration(engine, logger)
    engine.run(range(3))
    events = accumulators.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.width, event.height) for event in events.Images("val/samples")] == [
        (step, 6, 4) for step in (1, 2, 3)
    ]


def test_before_and_after_a_run_it_is_logged_all_the_same(workspace: Path) -> None:
    loggers = [MLflowLogger("around"), TensorBoardLogger("events")]
    engine = number_engine(*loggers)
    for logger in loggers:
        logger.log_image("before", plain(1), step=0)
    engine.run(range(2))
    for logger in loggers:
        logger.log_image("after", plain(2), step=2)
    expected = {"before": [(0, 1)], "after": [(2, 2)]}
    assert numbers(images_of_tensorboard(Path("events"))) == expected
    assert numbers(images_of_mlflow(client(workspace), loggers[0].run_id)) == expected


def test_names_that_mlflow_takes_for_no_image_are_changed_each_differently(workspace: Path) -> None:
    logger = MLflowLogger("names", every=None)
    engine = number_engine(logger)
    names = ["größe", "gr_ße", "a:b", "a~b", "../x", "y" * 300, "z" * 300]

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        for number, name in enumerate(names):
            logger.log_image(name, plain(number), 1)

    with pytest.warns(UserWarning, match="'größe' is logged as 'gr__e"):
        engine.run(range(1))
    stored = numbers(images_of_mlflow(client(workspace), logger.run_id))
    assert sorted(number for ((_, number),) in stored.values()) == list(range(len(names)))
    assert client(workspace).get_run(logger.run_id).info.status == "FINISHED"


def test_a_store_of_images_that_is_away_holds_up_no_value_and_not_the_end() -> None:
    logger = ImageListLogger(OSError("no bucket"), every=1, patience=0.3)
    engine = number_engine(logger)
    log_each_iteration(engine, logger)
    with pytest.warns(UserWarning, match="3 images could not be delivered to a list within 0.3 s.*no bucket"):
        engine.run(range(3))
    assert logger.curves()["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert logger.story == ["opened", "finished"]
    assert logger.images == []


def test_what_has_not_arrived_is_in_the_state_and_arrives_in_the_run_that_goes_on(tmp_path: Path) -> None:
    logger = ImageListLogger(OSError("no bucket"), every=None, patience=0.1)
    engine = number_engine(logger)
    log_each_iteration(engine, logger)
    with pytest.warns(UserWarning, match="could not be delivered"):
        engine.run(range(2), max_epochs=1)
    torch.save(engine.state_dict(), tmp_path / "state.pt")

    after = ImageListLogger(every=None)
    resumed = number_engine(after)
    log_each_iteration(resumed, after)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    resumed.run(range(2), max_epochs=2)
    assert after.images == [("val/samples", step, step) for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("error", [ValueError("bad image"), ModuleNotFoundError("No module named 'boto3'")])
def test_one_that_is_refused_is_told_once_and_loses_no_other(error: Exception) -> None:
    logger = ImageListLogger(error, every=1)
    engine = number_engine(logger)
    log_each_iteration(engine, logger)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: logger.log_image("good", plain(0), engine.state.iteration)
    )
    with pytest.warns(UserWarning, match=f"a list refuses these, which are left out: 'val/samples' .{error}") as told:
        engine.run(range(3))
    assert len(told) == 1
    assert logger.images == [("good", step, 0) for step in (1, 2, 3)]
    assert len(logger.curves()["train/loss"]) == 3


def test_what_waits_for_a_store_that_is_away_has_a_limit() -> None:
    logger = ImageListLogger(OSError("no bucket"), every=1, patience=0.1)
    engine = number_engine(logger)
    large = torch.zeros(4096, MOST_BYTES // 4 // 4096, dtype=torch.uint8)

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        logger.log_image("large", large, engine.state.iteration)
        while engine.state.iteration == 1 and not logger._delivery.failures:
            pass

    with pytest.warns(UserWarning, match="images") as told:
        engine.run(range(9))
    messages = [str(each.message) for each in told]
    assert [m for m in messages if "left out" in m] == [
        "ImageListLogger: too many images wait for a list: from 'large' on they are left out"
    ]
    assert any("4 images could not be delivered" in message for message in messages)


@pytest.mark.parametrize("killed_before", ["they arrived", "the next ones arrived"])
def test_a_run_that_goes_on_from_before_has_each_image_once(
    workspace: Path, killed_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> tuple[Engine, list[Logger]]:
        loggers: list[Logger] = [MLflowLogger("again", every=1), TensorBoardLogger("events", every=1)]
        engine = number_engine(*loggers)
        log_each_iteration(engine, *loggers)
        return engine, loggers

    before, _ = make()
    states: list[Any] = []
    at = 2 if killed_before == "the next ones arrived" else 3
    before.add_event_handler(Events.ITERATION_COMPLETED(once=at), lambda: states.append(before.state_dict()), order=99)
    before.run(range(3), max_epochs=1)

    after, loggers = make()
    after.load_state_dict(states[0])
    after.run(range(3), max_epochs=2)
    expected = {"val/samples": [(step, step) for step in range(1, 7)]}
    mlflow_logger = loggers[0]
    assert isinstance(mlflow_logger, MLflowLogger)
    assert numbers(images_of_mlflow(client(workspace), mlflow_logger.run_id)) == expected
    assert numbers(as_shown(images_of_tensorboard(Path("events")), at, 3)) == expected


def as_shown(stored: Stored, goes_on_from: int, first_run_to: int) -> Stored:
    """TensorBoard hides what the first run wrote after the step from which the second goes on."""
    hidden = first_run_to - goes_on_from
    return {name: images[:goes_on_from] + images[goes_on_from + hidden :] for name, images in stored.items()}


def test_mlflow_keeps_another_image_of_the_same_step(workspace: Path) -> None:
    def make(number: int) -> tuple[Engine, MLflowLogger]:
        logger = MLflowLogger("other", every=None)
        engine = number_engine(logger)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(once=2), lambda: logger.log_image("x", plain(number), step=2)
        )
        return engine, logger

    before, _ = make(5)
    states: list[Any] = []
    before.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda: states.append(before.state_dict()), order=99)
    before.run(range(2))
    after, logger = make(6)
    after.load_state_dict(states[0])
    after.run(range(2))
    assert sorted(numbers(images_of_mlflow(client(workspace), logger.run_id))["x"]) == [(2, 5), (2, 6)]


def test_an_image_whose_writing_failed_halfway_is_there_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    failing: list[Callable[..., Any]] = [MlflowClient.set_tag]
    images_at_first = []

    def set_tag(self: Any, run_id: str, key: str, *rest: Any) -> Any:
        if key == "mlflow.loggedImages" and not images_at_first:
            images_at_first.append(len(self.list_artifacts(run_id, "images")))
            raise OSError("the database is gone")
        return failing[0](self, run_id, key, *rest)

    monkeypatch.setattr(MlflowClient, "set_tag", set_tag)
    logger = MLflowLogger("halfway", every=None)
    engine = number_engine(logger)
    log_each_iteration(engine, logger)
    engine.run(range(2))
    assert images_at_first == [2], "the large one and the small one"
    assert numbers(images_of_mlflow(client(workspace), logger.run_id)) == {"val/samples": [(1, 1), (2, 2)]}
