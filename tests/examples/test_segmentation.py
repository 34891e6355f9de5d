"""The segmentation, run as a user runs it: its figures are right, its pictures there, a killed run goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from running import TWO_RANKS, command, figure, output_of
from stored_images import images_of_mlflow, images_of_tensorboard

from leyden.engine import Events, supervised_evaluator
from leyden.handlers.checkpoint import load_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "segmentation.py"
SHORT = ["--epochs", "3", "--samples", "48"]  # six batches an epoch, 12 samples to validate

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import segmentation

    return segmentation


def run_example(runs: Path, *arguments: str, python: list[str] | None = None) -> str:
    return output_of(EXAMPLE, "--runs", str(runs), *arguments, python=python, timeout=260)


class Logged:
    """What the one run in a folder logged."""

    def __init__(self, runs: Path) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")
        (run,) = client.search_runs([client.get_experiment_by_name("segmentation").experiment_id])
        self.status = run.info.status
        self.curves = {
            name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        self.pictures = images_of_mlflow(client, run.info.run_id)["val/samples"]
        self.in_tensorboard = images_of_tensorboard(runs / "tensorboard")["val/samples"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Logged]:
    runs = tmp_path_factory.mktemp("unbroken")
    output = run_example(runs, *SHORT)
    return runs, output, Logged(runs)


def test_figures_and_pictures_of_each_epoch_are_logged(unbroken: tuple[Path, str, Logged]) -> None:
    _, output, logged = unbroken
    assert logged.status == "FINISHED"
    steps = [6, 12, 18]
    for name in ("mean_iou", "dice", "loss", "iou/background", "iou/disc", "iou/square", "iou/triangle"):
        assert [step for step, _ in logged.curves[f"val/{name}"]] == steps, name
    assert figure(output, "mean IoU") == pytest.approx(logged.curves["val/mean_iou"][-1][1], abs=5e-5)
    assert [step for step, _ in logged.pictures] == [step for step, _ in logged.in_tensorboard] == steps
    for (_, one), (_, other) in zip(logged.pictures, logged.in_tensorboard, strict=True):
        assert np.array_equal(one, other)


def test_a_picture_shows_samples_above_their_true_and_their_predicted_classes(
    unbroken: tuple[Path, str, Logged], example: ModuleType
) -> None:
    size, validation = example.SIZE, example.Shapes(12, seed=1)
    colours = (example.PALETTE * 255).round().to(torch.uint8).numpy()
    _, picture = unbroken[2].pictures[-1]
    assert picture.shape == (3 * size, 8 * size + 7 * 2, 3)
    for place in range(8):
        image, classes = validation[place]
        left = place * (size + 2)
        shown, truth, predicted = np.split(picture[:, left : left + size], 3)
        assert np.array_equal(shown, (image * 255).round().to(torch.uint8).permute(1, 2, 0))
        assert np.array_equal(truth, colours[classes])
        assert {*map(tuple, predicted.reshape(-1, 3))} <= {*map(tuple, colours)}


def test_the_metrics_are_those_of_the_predictions_counted_by_hand(
    unbroken: tuple[Path, str, Logged], example: ModuleType
) -> None:
    model, seen = example.UNet(), []
    load_weights(unbroken[0] / "checkpoints", model)
    evaluator = supervised_evaluator(model, metrics=example.make_metrics(torch.nn.CrossEntropyLoss()))
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append((engine.state.output[0].argmax(1).numpy(), engine.state.output[1].numpy())),
    )
    metrics = evaluator.run(torch.utils.data.DataLoader(example.Shapes(12, seed=1), 5)).metrics
    predicted, truth = (np.concatenate(each) for each in zip(*seen, strict=True))
    assert predicted.shape == truth.shape == (12, example.SIZE, example.SIZE)
    ious, dices = [], []
    for place, name in enumerate(example.CLASSES):
        is_it, is_taken_for_it = truth == place, predicted == place
        both, either = (is_it & is_taken_for_it).sum(), (is_it | is_taken_for_it).sum()
        assert either > 0
        ious.append(both / either)
        dices.append(2 * both / (is_it.sum() + is_taken_for_it.sum()))
        assert metrics[f"iou/{name}"] == pytest.approx(ious[-1])
    assert metrics["mean_iou"] == pytest.approx(np.mean(ious))
    assert metrics["dice"] == pytest.approx(np.mean(dices))
    # The run itself computes in what its device does fast.
    assert metrics["mean_iou"] == pytest.approx(unbroken[2].curves["val/mean_iou"][-1][1], abs=0.02)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(unbroken: tuple[Path, str, Logged], tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        command(EXAMPLE, "--runs", str(tmp_path), *SHORT),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "checkpoints").glob("epoch=0001*")):
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    output = run_example(tmp_path, *SHORT)
    assert re.search("^mean IoU.*", output, re.MULTILINE)[0] == re.search("^mean IoU.*", unbroken[1], re.MULTILINE)[0]
    logged, expected = Logged(tmp_path), unbroken[2]
    assert logged.curves == expected.curves
    for found, wanted in ((logged.pictures, expected.pictures), (logged.in_tensorboard[-2:], expected.pictures[-2:])):
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, wanted, strict=True))


@pytest.mark.slow
def test_two_ranks_train_and_log_one_run(tmp_path: Path) -> None:
    output = run_example(tmp_path, *SHORT, python=TWO_RANKS)
    assert "on 2 process(es)" in output
    logged = Logged(tmp_path)
    assert logged.status == "FINISHED"
    assert [step for step, _ in logged.pictures] == [step for step, _ in logged.in_tensorboard] == [3, 6, 9]
    assert figure(output, "mean IoU") == pytest.approx(logged.curves["val/mean_iou"][-1][1], abs=5e-5)


@pytest.mark.slow
def test_it_reaches_a_mean_iou_of_90_percent(tmp_path: Path) -> None:
    output = run_example(tmp_path)
    assert figure(output, "mean IoU") >= 0.9


def test_a_sample_is_the_same_each_time_and_has_what_is_drawn_last_above(example: ModuleType) -> None:
    one, again, other = (example.Shapes(30, seed) for seed in (3, 3, 4))
    for index in (29, 0):
        image, classes = one[index]
        assert (image.shape, classes.shape) == ((3, example.SIZE, example.SIZE), (example.SIZE, example.SIZE))
        assert torch.equal(image, again[index][0])
        assert torch.equal(classes, again[index][1])
        assert not torch.equal(image, other[index][0])
        assert image.min() >= 0
        assert image.max() <= 1
    assert torch.cat([one[index][1].unique() for index in range(30)]).unique().tolist() == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        one[30]


def test_shapes_are_about_as_large_whichever_they_are(example: ModuleType) -> None:
    random = np.random.default_rng(0)
    areas = [np.mean([example.Shapes.draw(shape, random).sum() for _ in range(200)]) for shape in (1, 2, 3)]
    assert max(areas) < 1.15 * min(areas)
