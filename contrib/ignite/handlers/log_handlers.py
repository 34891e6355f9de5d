"""What Ignite's loggers log at an event: outputs, metrics and the state's attributes; fields of param groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from leyden.engine import Engine
from leyden.engine.events import COUNTERS, without_filter

StepTransform = Callable[[Engine[Any, Any], Any], int]


def count_of(engine: Engine[Any, Any], event: Any, fallback: str = "epoch") -> int:
    """How often an event has come: the iteration or the epoch of the engine."""
    return int(getattr(engine.state, COUNTERS.get(without_filter(event), fallback)))


def global_step_from_engine(
    engine: Engine[Any, Any], custom_event_name: Any = None, fallback_attr: str = "epoch"
) -> StepTransform:
    """For `global_step_transform=`: the count of the event (or of `custom_event_name`) on this engine, as of a trainer
    whose evaluator is logged.
    """

    def step(_: Any, event: Any) -> int:
        return count_of(engine, event if custom_event_name is None else custom_event_name, fallback_attr)

    return step


class OutputHandler:
    """Logs, under `tag`, metrics ("all" or a list of names), what `output_transform` makes of the output, and
    attributes of the state. `global_step_transform(engine, event)`: the step; by default the event's count.

    Raises TypeError or ValueError for arguments that name nothing to log.
    """

    def __init__(
        self,
        tag: str,
        metric_names: str | list[str] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        global_step_transform: StepTransform | None = None,
        state_attributes: list[str] | None = None,
    ) -> None:
        if metric_names is not None and metric_names != "all" and not isinstance(metric_names, list):
            raise TypeError(f'metric_names is a list of names or "all", but got {metric_names!r}')
        for name, function in (("output_", output_transform), ("global_step_", global_step_transform)):
            if function is not None and not callable(function):
                raise TypeError(f"{name}transform is a function, but got {function!r}")
        if metric_names is None and output_transform is None and state_attributes is None:
            raise ValueError("OutputHandler needs something to log: metric_names, output_transform or state_attributes")
        self.tag = tag
        self.metric_names = metric_names
        self.output_transform = output_transform
        self.global_step_transform = global_step_transform or count_of
        self.state_attributes = state_attributes

    def __call__(self, engine: Engine[Any, Any], logger: Any, event: Any) -> None:
        step = self.global_step_transform(engine, event)
        if isinstance(step, bool) or not isinstance(step, Integral):
            raise TypeError(f"global_step_transform has to give a whole number, but gave {step!r}")
        logger.log_metrics(self.values(engine, logger.separator), step=int(step))

    def values(self, engine: Engine[Any, Any], separator: str = "/") -> dict[str, float]:
        """The numbers by name, `tag` first."""
        found: dict[str, Any] = {}
        metrics = engine.state.metrics
        for name in metrics if self.metric_names == "all" else self.metric_names or ():
            if name in metrics:
                found[name] = metrics[name]
            else:
                there = ", ".join(metrics) or "none"
                warnings.warn(f"there is no metric {name!r} to log; the engine has: {there}", stacklevel=2)
        if self.output_transform is not None:
            output = self.output_transform(engine.state.output)
            found |= output if isinstance(output, Mapping) else {"output": output}
        for name in self.state_attributes or ():
            found[name] = getattr(engine.state, name, None)
        return dict(_numbers(found, self.tag, separator))


class OptimizerParamsHandler:
    """Logs a field of each param group, by default the learning rate: `[tag/]lr/group_0`."""

    def __init__(self, optimizer: Any, param_name: str = "lr", tag: str | None = None) -> None:
        if not isinstance(getattr(optimizer, "param_groups", None), Sequence):
            raise TypeError(f"OptimizerParamsHandler takes an optimizer with param_groups, but got {optimizer!r}")
        self.optimizer = optimizer
        self.param_name = param_name
        self.tag = tag

    def __call__(self, engine: Engine[Any, Any], logger: Any, event: Any) -> None:
        start = [self.tag, self.param_name] if self.tag else [self.param_name]
        values = {
            logger.separator.join([*start, f"group_{place}"]): float(group[self.param_name])
            for place, group in enumerate(self.optimizer.param_groups)
        }
        logger.log_metrics(values, step=count_of(engine, event))


def _numbers(values: Mapping[Any, Any], prefix: str, separator: str) -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, sequences and vectors, each by its way there."""
    for key, value in values.items():
        name = f"{prefix}{separator}{key}" if prefix else str(key)
        if isinstance(value, torch.Tensor) and value.ndim < 2:
            if value.ndim == 0:
                yield name, float(value)
            else:
                yield from _numbers(dict(enumerate(value.tolist())), name, separator)
        elif isinstance(value, Real):
            yield name, float(value)
        elif isinstance(value, Mapping):
            yield from _numbers(value, name, separator)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield from _numbers(dict(enumerate(value)), name, separator)
        else:
            warnings.warn(f"{name} is a {type(value).__name__}, which can't be logged as a number", stacklevel=2)
