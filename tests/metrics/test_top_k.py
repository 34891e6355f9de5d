"""Accuracy(top_k=): the class is among the k of the highest scores."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.contrib.ignite.metrics import TopKCategoricalAccuracy
from leyden.metrics import Accuracy, NotComputableError

seeds = st.integers(0, 2**31)


@pytest.mark.filterwarnings("ignore:.k. .* greater than or equal")
@settings(max_examples=60, deadline=None)
@given(seed=seeds, samples=st.integers(1, 40), classes=st.integers(3, 8), data=st.data())
def test_it_is_scikit_learns(seen, agree, drawn, seed, samples, classes, data) -> None:
    k, used = data.draw(st.integers(1, classes)), data.draw(st.integers(1, classes))
    y_pred = torch.rand(samples, classes, generator=drawn(seed), dtype=torch.float64)
    y = torch.randint(0, used, (samples,), generator=drawn(seed))
    expected = sklearn.metrics.top_k_accuracy_score(y, y_pred, k=k, labels=range(classes))
    agree(seen(Accuracy(top_k=k), y_pred, y, seed=seed), expected)
    agree(seen(TopKCategoricalAccuracy(k), y_pred, y, seed=seed), expected)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, ignored=st.sampled_from([-100, 0, 2, 255]), k=st.integers(1, 4))
def test_what_is_left_out_does_not_count(seen, agree, drawn, seed, ignored, k) -> None:
    y_pred = torch.rand(50, 4, 3, generator=drawn(seed), dtype=torch.float64)
    y = torch.randint(0, 4, (50, 3), generator=drawn(seed))
    y[::4] = ignored
    flat_pred, flat_y = y_pred.movedim(1, -1).reshape(-1, 4).numpy(), y.flatten().numpy()
    right = (np.argsort(-flat_pred, 1)[:, :k] == flat_y[:, None]).any(1)
    agree(seen(Accuracy(top_k=k, ignore_index=ignored), y_pred, y, seed=seed), right[flat_y != ignored].mean())


def test_it_is_torchmetrics(seen, agree, drawn) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    for seed in range(20):
        y_pred = torch.rand(50, 6, generator=drawn(seed))
        y = torch.randint(0, 6, (50,), generator=drawn(seed))
        expected = functional.multiclass_accuracy(y_pred, y, 6, average="micro", top_k=3)
        agree(seen(Accuracy(top_k=3), y_pred, y, seed=seed), expected, torch.float32)


@pytest.mark.parametrize(
    ("y_pred", "y"),
    [(torch.rand(4, 2), torch.zeros(4).long()), (torch.rand(4), torch.zeros(4)), (torch.ones(4).long(),) * 2],
)
def test_it_needs_the_scores_of_enough_classes(y_pred, y) -> None:
    with pytest.raises(ValueError, match=r"Accuracy\(top_k=3\) needs scores \(N, C, ...\) of at least 3 classes"):
        Accuracy(top_k=3).update((y_pred, y))


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        Accuracy(top_k=0)
    with pytest.raises(NotComputableError, match="has seen no sample"):
        Accuracy(top_k=2).compute()


def test_class_indices_in_place_of_scores_are_told_by_their_shape() -> None:
    with pytest.raises(ValueError, match=r"needs scores \(N, C, .*: a tuple of 2: \(a tensor of shape \(3,\), int64"):
        Accuracy(top_k=2).update((torch.arange(3), torch.arange(3)))
