"""One optimizer's share of a training step: the order of things, in one place, with a slot or an event for each
concern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leyden.distributed import end_pass_of_shards, tell_abandoned
from leyden.engine.events.dispatch import RemovableEventHandle, Table
from leyden.engine.events.names import Event, UpdateEvents
from leyden.engine.events.signatures import Handler
from leyden.engine.step.backward_pass import go_backward
from leyden.engine.step.driving import drive_by
from leyden.engine.step.exchange import mean_over_ranks
from leyden.engine.step.forward_pass import ForwardPass
from leyden.engine.step.late_optimizer import LateOptimizer, MakeOptimizer
from leyden.engine.step.loss_share import LossShare, in_list
from leyden.engine.step.parameters import ParameterNames, modules_of
from leyden.engine.step.several_optimizers import as_one
from leyden.engine.step.slots import Slots, Tail
from leyden.engine.step.window import scale_gradients

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

Loss = torch.Tensor | Sequence[torch.Tensor]


class Update(LossShare):
    """Trains `model` with `optimizer` on an engine; the handlers of a step compose through it.

        with update.forward():
            loss = loss_fn(model(x), y)
        update.backward(loss)

    `model` is a module or a sequence of modules. `optimizer` is an optimizer; a sequence of them, [muon, adamw], which
    step together: all or, where a gradient overflowed, none; or a function that makes either when the models are what
    is trained in the run (adapted, sharded), `lambda parameters: AdamW(parameters)`. Gradients are accumulated over a
    window of batches (one, unless a handler sets it), which closes at the epoch's last batch too; then: unscale,
    GRADIENTS_READY, optimizer.step, zero_grad, STEP_COMPLETED. Where an engine has several updates, each one's backward
    pass reaches only its own parameters.

    Raises ValueError if the name is taken on the engine, if a handler of all updates is attached already, or if the
    optimizer's parameters are not the model's.
    """

    def __init__(
        self,
        engine: Engine[Any, Any],
        model: nn.Module | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | MakeOptimizer,
        name: str = "default",
    ) -> None:
        engine.check_new_update(name)
        super().__init__()
        self.engine = engine
        self.name = name
        self.modules = modules_of(model)
        if callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
            optimizer = LateOptimizer(optimizer, self.modules, name)
        self.optimizer = as_one(optimizer)
        self.steps = 0
        """Optimizer steps done in the run."""
        self.went_backward = False
        """It has, at least once in the run."""
        self.slots = Slots()
        self.predict: Callable[[Any], Any] | None = None
        """From a batch to what the model makes of it; None where the process function alone knows how."""
        self.tables: dict[Event, Table] = {event: Table(engine, event, source=self) for event in UpdateEvents}
        self._names = ParameterNames(self.modules, self.optimizer, name)
        self._scaler_state: dict[str, Any] | None = None  # loaded before its scaler was attached
        self._gradients: dict[str, Any] | None = None  # of a loaded window, until the model is ready for them
        self.alone = True
        """Its engine has no other update."""
        self.independent = False
        """Each rank trains a model of its own, or the process function exchanges gradients itself."""
        self._forward = ForwardPass(self)
        engine.updates[name] = self
        engine.adopt_update(self.tables)

    def add_event_handler(
        self, event: Any, handler: Handler, *args: Any, order: int = 0, **kwargs: Any
    ) -> RemovableEventHandle:
        """Adds a handler to an event of this update alone; see `Engine.add_event_handler`."""
        return self.engine.add_update_handler(self.tables, event, handler, *args, order=order, **kwargs)

    # -- the step --------------------------------------------------------------------------------------------

    def forward(self) -> ForwardPass:
        """A context for the forward pass: autocast, and whether the backward pass that follows synchronises."""
        return self._forward

    def backward(self, loss: Loss, weight: torch.Tensor | float | None = None, retain_graph: bool = False) -> None:
        """Accumulates the gradient of a loss (a scalar, or several), and steps the optimizer if that closes the window:
        `accumulate` and `close` in one.

        The window's gradient is the mean of its batches' gradients, or, with `weight` (tokens in the batch, say), their
        mean by weight over the window and all ranks: sum(weight * gradient) / sum(weight).
        """
        self._go_backward(loss, weight, retain_graph, True)
        self.close()

    def accumulate(self, loss: Loss, weight: torch.Tensor | float | None = None, retain_graph: bool = False) -> None:
        """Goes backward from a loss (a scalar, or several), and leaves the batch open: `close` ends it.

        Gradients of one batch add up, as those of several `loss.backward()` do; with weights they are averaged by them,
        as parts of a batch are. Losses of the same samples have one weight together: `accumulate([a, b], weight=n)`;
        that of GradientAccumulation counts once a batch. Replicas exchange gradients in `close`.
        """
        self._go_backward(loss, weight, retain_graph, False)

    def _go_backward(self, loss: Loss, weight: torch.Tensor | float | None, retain_graph: bool, last: bool) -> None:
        step = self.steps + 1
        if not self.batch_begun:
            self._begin_without_forward()
        try:
            if step >= (started := self.tables[UpdateEvents.BACKWARD_STARTED]).due:
                started.fire(step)
            several = self.batch_open or not last
            losses = [loss] if isinstance(loss, torch.Tensor) else in_list(loss)
            slots = self.slots
            weighs = weight is not None or slots.weight is not None or self._weight is not None
            if weighs or self._divisor > 1 or slots.scaler is not None:
                weight = self.weigh(weight)
                losses = [self.transform_loss(each, weight) for each in losses]
            self.went_backward = self.batch_open = True
            if slots.sync is not None:
                self._to_be_reduced = several
                losses = slots.sync.before_backward(self, losses, not several and self.closes_next())
            if self.alone and len(losses) == 1:  # as most are: no call is spent on it
                losses[0].backward(retain_graph=retain_graph)
            else:
                go_backward(self, losses, retain_graph)
            if step >= (completed := self.tables[UpdateEvents.BACKWARD_COMPLETED]).due:
                completed.fire(step)
        except BaseException:
            self.give_up()
            raise

    def drive(
        self,
        forward: Callable[[Any], Any],
        inputs: Any,
        targets: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        weight: torch.Tensor | float | None = None,
    ) -> tuple[Any, torch.Tensor | None]:
        """A whole batch, in which a driver (a pipeline's schedule) may call each of these for every micro-batch:
        `output = forward(inputs)`, `loss = loss_fn(output, targets)`, `backward(loss, weight)`. Gives (output, loss).

        Without a driver that is just what is done, to the bit. With one, `loss_fn` gives the mean over a micro-batch,
        `forward` is a model or a `ModelCall`, and a rank that has no output or no loss gets None.
        """
        if self.slots.driver is not None:
            return drive_by(self.slots.driver, self, forward, inputs, targets, loss_fn, weight)
        with self._forward:
            output = forward(inputs)
            loss = loss_fn(output, targets)
        self._go_backward(loss, weight, False, True)
        self.close()
        return output, loss

    def close(self) -> None:
        """Ends a batch that `accumulate` left open: it is one of its window, and where it fills that, the optimizer
        steps. A batch that was abandoned is passed over.

        Raises RuntimeError if nothing went backward in the batch.
        """
        if not self.batch_open:
            if not self._abandoned:
                raise RuntimeError(
                    f'update "{self.name}" is to be closed, but nothing went backward in it: call '
                    "update.accumulate(loss), not loss.backward(), before update.close(); update.backward(loss) is both"
                )
            self._abandoned = False
            return
        self.batch_begun = self.batch_open = False
        if self.open_span is not None:
            self.leave_span()
        before = self._done
        self._done = done = before + 1
        if done < self._size:
            return
        tables, slots, optimizer, step = self.tables, self.slots, self.optimizer, self.steps + 1
        scaler, stepper = slots.scaler, slots.stepper
        try:
            if self._to_be_reduced and slots.sync is not None:
                self._to_be_reduced = False
                slots.sync.reduce(self)
            self._done = 0
            if scaler is not None:
                scaler.unscale(optimizer)
            if self._weight is not None:
                self.divide_by_weight()
            elif done != self._divisor and not slots.full_divisor:
                scale_gradients(self.trainable(), self._divisor / done)
            if step >= (ready := tables[UpdateEvents.GRADIENTS_READY]).due:
                ready.fire(step)
            if scaler is None:
                if stepper is None:
                    optimizer.step()
                else:
                    stepper(optimizer)
            elif not (scaler.step(optimizer) if stepper is None else scaler.step(optimizer, stepper)):
                optimizer.zero_grad()
                if step >= (skipped := tables[UpdateEvents.STEP_SKIPPED]).due:
                    skipped.fire(step)
                return
            self._stepped(step)
        except BaseException:
            self.give_up(before)
            raise

    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:
        """One optimizer step from a function that computes the loss; the form that optimizers with a closure (LBFGS)
        need.

        The optimizer calls it as often as it likes; each time goes through zero_grad, forward, backward and
        GRADIENTS_READY. Returns the first loss; of several ranks both optimizer and caller get the mean of theirs, so
        that a line search ends alike on all. Raises RuntimeError with a window of several batches or a gradient scaler.
        """
        slots = self.slots
        if slots.scaler is not None or slots.weight is not None or (slots.window is not None and slots.window() != 1):
            owner = slots.owners["scaler" if slots.scaler is not None else "window"]
            what = "with weights " * (slots.scaler is None and slots.weight is not None)
            raise RuntimeError(
                f"{owner} {what}can't work with a closure: the optimizer evaluates one batch several times in a step"
            )
        count = self.steps + 1
        ready = self.tables[UpdateEvents.GRADIENTS_READY]

        def evaluate() -> torch.Tensor:
            self.optimizer.zero_grad()
            with self._forward:
                loss = closure()
            self._go_backward(loss, None, False, True)
            self.batch_begun = self.batch_open = False
            if self.open_span is not None:
                self.leave_span()
            if count >= ready.due:
                ready.fire(count)
            return mean_over_ranks(self, loss.detach())

        with torch.enable_grad():
            loss = torch.as_tensor(self.optimizer.step(evaluate))  # type: ignore[arg-type]
        self._stepped(count)
        return loss

    def abandon(self) -> None:
        """Gives up the open window: its gradients are thrown away, and the next batch begins a new one. For an error of
        the forward pass that a step catches to go on with the next batch, out of memory say; after one of `backward` it
        is done already. Of several ranks all have to give up the same batch.
        """
        self.batch_begun = self.batch_open = False
        self._abandoned = True
        if self.open_span is not None:
            self.leave_span()
        self._done, self._weight = 0, None
        self.optimizer.zero_grad()
        if self.slots.scaler is not None:
            self.slots.scaler.abandon()
        if self.slots.sync is not None:
            self.slots.sync.abandon()
        end_pass_of_shards(self.modules.values())
        if not self.independent:
            tell_abandoned()

    def give_up(self, done: int | None = None) -> None:
        """After an error in a batch before which its window had `done` others."""
        done = self._done if done is None else done
        self.abandon()
        if done > 0:
            self.tell_of_lost(done)

    def _stepped(self, step: int) -> None:
        self.optimizer.zero_grad()
        self.steps = step
        self.engine.state.step += 1
        if step >= (completed := self.tables[UpdateEvents.STEP_COMPLETED]).due:
            completed.fire(step)

    def make_optimizer(self) -> None:
        """In the setup of a run: makes an optimizer that waits for it, of what is trained now."""
        if isinstance(self.optimizer, LateOptimizer):
            self.optimizer = as_one(self.optimizer.make())
            self._names = ParameterNames(self.modules, self.optimizer, self.name)
            if self.slots.sync is not None and len(self.engine.updates) > 1:
                self.slots.sync.rebuild(self)  # who synchronises knows now which part of a model is whose

    # -- around the step -------------------------------------------------------------------------------------

    def flush(self, run_ends: bool = True) -> None:
        """Deals with what an epoch left in its window, as the window's tail says.

        It steps with a window that ended before anyone could know (data of unknown length, `terminate_epoch`); the mean
        is then over the batches that came.
        """
        tail = self.slots.tail
        if self.is_between_windows() or (tail is Tail.CARRY and not run_ends):
            return
        if tail is Tail.DROP:
            self.batch_begun = self.batch_open = False
            self._done, self._weight = 0, None
            self.optimizer.zero_grad()
            return
        if not self.batch_open:  # the last batch is closed once more, as the window's last
            self.batch_open = True
            self._done -= 1
        self._size = self._done + 1
        self._to_be_reduced = True
        self.close()

    def prepare(self) -> None:
        """At the start of a run: ties the optimizer to the model's parameters, and clears gradients of elsewhere."""
        self._names.tie()
        self._restore_scaler()
        self._restore_window()
        self.alone = len(self.engine.updates) == 1
        self.look_at_kinds()
        self.watch_span()
        self.batch_begun, self._begun_at = False, 0
        if self.slots.weight is not None:
            self.check_weights()
        if self.is_between_windows():
            self._weight = None
            self.optimizer.zero_grad()

    def reset(self) -> None:
        """Before a run from the beginning."""
        self.steps = self._done = 0
        self.went_backward = self.batch_open = False
        self._gradients = None

    def trainable_changed(self) -> None:
        """To be called after parameters were frozen or unfrozen, or were given to the optimizer: who synchronises
        gradients is told."""
        if self.slots.sync is not None:
            self.slots.sync.rebuild(self)
        self._names = ParameterNames(self.modules, self.optimizer, self.name)
        self.look_at_kinds()

    def rearm(self, wake: bool = True) -> None:
        """Lets filters count from where the update stands."""
        for table in self.tables.values():
            table.rearm(wake)
