"""Images with their channels last in memory, which makes convolutions fast."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from leyden.engine import Engine, Stage, Update
from leyden.engine.values import Move, map_tensors
from leyden.handlers.common.updates import modules_of, share_update


class ChannelsLast:
    """Puts the channels of images last in memory, in a model's 4-D weights and in its 4-D inputs.

    Shapes stay (N, C, H, W), only strides change; the model stays the user's object, and evaluators that share it get
    the same. `three_d=True` does it for 5-D weights and inputs, (N, C, D, H, W). Inputs are tensors that the model is
    called with, also in nested containers. `update` names the one update it is for; by default all that have such
    weights.

    Raises ValueError for models without a weight of that many dimensions, and for a second one of the same kind on the
    same update.
    """

    def __init__(self, *, three_d: bool = False, update: str | None = None) -> None:
        self.dimensions = 5 if three_d else 4
        self.memory_format = torch.channels_last_3d if three_d else torch.channels_last
        self._put_last = functools.partial(_put_last, dimensions=self.dimensions, memory_format=self.memory_format)
        self.update = update

    def refuses(self, other: Any) -> str | None:
        same = isinstance(other, ChannelsLast) and self.dimensions == other.dimensions
        if same and share_update(self, other):
            return "both would set the memory format of the same model; attach only one"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        if not self._models(updates):
            parameters = [p for model in modules_of(updates).values() for p in model.parameters()]
            there = ", ".join(f"{dimensions}-D" for dimensions in sorted({p.dim() for p in parameters})) or "none"
            raise ValueError(
                f"ChannelsLast changes {self.dimensions}-D weights (of convolutions), and the model has none; "
                f"its parameters are: {there}"
            )
        engine.setup.add(Stage.DEVICE, lambda: self._change(updates), owner=self)

    def _change(self, updates: list[Update]) -> None:
        for model in self._models(updates):
            for tensor in (*model.parameters(), *model.buffers()):
                if not nn.parameter.is_lazy(tensor) and tensor.dim() == self.dimensions:
                    tensor.data = self._put_last(tensor.data)
            model.register_forward_pre_hook(functools.partial(_change_inputs, self._put_last), with_kwargs=True)

    def _models(self, updates: list[Update]) -> list[nn.Module]:
        """The models with such weights, and those with lazy ones, which may become such."""
        return [
            model
            for model in modules_of(updates).values()
            if any(nn.parameter.is_lazy(p) or p.dim() == self.dimensions for p in model.parameters())
        ]


def _put_last(tensor: torch.Tensor, dimensions: int, memory_format: torch.memory_format) -> torch.Tensor:
    if tensor.dim() == dimensions and tensor.layout == torch.strided:
        return tensor.contiguous(memory_format=memory_format)
    return tensor


def _change_inputs(
    change: Move, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return map_tensors(args, change), map_tensors(kwargs, change)
