"""Ignite's loggers, bar and timer, beside Ignite's own: the same script, the same points."""

import io
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import leyden.engine
from leyden.contrib.ignite.handlers.log_handlers import OptimizerParamsHandler, OutputHandler, global_step_from_engine
from leyden.contrib.ignite.handlers.loggers import MLflowLogger, TensorboardLogger
from leyden.contrib.ignite.handlers.timing import Timer
from leyden.contrib.ignite.handlers.tqdm_logger import ProgressBar
from leyden.contrib.ignite.handlers.weight_handlers import (
    GradsHistHandler,
    GradsScalarHandler,
    WeightsHistHandler,
    WeightsScalarHandler,
)
from leyden.engine import Engine, Events, supervised_trainer

LEYDEN = SimpleNamespace(
    Engine=leyden.engine.Engine,
    Events=leyden.engine.Events,
    Timer=Timer,
    TensorboardLogger=TensorboardLogger,
    WeightsScalarHandler=WeightsScalarHandler,
    WeightsHistHandler=WeightsHistHandler,
    GradsScalarHandler=GradsScalarHandler,
    GradsHistHandler=GradsHistHandler,
    OutputHandler=OutputHandler,
    OptimizerParamsHandler=OptimizerParamsHandler,
    global_step_from_engine=global_step_from_engine,
)


def ignites() -> SimpleNamespace:
    """The same names of Ignite's own."""
    engine, tensorboard = (
        pytest.importorskip("ignite.engine"),
        pytest.importorskip("ignite.handlers.tensorboard_logger"),
    )
    names = {name: getattr(tensorboard, name) for name in tensorboard.__all__}
    timer = pytest.importorskip("ignite.handlers").Timer
    return SimpleNamespace(Engine=engine.Engine, Events=engine.Events, Timer=timer, **names)


