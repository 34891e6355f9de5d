"""What share of its window's gradient a loss has: one by the number of batches, or by their weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from numbers import Real

import torch

from leyden import distributed as dist
from leyden.engine.step.saved_update import SavedUpdate
from leyden.engine.step.window import scale_gradients


def in_list(losses: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Several losses as a list. Raises TypeError or ValueError for what is neither a loss nor several."""
    if isinstance(losses, Mapping) or not isinstance(losses, Iterable):
        raise TypeError(f"an update goes backward from a loss, a tensor, or a list of them, but got {losses!r}")
    found = list(losses)
    if not found:
        raise ValueError("an update goes backward from a loss or a list of them, but the list is empty")
    if strange := [each for each in found if not isinstance(each, torch.Tensor)]:
        raise TypeError(f"an update goes backward from a loss or a list of them, but the list has {strange[0]!r}")
    return found


def check_weight(weight: object, who: str) -> None:
    """Raises TypeError or ValueError for what weighs nothing: anything but a number of 0 or more, or a tensor of one.

    The number in a tensor is not looked at, as that would wait for the device; one below 0 makes the gradients NaN.
    """
    if isinstance(weight, torch.Tensor):
        if weight.numel() == 1 and weight.dtype != torch.bool and not weight.is_complex():
            return
        found = f"a tensor of shape {tuple(weight.shape)} and {weight.dtype}"
    else:
        if isinstance(weight, Real) and not isinstance(weight, bool) and 0 <= float(weight) < math.inf:
            return
        found = repr(weight)
    error = ValueError if isinstance(weight, Real | torch.Tensor) and not isinstance(weight, bool) else TypeError
    raise error(
        f"{who} weighs a batch by {found}; a weight is a number of things that a batch has (tokens, say): 0 or more, "
        "as a number or as a tensor of one element"
    )


class LossShare(SavedUpdate):
    """The part of an `Update` that weighs losses."""

    independent: bool

    def weigh(self, weight: torch.Tensor | float | None) -> torch.Tensor | float | None:
        """The weight of the batch, its own or that of a slot, which is added to the window's; None without weights.

        That of a slot is the whole batch's: it is added once, however many losses of the batch go backward. Raises
        ValueError where some of what goes backward in a window has a weight and some has none, and as `check_weight`.
        """
        if weight is None and self.slots.weight is not None:
            iteration = self.engine.state.iteration
            if self._weighed_at == iteration:
                return self._batch_weight
            weight = self.slots.weight(self.engine.state.batch)
            check_weight(weight, self.slots.owners.get("window", "the weight slot"))
            self._batch_weight, self._weighed_at = weight, iteration
        elif weight is not None:
            check_weight(weight, f'update "{self.name}"')
        begun = self._done > 0 or self.batch_open
        if (weight is None and self._weight is not None) or (weight is not None and self._weight is None and begun):
            of_this, before = ("no weight", "one") if weight is None else ("a weight", "none")
            raise ValueError(
                f'update "{self.name}": this loss has {of_this}, but what went backward before it in the window has '
                f"{before}, so no mean of them is meant; give all losses a weight, or none"
            )
        if weight is not None:
            self._weight = weight if self._weight is None else self._weight + weight
        return weight

    def transform_loss(self, loss: torch.Tensor, weight: torch.Tensor | float | None) -> torch.Tensor:
        """The loss as its gradient is to be added up in the window: weighed, or divided by its batches; then scaled."""
        if weight is not None:
            loss = loss * weight
        elif self._divisor > 1:
            loss = loss / self._divisor
        return loss if self.slots.scaler is None else self.slots.scaler.scale(loss)

    def tell_of_lost(self, done: int) -> None:
        """Warns that a backward pass that failed takes the batches with it that were in its window before."""
        before = "batch" if done == 1 else f"{done} batches"
        warnings.warn(
            f'update "{self.name}": with the batch whose backward pass failed, the {before} before it in its window '
            "count for nothing, since their gradients can't be told from what the failed pass left; the next batch "
            "begins a new window",
            stacklevel=5,
        )

    def check_weights(self) -> None:
        """Raises RuntimeError where the ranks' weights would have to be added up, and nobody does that."""
        if self.slots.sync is not None or dist.data_size() == 1:
            return
        if any(map(dist.is_sharded, self.trainable())):
            raise RuntimeError(
                f'update "{self.name}" weighs its batches, but its model was sharded by hand (fully_shard), so that '
                "the weights of the ranks are not added up and each rank would divide its shards by its own. Leave the "
                "weight out, or train replicas by DataParallel()"
            )
        if not self.independent:
            raise RuntimeError(
                f'update "{self.name}" weighs its batches, but its model was wrapped by hand '
                "(DistributedDataParallel, say), so that the weights of the ranks are not added up and each rank would "
                "divide the common gradients by its own: the models would drift apart. Attach DataParallel() as well, "
                "which leaves the wrapper as it is, or leave the weight out"
            )

    def divide_by_weight(self) -> None:
        self.check_weights()
        parameters = self.trainable()
        total = torch.as_tensor(self._weight, dtype=torch.float32, device=parameters[0].device).reshape(())
        self._weight = None
        if self.slots.sync is not None:
            total = dist.all_reduce(total, op="mean", over="data")  # the gradients are a mean over ranks too
        # Of a sum below zero, which would turn gradients round, the root is NaN; of zero it is zero.
        scale_gradients(parameters, torch.where(total > 0, 1 / total, total.sqrt()))
