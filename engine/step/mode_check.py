"""Whether an engine that only evaluates finds its models in eval mode."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from leyden import distributed as dist
from leyden.distributed.compat import is_compiled
from leyden.engine.step.named_models import models_named_by


class ModeCheck:
    """Warns once where a process function calls a model in train mode; each model's first call is looked at.

    The models are those that the function names: its variables, those around it, or attributes of its object.
    """

    def __init__(self, process: Callable[..., Any]) -> None:
        self._process = process
        self._handles: dict[int, list[RemovableHandle]] = {}
        self._told = False
        self._begun = False

    def begin(self) -> None:
        """Called when a run starts; only the first one is looked at."""
        if self._begun:
            return
        self._begun = True
        for model in models_named_by(self._process):
            parts = list(model.modules())
            if any(map(_is_compiled, parts)):
                continue  # a hook would have it compiled anew
            look = functools.partial(self._look, id(model))
            self._handles[id(model)] = [part.register_forward_pre_hook(look) for part in parts]

    def end(self) -> None:
        """Lets go of the models."""
        for key in tuple(self._handles):
            self._release(key)

    def _release(self, key: int) -> None:
        for handle in self._handles.pop(key, ()):
            handle.remove()

    def _look(self, key: int, module: nn.Module, _: Any) -> None:
        self._release(key)
        if module.training and not self._told:
            self._told = True
            if dist.rank() == 0:
                warnings.warn(
                    f"an engine that evaluates calls a {type(module).__name__} in train mode: dropout drops, and batch "
                    "norms take these batches into their statistics. custom_evaluator(model, step) sets eval mode, "
                    "turns gradients off and puts the modes back; or call model.eval() in the process function",
                    stacklevel=2,
                )


def _is_compiled(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or is_compiled(module)
