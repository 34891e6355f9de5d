"""At which steps which values are logged: means between points, metrics when they are new, each name in a group."""

from typing import Any

import pytest
import torch
from list_logger import ListLogger

from leyden.engine import Engine, Events, Update
from leyden.handlers import Evaluate
from leyden.handlers.loggers.window import WindowMean
from leyden.metrics import Accuracy, Mean, Metric, Precision, RunningAverage

Curves = dict[str, list[tuple[int, float]]]


def trained(
    logger: ListLogger, data: Any = range(6), *, output: Any = None, metrics: Any = (), **limits: Any
) -> Curves:
    """The curves of a run whose output is the number of the iteration."""
    engine = Engine(output or (lambda engine, batch: float(engine.state.iteration)))
    for name, metric in dict(metrics).items():
        metric.attach(engine, name)
    engine.attach(logger)
    engine.run(data, **limits)
    return logger.curves()


# -- the output --------------------------------------------------------------------------------------------------------


def test_the_last_small_batch_of_an_epoch_makes_no_zigzag() -> None:
    """Epochs of five batches, the last one small, with a loss of its own kind."""
    losses = [1.0, 1.0, 1.0, 1.0, 9.0]
    curves = trained(ListLogger(every=5), range(5), output=lambda engine, batch: losses[batch], max_epochs=3)
    assert curves["train/loss"] == [(5, 2.6), (10, 2.6), (15, 2.6)]


def test_a_point_that_does_not_meet_the_epochs_end_goes_on_over_it() -> None:
    assert trained(ListLogger(every=4), range(3), max_epochs=3)["train/loss"] == [(4, 2.5), (8, 6.5), (9, 9.0)]


def test_what_is_left_at_the_end_has_a_mean_of_its_own_and_a_short_run_has_a_point() -> None:
    assert trained(ListLogger(every=4), range(5))["train/loss"] == [(4, 2.5), (5, 5.0)]
    assert trained(ListLogger(every=50), range(3), max_epochs=2)["train/loss"] == [(6, 3.5)]


def test_a_run_that_ends_early_logs_what_is_left() -> None:
    engine, logger = Engine(lambda engine, batch: float(engine.state.iteration)), ListLogger(every=4)
    engine.attach(logger)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.terminate)
    engine.run(range(20))
    assert logger.curves()["train/loss"] == [(4, 2.5), (6, 5.5)]


def test_each_number_of_a_mapping_is_the_mean_of_the_iterations_that_had_it() -> None:
    def gan(engine: Engine, batch: int) -> dict[str, Any]:
        return {"d": torch.tensor(float(batch))} | ({"g": {"x": batch}} if batch % 2 else {})

    curves = trained(ListLogger(every=4), range(4), output=gan)
    assert curves == {"train/d": [(4, 1.5)], "train/g/x": [(4, 2.0)]}


def test_a_transform_gives_what_is_averaged() -> None:
    logger = ListLogger(every=2, output_transform=lambda output: {"loss": output[0], "note": "text"})
    assert trained(logger, range(4), output=lambda engine, batch: (batch, "x"))["train/loss"] == [(2, 0.5), (4, 2.5)]


def test_an_interrupted_run_goes_on_with_its_mean() -> None:
    def make() -> tuple[Engine, ListLogger]:
        engine, logger = Engine(lambda engine, batch: float(engine.state.iteration)), ListLogger(every=4)
        engine.attach(logger)
        return engine, logger

    engine, logger = make()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.interrupt):
        engine.run(range(10))
    saved = engine.state_dict()
    assert logger.curves()["train/loss"] == [(4, 2.5)]
    engine.run()
    expected = [(4, 2.5), (8, 6.5), (10, 9.5)]
    assert logger.curves()["train/loss"] == expected

    other, resumed = make()
    other.load_state_dict(saved)
    other.run(range(10))
    assert resumed.curves()["train/loss"] == expected[1:]


def test_a_run_from_the_beginning_begins_its_mean_anew() -> None:
    engine, logger = Engine(lambda engine, batch: float(batch)), ListLogger(every=4)
    engine.attach(logger)
    engine.run([1.0] * 5)
    engine.run([2.0] * 3)
    assert logger.curves()["train/loss"] == [(4, 1.0), (5, 1.0), (3, 2.0)]


def values(kind: str) -> list[Any]:
    parameter = torch.ones((), requires_grad=True)
    return {
        "python": [1, 2.5, True],
        "half": [torch.tensor(60000.0, dtype=torch.float16)] * 4,
        "bf16": [torch.tensor(1.0, dtype=torch.bfloat16)] * 600,
        "graph": [parameter * 2, parameter * 4],
        "one element": [torch.tensor([1.0]), torch.tensor([[3.0]])],
        "mixed": [torch.tensor(1.0), 3, torch.tensor(2, dtype=torch.int64), torch.tensor(6.0, dtype=torch.bfloat16)],
        "overwritten": [torch.tensor(1.0)],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "mean"),
    [("python", 1.5), ("half", 60000.0), ("bf16", 1.0), ("graph", 3.0), ("one element", 2.0), ("mixed", 3.0)],
)
def test_means_of_all_kinds_of_numbers(kind: str, mean: float) -> None:
    window = WindowMean()
    for value in values(kind):
        window.add("x", value)
    assert window.take() == {"x": mean}
    assert window.take() == {}


