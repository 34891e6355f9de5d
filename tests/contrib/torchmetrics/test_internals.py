"""What leyden relies on of torchmetrics is there in the release that is installed."""

import pytest

torchmetrics = pytest.importorskip("torchmetrics")

from leyden.contrib.torchmetrics import internals  # noqa: E402


@pytest.mark.parametrize("name", internals.RELIED_ON)
def test_every_metric_has(name) -> None:
    metric = torchmetrics.MeanSquaredError()
    assert hasattr(metric, name), f"torchmetrics {torchmetrics.__version__} has no {name}: {internals.RELIED_ON[name]}"


def test_a_state_declares_its_default_and_its_reduction() -> None:
    (default, reduction) = internals.declared(torchmetrics.CatMetric())["value"]
    assert (default, reduction.__name__) == ([], "dim_zero_cat")
    (default, reduction) = internals.declared(torchmetrics.SumMetric())["sum_value"]
    assert (float(default), reduction.__name__) == (0.0, "dim_zero_sum")


def test_names_of_wrappers() -> None:
    collection = torchmetrics.MetricCollection({"mse": torchmetrics.MeanSquaredError()}, prefix="val/", postfix="!")
    assert internals.is_collection(collection)
    assert internals.keys_of_collection(collection, {"mse": (collection["mse"], ())}) == ("val/mse!",)
    accuracy = torchmetrics.classification.MulticlassAccuracy(2, average=None)
    wrapped = torchmetrics.ClasswiseWrapper(accuracy, labels=["cat", "dog"])
    assert internals.class_names(wrapped) == ("multiclassaccuracy_cat", "multiclassaccuracy_dog")
    assert internals.inner_metrics(wrapped) == [accuracy] or internals.inner_metrics(wrapped)[0] is accuracy
