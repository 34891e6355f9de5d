"""When a metric is reset, updated and computed."""

import pytest
import torch

from leyden.engine import Engine, Events
from leyden.metrics import (
    Accuracy,
    BatchFiltered,
    BatchWise,
    EpochWise,
    Mean,
    Metric,
    MetricUsage,
    RunningAverage,
    RunningBatchWise,
    RunningWindow,
    SingleEpochRunningBatchWise,
)

BATCHES = [1.0, 2.0, 6.0, 7.0]


def follow(usage, metric=None, event=Events.ITERATION_COMPLETED, max_epochs=2):
    """What a handler sees of the metric at each of these events."""
    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("mean", metric or Mean(), usage=usage)
    seen = []
    engine.add_event_handler(event, lambda engine: seen.append(engine.state.metrics.get("mean")))
    engine.run(BATCHES, max_epochs=max_epochs)
    return seen


def test_each_epoch_is_the_default() -> None:
    for usage in (None, EpochWise(), "epoch_wise"):
        assert follow(usage, event=Events.EPOCH_COMPLETED) == [4.0, 4.0]
        assert follow(usage, max_epochs=1) == [None] * 4


def test_each_batch() -> None:
    for usage in (BatchWise(), "batch_wise"):
        assert follow(usage) == BATCHES * 2


def test_the_last_batches_over_the_ends_of_epochs() -> None:
    assert follow(RunningWindow(2)) == [1.0, 1.5, 4.0, 6.5, 4.0, 1.5, 4.0, 6.5]
    assert follow(RunningWindow(1)) == BATCHES * 2


def test_all_since_the_epoch_or_the_run_began() -> None:
    assert follow(SingleEpochRunningBatchWise()) == [1.0, 1.5, 3.0, 4.0] * 2
    assert follow("running_batch_wise") == [1.0, 1.5, 3.0, 4.0, 17 / 5, 19 / 6, 25 / 7, 4.0]


def test_an_event_is_where_a_value_is_due_of_what_came_since_the_last() -> None:
    usage = Events.ITERATION_COMPLETED(every=3)
    assert follow(usage) == [None, None, 3.0, 3.0, 3.0, 10 / 3, 10 / 3, 10 / 3]
    assert follow(usage, event=usage) == [3.0, 10 / 3]


def test_some_batches_only() -> None:
    assert follow(BatchFiltered(every=2), event=Events.EPOCH_COMPLETED) == [4.5, 4.5]
    assert follow(BatchFiltered(once=1), event=Events.EPOCH_COMPLETED, max_epochs=1) == [1.0]


def test_any_three_events() -> None:
    usage = MetricUsage(Events.STARTED, Events.COMPLETED, Events.ITERATION_COMPLETED(after=2))
    assert follow(usage, event=Events.COMPLETED) == [(6 + 7 + 16) / 6]


def test_a_value_that_nobody_reads_is_not_computed() -> None:
    class Counted(Mean):
        computed = 0

        def compute(self):
            Counted.computed += 1
            return super().compute()

    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("mean", Counted(), usage=BatchWise())
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.state.metrics["mean"])
    engine.run(BATCHES)
    assert Counted.computed == 2  # when it was read, and at the end of the epoch


def test_several_usages_of_one_engine() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    for name, usage in {"epoch": None, "batch": BatchWise(), "pair": Events.ITERATION_COMPLETED(every=2)}.items():
        engine.attach_metric(name, Mean(), usage=usage)
    engine.attach_metric("double", 2 * Mean(), usage=BatchWise())
    assert engine.metric_names() == ["batch", "double", "epoch", "pair"]
    assert engine.run(BATCHES).metrics == {"epoch": 4.0, "batch": 7.0, "pair": 6.5, "double": 14.0}


def test_an_object_has_one_usage_and_a_name_is_given_once() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    mean = Mean()
    engine.attach_metric("mean", mean)
    with pytest.raises(ValueError, match="this Mean measures this engine with another usage already"):
        engine.attach_metric("batch", mean, usage=BatchWise())
    with pytest.raises(ValueError, match="this Mean measures this engine with another usage already"):
        engine.attach_metric("batch", 1 - mean, usage=BatchWise())
    with pytest.raises(ValueError, match='the engine has a metric "mean" already'):
        engine.attach_metric("mean", Mean(), usage=BatchWise())
    mean.detach(engine)
    engine.attach_metric("mean", mean, usage=BatchWise())
    assert engine.run(BATCHES).metrics == {"mean": 7.0}


