"""RunningAverage loses no digit of a number, whatever type it has; a derived metric keeps what its sources saw."""

import numpy as np
import pytest
import torch

from leyden.engine import Engine, Events
from leyden.metrics import Accuracy, Mean, NotComputableError, Precision, RunningAverage

LARGE = 2**24 + 1  # the first whole number that float32 does not hold


@pytest.mark.parametrize(
    "number",
    [
        LARGE,
        float(LARGE),
        np.float64(LARGE),
        np.int64(LARGE),
        torch.tensor(LARGE),
        torch.tensor(float(LARGE), dtype=torch.float64),
    ],
    ids=["int", "float", "float64 of numpy", "int64 of numpy", "int64", "float64"],
)
def test_numbers_of_the_host_keep_their_digits(number) -> None:
    metric = RunningAverage(alpha=0.5)
    for _ in range(3):
        metric.observe(number)
    assert metric.compute().item() == LARGE
    metric.observe(0.1)
    assert metric.compute().item() == pytest.approx(LARGE / 2 + 0.05, rel=1e-15)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float16(0.5), np.float64(0.5)])
def test_numbers_of_numpy_are_taken(number) -> None:
    smooth, mean = RunningAverage(), Mean()
    smooth.observe(number)
    mean.update(number)
    mean.update((number, np.int64(3)))
    assert smooth.compute() == mean.compute() == 0.5


def test_a_number_of_float32_stays_on_the_short_way() -> None:
    metric = RunningAverage(alpha=0.5)
    metric.observe(torch.tensor(1.0))
    metric.observe(torch.tensor(2.0))
    assert metric.value.dtype is torch.float32


def test_a_batch_without_labels_is_passed_over() -> None:
    metric = RunningAverage(Accuracy(), alpha=0.5)
    metric.observe((torch.eye(2), torch.tensor([0, 1])))
    metric.observe((torch.eye(2), torch.tensor([-100, -100])))
    assert metric.compute() == 1


# -- states of derived metrics -----------------------------------------------------------------------------------------

OUTPUTS = [(torch.rand(4, 3), torch.randint(0, 3, (4,))) for _ in range(4)]


def derived():
    precision = Precision(average="macro")
    return 1 - Accuracy() * precision + precision


def test_the_states_of_a_derived_metric_are_those_of_its_sources() -> None:
    metric, other, straight = derived(), derived(), derived()
    for output in OUTPUTS[:2]:
        metric.update(output)
    other.load_state_dict(metric.state_dict())
    for output in OUTPUTS[2:]:
        other.update(output)
    for output in OUTPUTS:
        straight.update(output)
    assert other.compute() == straight.compute()


def test_they_are_shared_out_to_another_number_of_ranks() -> None:
    ranks, straight = [derived(), derived()], derived()
    for metric, part in zip(ranks, (OUTPUTS[:1], OUTPUTS[1:]), strict=True):
        for output in part:
            metric.update(output)
    for output in OUTPUTS:
        straight.update(output)
    first, second = derived(), derived()
    states = [metric.state_dict() for metric in ranks]
    first.load_state_dicts(states, first=True)
    second.load_state_dicts(states, first=False)
    assert first.compute() == straight.compute()
    with pytest.raises(NotComputableError):
        second.compute()


def test_states_of_others_are_refused() -> None:
    with pytest.raises(ValueError, match="has the sources Accuracy, numbered from 0, but was given"):
        (1 - Accuracy()).load_state_dict(derived().state_dict())
    with pytest.raises(ValueError, match="but was given _updates"):
        (1 - Accuracy()).load_state_dict({"_updates": 1})


def test_a_metric_by_itself_begins_where_it_was_loaded() -> None:
    metric, other = Accuracy(), Accuracy()
    metric.update(OUTPUTS[0])
    other.load_state_dict(metric.state_dict())
    other.update(OUTPUTS[1])
    metric.update(OUTPUTS[1])
    assert other.compute() == metric.compute()


def test_an_epoch_goes_on_from_states_that_know_nothing_of_labels_left_out() -> None:
    """Those of older checkpoints."""
    metric = Accuracy()
    metric.load_state_dict({"_updates": 1, "correct": torch.tensor(3), "total": 4})
    assert metric.compute() == 0.75


def test_the_average_is_a_new_value_at_each_epochs_end() -> None:
    engine, times = Engine(lambda engine, batch: batch), []
    RunningAverage().attach(engine, "smooth")
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: times.append(engine.state.metrics.times_set["smooth"]))
    engine.run([1.0, 2.0, 3.0], max_epochs=2)
    assert times[1] > times[0] > 0
