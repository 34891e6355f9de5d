"""States of metrics that another number of ranks had saved."""

import pytest
import torch

from leyden.metrics import Accuracy, ConfusionMatrix, Mean, Metric, Precision, RunningAverage


class Everything(Metric):
    """A state of each kind."""

    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("largest", torch.tensor(-torch.inf), "max")
        self.add_state("smallest", torch.tensor(torch.inf), "min")
        self.add_state("most", 0, "max")
        self.add_state("all", torch.empty(0), "cat")
        self.add_state("shaped", torch.empty(0), "max")

    def update(self, output):
        self.largest = torch.maximum(self.largest, output.max())
        self.smallest = torch.minimum(self.smallest, output.min())
        self.most = max(self.most, len(output))
        self.all.append(output)
        self.shaped = output if self.shaped.numel() == 0 else torch.maximum(self.shaped, output)

    def compute(self):
        return [self.largest, self.smallest, self.most, torch.cat(self.all), self.shaped]


def halves(make, outputs):
    """The states of two ranks that saw every second output, and a metric that saw them all in their order."""
    ranks, whole = [make(), make()], make()
    for rank, metric in enumerate(ranks):
        for output in outputs[rank::2]:
            metric.observe(output)
            whole.observe(output)
    return [metric.state_dict() for metric in ranks], whole


@pytest.mark.parametrize("first", [True, False])
def test_states_of_each_kind(first) -> None:
    states, whole = halves(Everything, [torch.tensor([3.0, 1.0]), torch.tensor([5.0, -2.0]), torch.tensor([4.0, 9.0])])
    metric = Everything()
    metric.load_state_dicts(states, first=first)
    expected = whole if first else Everything()
    for name, value in expected.state_dict().items():
        got = metric.state_dict()[name]
        assert torch.equal(got, value) if isinstance(value, torch.Tensor) else got == value


def test_a_rank_that_saw_nothing_counts_for_nothing() -> None:
    states, whole = halves(Everything, [torch.tensor([3.0, 1.0])])
    metric = Everything()
    metric.load_state_dicts(states, first=True)
    assert str(metric.compute()) == str(whole.compute())


@pytest.mark.parametrize("make", [Mean, Accuracy, Precision, lambda: ConfusionMatrix(3)])
def test_the_metrics_that_there_are(make) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [
        torch.rand(3, generator=generator)
        if make is Mean
        else (torch.rand(4, 3, generator=generator), torch.randint(0, 3, (4,), generator=generator))
        for _ in range(5)
    ]
    states, whole = halves(make, outputs)
    metric = make()
    metric.load_state_dicts(states, first=True)
    assert torch.allclose(metric.compute(), whole.compute(), rtol=1e-12, atol=0)


def test_a_running_average_goes_on_from_the_mean_on_every_rank() -> None:
    states, _ = halves(lambda: RunningAverage(alpha=0.5), [1.0, 2.0, 3.0, 6.0])
    for first in (True, False):
        metric = RunningAverage(alpha=0.5)
        metric.load_state_dicts(states, first=first)
        assert metric.compute().item() == (2.0 + 4.0) / 2
        metric.observe(5.0)
        assert metric.compute().item() == 4.0
    metric.load_state_dicts([RunningAverage().state_dict()] * 3, first=True)
    assert metric.ranks == 0
