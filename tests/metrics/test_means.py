"""MeanSquaredError, Loss and Mean are those of one big batch."""

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leyden.metrics import Loss, Mean, MeanSquaredError, NotComputableError

examples = settings(max_examples=40, deadline=None)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3)


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@examples
@given(shapes, st.integers(1, 4), st.integers(0, 2**31))
def test_mean_squared_error(shape, batch, seed) -> None:
    y_pred, y = normal(2, *shape, seed=seed, dtype=torch.float64)
    metric = MeanSquaredError()
    for output in zip(y_pred.split(batch), y.split(batch), strict=True):
        metric.update(output)
    expected = sklearn.metrics.mean_squared_error(y.reshape(-1), y_pred.reshape(-1))
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_small_types_lose_nothing_in_the_sum(dtype) -> None:
    y_pred, y = (normal(2, 100_000, seed=0) * 4).to(dtype)
    metric = MeanSquaredError()
    metric.update((y_pred, y))
    expected = ((y_pred.double() - y.double()) ** 2).mean().item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)


@examples
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_loss_of_batches_is_the_loss_of_all(samples, batch, seed) -> None:
    y_pred, y = normal(samples, 4, seed=seed), torch.arange(samples) % 4
    metric = Loss(nn.functional.cross_entropy)
    for output in zip(y_pred.split(batch), y.split(batch), strict=True):
        metric.update(output)
    assert metric.compute().item() == pytest.approx(nn.functional.cross_entropy(y_pred, y).item(), rel=1e-5)


def test_loss_takes_arguments_of_the_loss_function() -> None:
    y_pred, y = normal(5, 4, seed=0), torch.arange(5) % 4
    metric = Loss(nn.functional.cross_entropy)
    metric.update((y_pred, y, {"label_smoothing": 0.3}))
    assert metric.compute().item() == pytest.approx(nn.functional.cross_entropy(y_pred, y, label_smoothing=0.3).item())


def test_loss_counts_samples_as_it_is_told() -> None:
    metric = Loss(lambda y_pred, y: y_pred, batch_size=lambda y: y["tokens"])
    metric.update((torch.tensor(1.0), {"tokens": 30}))
    metric.update((torch.tensor(5.0), {"tokens": 10}))
    assert metric.compute() == 2.0


def test_loss_with_parameters_of_its_own_keeps_no_graph() -> None:
    temperature = nn.Parameter(torch.tensor(2.0))
    metric = Loss(lambda y_pred, y: nn.functional.cross_entropy(y_pred / temperature, y))
    metric.update((normal(5, 4, seed=0), torch.arange(5) % 4))
    assert not metric.compute().requires_grad


def test_an_empty_batch_changes_nothing() -> None:
    metric = Loss(nn.functional.cross_entropy)
    metric.update((torch.zeros(0, 4), torch.zeros(0).long()))
    with pytest.raises(NotComputableError, match="Loss has seen no sample"):
        metric.compute()
    metric.update((torch.zeros(2, 4), torch.zeros(2).long()))
    assert metric.compute().item() == pytest.approx(torch.tensor(4.0).log().item())


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([1, 2.0, 6], 3.0),
        ([torch.tensor(1.0), torch.tensor(2.0)], 1.5),
        ([torch.tensor([1.0, 2.0]), torch.tensor([[6.0]])], 3.0),
        ([(1.0, 3), (torch.tensor(5.0), 1)], 2.0),
        ([torch.tensor([True, False]), torch.tensor([True, True])], 0.75),
    ],
    ids=["numbers", "scalars", "tensors", "weighted", "truth values"],
)
def test_mean(measured, outputs, expected) -> None:
    assert measured(outputs, mean=Mean())["mean"] == expected


def test_mean_of_many_small_numbers_is_exact(measured) -> None:
    assert measured([torch.full((100_000,), 0.1)] * 50, mean=Mean())["mean"] == pytest.approx(
        torch.tensor(0.1).item(), rel=1e-12
    )


def test_complex_numbers_have_no_mean_here():
    with pytest.raises(TypeError, match="Mean takes a number"):
        Mean().update(torch.tensor([1j]))
