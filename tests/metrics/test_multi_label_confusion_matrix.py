"""A matrix for each label is scikit-learn's multilabel_confusion_matrix."""

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import MultiLabelConfusionMatrix, NotComputableError


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 30), classes=st.integers(2, 5), used=st.integers(0, 5))
def test_it_is_scikit_learns(seen, agree, drawn, seed, samples, classes, used) -> None:
    y_pred = torch.rand(samples, classes, generator=drawn(seed))
    y = torch.randint(0, 2, (samples, classes), generator=drawn(seed + 1))
    y[:, used:] = 0
    expected = sklearn.metrics.multilabel_confusion_matrix(y, y_pred > 0.5)
    agree(seen(MultiLabelConfusionMatrix(classes), y_pred, y, seed=seed), expected)
    agree(seen(MultiLabelConfusionMatrix(classes), (y_pred > 0.5).long(), y, seed=seed), expected)
    agree(seen(MultiLabelConfusionMatrix(classes, normalized=True), y_pred, y, seed=seed), expected / samples)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_pixels_count_and_what_is_left_out_does_not(seen, agree, drawn, seed) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    y_pred = torch.rand(6, 3, 4, generator=drawn(seed))
    y = torch.randint(-1, 2, (6, 3, 4), generator=drawn(seed + 1))
    expected = functional.multilabel_confusion_matrix(y_pred, y, 3, ignore_index=-1)
    agree(seen(MultiLabelConfusionMatrix(3, ignore_index=-1), y_pred, y, seed=seed), expected)


def test_what_can_not_be_meant_is_told() -> None:
    with pytest.raises(ValueError, match="has num_classes=3, but found"):
        MultiLabelConfusionMatrix(3).update((torch.rand(4, 2), torch.zeros(4, 2)))
    with pytest.raises(ValueError, match=r"takes y_pred and y of one shape \(N, C, ...\)"):
        MultiLabelConfusionMatrix(3).update((torch.rand(4, 3), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"For logits give MultiLabelConfusionMatrix\(threshold=0.0\)"):
        MultiLabelConfusionMatrix(3).update((torch.randn(40, 3) * 5, torch.zeros(40, 3)))
    with pytest.raises(ValueError, match="at least 2, but is 1"):
        MultiLabelConfusionMatrix(1)
    with pytest.raises(NotComputableError):
        MultiLabelConfusionMatrix(3).compute()
    metric = MultiLabelConfusionMatrix(2)
    metric.update((torch.rand(4, 2), torch.full((4, 2), -100)))
    with pytest.raises(NotComputableError, match="no label but those of ignore_index"):
        metric.verify()
