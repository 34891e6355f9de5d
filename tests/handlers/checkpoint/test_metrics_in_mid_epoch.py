"""A metric of an epoch that was stopped in the middle is that of the whole epoch."""

import functools

import pytest
import scenarios
import torch

from leyden.engine import Engine, Events
from leyden.handlers import Evaluate
from leyden.handlers.checkpoint import Checkpoint, read
from leyden.metrics import (
    Accuracy,
    ConfusionMatrix,
    Mean,
    MeanSquaredError,
    Metric,
    Precision,
    Recall,
    RunningAverage,
)


class Seen(Metric):
    """What was seen, in order: a state that grows."""

    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("values", torch.empty(0), "cat")
        self.add_state("largest", torch.tensor(-torch.inf), "max")

    def update(self, output):
        self.values.append(output.reshape(1))
        self.largest = torch.maximum(self.largest, output)

    def compute(self):
        return {"values": torch.cat(self.values).tolist(), "most": self.largest.item()}


def measuring(values, stop=None, *handlers):
    """Runs over numbers, of which metrics are taken, and gives those."""
    engine = Engine(lambda engine, batch: torch.tensor(float(batch)), training=False)
    mean = Mean()
    mean.attach(engine, "mean")
    (1 - mean).attach(engine, "rest")
    RunningAverage(alpha=0.5).attach(engine, "smooth")
    RunningAverage(alpha=0.5, epoch_bound=False).attach(engine, "smoother")
    RunningAverage(Mean(), alpha=0.5).attach(engine, "smooth mean")
    Seen().attach(engine, "seen")
    engine.attach(*handlers)
    if stop is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
    engine.run(values, max_epochs=2)
    return dict(engine.state.metrics)


def test_the_mean_of_0_to_7_stopped_after_4_is_3_5(tmp_path) -> None:
    measuring(range(8), 4, Checkpoint(tmp_path, resume="auto"))
    engine = Engine(lambda engine, batch: torch.tensor(float(batch)), training=False)
    Mean().attach(engine, "mean")
    engine.attach(Checkpoint(tmp_path, resume="auto"))
    assert engine.run(range(8)).metrics["mean"] == 3.5


@pytest.mark.parametrize("stop", range(1, 16))
def test_every_metric_is_that_of_the_run_that_never_stopped(stop, tmp_path) -> None:
    whole = measuring(range(8))
    measuring(range(8), stop, Checkpoint(tmp_path, resume="auto"))
    assert measuring(range(8), None, Checkpoint(tmp_path, resume="auto")) == whole


def test_metrics_of_classes(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [
        (torch.rand(4, 3, generator=generator), torch.randint(0, 3, (4,), generator=generator)) for _ in range(6)
    ]

    def run(*handlers, stop=None):
        engine = Engine(lambda engine, batch: batch, training=False)
        precision, recall = Precision(), Recall()
        f1 = 2 * precision * recall / (precision + recall)
        for name, metric in {
            "accuracy": Accuracy(),
            "confusion": ConfusionMatrix(3),
            "f1": f1,
            "squared": MeanSquaredError(lambda output: (output[0][:, 0], output[1].float())),
        }.items():
            metric.attach(engine, name)
        engine.attach(*handlers)
        if stop is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
        engine.run(outputs)
        return engine.state.metrics

    whole = run()
    run(Checkpoint(tmp_path, resume="auto"), stop=4)
    resumed = run(Checkpoint(tmp_path, resume="auto"))
    assert torch.equal(whole["confusion"], resumed["confusion"])
    assert {name: whole[name] for name in ("accuracy", "squared")} == {
        name: resumed[name] for name in ("accuracy", "squared")
    }
    assert whole["f1"] == resumed["f1"]


def test_between_epochs_only_what_lives_longer_is_kept(tmp_path) -> None:
    measuring(range(4), None, Checkpoint(tmp_path))
    contents = read(tmp_path)
    assert list(contents.rank_outline(0)["engine"]["handlers"]["MetricGroup"]) == ["smoother"]
    assert "MetricGroup" not in contents.outline["engine"]["handlers"]


def test_a_metric_that_was_set_is_still_new_after_a_resume(tmp_path) -> None:
    def run(*handlers, stop=None):
        from leyden.handlers import EarlyStopping

        trainer = Engine(lambda engine, batch: batch)
        evaluator = Engine(lambda engine, batch: torch.tensor(1.0), training=False)
        Mean().attach(evaluator, "mean")
        # Evaluated in mid-epoch, looked at where the epoch ends.
        stopping = EarlyStopping("mean", mode="max", patience=2)
        trainer.attach(Evaluate(evaluator, [1], on=Events.ITERATION_COMPLETED(every=3)), stopping, *handlers)
        if stop is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.interrupt)
        trainer.run(range(5), max_epochs=9)
        return trainer.state.iteration, stopping.waited

    run(Checkpoint(tmp_path, resume="auto"), stop=9)
    assert run(Checkpoint(tmp_path, resume="auto")) == run()


# -- several ranks -------------------------------------------------------------------------------------------------


play = functools.partial(scenarios.play, "metric_ranks.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def two(base):
    return play(2, base, "whole", "stopped", "resumed")


def test_two_ranks_have_their_own_states_again(two) -> None:
    assert two["resumed"] == two["whole"]
    assert two["whole"][0]["mean"] == 3.5
    # Until an epoch ends each rank sees its own running average.
    assert two["whole"][0]["seen"] != two["whole"][1]["seen"]


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_another_number_of_ranks_shares_out_what_was_seen(count, two, base) -> None:
    """Two ranks saw 0 to 3 of the epoch, and the first of those that go on sees 4 to 7."""
    for rank in play(count, base, "taken_over")["taken_over"]:
        assert rank["mean"] == 3.5
        assert sorted(rank["values"]) == [0, 1, 2, 3, 4, 5, 6, 7]
        assert rank["most"] == 7
        assert rank["smooth at first"] == two["stopped"][0]["smooth"] / 2 + two["stopped"][1]["smooth"] / 2
