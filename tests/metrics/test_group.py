"""Metrics on an engine: when they are updated and computed, under which names, and how a run goes on with them."""

import pytest
import torch

from leyden.engine import Engine, Events, supervised_evaluator
from leyden.metrics import Accuracy, Mean, MetricGroup, Precision, RunningAverage


def echo():
    return Engine(lambda engine, batch: batch, training=False)


class Keyed(Mean):
    result_keys = ("inner",)

    def compute(self):
        return {"inner": super().compute()}


def test_a_handler_of_the_epochs_end_sees_the_value_however_early_it_was_added() -> None:
    engine, seen = echo(), []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(engine.state.metrics["mean"]))
    Mean().attach(engine, "mean")
    engine.run([1.0, 3.0], max_epochs=2)
    assert seen == [2.0, 2.0]


def test_one_handler_serves_all_metrics() -> None:
    engine = echo()
    for name in "abc":
        Mean().attach(engine, name)
    (group,) = engine.find_handlers(MetricGroup)
    assert list(group.metrics) == ["a", "b", "c"]
    assert str(engine).count("MetricGroup.update") == 1


def test_supervised_evaluator_attaches_its_metrics() -> None:
    evaluator = supervised_evaluator(torch.nn.Identity(), metrics={"accuracy": Accuracy()})
    assert evaluator.run([(torch.eye(2), torch.tensor([0, 0]))]).metrics["accuracy"] == 0.5


def test_names_are_known_before_the_run() -> None:
    engine = echo()
    Mean().attach(engine, "mean")
    Keyed().attach(engine, "keyed")
    assert engine.metric_names() == ["inner", "keyed", "mean"]


def test_a_name_is_given_once() -> None:
    engine = echo()
    Mean().attach(engine, "mean")
    with pytest.raises(ValueError, match='the engine has a metric "mean" already'):
        Accuracy().attach(engine, "mean")
    Keyed().attach(engine, "keyed")
    with pytest.raises(ValueError, match='the engine has a metric "inner" already'):
        Mean().attach(engine, "inner")
    with pytest.raises(TypeError, match="attached under a name, but got None"):
        Mean().attach(engine, None)


def test_an_item_of_another_is_told_what_helps() -> None:
    engine = echo()
    Keyed().attach(engine, "keyed")
    with pytest.raises(ValueError, match=r"an item of this Keyed's value too; give it other keys .*prefix="):
        Keyed().attach(engine, "other")


def test_a_value_of_none_is_left_out_and_told_once() -> None:
    class Forgetful(Mean):
        def compute(self):
            super().compute()

    engine = echo()
    Forgetful().attach(engine, "mean")
    with pytest.warns(UserWarning, match='no value of "mean" for epoch 1: what computes this Forgetful') as told:
        assert "mean" not in engine.run([1.0], max_epochs=3).metrics
    assert len(told) == 1


def test_an_item_can_not_have_its_metrics_own_name() -> None:
    engine = echo()
    with pytest.raises(ValueError, match='the value of this Keyed is a mapping with an item "inner"'):
        Keyed().attach(engine, "inner")
    assert engine.metric_names() == []


def test_an_unforeseen_item_can_not_hide_a_metric() -> None:
    class Unforeseen(Keyed):
        result_keys = ()

    engine = echo()
    Unforeseen().attach(engine, "keyed")
    Mean().attach(engine, "inner")
    with pytest.raises(ValueError, match='the value of the metric "keyed" has an item "inner"'):
        engine.run([1.0])


def test_unforeseen_items_of_two_metrics_can_not_hide_each_other() -> None:
    class Unforeseen(Keyed):
        result_keys = ()

    engine = echo()
    Unforeseen().attach(engine, "one")
    Unforeseen().attach(engine, "other")
    with pytest.raises(ValueError, match='"other" has an item "inner", which is already a value of the metric "one"'):
        engine.run([1.0])


def test_items_may_stand_under_the_name_of_their_metric() -> None:
    class Extremes(Keyed):
        items_under_name = True

    engine = echo()
    Extremes().attach(engine, "one")
    Extremes().attach(engine, "other")
    assert engine.metric_names() == ["one", "one/inner", "other", "other/inner"]
    metrics = engine.run([1.0], max_epochs=2).metrics
    assert metrics["one/inner"] == metrics["other"]["inner"] == 1.0


