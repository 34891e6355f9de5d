"""A metric whose value can't be one number is refused by what watches it before the first step."""

import warnings

import pytest
import torch

from leyden.engine import supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, EarlyStopping, Evaluate, Schedule
from leyden.metrics import F1, ConfusionMatrix, Dice, IoU, Metric, Precision

DATA = [(torch.randn(8, 3), torch.arange(8) % 3)]


class Both(Metric):
    result_keys = ("low", "high")

    def update(self, output):
        pass

    def compute(self):
        return {"low": 0.0, "high": 1.0}


WATCHING = {
    "EarlyStopping": lambda optimizer, path: EarlyStopping("val/seen", mode="max", patience=2),
    "Schedule": lambda optimizer, path: Schedule(
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max"), metric="val/seen"
    ),
    "Checkpoint": lambda optimizer, path: Checkpoint(path, best="val/seen", mode="max"),
}


def run_of(metric, tmp_path, watching="EarlyStopping", every=1):
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = supervised_trainer(model, optimizer, torch.nn.CrossEntropyLoss())
    evaluator = supervised_evaluator(model, metrics={"seen": metric})
    trainer.attach(Evaluate(evaluator, DATA, prefix="val/", every=every), WATCHING[watching](optimizer, tmp_path))
    return trainer


@pytest.mark.parametrize("watching", WATCHING)
def test_a_mapping(watching, tmp_path) -> None:
    trainer = run_of(Both(), tmp_path, watching)
    with pytest.raises(TypeError, match=f'{watching} ranks by "val/seen".*take one of its own: "val/low", "val/high"'):
        trainer.run(DATA)
    assert trainer.state.iteration == 0


@pytest.mark.parametrize(
    ("metric", "instead"),
    [
        (lambda: IoU(3), r'IoU\(\.\.\., average="macro"\)'),
        (lambda: Dice(3), r'Dice\(\.\.\., average="macro"\)'),
        (lambda: Precision(average=None), r'Precision\(average="macro"\)'),
        (lambda: F1(average=None), r'F1\(average="macro"\)'),
        (lambda: ConfusionMatrix(3), r"Accuracy\(\) or MeanIoU"),
    ],
    ids=["IoU", "Dice", "Precision", "F1", "ConfusionMatrix"],
)
def test_values_of_classes(metric, instead, tmp_path) -> None:
    trainer = run_of(metric(), tmp_path)
    with pytest.raises(TypeError, match=f"each value is several numbers; attach one that .* such as {instead}"):
        trainer.run(DATA)
    assert trainer.state.iteration == 0


def test_what_only_the_data_tell_says_what_to_attach(tmp_path) -> None:
    with pytest.raises(TypeError, match=r'"val/seen" is a dict: .*F1\(average="macro"\).*F1\(\)\[1\]'):
        run_of(F1(), tmp_path).run(DATA)


@pytest.mark.parametrize("metric", [lambda: IoU(3, average="macro"), lambda: IoU(3).mean(), lambda: F1()[1]])
def test_one_number_is_watched(metric, tmp_path) -> None:
    trainer = run_of(metric(), tmp_path)
    trainer.run(DATA, max_epochs=2)
    assert trainer.state.epoch == 2


@pytest.mark.parametrize("watching", WATCHING)
def test_one_that_never_came_is_told_as_the_run_ends(watching, tmp_path) -> None:
    trainer = run_of(F1(average="macro"), tmp_path, watching, every=5)
    with pytest.warns(
        UserWarning, match=f'{watching} watches "val/seen", which has no value as the run ends after epo'
    ):
        trainer.run(DATA, max_epochs=4)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.run(DATA, max_epochs=5)
    assert [str(each.message) for each in told if "no value" in str(each.message)] == []
