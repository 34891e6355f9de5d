"""Calibration errors are torchmetrics', and those of the definition where torchmetrics has a bin more for 1.0."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import CalibrationError, NotComputableError

examples = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31)
norms = st.sampled_from(["l1", "l2", "max"])
dtypes = st.sampled_from([torch.float32, torch.float64])


def by_definition(confidence, right, bins, norm):
    confidence, right = (np.asarray(each, dtype=np.float64) for each in (confidence, right))
    place = np.minimum(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="right") - 1, bins - 1)
    found = [(np.mean(place == b), abs(right[place == b].mean() - confidence[place == b].mean())) for b in set(place)]
    if norm == "max":
        return max(gap for _, gap in found)
    total = sum(share * gap ** (1 if norm == "l1" else 2) for share, gap in found)
    return total if norm == "l1" else total**0.5


@examples
@given(seed=seeds, norm=norms, bins=st.integers(1, 20), samples=st.integers(1, 60), dtype=dtypes)
def test_of_classes(seen, agree, drawn, seed, norm, bins, samples, dtype) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    y_pred = (2 * torch.randn(samples, 4, generator=drawn(seed), dtype=dtype)).softmax(1)
    y = torch.randint(0, 3, (samples,), generator=drawn(seed))
    found = seen(CalibrationError(n_bins=bins, norm=norm), y_pred, y, seed=seed)
    top, chosen = y_pred.max(1)
    agree(found, by_definition(top, chosen == y, bins, norm), dtype)
    expected = functional.multiclass_calibration_error(y_pred.double(), y, 4, n_bins=bins, norm=norm)
    agree(found, expected, torch.float32)


@examples
@given(seed=seeds, norm=norms, bins=st.integers(1, 20), samples=st.integers(1, 60), dtype=dtypes)
def test_of_binary_labels(seen, agree, drawn, seed, norm, bins, samples, dtype) -> None:
    y_pred = (torch.rand(samples, generator=drawn(seed), dtype=dtype) * 16).round() / 16  # ties, 0 and 1, and edges
    y = torch.randint(-1, 2, (samples,), generator=drawn(seed + 1))
    y[0] = 1
    kept = y != -1
    found = seen(CalibrationError(n_bins=bins, norm=norm, ignore_index=-1), y_pred, y, seed=seed)
    if bins in (1, 2, 4, 8, 16) or dtype == torch.float64:  # of others an edge is another number in float32
        agree(found, by_definition(y_pred[kept], y[kept], bins, norm), dtype)


def test_a_certain_prediction_is_in_the_last_bin() -> None:
    metric = CalibrationError(n_bins=2)
    metric.update((torch.tensor([1.0, 0.6]), torch.tensor([1, 0])))
    assert metric.compute().item() == pytest.approx(0.3)


def test_what_can_not_be_meant_is_told() -> None:
    y = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"outside of 0, ..., 1, but it compares probabilities. For logits"):
        CalibrationError().update((5 * torch.eye(3) - 1, y))
    with pytest.raises(ValueError, match="it compares probabilities"):
        CalibrationError().update((torch.tensor([2.0, -1.0]), torch.tensor([1, 0])))
    with pytest.raises(TypeError, match="needs scores as y_pred, floating numbers"):
        CalibrationError().update((torch.eye(3).long(), y))
    with pytest.raises(ValueError, match="found 3 in y, none of the classes"):
        CalibrationError().update((torch.eye(3), y + 1))
    with pytest.raises(ValueError, match="NaN among the scores"):
        CalibrationError().update((torch.full((3, 3), torch.nan), y))
    with pytest.raises(ValueError, match=r"scores and targets of one shape \(N, C\)"):
        CalibrationError().update((torch.eye(3), torch.eye(3)))
    with pytest.raises(ValueError, match=r"takes scores \(N, C, ...\) and classes"):
        CalibrationError().update((torch.rand(3, 2), torch.zeros(4).long()))
    with pytest.raises(ValueError, match="norm is one of l1, l2, max"):
        CalibrationError(norm="l3")
    with pytest.raises(ValueError, match="n_bins of CalibrationError must be at least 1"):
        CalibrationError(n_bins=0)
    with pytest.raises(NotComputableError, match="has seen no sample"):
        CalibrationError().compute()
