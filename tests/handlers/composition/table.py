"""Every handler of the step, the model and the data: how it is made, and what it is in the loop by hand.

The pairs are made from this table, so a handler that is not in it fails a test of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from hand_loop import Options
from task import inputs_of, weight_of

from leyden.contrib import LoRA
from leyden.handlers import data as data_room
from leyden.handlers import model as model_room
from leyden.handlers import searching as searching_room
from leyden.handlers import training as training_room
from leyden.handlers.data import DeviceTransfer, DryRun, LimitBatches, Overfit, Reproducible
from leyden.handlers.model import ActivationCheckpointing, ChannelsLast, Compile, Finetune, Freeze, Quantize
from leyden.handlers.searching import BatchSizeFinder, LearningRateFinder
from leyden.handlers.training import (
    EMA,
    SWA,
    BatchSizeSchedule,
    ClipGradients,
    GradientAccumulation,
    MixedPrecision,
    ParamSchedule,
    Schedule,
    TruncatedBPTT,
)
from leyden.handlers.training.shapes import Linear

ROOMS = (training_room, model_room, data_room, searching_room)
LINEARS = ("blocks.0.linear", "blocks.1.linear")


def in_float8(model):
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(emulate=True)
    convert_to_float8_training(model, module_filter_fn=lambda module, name: name in LINEARS, config=config)


def rounded_while_training(model):
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.qat import QATConfig

    base = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(model, QATConfig(base, step="prepare"), lambda module, name: name in LINEARS)


def of_integer_weights(model):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False), lambda module, name: name in LINEARS)
    for name in LINEARS:
        model.get_submodule(name).weight.requires_grad_(False)


@dataclass(frozen=True)
class Case:
    """`make(model, optimizer)` makes the handler; `by_hand`: the fields of `Options` that do the same."""

    make: Callable | None
    by_hand: dict = field(default_factory=dict)


LORA = {"r": 2, "lora_alpha": 4, "target_modules": list(LINEARS)}

CASES = {
    "MixedPrecision bf16": Case(lambda model, optimizer: MixedPrecision("bf16"), {"autocast": torch.bfloat16}),
    "MixedPrecision fp16": Case(
        lambda model, optimizer: MixedPrecision("fp16", init_scale=2.0**20),  # the first steps overflow
        {"autocast": torch.float16, "scaler": {"init_scale": 2.0**20}},
    ),
    "MixedPrecision fp8": Case(
        lambda model, optimizer: MixedPrecision("fp8", emulate=True, layers=LINEARS),
        {"autocast": torch.bfloat16, "convert": (in_float8,)},
    ),
    "MixedPrecision bf16-true": Case(lambda model, optimizer: MixedPrecision("bf16-true"), {"dtype": torch.bfloat16}),
    "MixedPrecision fp64-true": Case(lambda model, optimizer: MixedPrecision("fp64-true"), {"dtype": torch.float64}),
    "GradientAccumulation": Case(lambda model, optimizer: GradientAccumulation(3), {"window": 3}),
    "GradientAccumulation by weight": Case(
        lambda model, optimizer: GradientAccumulation(4, weight=weight_of), {"window": 4, "weighted": True}
    ),
    "ClipGradients norm": Case(lambda model, optimizer: ClipGradients(norm=0.5), {"clip_norm": 0.5}),
    "ClipGradients value": Case(lambda model, optimizer: ClipGradients(value=0.05), {"clip_value": 0.05}),
    "Schedule per step": Case(
        lambda model, optimizer: Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)),
        {"per_step": (0.95,)},
    ),
    "Schedule per epoch": Case(
        lambda model, optimizer: Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), per="epoch"),
        {"per_epoch": (0.5,)},
    ),
    "ParamSchedule": Case(
        lambda model, optimizer: ParamSchedule("momentum", Linear(0.9, 0.5, 20)), {"momentum": (0.9, 0.5, 20)}
    ),
    "BatchSizeSchedule": Case(lambda model, optimizer: BatchSizeSchedule({1: 4, 2: 8}), {"batch_sizes": {0: 4, 1: 8}}),
    "EMA": Case(lambda model, optimizer: EMA(0.9), {"ema": 0.9}),
    "SWA": Case(lambda model, optimizer: SWA(2, forward=lambda batch: model(inputs_of(batch)[0])), {"swa": 2}),
    "TruncatedBPTT": Case(lambda model, optimizer: TruncatedBPTT(2, dim=2), {"chunk": 2}),
    "Compile": Case(lambda model, optimizer: Compile(backend="eager"), {"compiled": True}),
    "ActivationCheckpointing": Case(lambda model, optimizer: ActivationCheckpointing(), {"checkpointed": True}),
    "Freeze": Case(lambda model, optimizer: Freeze("norm", "recurrent"), {"freeze": ("norm", "recurrent")}),
    "Finetune": Case(
        lambda model, optimizer: Finetune({2: ("blocks", 0.5), 3: ("stem", 0.1)}),
        {"unfreeze": {1: (("blocks",), 0.5), 2: (("stem",), 0.1)}},
    ),
    "LoRA": Case(lambda model, optimizer: LoRA(2, alpha=4, targets=list(LINEARS)), {"lora": LORA}),
    "Quantize in training": Case(
        lambda model, optimizer: Quantize("qat-int8", layers=LINEARS), {"convert": (rounded_while_training,)}
    ),
    "Quantize weights": Case(
        lambda model, optimizer: Quantize("int8-weights", layers=LINEARS), {"convert": (of_integer_weights,)}
    ),
    "ChannelsLast": Case(lambda model, optimizer: ChannelsLast(), {"channels_last": True}),
    "DeviceTransfer": Case(lambda model, optimizer: DeviceTransfer()),
    "LimitBatches": Case(lambda model, optimizer: LimitBatches(7), {"limit": 7}),
    "DryRun": Case(lambda model, optimizer: DryRun(2), {"limit": 2, "epochs": 1}),
    "Overfit": Case(lambda model, optimizer: Overfit(3), {"limit": 3, "isolated": True}),
    "Reproducible": Case(lambda model, optimizer: Reproducible(5), {"seed": 5, "isolated": True}),
    "LearningRateFinder": Case(lambda model, optimizer: LearningRateFinder(apply=False, steps=10)),
    "BatchSizeFinder": Case(lambda model, optimizer: BatchSizeFinder(max_size=8), {"batch_size": 8}),
    "CombinedLoader": Case(None, {"combined": True}),
}


def together(*names):
    """The options of the loop by hand for these handlers together."""
    chosen = {}
    for name in names:
        for key, value in CASES[name].by_hand.items():
            chosen[key] = MERGE[key](chosen[key], value) if key in chosen else value
    return Options(**chosen)


MERGE = {
    "limit": min,
    "isolated": max,
    "epochs": min,
    **dict.fromkeys(("convert", "per_step", "per_epoch", "freeze"), lambda one, other: one + other),
}

assert all(key in {each.name for each in fields(Options)} for case in CASES.values() for key in case.by_hand)
