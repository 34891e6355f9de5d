"""peft's adapters in a model: found, merged into the weights they adapt, and exported."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.handlers.training import is_torchaos


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}


def merge(model: nn.Module, *, unload: bool = False) -> None:
    """Adds the adapters to the weights they adapt, in place: the forward pass costs what it did without them.

    `unload=True` then removes every trace of peft, for good: the model has its first layout and names again, with the
    new weights. Quantized weights are rounded anew. Raises ValueError for a model without adapters.
    """
    with torch.no_grad():
        for layer in _require_adapters(model).values():
            if not layer.merged:
                layer.merge()
    if not unload:
        if hasattr(model, "save_pretrained"):
            warnings.warn(
                "merged, the model still has the adapters' layers, under peft's names: save_pretrained would write a "
                "folder that from_pretrained loads with fresh weights. Call merge(model, unload=True) before saving it",
                stacklevel=2,
            )
        return
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "unload_and_optionally_merge_module"):  # peft's copies of modules that are trained in full
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        elif hasattr(layer, "merged_adapters"):
            plain = layer.get_base_layer()
        else:
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, plain)
    del model.peft_config


def unmerge(model: nn.Module) -> None:
    """Undoes `merge(model)`, to rounding.

    Raises ValueError for a model without adapters, and for merged quantized weights, whose first values are gone.
    """
    merged = {name: layer for name, layer in _require_adapters(model).items() if layer.merged}
    for name, layer in merged.items():
        if is_torchaos(layer.get_base_layer().weight):
            raise ValueError(f"{name} can't be unmerged: merging has rounded its quantized weight anew")
    with torch.no_grad():
        for layer in merged.values():
            layer.unmerge()


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters' own tensors by peft's names for them, copied to the CPU; without the weights that they adapt."""
    from peft import get_peft_model_state_dict

    _require_adapters(model)
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in get_peft_model_state_dict(model).items()
    }


def save_adapters(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Writes the adapters, on rank 0, as peft.PeftModel.from_pretrained(base_model, folder) reads them."""
    from safetensors.torch import save_file

    state = {f"base_model.model.{name}": value for name, value in adapter_state(model).items()}
    if dist.rank() == 0:
        Path(folder).mkdir(parents=True, exist_ok=True)
        config: Any = model.peft_config
        config["default"].save_pretrained(os.fspath(folder))
        save_file(state, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})


def _require_adapters(model: nn.Module) -> dict[str, Any]:
    layers = adapted_layers(model)
    if not layers:
        raise ValueError(f"this {type(model).__name__} has no adapters; LoRA puts them in when the run starts")
    return layers
