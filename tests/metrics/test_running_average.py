"""RunningAverage: smooth values at each iteration that cost next to nothing."""

import sys

import pytest
import torch

from leyden.engine import Engine, Events
from leyden.metrics import Accuracy, RunningAverage

VALUES = [4.0, 8.0, 2.0, 6.0]


def smoothed(values, alpha):
    averages = values[:1]
    for value in values[1:]:
        averages.append(alpha * averages[-1] + (1 - alpha) * value)
    return averages


def run(metric, outputs, max_epochs=1):
    """The value in `state.metrics` at each iteration and after each epoch."""
    engine, at_iterations, at_epochs = Engine(lambda engine, output: output), [], []
    metric.attach(engine, "smooth")
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: at_iterations.append(engine.state.metrics["smooth"]))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: at_epochs.append(engine.state.metrics["smooth"]))
    engine.run(outputs, max_epochs=max_epochs)
    return at_iterations, at_epochs


@pytest.mark.parametrize(
    "as_output",
    [
        float,
        int,
        torch.tensor,
        lambda value: torch.tensor([value]),
        lambda value: torch.tensor(value, requires_grad=True),
        lambda value: torch.tensor(value, dtype=torch.bfloat16),
        lambda value: torch.tensor(int(value)),
        lambda value: torch.nn.Parameter(torch.tensor(value)),
    ],
    ids=["float", "int", "scalar", "one element", "with a graph", "bfloat16", "whole numbers", "parameter"],
)
def test_each_iteration_weighs_the_old_value_by_alpha(as_output) -> None:
    at_iterations, at_epochs = run(RunningAverage(alpha=0.75), [as_output(value) for value in VALUES])
    assert at_iterations == pytest.approx(smoothed(VALUES, 0.75))
    assert at_epochs == pytest.approx(smoothed(VALUES, 0.75)[-1:])


def test_a_number_is_picked_from_the_output() -> None:
    metric = RunningAverage(output_transform=lambda output: output["loss"], alpha=0.5)
    at_iterations, _ = run(metric, [{"loss": torch.tensor(value)} for value in VALUES])
    assert at_iterations == pytest.approx(smoothed(VALUES, 0.5))


def test_a_metric_is_measured_on_each_batch_for_itself() -> None:
    outputs = [
        (torch.eye(2), torch.tensor([0, 1])),
        (torch.eye(2), torch.tensor([0, 0])),
        (torch.eye(2), torch.tensor([1, 0])),
    ]
    at_iterations, _ = run(RunningAverage(Accuracy(), alpha=0.5), outputs)
    assert at_iterations == smoothed([1.0, 0.5, 0.0], 0.5)
    at_iterations, _ = run(RunningAverage(100 * (1 - Accuracy()), alpha=0.5), outputs)
    assert at_iterations == smoothed([0.0, 50.0, 100.0], 0.5)


def test_each_epoch_begins_anew() -> None:
    at_iterations, _ = run(RunningAverage(alpha=0.5), VALUES, max_epochs=2)
    assert at_iterations == smoothed(VALUES, 0.5) * 2


def test_it_may_go_on_over_epochs_but_not_over_runs() -> None:
    metric = RunningAverage(alpha=0.5, epoch_bound=False)
    at_iterations, _ = run(metric, VALUES, max_epochs=2)
    assert at_iterations == smoothed(VALUES * 2, 0.5)
    at_iterations, _ = run(metric, VALUES)
    assert at_iterations == smoothed(VALUES, 0.5)


def test_it_changes_no_output() -> None:
    outputs = [torch.tensor(value) for value in VALUES]
    run(RunningAverage(alpha=0.5), outputs)
    assert outputs == [torch.tensor(value) for value in VALUES]


def test_sixteen_bits_do_not_stand_still() -> None:
    outputs = [torch.tensor(1.0, dtype=torch.bfloat16)] + [torch.tensor(2.0, dtype=torch.bfloat16)] * 500
    at_iterations, _ = run(RunningAverage(alpha=0.995), outputs)
    assert at_iterations[-1] == pytest.approx(2 - 0.995**500, rel=1e-5)


def calls_a_step(attach, steps=200):
    """Python and C calls in an iteration, seen by sys.setprofile."""
    loss = torch.tensor(1.0)
    engine = Engine(lambda engine, batch: loss)
    attach(engine)
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    def run(length):
        nonlocal count
        count = 0
        sys.setprofile(note)
        try:
            engine.run(range(length), max_epochs=1)
        finally:
            sys.setprofile(None)
        return count

    return (run(3 * steps) - run(steps)) / (2 * steps)


def test_it_costs_few_calls_a_step() -> None:
    bare = calls_a_step(lambda engine: None)
    assert calls_a_step(lambda engine: RunningAverage().attach(engine, "loss")) - bare <= 5
    picked = RunningAverage(output_transform=lambda output: output)
    assert calls_a_step(lambda engine: picked.attach(engine, "loss")) - bare <= 6


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"loss": 1.0}, "averages one number an iteration, but found a mapping with the keys loss"),
        (torch.zeros(2, 3), r"found a tensor of shape \(2, 3\), float32 \(6 of them; .mean\(\), perhaps\)"),
        (None, "found NoneType None"),
    ],
)
def test_what_is_no_number_is_told(output, message) -> None:
    with pytest.raises(TypeError, match=message):
        run(RunningAverage(), [output])


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match=r"above 0 and at most 1, but is 1\.5"):
        RunningAverage(alpha=1.5)
    with pytest.raises(TypeError, match="must be a metric or None, but is <function"):
        RunningAverage(lambda output: output)
    with pytest.raises(ValueError, match="a source or an output_transform"):
        RunningAverage(Accuracy(), output_transform=lambda output: output)
