"""An epoch in which a metric saw nothing leaves no value; the run goes on."""

import warnings

import pytest
import torch

from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import EarlyStopping, Evaluate
from leyden.metrics import Accuracy, Mean, Metric, NotComputableError, Precision, RunningAverage


class Keyed(Mean):
    def compute(self):
        mean = super().compute()
        return {"inner": mean, "double": 2 * mean}


class TwoAtLeast(Mean):
    def compute(self):
        if self.count < 2:
            raise NotComputableError("a spread needs two samples")
        return super().compute()


def run(metrics, skipped, outputs=(1.0, 3.0), max_epochs=3):
    """The metrics after each epoch; the epochs `skipped` end before their first batch."""
    engine, seen = Engine(lambda engine, output: output, training=False), []
    for name, metric in metrics.items():
        metric.attach(engine, name)

    @engine.on(Events.EPOCH_STARTED)
    def skip(engine):
        if engine.state.epoch in skipped:
            engine.terminate_epoch()

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run(outputs, max_epochs=max_epochs)
    return seen


def test_an_epoch_that_ends_before_its_first_batch_leaves_no_value() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run({"mean": Mean()}, skipped=[2]) == [{"mean": 2.0}, {}, {"mean": 2.0}]
        assert run({"mean": Mean()}, skipped=[1]) == [{}, {"mean": 2.0}, {"mean": 2.0}]


def test_nor_does_a_mapping_or_what_is_derived() -> None:
    full = {
        "keyed": {"inner": 2.0, "double": 4.0},
        "inner": 2.0,
        "double": 4.0,
        "error": -1.0,
        "smooth": pytest.approx(1.04),
    }
    metrics = {"keyed": Keyed(), "error": 1 - Mean(), "smooth": RunningAverage()}
    first, second, third = run(metrics, skipped=[2])
    assert first == third == full
    assert second == {}


def test_values_of_others_stay() -> None:
    goes_on = RunningAverage(epoch_bound=False, alpha=0.5)
    seen = run({"smooth": goes_on, "mean": Mean()}, skipped=[2])
    assert seen[1] == {"smooth": seen[0]["smooth"]}


def test_a_metric_that_can_not_be_computed_of_what_it_saw_is_told_once() -> None:
    with pytest.warns(UserWarning, match='no value of "spread" for epoch 1: a spread needs two samples') as caught:
        seen = run({"spread": TwoAtLeast(), "mean": Mean()}, skipped=[], outputs=[5.0])
    assert seen == [{"mean": 5.0}] * 3
    assert len(caught) == 1


def test_labels_that_are_all_left_out_leave_no_value() -> None:
    outputs = [(torch.eye(2), torch.tensor([-100, -100]))]
    with pytest.warns(UserWarning, match="(Accuracy|Precision) has seen no label but those of ignore_index"):
        seen = run({"accuracy": Accuracy(), "precision": Precision()}, skipped=[], outputs=outputs, max_epochs=1)
    assert seen == [{}]


def test_other_errors_of_a_metric_end_the_run() -> None:
    class Broken(Mean):
        def compute(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run({"broken": Broken()}, skipped=[])


def test_by_hand_it_is_an_error() -> None:
    with pytest.raises(NotComputableError, match="Mean has seen no sample"):
        Mean().compute()
    assert issubclass(NotComputableError, RuntimeError)
    assert issubclass(Mean, Metric)


def test_who_watches_the_metric_goes_on_too() -> None:
    model = torch.nn.Linear(2, 2)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.CrossEntropyLoss())
    evaluator = supervised_evaluator(model, metrics={"accuracy": Accuracy()})
    data = [(torch.eye(2), torch.tensor([0, 1]))]

    @evaluator.on(Events.EPOCH_STARTED)
    def skip(engine):
        if trainer.state.epoch == 1:
            engine.terminate_epoch()

    trainer.attach(Evaluate(evaluator, data, prefix="val/"), EarlyStopping("val/accuracy", mode="max", patience=9))
    RunningAverage().attach(trainer, "loss")
    state = trainer.run(data, max_epochs=2)
    assert set(state.metrics) == {"loss", "val/accuracy"}
