"""Models compiled in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from leyden.distributed.compat import is_wrapped_by_compile, recompile_limit
from leyden.engine import Engine, Stage, Update
from leyden.handlers.common.updates import share_update
from leyden.handlers.model.blocks import repeated_blocks
from leyden.handlers.model.naming import Outline


class Compile:
    """Compiles models by torch.compile, in place: the model stays the user's object, its parameters keep their names.

    `mode`, `dynamic`, `fullgraph`, `backend`: as in torch.compile. `regional=True` compiles each of the repeated blocks
    (children of one class in a ModuleList, Sequential or ModuleDict) instead of the whole: equal blocks share what is
    compiled, so a deep model compiles as fast as a shallow one. `update` names the one update it is for; by default
    all.

    What runs around the model (events, metrics, other handlers) is not compiled and breaks no graph. Evaluators that
    share the model share what is compiled, too. A model is compiled once for training and once for evaluation, and
    once more when a batch of another size comes first (the epoch's last); `dynamic=True` spares that one, at the price
    of kernels made for any size.

    Raises ValueError for a second one on the same update, a model that torch.compile wrapped before, and `regional`
    where no block is repeated.
    """

    def __init__(
        self,
        mode: str | None = None,
        *,
        dynamic: bool | None = None,
        fullgraph: bool = False,
        backend: str | Callable[..., Any] = "inductor",
        regional: bool = False,
        update: str | None = None,
    ) -> None:
        self.regional = regional
        self.options = {"mode": mode, "dynamic": dynamic, "fullgraph": fullgraph, "backend": backend}
        self.update = update

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, Compile) and share_update(self, other):
            return "both would compile the same model; attach only one, or name the update that each is for"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        for update in updates:
            for module in update.modules.values():
                if is_wrapped_by_compile(module):
                    raise ValueError(
                        f"the model of update {update.name!r} is wrapped by torch.compile already; give the engine "
                        "the model itself, or leave Compile out"
                    )
            if self.regional and not _blocks(update):
                raise ValueError(
                    "Compile(regional=True) compiles repeated blocks (children of one class, made of modules, in a "
                    f"ModuleList, Sequential or ModuleDict), and update {update.name!r} has none among its classes: "
                    f"{Outline(update).classes()}. Leave regional out to compile the whole model"
                )
        engine.setup.add(Stage.COMPILE, lambda: self._compile(updates), owner=self)

    def _compile(self, updates: list[Update]) -> None:
        for update in updates:
            modules = _blocks(update) if self.regional else list(update.modules.values())
            options = self.options | _limit(len(modules))
            for module in modules:
                module.compile(**options)


def _blocks(update: Update) -> list[nn.Module]:
    return [block for module in update.modules.values() for block in repeated_blocks(module).values()]


def _limit(modules: int) -> dict[str, int]:
    """The option that raises torch's limit of compilations: blocks of one class share it, and may come in many
    sizes.
    """
    if modules == 1 or "recompile_limit" not in inspect.signature(torch.compile).parameters:  # before torch 2.13
        return {}
    return {"recompile_limit": modules * recompile_limit()}
