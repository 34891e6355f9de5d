"""One optimizer's share of a training step: the order of things, in one place, with a slot or an event for each
concern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine.dispatch import Handler, RemovableEventHandle, Table
from leyden.engine.engine import Engine
from leyden.engine.events import Event, UpdateEvents
from leyden.engine.parameters import ParameterNames
from leyden.engine.slots import Slots, Tail
from leyden.engine.window import gradients_by_name, is_sharded, merge, put_gradients

Loss = torch.Tensor | Sequence[torch.Tensor]


class Update:
    """Trains `model` with `optimizer` on an engine; the handlers of a step compose through it.

        with update.forward():
            loss = loss_fn(model(x), y)
        update.backward(loss)

    `model` is a module or a sequence of modules. Gradients are accumulated over a window of batches (one, unless a
    handler sets it), which closes at the epoch's last batch too; then: unscale, GRADIENTS_READY, optimizer.step,
    zero_grad, STEP_COMPLETED. Where an engine has several updates, each one's backward pass reaches only its own
    parameters.

    Raises ValueError if the name is taken on the engine, if a handler of all updates is attached already, or if the
    optimizer's parameters are not the model's.
    """

    def __init__(
        self,
        engine: Engine[Any, Any],
        model: nn.Module | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        name: str = "default",
    ) -> None:
        engine.check_new_update(name)
        self.engine = engine
        self.name = name
        self.modules = {"model": model} if isinstance(model, nn.Module) else {str(i): m for i, m in enumerate(model)}
        self.optimizer = optimizer
        self.steps = 0
        """Optimizer steps done in the run."""
        self.slots = Slots()
        self.tables: dict[Event, Table] = {event: Table(engine, event, source=self) for event in UpdateEvents}
        self._names = ParameterNames(self.modules, optimizer, name)
        self._size = 1  # batches in the open window
        self._divisor = 1  # of the losses in it
        self._done = 0  # batches of it that went backward
        self._begun = False  # the batch in work has been counted into its window
        self._weight: torch.Tensor | float | None = None
        self._scaler_state: dict[str, Any] | None = None  # loaded before its scaler was attached
        self._gradients: dict[str, Any] | None = None  # of a loaded window, until the model is ready for them
        self._alone = True
        self.uniform = False
        """All parameters have one device and dtype, so that one operation can work on all gradients."""
        self._forward = _Forward(self)
        engine.updates[name] = self
        engine.adopt_update(self.tables)

    def add_event_handler(
        self, event: Any, handler: Handler, *args: Any, order: int = 0, **kwargs: Any
    ) -> RemovableEventHandle:
        """Adds a handler to an event of this update alone; see `Engine.add_event_handler`."""
        return self.engine.add_update_handler(self.tables, event, handler, *args, order=order, **kwargs)

    # -- the step --------------------------------------------------------------------------------------------

    def forward(self) -> _Forward:
        """A context for the forward pass: autocast, and whether the backward pass that follows synchronises."""
        return self._forward

    def backward(self, loss: Loss, weight: torch.Tensor | float | None = None, retain_graph: bool = False) -> None:
        """Accumulates the gradient of a loss (a scalar, or several), and steps the optimizer if that closes the window.

        The window's gradient is the mean of its batches' gradients, or, with `weight` (tokens in the batch, say), their
        mean by weight over the window and all ranks: sum(weight * gradient) / sum(weight).
        """
        step = self.steps + 1
        if not self._begun:
            slots = self.slots
            if slots.autocast is not None or slots.sync is not None:
                owner = slots.owners["autocast" if slots.autocast is not None else "sync"]
                raise RuntimeError(f"{owner} needs the forward pass inside `with update.forward():`, before backward()")
            self._begin_batch()
        self._accumulate(step, loss, weight, retain_graph)
        self._done += 1
        if self._done >= self._size:
            self._close_window(step)

    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:
        """One optimizer step from a function that computes the loss; the form that optimizers with a closure (LBFGS)
        need.

        The optimizer calls it as often as it likes; each time goes through zero_grad, forward, backward and
        GRADIENTS_READY. Returns the first loss. Raises RuntimeError with a window of several batches or a gradient
        scaler.
        """
        if self.slots.scaler is not None or (self.slots.window is not None and self.slots.window() != 1):
            owner = self.slots.owners["scaler" if self.slots.scaler is not None else "window"]
            raise RuntimeError(
                f"{owner} can't work with a closure: the optimizer evaluates one batch several times in a step"
            )
        count = self.steps + 1
        ready = self.tables[UpdateEvents.GRADIENTS_READY]

        def evaluate() -> torch.Tensor:
            self.optimizer.zero_grad()
            with self._forward:
                loss = closure()
            self._accumulate(count, loss, None, False)
            if count >= ready.due:
                ready.fire(count)
            return loss.detach()

        with torch.enable_grad():
            loss = torch.as_tensor(self.optimizer.step(evaluate))  # type: ignore[arg-type]
        self._stepped(count)
        return loss

    def _begin_batch(self) -> None:
        """Counts the batch into its window; a new window learns its size, which the end of the epoch may cut."""
        self._begun = True
        if self._done == 0:
            slots = self.slots
            size = self._size = self._divisor = 1 if slots.window is None else slots.window()
            if size > 1 and slots.tail is not Tail.DROP:
                engine = self.engine
                end = engine.last_iteration if slots.tail is Tail.STEP else engine.run_end
                self._size = min(size, end - max(engine.state.iteration, 1) + 1)
                if not slots.full_divisor:
                    self._divisor = self._size

    def _accumulate(self, step: int, loss: Loss, weight: torch.Tensor | float | None, retain_graph: bool) -> None:
        if step >= (started := self.tables[UpdateEvents.BACKWARD_STARTED]).due:
            started.fire(step)
        losses = [loss] if isinstance(loss, torch.Tensor) else list(loss)
        if weight is None and self.slots.weight is not None:
            weight = self.slots.weight(self.engine.state.batch)
        if weight is not None:
            losses = [each * weight for each in losses]
            self._weight = weight if self._weight is None else self._weight + weight
        elif self._divisor > 1:
            losses = [each / self._divisor for each in losses]
        if self.slots.scaler is not None:
            losses = [self.slots.scaler.scale(each) for each in losses]
        if self.slots.sync is not None:
            losses = self.slots.sync.before_backward(self, losses, self._done + 1 >= self._size)
        if self._alone and len(losses) == 1:
            losses[0].backward(retain_graph=retain_graph)
        else:
            inputs = None if self._alone else self.trainable()
            torch.autograd.backward(losses, retain_graph=retain_graph, inputs=inputs)
        self._begun = False
        if step >= (completed := self.tables[UpdateEvents.BACKWARD_COMPLETED]).due:
            completed.fire(step)

    def _close_window(self, step: int) -> None:
        tables, scaler, optimizer = self.tables, self.slots.scaler, self.optimizer
        self._done = 0
        if scaler is not None:
            scaler.unscale(optimizer)
        if self._weight is not None:
            self._divide_by_weight()
        if step >= (ready := tables[UpdateEvents.GRADIENTS_READY]).due:
            ready.fire(step)
        if scaler is None:
            optimizer.step()
        elif not scaler.step(optimizer):
            optimizer.zero_grad()
            if step >= (skipped := tables[UpdateEvents.STEP_SKIPPED]).due:
                skipped.fire(step)
            return
        self._stepped(step)

    def _stepped(self, step: int) -> None:
        self.optimizer.zero_grad()
        self.steps = step
        self.engine.state.step += 1
        if step >= (completed := self.tables[UpdateEvents.STEP_COMPLETED]).due:
            completed.fire(step)

    # -- around the step -------------------------------------------------------------------------------------

    def flush(self, run_ends: bool = True) -> None:
        """Deals with what an epoch left in its window, as the window's tail says.

        It steps with a window that ended before anyone could know (data of unknown length, `terminate_epoch`); the mean
        is then over the batches that came.
        """
        tail = self.slots.tail
        if self._done == 0 or (tail is Tail.CARRY and not run_ends):
            return
        if tail is Tail.DROP:
            self._done, self._weight = 0, None
            self.optimizer.zero_grad()
            return
        if self._weight is None and self._done < self._size and not self.slots.full_divisor:
            scale_gradients(self.trainable(), self._size / self._done)
        if self.slots.sync is not None:
            self.slots.sync.reduce(self)
        self._close_window(self.steps + 1)

    def prepare(self) -> None:
        """At the start of a run: ties the optimizer to the model's parameters, and clears gradients left from
        elsewhere.
        """
        self._names.tie()
        self._restore_scaler()
        self._restore_window()
        self._alone = len(self.engine.updates) == 1
        self._look_at_kinds()
        self._begun = False
        if self._done == 0:
            self._weight = None
            self.optimizer.zero_grad()

    def reset(self) -> None:
        """Before a run from the beginning."""
        self.steps = self._done = 0
        self._gradients = None

    def trainable_changed(self) -> None:
        """To be called after parameters were frozen or unfrozen, or were given to the optimizer: who synchronises
        gradients is told."""
        if self.slots.sync is not None:
            self.slots.sync.rebuild(self)
        self._names = ParameterNames(self.modules, self.optimizer, self.name)
        self._look_at_kinds()

    def _look_at_kinds(self) -> None:
        kinds = {
            (p.device, p.dtype, p.layout, type(p)) for group in self.optimizer.param_groups for p in group["params"]
        }
        self.uniform = len(kinds) == 1

    def rearm(self, wake: bool = True) -> None:
        """Lets filters count from where the update stands."""
        for table in self.tables.values():
            table.rearm(wake)

    def trainable(self) -> list[torch.Tensor]:
        """The optimizer's parameters that require a gradient."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def gradients(self) -> list[torch.Tensor]:
        """The gradients that are there, in the order of the optimizer's parameters."""
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    # -- state -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What all ranks share: steps, the scaler's state, and of an open window the gradients that are shards."""
        scaler = self.slots.scaler
        state = {"steps": self.steps} | ({} if scaler is None else {"scaler": scaler.state_dict()})
        return state | ({"gradients": shards} if (shards := self._open_gradients(sharded=True)) else {})

    def rank_state_dict(self) -> dict[str, Any]:
        """What this rank has for itself: an open window, with gradients that are not synchronised yet; the tensors are
        the live ones. Empty between two windows.
        """
        if self._done == 0:
            return {}
        return {
            "done": self._done,
            "size": self._size,
            "divisor": self._divisor,
            "weight": self._weight,
            "gradients": self._open_gradients(sharded=False),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        self._scaler_state = state_dict.get("scaler")
        self._restore_scaler()
        self._done, self._weight = 0, None
        self._gradients = dict(state_dict.get("gradients", {}))

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on in the window that was open; after `load_state_dict`. `states`: those of all ranks that were saved.
        Of as many as there are now this rank takes its own; else the first takes the sum of all.
        """
        rank, ranks = dist.rank(), dist.world_size()
        sharded = any(map(is_sharded, self.trainable()))
        if len(states) != ranks:
            window = merge(states, ranks, first=rank == 0, sharded=sharded)
        else:
            window = states[rank]
            if window and window["gradients"] and sharded and ranks > 1:
                raise ValueError(
                    f"update {self.name!r} was saved inside an accumulation window, with gradients of whole parameters "
                    "that each rank had for itself, and has sharded ones now: they can't become shards. Go on with "
                    "replicas, from a checkpoint between two windows, or with another number of ranks"
                )
        if not window:
            return
        self._done, self._size, self._divisor = window["done"], window["size"], window["divisor"]
        self._weight = window["weight"]
        self._gradients = {**(self._gradients or {}), **window["gradients"]}

    def _open_gradients(self, *, sharded: bool) -> dict[str, Any]:
        if self._done == 0:
            return {}
        if self._gradients is not None:
            loaded = self._gradients.items()
            return {
                name: data for name, data in loaded if (isinstance(data, torch.Tensor) and is_sharded(data)) is sharded
            }
        return gradients_by_name(self, sharded=sharded)

    def _restore_window(self) -> None:
        """Gives the parameters the gradients of a loaded window, now that they are those that will be trained."""
        gradients, self._gradients = self._gradients, None
        if gradients is None or self._done == 0:
            return
        put_gradients(self, gradients)
        if isinstance(self._weight, torch.Tensor):
            self._weight = self._weight.to(self.trainable()[0].device, copy=True)

    def _restore_scaler(self) -> None:
        """Gives the scaler its saved state, which waits where the scaler is attached only later."""
        if self._scaler_state is not None and self.slots.scaler is not None:
            self.slots.scaler.load_state_dict(self._scaler_state)
            self._scaler_state = None

    def describe(self) -> str:
        models = ", ".join(type(module).__name__ for module in self.modules.values())
        filled = ", ".join(f"{slot} by {owner}" for slot, owner in self.slots.owners.items()) or "no slot filled"
        return f"{type(self.optimizer).__name__} on {models}; {filled}"

    def _divide_by_weight(self) -> None:
        parameters = self.trainable()
        total = torch.as_tensor(self._weight, dtype=torch.float32, device=parameters[0].device)
        self._weight = None
        if self.slots.sync is not None:
            total = dist.all_reduce(total, op="mean")  # the gradients are a mean over ranks too
        scale_gradients(parameters, torch.where(total > 0, 1 / total, total))


class _Forward:
    """The context of a forward pass, one object for all of them: nothing is made in a step."""

    __slots__ = ("_update",)

    def __init__(self, update: Update) -> None:
        self._update = update

    def __enter__(self) -> None:
        update = self._update
        slots = update.slots
        if not update._begun:
            update._begin_batch()
        step = update.steps + 1
        if step >= (started := update.tables[UpdateEvents.FORWARD_STARTED]).due:
            started.fire(step)
        if slots.sync is not None:
            slots.sync.begin(update, update._done + 1 >= update._size)
        if slots.autocast is not None:
            slots.autocast.__enter__()

    def __exit__(self, *error: Any) -> None:
        update = self._update
        if update.slots.autocast is not None:
            update.slots.autocast.__exit__(*error)
        step = update.steps + 1
        if error[0] is None and step >= (completed := update.tables[UpdateEvents.FORWARD_COMPLETED]).due:
            completed.fire(step)


def scale_gradients(parameters: list[torch.Tensor], factor: torch.Tensor | float) -> None:
    """Multiplies the gradients in place; the factor may be a scalar tensor, which is not copied to the host."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if dense := [gradient for gradient in gradients if not gradient.is_sparse]:
        torch._foreach_mul_(dense, factor)
    for gradient in gradients:
        if gradient.is_sparse:
            gradient.mul_(factor)
