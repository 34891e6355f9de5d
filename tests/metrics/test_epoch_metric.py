"""EpochMetric hands all that an epoch gave to a function."""

import warnings

import pytest
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import EpochMetric, NotComputableError

FUNCTIONS = {
    "kendall": lambda y_pred, y: scipy.stats.kendalltau(y_pred, y).statistic,
    "median": lambda y_pred, y: sklearn.metrics.median_absolute_error(y, y_pred),
    "explained": lambda y_pred, y: sklearn.metrics.explained_variance_score(y, y_pred),
    "torch": lambda y_pred, y: torch.quantile((y_pred - y).abs(), 0.9),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(3, 40), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_any_function_of_all_samples(seen, agree, drawn, name, seed, samples, dtype) -> None:
    y = torch.randn(samples, generator=drawn(seed), dtype=dtype)
    y_pred = y + torch.randn(samples, generator=drawn(seed + 1), dtype=dtype)
    expected = FUNCTIONS[name](y_pred, y)
    agree(seen(EpochMetric(FUNCTIONS[name]), y_pred, y, seed=seed), expected)
    agree(seen(EpochMetric(FUNCTIONS[name]), y_pred[:, None], y[:, None], seed=seed), expected)


DTYPES = [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_kept_is_what_came(seen, dtype) -> None:
    first = torch.randint(0, 100, (30, 2, 3)).to(dtype)
    second, third = torch.rand(30, dtype=torch.float64), torch.arange(30, dtype=torch.int8)
    found = seen(EpochMetric(lambda *tensors: tensors), first, second, third, seed=3)
    for one, other in zip(found, (first, second, third), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("samples", [1, 5])
def test_columns_and_transposed_tensors_are_kept_too(seen, samples) -> None:
    table = torch.rand(samples, 4, 3)
    found = seen(EpochMetric(lambda *tensors: tensors), table[:, 1, 1], table.mT, table[:, :, 2], table[:, :1])
    for one, other in zip(found, (table[:, 1, 1], table.mT, table[:, :, 2], table[:, :1]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_is_kept_is_a_copy() -> None:
    metric, values = EpochMetric(lambda values: values), torch.ones(3)
    metric.update(values)
    values.zero_()
    assert metric.compute().tolist() == [1, 1, 1]


def test_16_bits_become_32() -> None:
    metric = EpochMetric(lambda values: values)
    metric.update(torch.rand(3, dtype=torch.bfloat16))
    assert metric.compute().dtype == torch.float32


def test_as_ignites_users_write_it(measured) -> None:
    y_pred, y = torch.rand(20), torch.randint(0, 2, (20,))
    outputs = [{"y_pred": a, "y": b} for a, b in zip(y_pred.split(8), y.split(8), strict=True)]

    def compute_fn(y_preds, y_targets):
        return sklearn.metrics.roc_auc_score(y_targets.numpy(), y_preds.numpy())

    metric = EpochMetric(compute_fn, lambda output: (output["y_pred"], output["y"]), True, "cpu")
    found = measured(outputs, max_epochs=2, auc=metric, same=EpochMetric(compute_fn))
    assert found["auc"] == found["same"] == sklearn.metrics.roc_auc_score(y, y_pred)


def test_a_mapping_goes_to_the_function_by_name(measured) -> None:
    def spread(masks, scores):
        return {"largest": scores[masks].max(), "sum": scores.sum()}

    outputs = [{"scores": torch.arange(3.0) + 3 * i, "masks": torch.tensor([True, True, False])} for i in range(2)]
    found = measured(outputs, spread=EpochMetric(spread))
    assert found["spread"] == {"largest": 4.0, "sum": 15.0}


def test_the_first_batch_is_tried_if_that_is_wished() -> None:
    metric = EpochMetric(lambda y_pred, y: 1 / 0, check_compute_fn=True)
    with pytest.warns(UserWarning, match="fails on the first batch, .* ZeroDivisionError"):
        metric.update((torch.rand(2), torch.rand(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update((torch.rand(2), torch.rand(2)))
        EpochMetric(lambda y_pred, y: 1 / 0).update((torch.rand(2), torch.rand(2)))
    with pytest.raises(ZeroDivisionError):
        metric.compute()


def test_a_state_that_is_loaded_goes_on() -> None:
    parts = [EpochMetric(lambda y_pred, y: (y_pred * y).sum()) for _ in range(3)]
    for part in parts[:2]:
        part.update((torch.arange(3.0), torch.arange(3)))
    parts[2].load_state_dicts([part.state_dict() for part in parts], first=True)
    parts[2].update((torch.ones(1), torch.ones(1).long()))
    assert parts[2].compute() == 11
    parts[2].reset()
    parts[2].update((torch.ones(1).double(), torch.ones(1).double()))
    assert parts[2].compute() == 1


def test_what_can_not_be_meant_is_told() -> None:
    metric = EpochMetric(lambda *tensors: 0.0)
    with pytest.raises(NotComputableError, match="has seen no sample"):
        metric.compute()
    metric.update((torch.rand(0), torch.rand(0, 2)))
    with pytest.raises(NotComputableError, match="has seen no sample"):
        metric.compute()
    with pytest.raises(ValueError, match=r"float32 \(\), float32 \(2,\) for .* now found float32 \(\), int64"):
        metric.update((torch.rand(4), torch.rand(4, 2).long()))
    with pytest.raises(ValueError, match="one row for each sample"):
        metric.update((torch.rand(4), torch.rand(3)))
    with pytest.raises(ValueError, match="one row for each sample"):
        metric.update(torch.tensor(1.0))
    for wrong in (3.0, "text", (), (torch.rand(3), 1.0), {"a": 1}):
        with pytest.raises(TypeError, match="EpochMetric takes"):
            metric.update(wrong)
    with pytest.raises(TypeError, match="compute_fn of EpochMetric must be a function"):
        EpochMetric("auc")
    with pytest.raises(ValueError, match="can't keep so many tensors"):
        EpochMetric(lambda **named: 0.0).update({f"{'name' * 20}{i}": torch.rand(2) for i in range(20)})
