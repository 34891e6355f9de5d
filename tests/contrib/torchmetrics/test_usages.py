"""Collections of torchmetrics that are read after each batch, and metrics that are measured for a while."""

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score  # noqa: E402

from leyden.contrib.torchmetrics import TorchMetric  # noqa: E402
from leyden.engine import Engine, Events  # noqa: E402
from leyden.metrics import BatchWise, RunningWindow, SingleEpochRunningBatchWise  # noqa: E402


def by_class(kind):
    return torchmetrics.ClasswiseWrapper(kind(3, average=None), prefix=f"{kind.__name__}_")


def collection():
    """Two wrappers that share what they count, so that torchmetrics updates the first alone."""
    return torchmetrics.MetricCollection(
        {"accuracy": by_class(MulticlassAccuracy), "f1": by_class(MulticlassF1Score)},
        compute_groups=[["accuracy", "f1"]],
    )


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 3, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(5)]


@pytest.mark.parametrize(
    ("usage", "window"), [(BatchWise(), 1), (RunningWindow(2), 2), (SingleEpochRunningBatchWise(), 5)]
)
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric MulticlassF1Score was called before")
def test_each_value_is_of_the_last_batches_for_all_of_a_collection(batches, usage, window) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("both", collection(), usage=usage)
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["both"]))
    engine.run(batches)
    for last, found in enumerate(seen, 1):
        expected = collection()
        for batch in batches[max(0, last - window) : last]:
            expected.update(*batch)
        assert found == {name: pytest.approx(value.item()) for name, value in expected.compute().items()}


def test_the_items_of_a_collection_are_of_the_batch(batches) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("all", torchmetrics.MetricCollection({"f1": MulticlassF1Score(3)}), usage=BatchWise())
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["f1"]))
    engine.run(batches, max_epochs=2)
    assert seen == [pytest.approx(MulticlassF1Score(3)(*batch).item()) for batch in batches * 2]


def test_a_metric_synchronises_itself_again_once_it_is_detached() -> None:
    engine, another = (Engine(lambda engine, batch: batch, training=False) for _ in range(2))
    error = torchmetrics.MeanSquaredError()
    alone = torchmetrics.MeanAbsoluteError(sync_on_compute=False)
    for metric, by_itself in ((error, True), (alone, False)):
        measuring = TorchMetric(metric)
        for times in range(2):
            measuring.attach(engine, f"{times}")
            measuring.attach(another, f"{times}")
            assert not metric.sync_on_compute
            measuring.detach(engine)
            assert not metric.sync_on_compute
            measuring.detach(another)
            assert metric.sync_on_compute is by_itself