def read(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[int]]]:
    """Points and steps of histograms by name."""
    from tensorboardX.proto.event_pb2 import Event

    numbers: dict[str, list[tuple[int, float]]] = {}
    histograms: dict[str, list[int]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    numbers.setdefault(value.tag, []).append((event.step, value.simple_value))
                elif value.HasField("histo"):
                    histograms.setdefault(value.tag, []).append(event.step)
    return numbers, histograms


def script(house: Any, folder: Path) -> None:
    """As Ignite's users write it: zero_grad first, an evaluator run by a handler."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    data = [torch.randn(4, 2) for _ in range(4)]

    def train(engine: Any, batch: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer, evaluator = house.Engine(train), house.Engine(lambda engine, batch: model(batch).mean().item())
    trainer.state.alpha = 0.5
    trainer.add_event_handler(house.Events.EPOCH_COMPLETED, lambda engine: evaluator.run(data))

    def measure(engine: Any) -> None:
        nested = {"a": torch.tensor(0.25), "b": [1, {"c": torch.tensor([2.0, 3.0])}]}
        engine.state.metrics = {"mean": engine.state.output, "nested": nested}

    evaluator.add_event_handler(house.Events.EPOCH_COMPLETED, measure)
    with house.TensorboardLogger(log_dir=str(folder)) as logger:
        logger.attach_output_handler(
            trainer,
            event_name=house.Events.ITERATION_COMPLETED(every=2),
            tag="training",
            output_transform=lambda loss: {"batchloss": loss},
            state_attributes=["alpha"],
        )
        logger.attach_output_handler(
            evaluator,
            event_name=house.Events.EPOCH_COMPLETED,
            tag="validation",
            metric_names="all",
            global_step_transform=house.global_step_from_engine(trainer),
        )
        logger.attach_output_handler(
            evaluator,
            event_name=house.Events.EPOCH_COMPLETED,
            tag="steps",
            metric_names=["mean"],
            global_step_transform=house.global_step_from_engine(trainer, house.Events.ITERATION_COMPLETED),
        )
        logger.attach_opt_params_handler(trainer, house.Events.ITERATION_STARTED, optimizer=optimizer)
        for handler in (
            house.WeightsScalarHandler(model, whitelist=["0"]),
            house.WeightsHistHandler(model, tag="all"),
            house.GradsScalarHandler(model, reduction=torch.max),
            house.GradsHistHandler(model, whitelist=lambda name, parameter: "bias" in name),
        ):
            logger.attach(trainer, event_name=house.Events.ITERATION_COMPLETED(every=4), log_handler=handler)
        logger.attach(
            trainer,
            log_handler=house.OptimizerParamsHandler(optimizer, tag="both"),
            event_name=house.Events.STARTED | house.Events.COMPLETED,
        ) if house is LEYDEN else None
        logger.writer.add_scalar("by hand", 1.0, 7)
        logger.add_scalar("by hand", 2.0, 8)
        trainer.run(data, max_epochs=2)


def test_the_same_script_leaves_the_points_that_ignite_leaves(tmp_path: Path) -> None:
    script(LEYDEN, tmp_path / "leyden")
    script(ignites(), tmp_path / "ignite")
    numbers, histograms = read(tmp_path / "leyden")
    expected_numbers, expected_histograms = read(tmp_path / "ignite")
    assert numbers.pop("both/lr/group_0") == [(0, pytest.approx(0.1)), (2, pytest.approx(0.1))]
    assert numbers.pop("both/lr/group_1") == [(0, pytest.approx(0.2)), (2, pytest.approx(0.2))]
    assert numbers == expected_numbers
    assert histograms == expected_histograms
    assert {"validation/nested/b/1/c/0", "grads_max/1/bias", "weights_norm/0/weight"} <= numbers.keys()


@pytest.mark.parametrize(
    ("event", "steps"),
    [
        (Events.ITERATION_COMPLETED(every=2), [2, 4, 6]),
        (Events.EPOCH_COMPLETED, [1, 2]),
        (Events.EPOCH_COMPLETED(once=2), [2]),
    ],
    ids=str,
)
def test_gradients_of_an_update_are_those_that_its_step_takes(tmp_path: Path, event: Any, steps: list[int]) -> None:
    """At the end of an iteration they are gone: leyden sets them to zero after the step."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    with TensorboardLogger(tmp_path) as logger:
        logger.attach(trainer, GradsScalarHandler(model), event)
        trainer.run([(torch.randn(2, 2), torch.randn(2, 1)) for _ in range(3)], max_epochs=2)
    points = read(tmp_path)[0]["grads_norm/weight"]
    assert [step for step, _ in points] == steps
    assert all(number > 0 for _, number in points)


def test_a_handle_takes_the_handler_away(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: 0.5)
    logger = TensorboardLogger(tmp_path)
    handle = logger.attach_output_handler(
        engine, Events.ITERATION_COMPLETED | Events.EPOCH_COMPLETED, tag="a", output_transform=lambda output: output
    )
    engine.run(range(2), max_epochs=1)
    handle.remove()
    engine.run(range(2), max_epochs=2)
    logger.close()
    assert read(tmp_path)[0] == {"a/output": [(1, 0.5), (2, 0.5), (1, 0.5)]}


def test_a_logger_that_failed_or_was_never_closed_has_all_its_points(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from leyden.contrib.ignite.handlers.loggers import TensorboardLogger\n"
        "from leyden.engine import Engine, Events\n"
        f"engine, logger = Engine(lambda engine, batch: 0.5), TensorboardLogger({str(tmp_path)!r})\n"
        "logger.attach_output_handler(engine, Events.ITERATION_COMPLETED, tag='a', output_transform=float)\n"
        "engine.run(range(3))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert read(tmp_path)[0] == {"a/output": [(1, 0.5), (2, 0.5), (3, 0.5)]}


def test_mlflow(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    engine = Engine(lambda engine, batch: float(batch))
    logger = MLflowLogger(tracking_uri=uri)

    def failing_script() -> None:
        with logger:
            logger.log_params({"seed": 3})
            logger.attach_output_handler(
                engine, Events.ITERATION_COMPLETED, tag="training", output_transform=lambda x: {"loss": x}
            )
            engine.run(range(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_script()
    run = MlflowClient(tracking_uri=uri).get_run(logger.run_id)
    assert (run.info.status, run.data.params["seed"]) == ("FAILED", "3")
    history = MlflowClient(tracking_uri=uri).get_metric_history(logger.run_id, "training loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.0), (2, 1.0), (3, 2.0)]


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="OutputHandler needs something to log"):
        OutputHandler("tag")
    with pytest.raises(TypeError, match=r'metric_names is a list of names or "all", but got \'loss\''):
        OutputHandler("tag", metric_names="loss")
    with pytest.raises(TypeError, match="output_transform is a function, but got 3"):
        OutputHandler("tag", output_transform=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes an optimizer with param_groups"):
        OptimizerParamsHandler(nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"reduction has to give one number, but gives a tensor of shape \(4, 2\)"):
        WeightsScalarHandler(nn.Linear(1, 1), reduction=torch.abs)
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match=r"logs by handlers: attach\(engine, log_handler, event_name\)"):
        engine.attach(TensorboardLogger())
    step = OutputHandler("a", metric_names="all", global_step_transform=lambda engine, event: 0.5)
    with pytest.raises(TypeError, match=r"global_step_transform has to give a whole number, but gave 0\.5"):
        step(engine, TensorboardLogger(), Events.STARTED)
    with pytest.warns(UserWarning, match="there is no metric 'f1' to log; the engine has: none"):
        OutputHandler("a", metric_names=["f1"]).values(engine)


# -- the bar -----------------------------------------------------------------------------------------------------------


def test_the_bar_shows_what_attach_names() -> None:
    engine, file = Engine(lambda engine, batch: {"l": 0.5}), io.StringIO()
    engine.state.alpha = 3
    engine.declare_metrics("loss", "other")
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: engine.state.metrics.update(loss=0.25, other=1))
    bar = ProgressBar(persist=True, file=file, desc="Round")
    bar.attach(engine, ["loss"], output_transform=lambda output: output["l"], state_attributes=["alpha"])
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: bar.log_message("a line"))
    engine.run(range(4), max_epochs=1)
    lines = file.getvalue().splitlines()
    assert lines[0] == "a line"
    assert lines[1].startswith("Round 1/1: 100% 4/4")
    assert lines[1].endswith("output=0.5, alpha=3, loss=0.25]")


def test_one_bar_for_several_engines_and_without_names() -> None:
    file = io.StringIO()
    bar, engines = ProgressBar(file=file), [Engine(lambda engine, batch: 0.5) for _ in range(2)]
    for engine in engines:
        bar.attach(engine, event_name=Events.ITERATION_COMPLETED(every=2))
        engine.run(range(2))
    assert "loss" not in file.getvalue()
    assert file.getvalue().count("Epoch 1/1: 100% 2/2") == 4, "every second iteration, and at the end"


def test_a_bar_over_other_events_is_refused() -> None:
    for arguments in ({"event_name": Events.EPOCH_COMPLETED}, {"closing_event_name": Events.COMPLETED}):
        with pytest.raises(ValueError, match="ProgressBar shows the iterations of an epoch"):
            ProgressBar().attach(Engine(lambda engine, batch: None), **arguments)


# -- the timer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["leyden", "ignite"])
def test_a_timer_of_the_steps_leaves_out_what_is_between(whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house, now = LEYDEN if whose == "leyden" else ignites(), [0.0]
    module = "leyden.contrib.ignite.handlers.timing" if whose == "leyden" else "ignite.handlers.timing"
    monkeypatch.setattr(f"{module}.perf_counter", lambda: now[0])

    def work(engine: Any, batch: int) -> None:
        now[0] += 2.0

    def wait() -> Any:
        for batch in range(4):
            now[0] += 5.0
            yield batch

    engine, events = house.Engine(work), house.Events
    steps, whole = house.Timer(average=True), house.Timer()
    steps.attach(
        engine,
        start=events.STARTED,
        resume=events.ITERATION_STARTED,
        pause=events.ITERATION_COMPLETED,
        step=events.ITERATION_COMPLETED,
    )
    assert whole.attach(engine) is whole
    engine.run(list(range(4)))
    now[0] += 100.0
    assert (steps.value(), steps.step_count, steps.running) == (2.0, 4.0, False)
    assert (whole.value(), whole.total) == (8.0, 8.0)


def test_a_timer_by_hand() -> None:
    timer = Timer()
    time.sleep(0.01)
    timer.pause()
    first = timer.value()
    assert first >= 0.01
    time.sleep(0.01)
    assert timer.value() == first
    timer.resume()
    assert timer.running
    assert math.isclose(timer.reset().value(), 0.0, abs_tol=0.005)
