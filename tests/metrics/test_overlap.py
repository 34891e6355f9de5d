"""IoU, its mean and Dice: of numbers of classes, or of a confusion matrix whose counts several of them share."""

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.contrib.ignite import metrics as as_ignite
from leyden.engine import Engine
from leyden.metrics import ConfusionMatrix, Dice, IoU, MeanIoU, MetricGroup, NotComputableError, Precision

examples = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**31)


def images(seed, generator, classes, used, ignored=None):
    """Scores (5, C, 4, 3) and classes (5, 4, 3), among them only `used` classes, in part marked as left out."""
    y_pred = torch.rand(5, classes, 4, 3, generator=generator, dtype=torch.float64)
    y_pred[:, used:] = 0
    y = torch.randint(0, used, (5, 4, 3), generator=generator)
    if ignored is not None:
        y[:, ::3] = ignored
    return y_pred, y


@examples
@given(seed=seeds, classes=st.integers(2, 6), ignored=st.sampled_from([None, -100, 255]), data=st.data())
def test_they_are_scikit_learns(seen, agree, drawn, seed, classes, ignored, data) -> None:
    y_pred, y = images(seed, drawn(seed), classes, data.draw(st.integers(1, classes)), ignored)
    flat, true = y_pred.argmax(1).flatten(), y.flatten()
    kept = true != (256 if ignored is None else ignored)
    flat, true = flat[kept], true[kept]
    options = {"labels": range(classes), "zero_division": 0}
    iou = sklearn.metrics.jaccard_score(true, flat, average=None, **options)
    dice = sklearn.metrics.f1_score(true, flat, average=None, **options)
    there = sorted({*flat.tolist(), *true.tolist()})
    agree(seen(IoU(classes, ignore_index=ignored), y_pred, y, seed=seed), iou)
    agree(seen(Dice(classes, ignore_index=ignored), y_pred, y, seed=seed), dice)
    agree(seen(MeanIoU(classes, ignore_index=ignored), y_pred, y, seed=seed), iou[there].mean())
    agree(seen(Dice(classes, "macro", ignore_index=ignored), y_pred.argmax(1), y, seed=seed), dice[there].mean())


@examples
@given(seed=seeds, classes=st.integers(2, 5), ignored=st.sampled_from([None, 0, 1]))
def test_the_mean_is_torchmetrics(seen, agree, drawn, seed, classes, ignored) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    y_pred, y = images(seed, drawn(seed), classes, classes)
    expected = functional.multiclass_jaccard_index(y_pred, y, classes, ignore_index=ignored)
    agree(seen(MeanIoU(classes, ignore_index=ignored), y_pred, y, seed=seed), expected, torch.float32)


NAMES = ["IoU", "JaccardIndex", "mIoU", "DiceCoefficient", "cmAccuracy", "cmPrecision", "cmRecall"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, classes=st.integers(2, 5), data=st.data())
def test_ignites_functions_are_ignites(seen, agree, drawn, name, seed, classes, data) -> None:
    theirs = pytest.importorskip("ignite.metrics.confusion_matrix")
    y_pred, y = images(seed, drawn(seed), classes, data.draw(st.integers(1, classes)))
    options = {}
    if name in ("cmPrecision", "cmRecall"):
        options["average"] = data.draw(st.booleans())
    elif name != "cmAccuracy":
        options["ignore_index"] = data.draw(st.none() | st.integers(0, classes - 1))
    cm = theirs.ConfusionMatrix(classes)
    expected = getattr(theirs, name)(cm, **options)
    cm.update((y_pred, y))
    found = seen(getattr(as_ignite, name)(ConfusionMatrix(classes), **options), y_pred, y, seed=seed)
    agree(found, expected.compute())


def test_metrics_of_one_matrix_share_its_counts() -> None:
    engine = Engine(lambda engine, output: output, training=False)
    matrix = ConfusionMatrix(3)
    for name, metric in {"matrix": matrix, "iou": IoU(matrix), "miou": MeanIoU(matrix), "dice": Dice(matrix)}.items():
        metric.attach(engine, name)
    (group,) = engine.find_handlers(MetricGroup)
    y_pred, y = torch.eye(3)[[0, 1, 1, 0]], torch.tensor([0, 1, 0, 0])
    found = engine.run([(y_pred, y)]).metrics
    assert list(group.rank_state_dict()) == []
    assert {source for each in group.metrics.values() for source in each.sources()} == {matrix}
    assert found["iou"] == {0: pytest.approx(2 / 3), 1: 0.5, 2: 0.0}
    assert found["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["dice"] == {0: pytest.approx(4 / 5), 1: pytest.approx(2 / 3), 2: 0.0}
    assert found["matrix"].sum() == 4


def test_what_can_not_be_meant_is_told() -> None:
    with pytest.raises(TypeError, match="takes a number of classes or a ConfusionMatrix"):
        IoU(Precision())
    with pytest.raises(ValueError, match="at least 2, but got 1"):
        IoU(1)
    with pytest.raises(ValueError, match='average="recall"; make one without'):
        Dice(ConfusionMatrix(3, "recall"))
    with pytest.raises(ValueError, match="takes no ignore_index; give it to the ConfusionMatrix"):
        IoU(ConfusionMatrix(3), ignore_index=0)
    with pytest.raises(ValueError, match="but got 'micro'"):
        IoU(3, "micro")
    with pytest.raises(ValueError, match="has num_classes=3, but found"):
        IoU(3).update((torch.rand(2, 4), torch.zeros(2).long()))
    with pytest.raises(ValueError, match="NaN among the scores"):
        MeanIoU(3).update((torch.full((2, 3), torch.nan), torch.zeros(2).long()))
    with pytest.raises(NotComputableError):
        MeanIoU(3).compute()
    for name in NAMES:
        with pytest.raises(TypeError, match="cm must be a ConfusionMatrix"):
            getattr(as_ignite, name)(Precision())
    with pytest.raises(ValueError, match=r"one of the classes 0, ..., 2, but is 3"):
        as_ignite.IoU(ConfusionMatrix(3), 3)
    with pytest.raises(ValueError, match="must have average=None"):
        as_ignite.IoU(ConfusionMatrix(3, "recall"))
