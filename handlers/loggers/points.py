"""What is logged when, and under which name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from leyden.engine import Engine
from leyden.engine.values import MetricWatch
from leyden.handlers.evaluating import Evaluate
from leyden.handlers.loggers.values import (
    MetricChoice,
    chosen_metrics,
    learning_rates,
    output_name,
    scalars,
)
from leyden.handlers.loggers.window import WindowMean
from leyden.metrics import OutputTransform

NO_MAPPINGS = frozenset({torch.Tensor, float, int, tuple})
"""Types that are known not to be mappings, which saves a slow check in each step."""


class Points:
    """The numbers of a run's logging points: each mean, metric and learning rate once at a step.

    Every name belongs to a group. What has none by its own name is of the group "train"; in an engine that does not
    train, and if an evaluation brought it, of "val". A metric that has the name of one of the output's numbers gets
    "_metric" behind it.
    """

    def __init__(
        self, every: int | None, metrics: MetricChoice, output_transform: OutputTransform | None, learning_rates: bool
    ) -> None:
        self._every = every
        self._metrics = metrics
        self._output_transform = output_transform
        self._learning_rates = learning_rates
        self._window = WindowMean()
        self._watch = MetricWatch()
        self._numbers: dict[str, float] = {}  # of metrics when they were last looked at; some change in place
        self._begun = False
        self._restored = False
        self._output_name = ""
        self._step = -1
        self._logged: dict[str, float] = {}  # at this step

    # -- moments -----------------------------------------------------------------------------------------------------

    def begin(self, engine: Engine[Any, Any]) -> dict[str, float]:
        """Where a run starts: the metrics that are there and not logged yet, be it that they were measured before
        training or between two runs.
        """
        first, goes_on = not self._begun, engine.state.iteration > 0
        self._begun, self._output_name, self._step = True, output_name(engine), -1
        restored, self._restored = self._restored, False
        if restored and engine.suspended is not None:
            return {}  # the handlers that are still to run log what is new
        if first == goes_on or restored:  # what is there is of another run, or was logged by the one that saved it
            self._watch.catch_up(engine.state.metrics)
        if not (goes_on and (restored or not first)):
            self._window.clear()
        elif restored and self._every is not None and engine.state.iteration % self._every == 0:
            self._window.take()
        return self._once(engine, self._new_metrics(engine, in_place=False))

    def at_start(self, engine: Engine[Any, Any]) -> dict[str, float]:
        """After the handlers of a run's start: what they measured."""
        return self._once(engine, self._new_metrics(engine, in_place=False))

    def observe(self, engine: Engine[Any, Any]) -> None:
        """After each iteration: its output counts."""
        output = engine.state.output
        if output is None:
            return
        if self._output_transform is not None:
            output = self._output_transform(output)
        if type(output) in NO_MAPPINGS or not isinstance(output, Mapping):
            self._window.add(self._output_name, output)
        else:
            self._window.add_all(output)

    def at_iteration(self, engine: Engine[Any, Any]) -> dict[str, float]:
        """Every so many iterations. What metrics have where an epoch ends is left to its end, when they are whole."""
        found = self._training_values(engine, self._window.take())
        if engine.state.iteration != engine.last_iteration:
            found |= self._new_metrics(engine)
        return self._once(engine, found)

    def at_epoch(self, engine: Engine[Any, Any]) -> dict[str, float]:
        """Where an epoch ends: the metrics. Its mean goes on; the last batches of an epoch alone would be noise."""
        return self._once(engine, self._epoch(engine) | self._new_metrics(engine))

    def at_end(self, engine: Engine[Any, Any]) -> dict[str, float]:
        """Where the run ends: the mean of what came after the last point, and of that alone."""
        rest = self._window.take()
        found = self._training_values(engine, rest) if rest else {}
        return self._once(engine, found | self._new_metrics(engine))

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"window": self._window.state_dict(), "seen": self._watch.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from such a state, or an empty one."""
        self._restored = True
        self._window.clear()
        if state_dict:
            self._window.load_state_dict(state_dict["window"])
            self._watch.load_state_dict(state_dict["seen"])

    # -- numbers -----------------------------------------------------------------------------------------------------

    def _training_values(self, engine: Engine[Any, Any], means: dict[str, float]) -> dict[str, float]:
        group = _group(engine)
        found = {group + name: number for name, number in means.items()}
        if self._learning_rates:
            found |= {group + name: number for name, number in learning_rates(engine).items()}
        return found | self._epoch(engine)

    def _epoch(self, engine: Engine[Any, Any]) -> dict[str, float]:
        return {_group(engine) + "epoch": float(engine.state.epoch)}

    def _new_metrics(self, engine: Engine[Any, Any], in_place: bool = True) -> dict[str, float]:
        """The metrics set since the last call, or whose tensor was changed in place."""
        metrics = engine.state.metrics
        new = set(self._watch.new(metrics))
        found: dict[str, float] = {}
        numbers: dict[str, float] = {}
        for name in chosen_metrics(metrics, self._metrics):
            values = scalars(metrics[name], self._name(engine, name))
            numbers |= values
            if name in new:
                found |= values
            elif in_place:
                found |= {key: number for key, number in values.items() if not _equal(self._numbers.get(key), number)}
        self._numbers = numbers
        self._watch.catch_up(metrics)
        return found

    def _name(self, engine: Engine[Any, Any], metric: str) -> str:
        group = _group(engine)
        if "/" not in metric:
            brought = any(metric in each.names() for each in engine.find_handlers(Evaluate))
            metric = ("val/" if brought else group) + metric
        own = metric.startswith(group) and metric.removeprefix(group) in self._window.names
        return metric + ("_metric" if own else "")

    def _once(self, engine: Engine[Any, Any], numbers: dict[str, float]) -> dict[str, float]:
        """Leaves out those that are already logged at this step."""
        if engine.state.iteration != self._step:
            self._step, self._logged = engine.state.iteration, {}
        fresh = {name: number for name, number in numbers.items() if not _equal(self._logged.get(name), number)}
        self._logged |= fresh
        return fresh


def _group(engine: Engine[Any, Any]) -> str:
    return "train/" if engine.training else "val/"


def _equal(one: float | None, other: float) -> bool:
    return one == other or (one is not None and math.isnan(one) and math.isnan(other))