def test_one_metric_may_have_two_names() -> None:
    engine, mean = echo(), Mean()
    mean.attach(engine, "a")
    mean.attach(engine, "b")
    assert dict(engine.run([1.0, 2.0]).metrics) == {"a": 1.5, "b": 1.5}


def test_detach() -> None:
    engine, mean, other = echo(), Mean(), Mean()
    mean.attach(engine, "mean")
    other.attach(engine, "other")
    assert mean.is_attached(engine)
    mean.detach(engine)
    assert not mean.is_attached(engine)
    assert engine.metric_names() == ["other"]
    assert dict(engine.run([1.0]).metrics) == {"other": 1.0}
    with pytest.raises(ValueError, match="this Mean is not attached"):
        mean.detach(engine)
    mean.attach(engine, "mean")
    assert engine.run([3.0]).metrics["mean"] == 3.0


def test_an_epoch_cut_short_is_measured_as_far_as_it_went() -> None:
    engine = echo()
    Mean().attach(engine, "mean")
    assert engine.run([1.0, 3.0, 50.0], max_iters=2).metrics["mean"] == 2.0


def test_a_source_that_is_reset_at_each_iteration_is_not_shared() -> None:
    engine, accuracy = echo(), Accuracy()
    accuracy.attach(engine, "accuracy")
    with pytest.raises(ValueError, match="RunningAverage resets its Accuracy at each iteration"):
        RunningAverage(accuracy).attach(engine, "smooth")
    (1 - RunningAverage(Accuracy())).attach(engine, "smooth error")
    assert engine.metric_names() == ["accuracy", "smooth error"]


# -- going on in mid-epoch ---------------------------------------------------------------------------------------------

OUTPUTS = [(torch.rand(4, 3), torch.randint(0, 3, (4,))) for _ in range(6)]


def evaluator():
    engine, precision = echo(), Precision()
    Accuracy().attach(engine, "accuracy")
    precision.attach(engine, "precision")
    (1 - Accuracy()).attach(engine, "error")
    RunningAverage(output_transform=lambda output: output[0].mean()).attach(engine, "smooth")
    return engine


def numbers(engine, **limits):
    return dict(engine.run(OUTPUTS, **limits).metrics)


def test_an_interrupted_epoch_goes_on_in_the_same_process() -> None:
    engine = evaluator()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), engine.interrupt)
    engine.run(OUTPUTS)
    assert numbers(engine) == numbers(evaluator())


@pytest.mark.parametrize("load_first", [False, True], ids=["attached, then loaded", "loaded, then attached"])
def test_an_interrupted_epoch_goes_on_from_a_state_dict(load_first) -> None:
    engine = evaluator()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=9), engine.interrupt)
    engine.run(OUTPUTS, max_epochs=2)
    state = engine.state_dict()
    engine.run(OUTPUTS)  # what was saved is a copy

    if load_first:
        other = echo()
        other.load_state_dict(state)
        Accuracy().attach(other, "accuracy")
        Precision().attach(other, "precision")
        (1 - Accuracy()).attach(other, "error")
        RunningAverage(output_transform=lambda output: output[0].mean()).attach(other, "smooth")
    else:
        other = evaluator()
        other.load_state_dict(state)
    assert numbers(other) == numbers(evaluator(), max_epochs=2)


def test_between_epochs_there_is_little_to_save() -> None:
    engine = evaluator()
    engine.run(OUTPUTS)
    assert engine.rank_state_dict()["handlers"] == {}


def test_the_state_of_another_rank_is_not_taken_over() -> None:
    engine = evaluator()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), engine.interrupt)
    engine.run(OUTPUTS)
    state = engine.state_dict()
    state["own"]["rank"] = 1
    with pytest.warns(UserWarning, match="rank 0 of 1 was given the state of rank 1 of 1"):
        evaluator().load_state_dict(state)


def test_a_metric_refuses_the_states_of_another() -> None:
    with pytest.raises(ValueError, match="Accuracy has the states _updates, correct, total, but was given _updates"):
        Accuracy().load_state_dict({"_updates": 1})
