"""torchao's configuration for each kind of quantization."""

from __future__ import annotations

from typing import Any

import torch

from leyden.handlers.training.float8 import float8_config

KINDS = ("int8-weights", "int4-weights", "qat-int8", "qat-int4", "float8")


def config_of(kind: str, group_size: int | None, options: dict[str, Any], who: str) -> Any:
    """torchao's config of a kind, with the options as its fields; for qat, of what the weights are to become."""
    if kind == "float8":
        rest = {key: value for key, value in options.items() if key != "recipe"}
        return float8_config(options.get("recipe", "tensorwise"), rest, who)
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow

    # torchao's own default would change inductor's settings for the whole process.
    if "int4_packing_format" in options:
        return Int4WeightOnlyConfig(**{"group_size": group_size, "set_inductor_config": False, **options})
    if kind == "int8-weights":
        granularity = PerRow() if group_size is None else PerGroup(group_size)
        return Int8WeightOnlyConfig(**{"granularity": granularity, "set_inductor_config": False, **options})
    return IntxWeightOnlyConfig(
        weight_dtype=torch.int4 if "int4" in kind else torch.int8,  # type: ignore[attr-defined]
        granularity=PerAxis(0) if group_size is None else PerGroup(group_size),
        **options,
    )
