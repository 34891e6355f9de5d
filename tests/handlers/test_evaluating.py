"""An evaluation in the course of training."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Order, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import EarlyStopping, Evaluate

pytestmark = pytest.mark.timeout(30)


def trainer_of(process=lambda engine, batch: None):
    return Engine(process)


def evaluator_of(**values):
    """An evaluator without a model: each metric takes the next of its values at each evaluation."""
    evaluator = Engine(lambda engine, batch: batch, training=False)
    evaluator.declare_metrics(*values)
    iterators = {name: iter(series) for name, series in values.items()}

    @evaluator.on(Events.EPOCH_COMPLETED)
    def measure(engine):
        for name, series in iterators.items():
            engine.state.metrics[name] = next(series)

    return evaluator


def when_evaluated(trainer, evaluator):
    """(epoch, iteration) of the trainer at each evaluation."""
    times = []
    evaluator.add_event_handler(
        Events.STARTED, lambda engine: times.append((trainer.state.epoch, trainer.state.iteration))
    )
    return times


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_metrics_come_into_the_trainer_under_the_prefix():
    trainer, evaluator = trainer_of(), evaluator_of(accuracy=[0.5, 0.75], loss=[2.0, 1.0])
    trainer.attach(Evaluate(evaluator, [0, 1], prefix="val/"))
    seen = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    trainer.run([0] * 3, max_epochs=2)
    assert seen == [{"val/accuracy": 0.5, "val/loss": 2.0}, {"val/accuracy": 0.75, "val/loss": 1.0}]
    assert dict(evaluator.state.metrics) == {"accuracy": 0.75, "loss": 1.0}


def test_without_a_prefix_the_names_stay():
    trainer = trainer_of()
    trainer.attach(Evaluate(evaluator_of(accuracy=[0.5]), [0]))
    assert dict(trainer.run([0]).metrics) == {"accuracy": 0.5}


def test_several_evaluations_stand_side_by_side():
    trainer = trainer_of()
    trainer.attach(Evaluate(evaluator_of(accuracy=[0.5]), [0], prefix="val/"))
    trainer.attach(Evaluate(evaluator_of(accuracy=[0.25]), [0], prefix="test/"))
    assert dict(trainer.run([0]).metrics) == {"val/accuracy": 0.5, "test/accuracy": 0.25}


def test_one_evaluator_for_two_data_sets():
    trainer, evaluator = trainer_of(), evaluator_of(mean=[1.0, 2.0, 3.0, 4.0])
    trainer.attach(Evaluate(evaluator, [0], prefix="train/"), Evaluate(evaluator, [0], prefix="val/"))
    assert dict(trainer.run([0], max_epochs=2).metrics) == {"train/mean": 3.0, "val/mean": 4.0}


def test_a_metric_that_is_a_tensor_or_a_mapping():
    trainer = trainer_of()
    trainer.attach(Evaluate(evaluator_of(loss=[torch.tensor(1.5)], classes=[{"cat": 0.5}]), [0], prefix="val/"))
    metrics = trainer.run([0]).metrics
    assert metrics["val/loss"] == 1.5
    assert metrics["val/classes"] == {"cat": 0.5}


def test_the_names_are_known_before_the_run():
    trainer = trainer_of()
    trainer.attach(Evaluate(evaluator_of(loss=[1.0]), [0], prefix="val/"))
    assert trainer.metric_names() == ["val/loss"]


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, [(1, 3), (2, 6), (3, 9), (4, 12), (5, 15)]),
        ({"every": 1}, [(1, 3), (2, 6), (3, 9), (4, 12), (5, 15)]),
        ({"every": 2}, [(2, 6), (4, 12)]),
        ({"every": 7}, []),
        ({"on": Events.STARTED}, [(0, 0)]),
        ({"on": Events.COMPLETED}, [(5, 15)]),
        ({"on": Events.ITERATION_COMPLETED(every=4)}, [(2, 4), (3, 8), (4, 12)]),
        ({"on": Events.STARTED | Events.EPOCH_COMPLETED(once=[1, 4])}, [(0, 0), (1, 3), (4, 12)]),
    ],
    ids=str,
)
def test_when_it_runs(when, expected):
    trainer, evaluator = trainer_of(), evaluator_of()
    times = when_evaluated(trainer, evaluator)
    trainer.attach(Evaluate(evaluator, [0, 1], **when))
    trainer.run([0] * 3, max_epochs=5)
    assert times == expected


def test_after_optimizer_steps():
    model = nn.Linear(2, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    evaluator = supervised_evaluator(model)
    times = when_evaluated(trainer, evaluator)
    data = [(torch.ones(1, 2), torch.ones(1, 1))] * 4
    trainer.attach(Evaluate(evaluator, data, on=UpdateEvents.STEP_COMPLETED(every=2)))
    trainer.run(data)
    assert times == [(1, 2), (1, 4)]
    assert model.training


def test_each_evaluation_is_one_pass_over_all_the_data():
    trainer, evaluator = trainer_of(), evaluator_of()
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    trainer.attach(Evaluate(evaluator, "abc"))
    trainer.run([0], max_epochs=2)
    assert seen == list("abcabc")


def test_a_part_of_the_data():
    trainer, evaluator = trainer_of(), evaluator_of()
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    trainer.attach(Evaluate(evaluator, ["a", "b", "c", "d", "e"], epoch_length=2))
    trainer.run([0], max_epochs=3)
    assert seen == ["a", "b"] * 3


def test_it_can_be_called_at_any_time():
    trainer = trainer_of()
    evaluate = Evaluate(evaluator_of(accuracy=[0.5]), [0], prefix="val/", every=100)
    trainer.attach(evaluate)
    trainer.run([0])
    assert dict(trainer.state.metrics) == {}
    evaluate.evaluate(trainer)
    assert dict(trainer.state.metrics) == {"val/accuracy": 0.5}


def test_a_trainer_that_runs_again_evaluates_again():
    trainer, evaluator = trainer_of(), evaluator_of()
    times = when_evaluated(trainer, evaluator)
    trainer.attach(Evaluate(evaluator, [0]))
    trainer.run([0], max_epochs=1)
    trainer.run([0], max_epochs=2)
    trainer.run([0], max_epochs=2)
    assert times == [(1, 1), (2, 2), (1, 1), (2, 2)]


# -- order -------------------------------------------------------------------------------------------------------------


def test_all_who_look_at_the_metrics_come_after_it_whatever_the_order_of_attaching():
    trainer = trainer_of()
    seen = []

    def note(engine, who):
        seen.append((who, dict(engine.state.metrics)))

    trainer.add_event_handler(Events.EPOCH_COMPLETED, note, "logger", order=Order.SAVERS)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, note, "function")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, note, "metric", order=Order.METRICS)
    trainer.attach(EarlyStopping("val/loss", mode="min", patience=1))
    trainer.attach(Evaluate(evaluator_of(loss=[1.0, 2.0]), [0], prefix="val/"))
    state = trainer.run([0], max_epochs=5)
    one, two = {"val/loss": 1.0}, {"val/loss": 2.0}
    assert seen == [
        ("metric", {}), ("function", one), ("logger", one),
        ("metric", one), ("function", two), ("logger", two),
    ]  # fmt: skip
    assert state.epoch == 2  # EarlyStopping saw 2.0 in the epoch in which it was measured


# -- the model's mode --------------------------------------------------------------------------------------------------


def test_modules_are_evaluated_in_eval_mode_and_come_back_as_they_were():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 1))
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    evaluator = supervised_evaluator(model)
    data = [(torch.randn(4, 2), torch.zeros(4, 1))] * 2
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: [model.train(), model[1].eval()])  # a frozen batch norm
    trainer.attach(Evaluate(evaluator, data))
    modes = []

    def note(where):
        modes.append((where, [module.training for module in model.modules()]))

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note, "evaluation")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, note, "after")
    trainer.run(data, max_epochs=1)
    frozen = [True, True, False, True, True]
    assert modes == [("evaluation", [False] * 5), ("evaluation", [False] * 5), ("after", frozen)]


def test_an_evaluation_in_mid_epoch_leaves_training_as_it_is():
    def trained(*handlers):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        data = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(6)]
        trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
        trainer.attach(*(handler(model, data) for handler in handlers))
        trainer.run(data, max_epochs=2)
        return list(model.state_dict().values())

    def evaluate(model, data):
        return Evaluate(supervised_evaluator(model), data, on=Events.ITERATION_COMPLETED(every=2))

    assert all(map(torch.equal, trained(), trained(evaluate)))


# -- what concerns all engines of a run --------------------------------------------------------------------------------


class Concerned:
    """A handler of one's own that reaches evaluators too."""

    def __init__(self):
        self.reached = []

    def attach(self, engine):
        pass

    def attach_to_evaluator(self, engine):
        self.reached.append(engine)