@pytest.mark.parametrize(
    ("usage", "error", "message"),
    [
        ("batchwise", ValueError, "usage= knows the names epoch_wise, batch_wise, running_batch_wise"),
        (RunningWindow, TypeError, r"usage= takes an object, RunningWindow\(\.\.\.\), but got the class"),
        (100, TypeError, "usage= takes an event at which a value is due"),
    ],
)
def test_what_is_no_usage(usage, error, message) -> None:
    with pytest.raises(error, match=message):
        follow(usage)


def test_what_usages_are_made_of() -> None:
    with pytest.raises(TypeError, match="completed of a MetricUsage is an event"):
        MetricUsage(completed=3)
    with pytest.raises((TypeError, ValueError), match="the window of RunningWindow"):
        RunningWindow(0)
    with pytest.raises(ValueError, match="RunningAverage is a value of each iteration, smoothed, and takes the usages"):
        RunningAverage().attach(Engine(lambda engine, batch: batch), "mean", usage=BatchWise())


# -- going on ----------------------------------------------------------------------------------------------------------

USAGES = [
    BatchWise(),
    RunningWindow(3),
    RunningBatchWise(),
    SingleEpochRunningBatchWise(),
    BatchFiltered(every=2),
    Events.ITERATION_COMPLETED(every=3),
    MetricUsage(Events.STARTED, Events.COMPLETED),
]


def make(seen):
    engine = Engine(lambda engine, batch: batch, training=True)
    for place, usage in enumerate(USAGES):
        engine.attach_metric(f"mean {place}", Mean(output_transform=lambda batch: batch[0]), usage=usage)
        accuracy = Accuracy(output_transform=lambda batch: (torch.tensor([1, 0, 1]), batch[1]))
        engine.attach_metric(f"accuracy {place}", accuracy, usage=usage)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    return engine


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 7])
def test_a_run_that_goes_on_shows_what_it_would_have_shown(stop) -> None:
    data = [(float(i), torch.tensor([i % 2, 1, 0])) for i in range(4)]
    whole, first, then = [], [], []
    end = make(whole).run(data, max_epochs=2).metrics
    stopped = make(first)
    stopped.add_event_handler(Events.ITERATION_COMPLETED(once=stop), stopped.interrupt)
    stopped.run(data, max_epochs=2)
    resumed = make(then)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.run(data, max_epochs=2).metrics == end
    assert then == whole[stop:]


# -- what changes in the midst of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [BatchWise(), RunningWindow(2), RunningBatchWise()])
def test_a_value_of_a_metric_that_is_detached_stays_as_it_was(usage) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    mean, seen = Mean(), []
    engine.attach_metric("mean", mean, usage=usage)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: mean.detach(engine))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)["mean"]))
    engine.run(BATCHES)
    assert seen[1:] == [2.0 if usage == BatchWise() else 1.5] * 3
    assert engine.state_dict()["metrics"] == {"mean": seen[1]}


class Extremes(Metric):
    """A value that is a mapping."""

    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("least", torch.tensor(torch.inf), "min")
        self.add_state("most", torch.tensor(-torch.inf), "max")

    def update(self, output):
        self.least = self.least.clamp(max=output)
        self.most = self.most.clamp(min=output)

    def compute(self):
        return {"least": self.least, "most": self.most}


class Foretold(Extremes):
    """One whose keys are known before."""

    result_keys = ("least", "most")


def test_the_items_of_a_value_are_of_the_same_batches_as_the_value() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    seen = []
    engine.attach_metric("extremes", Foretold(), usage=BatchWise())
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run(BATCHES, max_epochs=2)
    assert seen == [{"extremes": {"least": x, "most": x}, "least": x, "most": x} for x in BATCHES * 2]


def test_items_that_only_the_data_tell_are_there_at_the_end_of_an_epoch() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    seen = []
    engine.attach_metric("extremes", Extremes(), usage=SingleEpochRunningBatchWise())
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(sorted(engine.state.metrics)))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(engine.state.metrics["most"]))
    engine.run(BATCHES, max_epochs=2)
    assert seen == [*[["extremes"]] * 4, 7.0] * 2


def test_the_names_of_a_detached_metric_and_of_its_items_are_free() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    extremes = Extremes()
    engine.attach_metric("extremes", extremes)
    assert engine.run(BATCHES).metrics["most"] == 7.0
    extremes.detach(engine)
    engine.attach_metric("others", Extremes())
    assert engine.run([9.0]).metrics["most"] == 9.0
