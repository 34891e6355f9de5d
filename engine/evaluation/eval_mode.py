"""Evaluating as models are meant to be evaluated: in eval mode, without gradients, and as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine.engine import Engine
from leyden.engine.events.names import Events
from leyden.engine.events.signatures import check_process
from leyden.engine.setup import Stage
from leyden.engine.values.attach_metrics import attach_metrics
from leyden.engine.values.moving import move_module


def custom_evaluator(
    model: nn.Module | Sequence[nn.Module],
    step: Callable[[Engine[Any, Any], Any], Any],
    metrics: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
) -> Engine[Any, Any]:
    """An engine that evaluates by a step of one's own, `step(engine, batch)`, in eval mode and without gradients.

    `model`: the model, or all models, that the step calls. What the step gives is the output of an iteration; `metrics`
    are attached under their names. `device`: where the models go when the run starts, by default the process's own. The
    step sees to its batches itself (`to_device(batch, engine.device)`). After the run each module is again in the mode
    it was in before.

    Raises TypeError if `step` can't be called with (engine, batch), and for a model that is none.
    """
    models: list[Any] = [model]
    if isinstance(model, Iterable) and not isinstance(model, nn.Module | Mapping | str):
        models = list(model)
    for each in models:
        if not isinstance(each, nn.Module):
            raise TypeError(
                f"custom_evaluator takes the model that the step calls, or a list of them, but got {each!r}"
            )
    check_process(step)

    def evaluate_step(engine: Engine[Any, Any], batch: Any) -> Any:
        with torch.no_grad():
            return step(engine, batch)

    return evaluator_of(models, evaluate_step, metrics, device)


def evaluator_of(
    models: Sequence[nn.Module],
    step: Callable[[Engine[Any, Any], Any], Any],
    metrics: Mapping[str, Any] | None,
    device: str | torch.device | None,
) -> Engine[Any, Any]:
    """An engine over the step, which finds the models on the device and in eval mode."""
    evaluator: Engine[Any, Any] = Engine(step, training=False)
    evaluator.device = dist.device() if device is None else torch.device(device)
    evaluator.mode_check = None
    evaluator.evaluated_models = tuple(models)
    modes: list[tuple[nn.Module, bool]] = []

    def place() -> None:
        for model in models:
            move_module(model, evaluator.device)

    evaluator.setup.add(Stage.DEVICE, place)

    @evaluator.on(Events.STARTED)
    def to_eval() -> None:
        modes[:] = [(module, module.training) for model in models for module in model.modules()]
        for model in models:
            model.eval()

    @evaluator.on(Events.CLOSED)
    def to_mode_before() -> None:
        for module, training in modes:
            module.training = training
        modes.clear()

    attach_metrics(evaluator, metrics)
    return evaluator
