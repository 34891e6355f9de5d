"""Where a device has no float64, sums are kept in float32 and lose nothing by it."""

import math

import pytest
import torch

from leyden.metrics import GeometricMean, Mean, MeanAbsoluteError, MeanSquaredError, Perplexity


@pytest.fixture
def no_float64(monkeypatch):
    """Lets metrics treat this machine's device as one without float64."""

    def moved(tensor, device, dtype=None, *, copy=False):
        dtype = tensor.dtype if dtype is None else dtype
        return tensor.to(device, torch.float32 if dtype == torch.float64 else dtype, copy=copy)

    monkeypatch.setattr("leyden.metrics.base.moved", moved)
    monkeypatch.setattr("leyden.metrics.states.moved", moved)


def test_many_small_numbers_after_a_large_one(no_float64) -> None:
    mean, error = Mean(), MeanAbsoluteError()
    values = [2.0**24, *[1.0] * 5000]
    for value in values:
        mean.update(torch.tensor(value))
        error.update((torch.tensor([value]), torch.zeros(1)))
    assert mean.total.dtype == torch.float32
    assert sum(values) / len(values) != 2.0**24 / len(values)
    for metric in (mean, error):
        assert metric.compute().item() == pytest.approx(sum(values) / len(values), rel=1e-7)


@pytest.mark.parametrize("order", [1, -1])
def test_large_numbers_that_cancel(no_float64, order) -> None:
    metric = Mean()
    for value in [1.0, 1e8, 1.0, -1e8][::order]:
        metric.update(torch.tensor(value))
    assert metric.compute() == 0.5


def test_numbers_of_the_host(no_float64) -> None:
    metric = Mean()
    metric.update(torch.tensor(1e8))
    for _ in range(1000):
        metric.update(0.25)
    metric.update(torch.tensor(-1e8))
    assert metric.compute().item() == pytest.approx(250 / 1002)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinity_and_nan_stay(no_float64, value) -> None:
    metric = Mean()
    for each in (1.0, value, 1.0):
        metric.update(torch.tensor(each))
    assert metric.compute().item() == pytest.approx(value, nan_ok=True)


def test_others_too(no_float64) -> None:
    geometric, squared, perplexity = GeometricMean(), MeanSquaredError(), Perplexity()
    for _ in range(20):
        geometric.update(torch.full((5,), 4.0))
        squared.update((torch.full((5,), 3.0), torch.zeros(5)))
        perplexity.update((torch.zeros(5, 8), torch.zeros(5, dtype=torch.int64)))
    assert [round(metric.compute().item(), 5) for metric in (geometric, squared, perplexity)] == [4, 9, 8]


def test_states_from_before_have_nothing_lost() -> None:
    metric = Mean()
    metric.load_state_dict({"_updates": 1, "total": torch.tensor(3.0, dtype=torch.float64), "count": 2})
    assert metric.compute() == 1.5