def test_a_tensor_that_the_step_writes_over_is_counted_as_it_was() -> None:
    buffer, window = torch.zeros(()), WindowMean()
    for number in (1.0, 2.0, 6.0):
        window.add("x", buffer.fill_(number))
    assert window.take() == {"x": 3.0}


def test_what_is_no_number_is_left_out() -> None:
    window = WindowMean()
    window.add_all({"image": torch.zeros(2, 2), "text": "a", "none": None, "wave": torch.tensor(1j), "empty": {}})
    assert window.take() == {}


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_a_value_of_an_earlier_evaluation_is_not_logged_again() -> None:
    engine, evaluator = Engine(lambda engine, batch: 0.0), Engine(lambda engine, batch: 0.5, training=False)
    Mean().attach(evaluator, "mean")
    logger = ListLogger(every=3)
    engine.attach(Evaluate(evaluator, range(2), prefix="val/", every=3), logger)
    engine.run(range(2), max_epochs=7)
    assert logger.curves()["val/mean"] == [(6, 0.5), (12, 0.5)], "equal values of two evaluations are two"


@pytest.mark.parametrize("every", [1, 2, 3, 6])
def test_a_running_average_is_logged_once_at_a_step(every: int) -> None:
    curves = trained(ListLogger(every=every), range(6), metrics={"smooth": RunningAverage()}, max_epochs=2)
    steps = [step for step, _ in curves["train/smooth"]]
    assert steps == sorted({*range(every, 13, every), 6, 12})


def test_a_running_average_over_data_of_unknown_length_is_logged_once_at_a_step() -> None:
    curves = trained(ListLogger(every=2), (x for x in range(4)), metrics={"smooth": RunningAverage()}, max_epochs=1)
    assert [step for step, _ in curves["train/smooth"]] == [2, 4]


class Scores(Metric):
    """A metric with two values."""

    required_output_keys = None
    result_keys = ("high", "low")

    def update(self, output: Any) -> None:
        self.last = output

    def compute(self) -> dict[str, float]:
        return {"high": 0.75, "low": 0.25}


@pytest.mark.parametrize("prefix", ["", "val/", "val_"])
def test_a_metric_with_several_values_is_logged_once(prefix: str) -> None:
    engine, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: 0.5, training=False)
    Scores().attach(evaluator, "scores")
    logger = ListLogger(every=None)
    engine.attach(Evaluate(evaluator, range(2), prefix=prefix), logger)
    engine.run(range(2))
    name = "val/val_scores" if prefix == "val_" else "val/scores"
    assert logger.curves() == {f"{name}/high": [(2, 0.75)], f"{name}/low": [(2, 0.25)]}


def test_one_of_several_values_may_be_chosen_by_its_own_name() -> None:
    assert trained(ListLogger(every=None, metrics=["high"]), metrics={"scores": Scores()}) == {
        "train/high": [(6, 0.75)]
    }


def test_what_was_measured_before_training_and_between_two_runs_is_logged_where_it_was() -> None:
    engine, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: 0.5, training=False)
    Mean().attach(evaluator, "mean")
    evaluate, logger = Evaluate(evaluator, range(2), prefix="val/", every=100), ListLogger(every=None)
    engine.attach(evaluate, logger)
    evaluate.evaluate(engine)
    engine.run(range(3), max_epochs=1)
    evaluate.evaluate(engine)
    engine.run(range(3), max_epochs=2)
    assert logger.curves()["val/mean"] == [(0, 0.5), (3, 0.5)]


def test_metrics_of_a_restored_state_are_old() -> None:
    def make() -> tuple[Engine, ListLogger]:
        engine, logger = Engine(lambda engine, batch: None), ListLogger(every=2)
        engine.attach(logger)
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: engine.state.metrics.update({"val/x": 0.5}))
        return engine, logger

    engine, _ = make()
    engine.run(range(4), max_epochs=1)
    for own in (True, False):
        other, logger = make()
        other.load_state_dict(engine.state_dict(own=own))
        other.run(range(4), max_epochs=3)
        assert "val/x" not in logger.curves(), own


