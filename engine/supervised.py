"""The two engines that most scripts need: train on (input, target) pairs, and evaluate a model on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine.attach_metrics import attach_metrics
from leyden.engine.engine import Engine
from leyden.engine.events import Events
from leyden.engine.setup import Stage
from leyden.engine.update import Update

PrepareBatch = Callable[[Any, torch.device | None, bool], tuple[Any, Any]]
LossFunction = Callable[[Any, Any], torch.Tensor]


def to_device(value: Any, device: torch.device, non_blocking: bool = False) -> Any:
    """Moves the tensors in nested mappings, sequences and named tuples; leaves all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {key: to_device(item, device, non_blocking) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device, non_blocking) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device, non_blocking) for item in value)
    return value


class _Inputs:
    """From a batch to (input, target) on the device; on the CPU only an unpacking."""

    def __init__(
        self, device: str | torch.device | None, non_blocking: bool, prepare_batch: PrepareBatch | None
    ) -> None:
        self.device = dist.device() if device is None else torch.device(device)
        self.moves = self.device.type != "cpu"
        self.non_blocking = non_blocking
        self.prepare_batch = prepare_batch

    def __call__(self, batch: Any) -> tuple[Any, Any]:
        if self.prepare_batch is not None:
            return self.prepare_batch(batch, self.device, self.non_blocking)
        x, y = to_device(batch, self.device, self.non_blocking) if self.moves else batch
        return x, y


def supervised_trainer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFunction,
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch | None = None,
    model_transform: Callable[[Any], Any] | None = None,
    output_transform: Callable[[Any, Any, Any, torch.Tensor], Any] | None = None,
    model_fn: Callable[[nn.Module, Any], Any] | None = None,
) -> Engine[Any, Any]:
    """An engine that trains `model` on batches of (input, target).

    `device`: where the model and the batches go when the run starts; by default the process's own
    (`leyden.distributed.device`). `prepare_batch(batch, device, non_blocking)` gives (input, target). `model_fn(model,
    input)` calls the model, `model_transform(prediction)` alters what it gives before the loss. The output of an
    iteration is the detached loss, a scalar tensor that stays on its device, or `output_transform(x, y, y_pred, loss)`.

    Precision, accumulation, clipping and replicas are attached: see `leyden.handlers`.
    """
    inputs = _Inputs(device, non_blocking, prepare_batch)
    plain = model_fn is None and model_transform is None

    def predict(x: Any) -> Any:
        y_pred = model(x) if model_fn is None else model_fn(model, x)
        return y_pred if model_transform is None else model_transform(y_pred)

    call = model if plain else predict
    direct = not inputs.moves and prepare_batch is None

    def train_step(engine: Engine[Any, Any], batch: Any) -> Any:
        if not model.training:
            model.train()
        x, y = batch if direct else inputs(batch)
        with update.forward():
            y_pred = call(x)
            loss = loss_fn(y_pred, y)
        update.backward(loss)
        return loss.detach() if output_transform is None else output_transform(x, y, y_pred, loss)

    def train_step_by_closure(engine: Engine[Any, Any], batch: Any) -> Any:
        if not model.training:
            model.train()
        x, y = inputs(batch)
        predictions: list[Any] = []

        def closure() -> torch.Tensor:
            predictions[:] = [call(x)]
            return loss_fn(predictions[0], y)

        loss = update.step(closure)
        return loss if output_transform is None else output_transform(x, y, predictions[0], loss)

    by_closure = isinstance(optimizer, torch.optim.LBFGS)
    trainer: Engine[Any, Any] = Engine(train_step_by_closure if by_closure else train_step)
    trainer.device = inputs.device
    trainer.setup.add(Stage.DEVICE, lambda: _move(model, inputs.device))
    update = Update(trainer, model, optimizer)
    return trainer


def supervised_evaluator(
    model: nn.Module,
    metrics: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch | None = None,
    model_transform: Callable[[Any], Any] | None = None,
    output_transform: Callable[[Any, Any, Any], Any] | None = None,
    model_fn: Callable[[nn.Module, Any], Any] | None = None,
) -> Engine[Any, Any]:
    """An engine that evaluates `model` on batches of (input, target), without gradients and in eval mode.

    The output of an iteration is (prediction, target), or `output_transform(x, y, y_pred)`; `metrics` are attached
    under their names. After the run each module is again in the mode (train or eval) it was in before. The other
    arguments are those of `supervised_trainer`.
    """
    inputs = _Inputs(device, non_blocking, prepare_batch)
    modes: list[tuple[nn.Module, bool]] = []

    def evaluate_step(engine: Engine[Any, Any], batch: Any) -> Any:
        with torch.no_grad():
            x, y = inputs(batch)
            y_pred = model(x) if model_fn is None else model_fn(model, x)
            if model_transform is not None:
                y_pred = model_transform(y_pred)
            return (y_pred, y) if output_transform is None else output_transform(x, y, y_pred)

    evaluator: Engine[Any, Any] = Engine(evaluate_step, training=False)
    evaluator.device = inputs.device
    evaluator.setup.add(Stage.DEVICE, lambda: _move(model, inputs.device))

    @evaluator.on(Events.STARTED)
    def to_eval() -> None:
        modes[:] = [(module, module.training) for module in model.modules()]
        model.eval()

    @evaluator.on(Events.CLOSED)
    def to_mode_before() -> None:
        for module, training in modes:
            module.training = training
        modes.clear()

    attach_metrics(evaluator, metrics)
    return evaluator


def _move(model: nn.Module, device: torch.device) -> None:
    if any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
        model.to(device)


create_supervised_trainer = supervised_trainer
create_supervised_evaluator = supervised_evaluator
