"""Linear layers that multiply in float8, by torchao: for MixedPrecision("fp8") and Quantize("float8")."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from leyden.handlers.common.packages import require_package
from leyden.handlers.training.linear_layers import LayerFilter, carry_over, choose_layers

TORCHAO = (0, 18)
"""The first release of torchao with everything used here and in Quantize."""


def convert_to_float8(
    modules: Mapping[str, nn.Module],
    *,
    recipe: str = "tensorwise",
    layers: LayerFilter = None,
    who: str = 'MixedPrecision("fp8")',
    **options: Any,
) -> None:
    """Lets linear layers multiply in float8, forward and backward; in place, their parameters stay the same objects.

    `recipe`: how tensors are scaled, "tensorwise", "rowwise" or "rowwise_with_gw_hp" (the row-wise ones want bf16
    inputs on a GPU). `layers`: which ones, see `LayerFilter`; those with a size that is no multiple of 16 are left out.
    `emulate=True` computes the same roundings on any device, slowly. Other options are fields of torchao's
    Float8LinearConfig: `pad_inner_dim=True` where batch size times length is no multiple of 16, and so on.

    Raises ValueError for an unknown recipe or option, where no layer qualifies, and for a device that does not
    multiply in float8 (of NVIDIA's, below compute capability 8.9).

    Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022, https://arxiv.org/abs/2209.05433.
    """
    config = float8_config(recipe, options, who)
    from torchao.float8 import convert_to_float8_training

    chosen = choose_layers(modules, layers, _misfit, who, exchanges=True)
    if not config.emulate:
        for device in {layer.weight.device for found in chosen.values() for layer in found.values()}:
            _try_float8(device, config, who)
    for key, found in chosen.items():
        picked = set(map(id, found.values()))
        convert_to_float8_training(
            modules[key], module_filter_fn=lambda layer, _, picked=picked: id(layer) in picked, config=config
        )
        carry_over(found, modules[key])


def float8_config(recipe: str, options: Mapping[str, Any], who: str) -> Any:
    """torchao's Float8LinearConfig of a recipe, with the options. Raises as `convert_to_float8`."""
    require_torchao(who)
    from torchao.float8 import Float8LinearConfig, Float8LinearRecipeName

    recipes = [each.value for each in Float8LinearRecipeName]
    if recipe not in recipes:
        raise ValueError(f"{who} knows the float8 recipes {', '.join(recipes)}, but got {recipe!r}")
    known = [field.name for field in dataclasses.fields(Float8LinearConfig)]
    if strange := [name for name in options if name not in known]:
        raise ValueError(f"{who} got {', '.join(strange)}, but torchao's Float8LinearConfig has: {', '.join(known)}")
    return dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), **options)


def require_torchao(who: str = 'MixedPrecision("fp8")') -> None:
    """Raises ModuleNotFoundError or ImportError, with the command that helps, without a torchao that is new enough."""
    require_package("torchao", "quantize", who)
    found = version("torchao")
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < TORCHAO:
        need = ".".join(map(str, TORCHAO))
        raise ImportError(f'{who} needs torchao {need}, but found {found}: pip install -U "torchao>={need}"')


def _misfit(layer: nn.Linear) -> str | None:
    if layer.in_features % 16 or layer.out_features % 16:
        return f"float8 needs sizes that are multiples of 16, and it has {layer.in_features} → {layer.out_features}"
    return None


def _try_float8(device: torch.device, config: Any, who: str) -> None:
    """Multiplies once, forward and backward, since no property common to all devices tells what one can do."""
    from torchao.float8 import convert_to_float8_training

    layer = nn.utils.skip_init(nn.Linear, 16, 16, bias=False, device=device, dtype=torch.bfloat16)
    nn.init.ones_(layer.weight)
    x = torch.ones(16, 16, device=device, dtype=torch.bfloat16, requires_grad=True)
    try:
        y = convert_to_float8_training(nn.Sequential(layer), config=config)(x)
        y.backward(torch.ones_like(y))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{who} needs a device that multiplies in float8 (a GPU of compute capability 8.9 or more, say), and "
            f"{device} does not: {str(error).splitlines()[0]}. Train in bf16, or say emulate=True: that computes the "
            "same roundings, slowly"
        ) from error
