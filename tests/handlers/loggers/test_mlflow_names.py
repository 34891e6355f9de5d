"""Names as MLflow takes them: its own rules are asked, and no two curves become one."""

from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine, Events
from leyden.handlers.loggers import MLflowLogger
from leyden.handlers.loggers.mlflow_names import MLflowNames

NAMES = [
    "точность",
    "полнота_",
    "R@1",
    "R#1",
    "R_1",
    "/aux",
    "aux",
    "a//b",
    "a/b",
    ".",
    "..",
    "",
    "/",
    "../x",
    "x/",
    "x",
]
NAMES += ["y" * 251, "y" * 252, "a\nb", "loss (val)", "日本/語", "a/./b", "%", "$"]


def client(place: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")


def test_each_name_becomes_another_one_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric

    names = MLflowNames()
    clean = [names.clean(name) for name in NAMES]
    for name in clean:
        _validate_metric(name, 1.0, 1, 1)
    assert len(set(clean)) == len(NAMES)
    assert clean == [names.clean(name) for name in NAMES], "and stays the same"

    assert (clean[0], clean[1], clean[NAMES.index("日本/語")]) == ("точность", "полнота_", "日本/語")


def test_a_resumed_run_goes_on_with_the_names_it_had() -> None:
    before, after = MLflowNames(), MLflowNames()
    first = {name: before.clean(name) for name in ("R@1", "R#1", "R_1")}
    after.restore(before.given)
    assert {name: after.clean(name) for name in ("R_1", "R#1", "R@1")} == first


def test_a_name_that_stayed_is_taken_in_a_resumed_run_too() -> None:
    before, after = MLflowNames(), MLflowNames()
    assert before.clean("R_1") == "R_1"
    after.restore(before.given)
    assert after.clean("R@1") != after.clean("R_1") == "R_1"


def test_four_metrics_are_four_curves(workspace: Path) -> None:
    engine, logger = Engine(lambda engine, batch: None), MLflowLogger("names", every=None)
    engine.attach(logger)
    values = {"точность": 0.25, "полнота_": 0.75, "R@1": 1.0, "R#1": 2.0}
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(values))
    with pytest.warns(UserWarning, match=r"'train/R[@#]1' is logged as 'train/R_1") as told:
        engine.run(range(1), max_epochs=3)
    assert len([each for each in told if "is logged as" in str(each.message)]) == 2, "each once"
    metrics = client(workspace).get_run(logger.run_id).data.metrics
    del metrics["train/epoch"]
    assert sorted(metrics.values()) == [0.25, 0.75, 1.0, 2.0]
    assert (metrics["train/точность"], metrics["train/полнота_"], metrics["train/R_1"]) == (0.25, 0.75, 1.0)


@pytest.mark.filterwarnings("ignore:MLflowLogger:UserWarning")
def test_bad_names_lose_no_curve(workspace: Path) -> None:
    engine, logger = Engine(lambda engine, batch: 0.5), MLflowLogger("names", every=1)
    engine.attach(logger)

    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def log() -> None:
        logger.log_metrics({name: float(place) for place, name in enumerate(NAMES)}, step=2)
        logger.log_params({name: place for place, name in enumerate(NAMES)})

    engine.run(range(3))
    run = client(workspace).get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert len(client(workspace).get_metric_history(logger.run_id, "train/loss")) == 3
    assert set(range(len(NAMES))) <= set(run.data.metrics.values())
    assert {str(place) for place in range(len(NAMES))} <= set(run.data.params.values())
