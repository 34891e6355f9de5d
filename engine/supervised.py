"""The two engines that most scripts need: train on (input, target) pairs, and evaluate a model on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from leyden.engine.engine import Engine
from leyden.engine.evaluation.eval_mode import evaluator_of
from leyden.engine.setup import Stage
from leyden.engine.step.batches import Inputs, ModelInputs, PrepareBatch, caller
from leyden.engine.step.late_optimizer import MakeOptimizer
from leyden.engine.step.several_optimizers import as_one
from leyden.engine.step.update import Update
from leyden.engine.values.attach_metrics import attach_metrics
from leyden.engine.values.measured_pair import MeasuredPair
from leyden.engine.values.moving import move_module
from leyden.engine.values.nested import detached

LossFunction = Callable[[Any, Any], torch.Tensor]


def supervised_trainer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | MakeOptimizer,
    loss_fn: LossFunction,
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch | None = None,
    model_transform: Callable[[Any], Any] | None = None,
    output_transform: Callable[[Any, Any, Any, torch.Tensor], Any] | None = None,
    model_fn: Callable[[nn.Module, Any], Any] | None = None,
    *,
    model_inputs: ModelInputs | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Engine[Any, Any]:
    """An engine that trains `model` on batches of (input, target), with one optimizer, several that step
    together, or what a function makes of the parameters when the run starts (see `Update`).

    `device`: where the model, a loss that is a module, and the batches go when the run starts; by default the process's
    own (`leyden.distributed.device`). Of batches that are no pair, `model_inputs` says what the model is called with,
    and the rest is the target: keys of a mapping or indices of a tuple, `("image", "mask")` for positional arguments,
    `{"input_ids": "tokens"}` for those of the names before the colon; or `prepare_batch(batch, device, non_blocking)`
    gives (input, target). `model_fn(model, input)` calls the model, `model_transform(prediction)` alters what it gives
    before the loss. The output of an iteration is the detached loss, a scalar tensor that stays on its device, or
    `output_transform(x, y, y_pred, loss)`. `metrics` are attached under their names, and measure (prediction, target)
    of the training batches, whatever the output is; so do those that `trainer.attach_metric` adds.

    Precision, accumulation, clipping and replicas are attached: see `leyden.handlers`.

    Raises ValueError where two arguments say the same thing, and in the run for a batch that can't be taken apart.
    """
    inputs = Inputs(device, non_blocking, prepare_batch, model_inputs)
    call = caller(model, model_fn, model_transform, model_inputs)
    measured = MeasuredPair()
    direct = inputs.direct
    plain = output_transform is None

    def output(x: Any, y: Any, y_pred: Any, loss: torch.Tensor) -> Any:
        if measured.wanted:
            measured.pair = (detached(y_pred), y)
        return loss.detach() if output_transform is None else output_transform(x, y, y_pred, loss)

    def train_step(engine: Engine[Any, Any], batch: Any) -> Any:
        if not model.training:
            model.train()
        kind = type(batch)
        x, y = batch if direct and (kind is tuple or kind is list) and len(batch) == 2 else inputs(batch)
        y_pred, loss = update.drive(call, x, y, loss_fn)
        if loss is None:  # a pipeline's driver has it on its last rank alone
            return None
        return loss.detach() if plain and not measured.wanted else output(x, y, y_pred, loss)

    def train_step_by_closure(engine: Engine[Any, Any], batch: Any) -> Any:
        if not model.training:
            model.train()
        x, y = inputs(batch)
        predictions: list[Any] = []

        def closure() -> torch.Tensor:
            predictions[:] = [call(x)]
            return loss_fn(predictions[0], y)

        loss = update.step(closure)
        return output(x, y, predictions[0], loss)

    def place() -> None:
        move_module(model, inputs.device)
        if isinstance(loss_fn, nn.Module):
            move_module(loss_fn, inputs.device)

    if isinstance(optimizer, Sequence):
        optimizer = as_one(optimizer)
    by_closure = isinstance(optimizer, torch.optim.LBFGS)
    trainer: Engine[Any, Any] = Engine(train_step_by_closure if by_closure else train_step)
    trainer.device = inputs.device
    trainer.setup.add(Stage.DEVICE, place)
    update = Update(trainer, model, optimizer)
    update.predict = lambda batch: call(inputs(batch)[0])
    trainer.measured = measured
    attach_metrics(trainer, metrics)
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
    *,
    model_inputs: ModelInputs | None = None,
) -> Engine[Any, Any]:
    """An engine that evaluates `model` on batches of (input, target), without gradients and in eval mode.

    The output of an iteration is (prediction, target), or `output_transform(x, y, y_pred)`; `metrics` are attached
    under their names. After the run each module is again in the mode (train or eval) it was in before. The other
    arguments are those of `supervised_trainer`. `custom_evaluator` takes a step of one's own.
    """
    inputs = Inputs(device, non_blocking, prepare_batch, model_inputs)
    call = caller(model, model_fn, model_transform, model_inputs)

    def evaluate_step(engine: Engine[Any, Any], batch: Any) -> Any:
        with torch.no_grad():
            x, y = inputs(batch)
            y_pred = call(x)
            return (y_pred, y) if output_transform is None else output_transform(x, y, y_pred)

    return evaluator_of([model], evaluate_step, metrics, inputs.device)


create_supervised_trainer = supervised_trainer
create_supervised_evaluator = supervised_evaluator
