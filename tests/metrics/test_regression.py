"""Errors of numbers, R2 and the geometric mean are scikit-learn's and SciPy's, in the precision of the data."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import (
    GeometricMean,
    MeanAbsoluteError,
    MeanSquaredError,
    NotComputableError,
    R2Score,
    RootMeanSquaredError,
)

SKLEARN = {
    MeanSquaredError: sklearn.metrics.mean_squared_error,
    RootMeanSquaredError: sklearn.metrics.root_mean_squared_error,
    MeanAbsoluteError: sklearn.metrics.mean_absolute_error,
}
examples = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


def numbers(generator, shape, dtype, mean=0.0):
    y = torch.randn(shape, generator=generator, dtype=dtype) + mean
    return y + torch.randn(shape, generator=generator, dtype=dtype), y


@pytest.mark.parametrize("metric", SKLEARN)
@examples
@given(seed=seeds, dtype=dtypes, shape=st.sampled_from([(1,), (31,), (17, 3)]))
def test_errors_are_scikit_learns(seen, agree, drawn, metric, seed, dtype, shape) -> None:
    y_pred, y = numbers(drawn(seed), shape, dtype)
    expected = SKLEARN[metric](y.flatten().double(), y_pred.flatten().double())
    agree(seen(metric(), y_pred, y, seed=seed), expected, dtype)


@examples
@given(
    seed=seeds,
    dtype=dtypes,
    samples=st.integers(2, 40),
    outputs=st.sampled_from([None, 1, 3]),
    mean=st.sampled_from([0.0, 1e4]),
    multioutput=st.sampled_from(["uniform_average", "raw_values", "variance_weighted"]),
    constant=st.booleans(),
)
def test_r2_is_scikit_learns(seen, agree, drawn, seed, dtype, samples, outputs, mean, multioutput, constant) -> None:
    y_pred, y = numbers(drawn(seed), (samples,) if outputs is None else (samples, outputs), dtype, mean)
    if constant and outputs == 3:
        y[:, 0] = 2.0  # never changes
        y[:, 1] = y_pred[:, 1] = -4.0  # and is predicted exactly
    expected = sklearn.metrics.r2_score(y.double(), y_pred.double(), multioutput=multioutput)
    found = seen(R2Score(multioutput=multioutput), y_pred, y, seed=seed)
    np.testing.assert_allclose(found.numpy(), np.squeeze(expected), rtol=1e-12 if mean == 0 else 1e-7, atol=1e-12)
    if mean == 0:
        agree(found, np.squeeze(expected), dtype)


def test_r2_of_a_small_variance_around_a_large_mean(seen) -> None:
    """By sums of squares alone nothing of the variance would be left."""
    y = torch.randn(500, dtype=torch.float64) + 1e9
    y_pred = y + 0.1 * torch.randn(500, dtype=torch.float64)
    centred = sklearn.metrics.r2_score(y - 1e9, y_pred - 1e9)
    assert seen(R2Score(), y_pred, y).item() == pytest.approx(centred, rel=1e-9)


@examples
@given(seed=seeds, dtype=dtypes, shape=st.sampled_from([(1,), (29,), (13, 2)]))
def test_the_geometric_mean_is_scipys(seen, agree, drawn, seed, dtype, shape) -> None:
    values = torch.rand(shape, generator=drawn(seed), dtype=dtype) + 0.01
    agree(seen(GeometricMean(), values, seed=seed), scipy.stats.gmean(values.double(), axis=None), dtype)
    metric = GeometricMean()
    for value in values.flatten().tolist():
        metric.update((value, 2))
    agree(metric.compute(), scipy.stats.gmean(values.double(), axis=None), dtype)


@pytest.mark.parametrize("metric", [*SKLEARN, R2Score])
def test_nan_makes_the_value_nan(seen, metric) -> None:
    assert seen(metric(), torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([1.0, 2.0, 3.0])).isnan()
    assert seen(metric(), torch.tensor([1.0, 2.0]), torch.tensor([torch.nan, 3.0])).isnan()


def test_the_geometric_mean_of_what_has_no_logarithm() -> None:
    for values, expected in (([1.0, 0.0], 0.0), ([1.0, -1.0], math.nan), ([1.0, math.nan], math.nan)):
        together, alone = GeometricMean(), GeometricMean()
        together.update(torch.tensor(values))
        for value in values:
            alone.update(value)
        for metric in (together, alone):
            assert metric.compute().item() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("metric", [*SKLEARN, R2Score])
def test_what_can_not_be_meant_is_told(metric) -> None:
    name = metric.__name__
    with pytest.raises(ValueError, match=f"{name} needs y_pred and y of one shape"):
        metric().update((torch.rand(3, 1), torch.rand(3)))
    with pytest.raises(TypeError, match=f"{name} takes real numbers"):
        metric().update((torch.rand(3) + 1j, torch.rand(3)))
    with pytest.raises(TypeError, match=f"{name} takes \\(y_pred, y\\), two tensors"):
        metric().update(torch.rand(3))
    with pytest.raises(NotComputableError, match=f"{name} has seen no sample"):
        metric().compute()
    empty = metric()
    empty.update((torch.rand(0), torch.rand(0)))
    with pytest.raises(NotComputableError, match=f"{name} has seen no sample"):
        empty.compute()


def test_r2_needs_two_samples_and_one_number_of_outputs() -> None:
    metric = R2Score()
    metric.update((torch.rand(1), torch.rand(1)))
    with pytest.raises(NotComputableError, match="needs two samples at least"):
        metric.compute()
    with pytest.raises(ValueError, match="began with 1 outputs"):
        metric.update((torch.rand(2, 3), torch.rand(2, 3)))
    with pytest.raises(ValueError, match=r"of shape \(N,\) or \(N, outputs\)"):
        metric.update((torch.rand(2, 3, 4), torch.rand(2, 3, 4)))
    with pytest.raises(ValueError, match="multioutput is one of"):
        R2Score(multioutput="mean")


def test_r2_goes_on_from_what_several_ranks_saved(seen, agree) -> None:
    y_pred, y = numbers(torch.Generator().manual_seed(0), (40, 2), torch.float64)
    parts = [R2Score(), R2Score(), R2Score()]
    for part, batch in zip(parts, zip(y_pred.split(15), y.split(15), strict=True), strict=True):
        part.update(batch)
    whole = R2Score()
    whole.load_state_dicts([part.state_dict() for part in [*parts, R2Score()]], first=True)
    agree(whole.compute(), sklearn.metrics.r2_score(y, y_pred))
    whole.update((y_pred[:7], y[:7]))
    both = torch.cat([y_pred, y_pred[:7]]), torch.cat([y, y[:7]])
    agree(whole.compute(), sklearn.metrics.r2_score(both[1], both[0]))