def test_handlers_that_concern_evaluators_reach_each_once():
    trainer, first, second = trainer_of(), evaluator_of(), evaluator_of()
    before, after = Concerned(), Concerned()
    trainer.attach(before, Evaluate(first, [0]), Evaluate(second, [0]), after)
    trainer.run([0], max_epochs=3)
    trainer.run([0], max_epochs=4)
    for handler in (before, after):
        assert sorted(map(id, handler.reached)) == sorted(map(id, (first, second)))


def test_one_evaluator_in_two_evaluations_is_reached_once():
    trainer, evaluator, handler = trainer_of(), evaluator_of(), Concerned()
    trainer.attach(handler, Evaluate(evaluator, [0], prefix="a/"), Evaluate(evaluator, [0], prefix="b/"))
    trainer.run([0])
    assert handler.reached == [evaluator]


# -- errors ------------------------------------------------------------------------------------------------------------


class Lost(Exception):
    pass


@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED], ids=str)
def test_an_error_in_the_evaluation_reaches_the_caller_of_run(event):
    model = nn.Linear(2, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    evaluator = supervised_evaluator(model)
    data = [(torch.ones(1, 2), torch.ones(1, 1))] * 2
    trainer.attach(Evaluate(evaluator, data))
    seen = []
    for name, engine in (("evaluator", evaluator), ("trainer", trainer)):
        engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error, name: seen.append((name, error)), name)
        engine.add_event_handler(Events.CLOSED, seen.append, f"{name} closed")

    def fail():
        raise Lost

    handle = evaluator.add_event_handler(event, fail)
    with pytest.raises(Lost) as caught:
        trainer.run(data)
    error = caught.value
    assert seen == [("evaluator", error), "evaluator closed", ("trainer", error), "trainer closed"]
    assert model.training

    handle.remove()
    evaluations = when_evaluated(trainer, evaluator)
    trainer.run(data, max_epochs=2)  # both run again at once
    assert evaluations
    assert model.training


