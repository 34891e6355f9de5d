"""The state of a layer with a quantized weight as plain tensors, which a checkpoint and safetensors can hold."""

from __future__ import annotations

from typing import Any

from torch import nn

from leyden.handlers.training.linear_layers import is_torchaos


def keep_plain_state(layer: nn.Module) -> None:
    """From now on the layer's state_dict has, in the place of its quantized "weight", "weight.qdata", "weight.scale"
    and so on; load_state_dict takes the same."""
    layer.register_state_dict_post_hook(_to_parts)
    layer.register_load_state_dict_pre_hook(_from_parts)


def _to_parts(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    weight = state.get(f"{prefix}weight")
    if is_torchaos(weight):
        del state[f"{prefix}weight"]
        names, _ = weight.__tensor_flatten__()  # type: ignore[union-attr]
        state.update({f"{prefix}weight.{name}": getattr(weight, name) for name in names})


def _from_parts(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    weight: Any = layer.weight
    if not is_torchaos(weight):
        return
    names, kind = weight.__tensor_flatten__()
    if all(f"{prefix}weight.{name}" in state for name in names):
        parts = {name: state.pop(f"{prefix}weight.{name}") for name in names}
        state[f"{prefix}weight"] = type(weight).__tensor_unflatten__(parts, kind, weight.shape, weight.stride())
