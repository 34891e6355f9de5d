"""Attaches metrics to an engine by name: those that have an `attach`, and, by adapters, those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

ADAPTERS = "leyden.metrics"
"""The group of entry points under which packages offer adapters: functions that take an object and an
output_transform, and give what measures with it on an engine, `attach(engine, name, usage)`, or None.
"""


def attach_metrics(engine: Engine[Any, Any], metrics: Mapping[str, Any] | None) -> None:
    """Attaches each metric under its name.

    Raises TypeError, before any is attached, for what is no mapping of metrics by name.
    """
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        named = f'; a {kind} is one of them: {{"more": {kind}(...)}}' if from_another_package(metrics, None) else ""
        raise TypeError(
            f'metrics= takes metrics by name, such as {{"accuracy": Accuracy()}}, but got {kind}: {metrics!r}{named}'
        )
    for name, metric in {name: adapted(name, metric, None, "metrics=") for name, metric in metrics.items()}.items():
        metric.attach(engine, name)
        _lead(engine, metric)


def attach_metric(
    engine: Engine[Any, Any], name: str, metric: Any, output_transform: Callable[[Any], Any] | None, usage: Any
) -> None:
    """Attaches one metric; see `Engine.attach_metric`."""
    if not isinstance(name, str):
        kind = type(name).__name__
        raise TypeError(f'attach_metric takes the name first, attach_metric("name", {kind}(...)), but got {name!r}')
    measure = adapted(name, metric, output_transform, "attach_metric")
    if usage is None:
        measure.attach(engine, name)
    else:
        measure.attach(engine, name, usage)
    _lead(engine, measure)


def _lead(engine: Engine[Any, Any], metric: Any) -> None:
    if engine.measured is not None:
        engine.measured.lead_to(metric)


def from_another_package(metric: Any, output_transform: Callable[[Any], Any] | None) -> Any:
    """What measures with a metric of another package, None where no adapter knows it."""
    from importlib.metadata import entry_points  # costs as much as all else that leyden.engine imports

    found = (entry.load()(metric, output_transform) for entry in entry_points(group=ADAPTERS))
    return next((each for each in found if each is not None), None)


def adapted(name: str, metric: Any, output_transform: Callable[[Any], Any] | None, who: str) -> Any:
    """What is attached for that metric: itself, or what an adapter makes of it.

    Raises TypeError if it has no `attach` and no adapter knows it, ValueError for a second output_transform.
    """
    if isinstance(metric, type):
        kind = metric.__name__
        raise TypeError(f'{who} got the class {kind} for "{name}"; give it an object: {{"{name}": {kind}(...)}}')
    kind, package = type(metric).__name__, type(metric).__module__.partition(".")[0]
    if package == "ignite":
        raise TypeError(
            f'{who} got {kind} of Ignite for "{name}", which is attached to Ignite\'s engines; import {kind} from '
            "leyden.contrib.ignite.metrics, which takes its arguments or says what to write"
        )
    if hasattr(metric, "attach"):
        if output_transform is None or getattr(metric, "output_transform", None) is output_transform:
            return metric
        raise ValueError(f"give the output_transform to {type(metric).__name__} itself, where it is made")
    if (found := from_another_package(metric, output_transform)) is not None:
        return found
    if isinstance(metric, FunctionType):
        function = metric.__name__
        raise TypeError(
            f'{who} got the function {function} for "{name}", which has no attach(engine, name). Of leyden.metrics, '
            f"EpochMetric({function}) calls it on all predictions and targets of an epoch, and "
            "Mean(output_transform=...) averages a number of each batch"
        )
    problem = f'{who} got {kind} of {package} for "{name}", which has no attach(engine, name).'
    if all(hasattr(metric, method) for method in ("reset", "update", "compute")):
        raise TypeError(
            f"{problem} Make it handlers of the engine:\n\n"
            f"    metric = {kind}(...)\n"
            f"    engine.add_event_handler(Events.EPOCH_STARTED, metric.reset)\n\n"
            f"    @engine.on(Events.ITERATION_COMPLETED)\n"
            f"    def update(engine):\n"
            f"        metric.update(*engine.state.output)\n\n"
            f"    @engine.on(Events.EPOCH_COMPLETED, order=Order.METRICS)\n"
            f"    def compute(engine):\n"
            f'        engine.state.metrics["{name}"] = metric.compute()\n\n'
            f'    engine.declare_metrics("{name}")'
        )
    raise TypeError(f"{problem} A number of each batch is averaged by Mean(output_transform=...) of leyden.metrics")
