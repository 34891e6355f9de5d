"""The places in an optimizer step that a handler may fill, one owner each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


class Tail(Enum):
    """What becomes of an accumulation window that is not full when an epoch ends."""

    STEP = "step"
    """The optimizer steps with it."""
    CARRY = "carry"
    """The next epoch fills it; at the end of the run the optimizer steps with it."""
    DROP = "drop"
    """Its gradients are thrown away."""


class GradientSync(Protocol):
    """Reduces gradients across ranks."""

    def begin(self, update: Update, closing: bool) -> None:
        """Before a forward pass: whether the backward pass that follows closes the window, and so may synchronise."""

    def before_backward(self, update: Update, losses: list[torch.Tensor], closing: bool) -> list[torch.Tensor]:
        """Gives the losses to go backward from. `closing`: this pass is the window's last; where nobody knows that
        before it ends, none is, and `reduce` follows.
        """

    def reduce(self, update: Update) -> None:
        """Reduces the gradients that are there: for a window whose last backward pass was not known to be the last."""

    def abandon(self) -> None:
        """Takes note that the open window was given up, perhaps in the midst of a backward pass."""

    def rebuild(self, update: Update) -> None:
        """Takes note that other parameters are trained from now on, or that it is known now which are."""


class Driver(Protocol):
    """Calls forward, loss and backward in the place of the update: a pipeline's schedule, for each micro-batch."""

    def drive(
        self,
        update: Update,
        forward: Callable[[Any], Any],
        inputs: Any,
        targets: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        transform: Callable[[torch.Tensor, int], torch.Tensor],
    ) -> tuple[Any, torch.Tensor | None]:
        """Leaves the gradients of the batch added to those that are there, and gives (output, loss), each None where
        this rank has none.

        `transform(loss, parts)` of each of the batch's `parts` micro-batches is what goes backward, in the place of its
        loss: weight, window and scale are in it, and the division by `parts`, so that nobody else divides.
        """


class GradientScaler(Protocol):
    """Keeps small gradients of low precision from vanishing."""

    def scale(self, loss: torch.Tensor) -> torch.Tensor: ...

    def unscale(self, optimizer: torch.optim.Optimizer) -> None: ...

    def step(
        self, optimizer: torch.optim.Optimizer, stepper: Callable[[torch.optim.Optimizer], None] | None = None
    ) -> bool:
        """Steps the optimizer, by the stepper if there is one; False if it was skipped because a gradient is not
        finite.
        """

    def abandon(self) -> None:
        """The gradients of the open window were thrown away, perhaps after they were unscaled."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@dataclass(eq=False, repr=False)
class Slots:
    """What handlers put into one update. An empty slot costs nothing."""

    autocast: AbstractContextManager[Any] | None = None
    """Entered around the forward pass; one object, used again each time."""
    span: Callable[[Any], AbstractContextManager[Any]] | None = None
    """From the engine's batch to what is entered at its first forward pass and left after its last backward pass."""
    driver: Driver | None = None
    """Who calls forward, loss and backward of a batch that is driven."""
    sync: GradientSync | None = None
    scaler: GradientScaler | None = None
    window: Callable[[], int] | None = None
    """Batches in the window that begins now."""
    tail: Tail = Tail.STEP
    """What becomes of a window that an epoch's end cuts short."""
    full_divisor: bool = False
    """Losses are divided by what `window` said also in a window that is cut short; else by its own size."""
    one_pass: bool = True
    """Each batch goes backward once; else nobody knows before how many steps a run will have."""
    join: Callable[[torch.Tensor, str], torch.Tensor] | None = None
    """Makes a number of this rank's gradients (whether one overflowed, the power sum of a norm) one of all ranks that
    hold other parts of the model, by "max" or "sum"; for pipelines. Shards of one tensor need nobody for that.
    """
    stepper: Callable[[torch.optim.Optimizer], None] | None = None
    """Steps the optimizer in the place of `optimizer.step()`: XLA's step, one that offloads."""
    weight: Callable[[Any], torch.Tensor | float] | None = None
    """From a batch to its weight in the window, for a backward pass that brings none of its own."""
    owners: dict[str, str] = field(default_factory=dict)

    def claim(self, slot: str, owner: object, value: Any) -> None:
        """Fills a slot. Raises ValueError, naming both, if it has an owner."""
        name = type(owner).__name__
        if slot in self.owners:
            raise ValueError(
                f"{name} and {self.owners[slot]} both set {slot} of one update; attach only one of them, "
                "or name the update that each is for"
            )
        setattr(self, slot, value)
        self.owners[slot] = name
