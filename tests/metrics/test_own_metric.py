"""A metric of one's own: states are declared, the rest is plain functions of them."""

import pytest
import torch

from leyden.metrics import Metric, NotComputableError


class LargestError(Metric):
    def __init__(self, output_transform=None):
        super().__init__(output_transform)
        self.add_state("worst", torch.tensor(0.0), "max")

    def update(self, output):
        y_pred, y = output
        self.worst = torch.maximum(self.worst, (y_pred - y).abs().max())

    def compute(self):
        return self.worst


class Median(Metric):
    required_output_keys = None

    def __init__(self, output_transform=None):
        super().__init__(output_transform)
        self.add_state("values", torch.empty(0), "cat")

    def update(self, output):
        self.values.append(output)

    def compute(self):
        return torch.cat(self.values).median()


class Extent(Metric):
    """A mapping, as some metrics give."""

    required_output_keys = None
    result_keys = ("least", "most")

    def __init__(self):
        super().__init__()
        self.add_state("low", torch.tensor(torch.inf), "min")
        self.add_state("high", torch.tensor(-torch.inf), "max")

    def update(self, output):
        self.low, self.high = torch.minimum(self.low, output.min()), torch.maximum(self.high, output.max())

    def compute(self):
        return {"least": self.low, "most": self.high}


def pair(*differences):
    return torch.tensor(differences), torch.zeros(len(differences))


def test_it_is_used_without_an_engine() -> None:
    metric = LargestError()
    metric.update(pair(0.5, -2.0))
    metric.update({"y": torch.zeros(1), "y_pred": torch.ones(1)})
    assert metric.compute() == 2.0


def test_it_is_used_on_an_engine(measured) -> None:
    metrics = measured([pair(0.5), pair(-2.0), pair(1.0)], worst=LargestError())
    assert metrics["worst"] == 2.0
    assert type(metrics["worst"]) is float


def test_reset_forgets_what_was_seen() -> None:
    metric = LargestError()
    metric.update(pair(3.0))
    metric.reset()
    with pytest.raises(NotComputableError, match="LargestError has seen no sample"):
        metric.compute()
    metric.update(pair(1.0))
    assert metric.compute() == 1.0


def test_each_epoch_is_measured_for_itself(measured) -> None:
    batches = iter([pair(5.0), pair(1.0), pair(2.0), pair(0.0)])
    engine_outputs = [None, None]
    metric = LargestError(output_transform=lambda _: next(batches))
    assert measured(engine_outputs, max_epochs=2, worst=metric)["worst"] == 2.0


def test_concatenated_states_keep_every_value(measured) -> None:
    values = torch.randn(21)
    assert measured(values.split(4), median=Median())["median"] == values.median().item()


def test_states_keep_no_graph_of_the_step() -> None:
    metric = Median()
    metric.update(torch.ones(3, requires_grad=True) * 2)
    assert not metric.compute().requires_grad


def test_a_mapping_comes_also_item_by_item(measured) -> None:
    metrics = measured([torch.tensor([1.0, 4.0]), torch.tensor([-2.0])], extent=Extent())
    assert metrics["extent"] == {"least": -2.0, "most": 4.0}
    assert (metrics["least"], metrics["most"]) == (-2.0, 4.0)


def test_a_state_is_declared_so_that_it_can_be_reduced() -> None:
    metric = LargestError()
    with pytest.raises(ValueError, match=r"one of sum, mean, max, min, cat, none, or by a function .* got 'median'"):
        metric.add_state("more", torch.tensor(0.0), "median")
    with pytest.raises(ValueError, match='"mean" needs a floating default'):
        metric.add_state("more", torch.tensor(0), "mean")
    with pytest.raises(ValueError, match="a whole number is reduced by sum, max or min, but got 'cat'"):
        metric.add_state("more", 0, "cat")
    with pytest.raises(ValueError, match="begins with zeros, since every rank adds its own, but found"):
        metric.add_state("more", torch.tensor(1.0), "sum")
    with pytest.raises(ValueError, match="begins empty"):
        metric.add_state("more", torch.zeros(2), "cat")
    with pytest.raises(ValueError, match=r"use torch\.int64"):
        metric.add_state("more", torch.tensor(False), "sum")
    with pytest.raises(TypeError, match=r"a tensor or a whole number, but is 0\.5; write torch\.tensor\(0\.0\)"):
        metric.add_state("more", 0.5, "sum")
    with pytest.raises(TypeError, match=r'but is \[\]; write .*under "cat", torch\.empty\(0\)'):
        metric.add_state("more", [], "cat")
    with pytest.raises(ValueError, match="can't have a state 'worst'"):
        metric.add_state("worst", torch.tensor(0.0), "max")
    with pytest.raises(ValueError, match="can't have a state 'update'"):
        metric.add_state("update", torch.tensor(0.0), "max")


def test_a_forgotten_call_of_the_base_class_says_so(measured) -> None:
    class Forgetful(Median):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match=r"its __init__ must call super\(\)\.__init__\(output_transform\)"):
        measured([torch.ones(1)], median=Forgetful())
