"""A run that goes on in mid-epoch goes on with what metrics of torchmetrics had seen."""

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from leyden.contrib.torchmetrics import TorchMetric  # noqa: E402
from leyden.engine import Engine, Events  # noqa: E402

METRICS = {
    "stacked by rank": lambda: torchmetrics.PearsonCorrCoef(),
    "lists": lambda: torchmetrics.SpearmanCorrCoef(),
    "a memory beside its states": lambda: torchmetrics.MinMaxMetric(torchmetrics.MeanSquaredError()),
    "a collection": lambda: torchmetrics.MetricCollection(
        {"mae": torchmetrics.MeanAbsoluteError(), "r2": torchmetrics.R2Score()}
    ),
    "a window": lambda: torchmetrics.wrappers.Running(torchmetrics.MeanSquaredError(), 3),
    "arithmetic": lambda: 2 * torchmetrics.MeanSquaredError(),
}


def make(kind):
    engine = Engine(lambda engine, batch: batch)
    engine.attach_metric("metric", METRICS[kind]())
    return engine


@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all targets")
@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("stop", [2, 6, 9])
def test_the_value_is_that_of_the_run_that_never_stopped(kind, stop) -> None:
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(6, generator=generator), torch.randn(6, generator=generator)) for _ in range(6)]
    whole = make(kind).run(data, max_epochs=2).metrics
    stopped = make(kind)
    stopped.add_event_handler(Events.ITERATION_COMPLETED(once=stop), stopped.interrupt)
    stopped.run(data, max_epochs=2)
    resumed = make(kind)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.run(data, max_epochs=2).metrics == whole


def test_states_of_another_metric_are_refused() -> None:
    with pytest.raises(
        ValueError, match="SumMetric has the states _updates, _update_count, sum_value, but was given x"
    ):
        TorchMetric(torchmetrics.SumMetric()).load_state_dict({"x": 1})
