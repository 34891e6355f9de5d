"""Accuracy, precision, recall and confusion matrices are scikit-learn's, however the samples fall into batches."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import Accuracy, ConfusionMatrix, Precision, Recall

SKLEARN = {Precision: sklearn.metrics.precision_score, Recall: sklearn.metrics.recall_score}
examples = settings(max_examples=40, deadline=None)


def seen(metric, y_pred, y, batch):
    for output in zip(y_pred.split(batch), y.split(batch), strict=True):
        metric.update(output)
    return metric.compute().numpy()


@st.composite
def multiclass(draw):
    """Scores (N, C) and classes (N,); often with classes that never occur or are never predicted."""
    samples, classes = draw(st.integers(1, 30)), draw(st.integers(2, 6))
    used = draw(st.integers(1, classes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    y = torch.randint(0, used, (samples,), generator=generator)
    return torch.rand(samples, classes, generator=generator), y


@st.composite
def binary(draw):
    """Probabilities and labels 0 and 1, both (N,)."""
    samples = draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(samples, generator=generator), torch.randint(0, 2, (samples,), generator=generator)


@st.composite
def multilabel(draw):
    """Probabilities and labels 0 and 1, both (N, C)."""
    shape = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(shape, generator=generator), torch.randint(0, 2, shape, generator=generator)


batches = st.integers(1, 12)


@examples
@given(multiclass(), batches)
def test_accuracy_of_classes(data, batch) -> None:
    y_pred, y = data
    assert seen(Accuracy(), y_pred, y, batch) == sklearn.metrics.accuracy_score(y, y_pred.argmax(1))
    assert seen(Accuracy(), y_pred.argmax(1), y, batch) == sklearn.metrics.accuracy_score(y, y_pred.argmax(1))


@examples
@given(binary(), batches)
def test_accuracy_of_binary_labels(data, batch) -> None:
    y_pred, y = data
    expected = sklearn.metrics.accuracy_score(y, y_pred > 0.5)
    assert seen(Accuracy(), y_pred, y, batch) == expected
    assert seen(Accuracy(), y_pred[:, None], y.float(), batch) == expected
    assert seen(Accuracy(), (y_pred > 0.5).long(), y, batch) == expected
    assert seen(Accuracy(threshold=0.0), torch.logit(y_pred), y, batch) == expected


@examples
@given(multilabel(), batches)
def test_accuracy_of_several_labels(data, batch) -> None:
    y_pred, y = data
    assert seen(Accuracy(is_multilabel=True), y_pred, y, batch) == sklearn.metrics.accuracy_score(y, y_pred > 0.5)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
@examples
@given(data=multiclass(), batch=batches)
def test_precision_and_recall_of_classes(metric, average, data, batch) -> None:
    y_pred, y = data
    expected = SKLEARN[metric](y, y_pred.argmax(1), labels=range(y_pred.shape[1]), average=average, zero_division=0)
    np.testing.assert_allclose(seen(metric(average=average), y_pred, y, batch), expected, rtol=1e-12)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("average", [False, None, "macro", "micro", "weighted"])
@examples
@given(data=binary(), batch=batches)
def test_precision_and_recall_of_binary_labels(metric, average, data, batch) -> None:
    y_pred, y = data
    average_there = "binary" if average is False else average
    labels = None if average is False else [0, 1]
    expected = SKLEARN[metric](y, y_pred > 0.5, labels=labels, average=average_there, zero_division=0)
    np.testing.assert_allclose(seen(metric(average=average), y_pred, y, batch), expected, rtol=1e-12)


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
@examples
@given(data=multilabel(), batch=batches)
def test_precision_and_recall_of_several_labels(metric, average, data, batch) -> None:
    y_pred, y = data
    expected = SKLEARN[metric](y, y_pred > 0.5, average=average, zero_division=0)
    np.testing.assert_allclose(
        seen(metric(average=average, is_multilabel=True), y_pred, y, batch), expected, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("average", "normalize"), [(None, None), ("recall", "true"), ("precision", "pred"), ("samples", "all")]
)
@examples
@given(data=multiclass(), batch=batches)
def test_confusion_matrix(average, normalize, data, batch) -> None:
    y_pred, y = data
    classes = y_pred.shape[1]
    expected = sklearn.metrics.confusion_matrix(y, y_pred.argmax(1), labels=range(classes), normalize=normalize)
    metric = ConfusionMatrix(classes, average)
    np.testing.assert_allclose(seen(metric, y_pred, y, batch), expected, rtol=1e-12)
    metric.reset()
    np.testing.assert_allclose(seen(metric, y_pred.argmax(1), y, batch), expected, rtol=1e-12)


def test_each_pixel_of_an_image_counts() -> None:
    y_pred, y = torch.rand(5, 3, 4, 6), torch.randint(0, 3, (5, 4, 6))
    flat_pred, flat_y = y_pred.argmax(1).flatten(), y.flatten()
    assert seen(Accuracy(), y_pred, y, 2) == sklearn.metrics.accuracy_score(flat_y, flat_pred)
    recall = sklearn.metrics.recall_score(flat_y, flat_pred, average=None)
    np.testing.assert_allclose(seen(Recall(), y_pred, y, 2), recall, rtol=1e-12)
    np.testing.assert_array_equal(
        seen(ConfusionMatrix(3), y_pred, y, 2), sklearn.metrics.confusion_matrix(flat_y, flat_pred)
    )


def test_several_labels_of_each_pixel() -> None:
    y_pred, y = torch.rand(5, 3, 4), torch.randint(0, 2, (5, 3, 4))
    flat_pred, flat_y = (each.transpose(1, 2).reshape(-1, 3) for each in (y_pred > 0.5, y))
    assert seen(Accuracy(is_multilabel=True), y_pred, y, 2) == sklearn.metrics.accuracy_score(flat_y, flat_pred)


def test_targets_that_are_no_class_are_left_out() -> None:
    y_pred, y = torch.rand(40, 3), torch.randint(0, 3, (40,))
    marked = torch.where(torch.arange(40) % 3 == 0, -100, y)
    kept = marked >= 0
    for metric in (Precision(), Recall(average="micro"), ConfusionMatrix(3)):
        expected = seen(metric, y_pred[kept], y[kept], 40)
        metric.reset()
        np.testing.assert_array_equal(seen(metric, y_pred, marked, 7), expected)


def test_true_is_macro_and_false_is_by_class() -> None:
    y_pred, y = torch.rand(40, 3), torch.randint(0, 3, (40,))
    assert seen(Precision(average=True), y_pred, y, 9) == seen(Precision(average="macro"), y_pred, y, 9)
    np.testing.assert_array_equal(seen(Precision(average=False), y_pred, y, 9), seen(Precision(), y_pred, y, 9))


def test_what_stands_in_the_state_can_be_logged(measured) -> None:
    y_pred, y = torch.eye(3), torch.tensor([0, 1, 1])
    metrics = measured([(y_pred, y)], recall=Recall(), macro=Recall(average="macro"), matrix=ConfusionMatrix(3))
    assert metrics["recall"] == {0: 1.0, 1: 0.5, 2: 0.0}
    assert metrics["macro"] == 0.5
    assert metrics["matrix"].tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert metrics["matrix"].device.type == "cpu"


def test_class_indices_are_not_mistaken_for_binary_labels() -> None:
    with pytest.raises(ValueError, match="Precision found 2 in y_pred, but y_pred and y of one shape are binary"):
        Precision().update((torch.tensor([0, 2]), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"ConfusionMatrix\(num_classes=3\) needs scores"):
        ConfusionMatrix(3).update((torch.rand(4), torch.zeros(4)))
    with pytest.raises(ValueError, match="this ConfusionMatrix has num_classes=3, but found"):
        ConfusionMatrix(3).update((torch.rand(4, 5), torch.zeros(4).long()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Precision(average="mean"), "but got 'mean'"),
        (lambda: ConfusionMatrix(3, average="macro"), "but got 'macro'"),
        (lambda: ConfusionMatrix(1), "at least 2, but got 1"),
    ],
)
def test_wrong_arguments_are_told(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