def test_an_evaluator_that_terminates_itself_does_not_end_the_training():
    trainer, evaluator = trainer_of(), evaluator_of()
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), evaluator.terminate)
    trainer.attach(Evaluate(evaluator, ["a", "b", "c"]))
    assert trainer.run([0], max_epochs=3).epoch == 3
    assert seen == ["a", "b"] * 3


def test_the_trainer_itself():
    trainer = trainer_of()
    with pytest.raises(ValueError, match="Evaluate was given the trainer itself as its evaluator"):
        trainer.attach(Evaluate(trainer, [0]))


def test_what_is_no_engine():
    with pytest.raises(TypeError, match="Evaluate needs an engine that evaluates, but got "):
        Evaluate(nn.Linear(1, 1), [0])


def test_both_every_and_on():
    with pytest.raises(ValueError, match=r"takes every= \(epochs\) or on= \(an event\), but got every=2 and on=Events"):
        Evaluate(evaluator_of(), [0], every=2, on=Events.COMPLETED)


@pytest.mark.parametrize("every", [0, -1])
def test_an_every_that_is_not_positive(every):
    with pytest.raises(ValueError, match=f"every of an event must be at least 1, but is {every}"):
        Evaluate(evaluator_of(), [0], every=every)


def test_an_event_that_the_trainer_does_not_know():
    trainer = trainer_of()
    with pytest.raises(ValueError, match=r"UpdateEvents.STEP_COMPLETED is an event of an Update, and this engine has"):
        trainer.attach(Evaluate(evaluator_of(), [0], on=UpdateEvents.STEP_COMPLETED))


def test_data_that_cannot_be_evaluated():
    for data, error, message in (([], ValueError, "empty"), (3, TypeError, "must be iterable")):
        trainer = trainer_of()
        trainer.attach(Evaluate(evaluator_of(), data))
        with pytest.raises(error, match=message):
            trainer.run([0])


def test_data_that_can_be_gone_through_only_once():
    """The second evaluation has nothing to evaluate: said, not passed over."""
    trainer = trainer_of()
    trainer.attach(Evaluate(evaluator_of(loss=[1.0, 1.0]), iter([0, 1])))
    with pytest.raises(ValueError, match="the data of the run is empty"):
        trainer.run([0], max_epochs=2)
    assert trainer.state.epoch == 2


def test_an_update_may_step_in_the_evaluation_of_another_engine():
    """An evaluator may train something of its own (a linear probe, say): the engines share nothing."""
    model, probe = nn.Linear(2, 1), nn.Linear(2, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())

    def process(engine, batch):
        with update.forward():
            loss = probe(batch[0]).square().mean()
        update.backward(loss)

    fitting = Engine(process)
    update = Update(fitting, probe, torch.optim.SGD(probe.parameters(), lr=0.1))
    data = [(torch.ones(1, 2), torch.ones(1, 1))] * 3
    trainer.attach(Evaluate(fitting, data))
    trainer.run(data, max_epochs=2)
    assert (trainer.state.step, fitting.state.step) == (6, 3)
