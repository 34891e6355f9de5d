"""The backward pass of an update: to its own parameters, whoever else's the losses hang on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


def go_backward(update: Update, losses: list[torch.Tensor], retain_graph: bool) -> None:
    """Adds up the gradients of the update's own parameters; where its engine has no other update, of all that the
    losses hang on.
    """
    if update.alone:
        torch.autograd.backward(losses, retain_graph=retain_graph)
    elif update.gathers_shards:
        # The leaves of the graph are gathered weights, not the shards that the optimizer has: none can be named.
        with _gradients_of_others_kept(update):
            torch.autograd.backward(losses, retain_graph=retain_graph)
    else:
        torch.autograd.backward(losses, retain_graph=retain_graph, inputs=update.trainable())


@contextmanager
def _gradients_of_others_kept(update: Update) -> Iterator[None]:
    """Leaves the gradients as they were of all that the engine's updates and their models have, but not this update."""
    own = set(map(id, update.trainable()))
    everything: dict[int, torch.Tensor] = {}
    for each in update.engine.updates.values():
        of_models = [parameter for module in each.modules.values() for parameter in module.parameters()]
        everything |= {id(parameter): parameter for parameter in (*of_models, *each.trainable())}
    kept = [(parameter, parameter.grad) for key, parameter in everything.items() if key not in own]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient
