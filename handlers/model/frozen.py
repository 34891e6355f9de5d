"""Freezing a part of a model: no gradients for its parameters, no new statistics for its batch norms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from leyden.engine import Update, UpdateEvents
from leyden.engine.events import RemovableEventHandle


class HeldNorms:
    """Keeps modules of an update in eval mode, whatever mode a step puts the model in, so that their statistics don't
    change.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._held: dict[int, nn.Module] = {}
        self._attributes: list[dict[str, Any]] = []
        self._handle: RemovableEventHandle | None = None

    def hold(self, norms: Iterable[nn.Module]) -> None:
        """Holds these modules and no others. One that is released gets the mode of its model."""
        before, self._held = self._held, {id(norm): norm for norm in norms}
        training = any(model.training for model in self._update.modules.values())
        for key, norm in before.items():
            if key not in self._held:
                norm.training = training
        # The dicts themselves: nn.Module.__setattr__ costs several calls, for each of them in each step.
        self._attributes = [vars(norm) for norm in self._held.values()]
        self.to_eval()
        if self._held and self._handle is None:
            self._handle = self._update.add_event_handler(UpdateEvents.FORWARD_STARTED, self.to_eval)
        elif not self._held and self._handle is not None:
            self._handle.remove()
            self._handle = None

    def to_eval(self) -> None:
        for attributes in self._attributes:
            attributes["training"] = False


def set_trainable(parameter: nn.Parameter, trainable: bool) -> bool:
    """Freezes or unfreezes; True if that changed anything. What is frozen has no gradient that an optimizer would use.

    Only what can have a gradient is unfrozen: integers can't. Raises ValueError for a parameter without a shape yet.
    """
    if nn.parameter.is_lazy(parameter):
        raise ValueError(
            "a part that is to be frozen or unfrozen has no shape yet (lazy modules); send one batch through the model "
            "before the run"
        )
    trainable = trainable and (parameter.is_floating_point() or parameter.is_complex())
    if parameter.requires_grad == trainable:
        return False
    parameter.requires_grad_(trainable)
    if not trainable:
        parameter.grad = None
    return True