@pytest.mark.parametrize("in_process", [True, False], ids=["in the same process", "in another process"])
def test_a_run_stopped_in_an_evaluation_logs_each_value_once(in_process: bool) -> None:
    def make() -> tuple[Engine, Engine, ListLogger]:
        engine, evaluator = Engine(lambda engine, batch: 1.0), Engine(lambda engine, batch: 0.5, training=False)
        Mean().attach(evaluator, "mean")
        Mean().attach(engine, "own")
        logger = ListLogger(every=2)
        engine.attach(Evaluate(evaluator, range(3), prefix="val/"), logger)
        return engine, evaluator, logger

    engine, evaluator, logger = make()
    with evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt):
        engine.run(range(4), max_epochs=2)
    curves = logger.curves()
    if not in_process:
        saved = engine.state_dict()
        engine, _, logger = make()
        engine.load_state_dict(saved)
    engine.run(range(4), max_epochs=2)
    for name, points in logger.curves().items():
        curves[name] = points if in_process else curves.get(name, []) + points
    assert curves == {
        "train/loss": [(2, 1.0), (4, 1.0), (6, 1.0), (8, 1.0)],
        "train/own": [(4, 1.0), (8, 1.0)],
        "val/mean": [(4, 0.5), (8, 0.5)],
    }


# -- names -------------------------------------------------------------------------------------------------------------


def test_every_name_has_one_of_two_groups_and_the_epoch_is_a_series() -> None:
    model = torch.nn.Linear(1, 2)
    engine = Engine(lambda engine, batch: torch.tensor(0.5))
    evaluator = Engine(lambda engine, batch: (torch.tensor([[0.2, 0.8]]), torch.tensor([1])), training=False)
    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.5))
    RunningAverage().attach(engine, "loss")
    Accuracy().attach(evaluator, "accuracy")
    Precision(average=None).attach(evaluator, "precision")
    logger = ListLogger(every=2)
    engine.attach(Evaluate(evaluator, range(1)), logger)
    engine.run(range(4), max_epochs=2)
    assert set(logger.curves()) == {
        "train/loss", "train/loss_metric", "train/lr", "val/accuracy", "val/precision/0", "val/precision/1",
    }  # fmt: skip
    epochs = [(value.step, value.number) for value in logger.values if value.name == "train/epoch"]
    assert epochs == [(2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0)]


def test_an_engine_that_does_not_train_logs_in_the_group_of_evaluations() -> None:
    engine, logger = Engine(lambda engine, batch: 0.5, training=False), ListLogger(every=2)
    Mean().attach(engine, "mean")
    engine.attach(logger)
    engine.run(range(4))
    assert {value.name for value in logger.values} == {"val/output", "val/mean", "val/epoch"}


# -- param groups ------------------------------------------------------------------------------------------------------


def groups_of(engine: Engine, *sizes: int, **options: Any) -> None:
    modules = [torch.nn.Linear(1, 1) for size in sizes if size]
    left = iter(modules)
    groups = [
        {"params": next(left).parameters() if size else [], "lr": 0.1 * place, "name": f"g{place}"}
        for place, size in enumerate(sizes, start=1)
    ]
    Update(engine, modules, torch.optim.SGD(groups, **options))


def test_learning_rates_of_all_groups_and_none_of_an_empty_one() -> None:
    engine, logger = Engine(lambda engine, batch: None), ListLogger(every=1)
    groups_of(engine, 2, 0, 2, lr=1.0, momentum=0.5)
    engine.attach(logger)
    engine.run(range(1))
    assert logger.curves() == {"train/lr/g1": [(1, 0.1)], "train/lr/g3": [(1, 0.1 * 3)]}
    rates = {name: text for name, text in logger.kept_params.items() if name.startswith("optimizer/")}
    assert rates["optimizer/lr/g1"] == "0.1"
    assert rates["optimizer/lr/g3"] == str(0.1 * 3)
    assert not {"optimizer/lr", "optimizer/lr/g2"} & rates.keys()
    assert rates["optimizer/momentum"] == "0.5", "what all groups share is given once"


# -- evaluations -------------------------------------------------------------------------------------------------------


def evaluated(logger: ListLogger, **settings: Any) -> Curves:
    """A run whose output, 2.0, and whose evaluations, 5.0, are both called loss."""
    model = torch.nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: torch.tensor(2.0))
    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.5))
    evaluator = Engine(lambda engine, batch: 5.0, training=False)
    Mean().attach(evaluator, "loss")
    engine.attach(Evaluate(evaluator, range(1), **settings), logger)
    engine.run(range(4), max_epochs=2)
    return logger.curves()


def test_an_evaluation_of_the_training_data_has_a_curve_of_its_own() -> None:
    curves = evaluated(ListLogger(every=2, learning_rates=False), prefix="train/")
    assert curves["train/loss"] == [(2, 2.0), (4, 2.0), (6, 2.0), (8, 2.0)]
    assert curves["train/loss_metric"] == [(4, 5.0), (8, 5.0)]


@pytest.mark.parametrize("every", [2, 50])
def test_what_is_measured_before_the_first_step_stands_there(every: int) -> None:
    curves = evaluated(ListLogger(every=every), prefix="val/", on=Events.STARTED | Events.EPOCH_COMPLETED)
    assert curves["val/loss"] == [(0, 5.0), (4, 5.0), (8, 5.0)]
