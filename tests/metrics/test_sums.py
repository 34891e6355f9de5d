"""Devices without float64, and without lists that grow. No such device is here, so this machine's plays one."""

import math

import pytest
import torch

from leyden.metrics import AUROC, GeometricMean, Mean, MeanAbsoluteError, MeanSquaredError, Perplexity, kept_on


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


@pytest.mark.parametrize("device", ["mps", "xla"])
def test_which_they_are(device) -> None:
    assert kept_on(device, torch.float64) == torch.float32
    assert kept_on(device, torch.int64) == torch.int64
    assert kept_on("cuda", torch.float64) == kept_on("cpu", torch.float64) == torch.float64


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_list_that_grows_where_each_length_is_compiled_is_told_once(monkeypatch) -> None:
    monkeypatch.setattr("leyden.metrics.kept_rows.COMPILED_BY_LENGTH", ("cpu",))
    auroc, output = AUROC(), (torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match=r'AUROC\(\.\.\., device="cpu"\) keeps them in the host'):
        auroc.update(output)
    auroc.update(output)  # a second warning would be an error
    assert auroc.compute() == 1.0


def test_the_order_of_floats_travels_without_float64_too(monkeypatch) -> None:
    from leyden.metrics import packing

    monkeypatch.setattr(packing, "kept_on", lambda device, dtype: torch.float32)
    values = torch.tensor([-torch.inf, -2.5, -0.0, 0.0, 1e-30, 3.0, torch.inf, torch.nan])
    order = packing.in_order(values)
    assert order.dtype == torch.int64
    assert order.tolist() == sorted(order.tolist())
    assert torch.equal(packing.from_order(order, torch.float32).nan_to_num(7.0), values.nan_to_num(7.0))
