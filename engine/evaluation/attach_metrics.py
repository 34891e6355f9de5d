"""The `metrics=` of the supervised engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyden.engine.engine import Engine


def attach_metrics(engine: Engine[Any, Any], metrics: Mapping[str, Any] | None) -> None:
    """Attaches each metric under its name.

    Raises TypeError, before any is attached, for what is no mapping of metrics by name.
    """
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f'metrics= takes metrics by name, such as {{"accuracy": Accuracy()}}, but got {type(metrics).__name__}: '
            f"{metrics!r}"
        )
    for name, metric in metrics.items():
        _check(name, metric)
    for name, metric in metrics.items():
        metric.attach(engine, name)


def _check(name: str, metric: Any) -> None:
    if isinstance(metric, type):
        kind = metric.__name__
        raise TypeError(f'metrics= got the class {kind} for "{name}"; give it an object: {{"{name}": {kind}(...)}}')
    if hasattr(metric, "attach"):
        return
    kind, package = type(metric).__name__, type(metric).__module__.partition(".")[0]
    problem = f'metrics= got {kind} of {package} for "{name}", which has no attach(engine, name).'
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
