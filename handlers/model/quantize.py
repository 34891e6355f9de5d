"""Linear layers in fewer bits, by torchao."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.distributed.compat import leave_out_of_replicas, own_parameters
from leyden.engine import Engine, Stage, Update
from leyden.handlers.common.updates import modules_of, share_update
from leyden.handlers.model.finetune import Finetune
from leyden.handlers.model.quantized_config import KINDS, config_of
from leyden.handlers.model.quantized_state import keep_plain_state
from leyden.handlers.parallel import DataParallel
from leyden.handlers.training.float8 import convert_to_float8, require_torchao
from leyden.handlers.training.linear_layers import LayerFilter, carry_over, choose_layers, is_torchaos
from leyden.handlers.training.mixed_precision import MixedPrecision

Replaced = tuple[torch.Tensor, torch.Tensor]
"""A weight before and after."""


class Quantize:
    """Turns linear layers into ones with fewer bits before a run, in place: frozen integer weights, quantization-aware
    training, or float8.

    `kind`: "int8-weights" and "int4-weights" store weights as integers with a scale for each row (int8) or group; they
    are not trained any more and leave the optimizer: a frozen base for LoRA, say. "qat-int8" and "qat-int4" round as
    those do in each forward pass, while the weights are trained in full; `convert()` makes the rounding real.
    "float8" multiplies in float8, as MixedPrecision("fp8") does, without autocast.

    `layers`: names, or a function (name, layer) -> bool; by default all that fit. `group_size`: how many weights of a
    row share a scale; by default 32 for int4, a row for int8. `update` names the one update it is for; by default all.
    Further arguments go to torchao: those of `leyden.handlers.training.float8.convert_to_float8`, or fields of its
    configs. int4 values lie in bytes, on any device, unless `int4_packing_format` names a format that a GPU has.

    A quantized weight is saved and loaded as plain tensors ("weight.qdata", "weight.scale", ...).

    Raises ModuleNotFoundError or ImportError without a fit torchao; ValueError for an unknown kind, for company that
    does not go with it, and, when the run starts, where no layer qualifies, nothing is left to train, or the device has
    no float8.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018 (qat).
    """

    same_on_ranks = ("kind", "update")

    def __init__(
        self,
        kind: str,
        *,
        layers: LayerFilter = None,
        group_size: int | None = None,
        update: str | None = None,
        **options: Any,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"Quantize knows the kinds {', '.join(KINDS)}, but got {kind!r}")
        self.kind = kind
        self.frozen = kind.endswith("-weights")
        """True if the weights are integers, and not trained."""
        self.group_size = 32 if group_size is None and "int4" in kind else group_size
        self.update = update
        self._who = f'Quantize("{kind}")'
        self._layers = layers
        self._options = options
        self._updates: list[Update] = []
        require_torchao(self._who)
        if kind == "float8" and group_size is not None:
            raise ValueError(f"{self._who} has no groups, but got group_size={group_size}")
        self.config: Any = config_of(kind, self.group_size, options, self._who)
        """torchao's own."""

    def attach(self, engine: Engine[Any, Any]) -> None:
        if not engine.training and not engine.updates:
            raise ValueError(
                f"{self._who} changes the model of an Update, and an evaluator has none; attach it to the trainer that "
                f"runs this evaluator, or change the model yourself: {self._who}.apply(model)"
            )
        self._updates = engine.targets(self.update, self)
        engine.setup.add(Stage.QUANTIZE, functools.partial(self._set_up, engine), owner=self._who)
        if self.frozen:
            engine.setup.add(Stage.COMPILE, self._hide_from_replicas)
            engine.setup.add(Stage.OPTIMIZER, self._leave_optimizers)
        engine.setup.add(Stage.SCHEDULE, self._check_trainable, each_run=True)

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, Quantize | MixedPrecision | Finetune) or not share_update(self, other):
            return None
        if isinstance(other, Quantize):
            return "both change the models of one update; attach one, or name the update that each is for"
        if isinstance(other, MixedPrecision) and other.precision == "fp8":
            return f'both change the linear layers; take MixedPrecision("bf16") beside {self._who}'
        if isinstance(other, MixedPrecision) and other.precision == "fp64-true" and self.kind != "float8":
            return "torchao rounds fp32, bf16 and fp16 to integers, and no fp64; train in another precision"
        if isinstance(other, Finetune) and self.frozen:
            return "integer weights can't be unfrozen; train adapters on them (LoRA), or take a qat kind"
        return None

    def apply(self, model: nn.Module) -> None:
        """Changes a model now, without an engine: for inference, say. Raises as a run does."""
        self._change({"model": model})

    def convert(self, model: nn.Module | None = None) -> None:
        """Ends quantization-aware training: rounds the weights for good, in the given model or those of the updates.

        They are integers with scales then, and trained no more. Raises ValueError for a kind that is not qat, and for a
        model that has no layer of it.
        """
        from torchao.quantization import quantize_
        from torchao.quantization.qat import FakeQuantizedLinear, QATConfig

        if not self.kind.startswith("qat"):
            raise ValueError(f"{self._who} has nothing to convert; only the qat kinds do")
        converted = 0
        for module in self.modules().values() if model is None else (model,):
            rehearsed = {n: layer for n, layer in module.named_modules() if isinstance(layer, FakeQuantizedLinear)}
            converted += len(rehearsed)
            quantize_(
                module,
                QATConfig(self.config, step="convert"),
                filter_fn=lambda layer, _: isinstance(layer, FakeQuantizedLinear),
            )
            carry_over(rehearsed, module)
            for name in rehearsed:
                keep_plain_state(module.get_submodule(name))
        if not converted:
            raise ValueError(f"{self._who} finds no layer to convert; run the trainer it is attached to first")

    def modules(self) -> dict[str, nn.Module]:
        """The modules of all updates, each once."""
        return modules_of(self._updates)

    def _set_up(self, engine: Engine[Any, Any]) -> None:
        together = dist.world_size() > 1 and bool(engine.find_handlers(DataParallel))
        exchanges = self._change(self.modules(), together)
        exchanged = {id(old): new for old, new in exchanges}
        for update in self._updates:
            for old, _ in exchanges:
                update.optimizer.state.pop(old, None)
            for group in update.optimizer.param_groups:
                group["params"][:] = [exchanged.get(id(parameter), parameter) for parameter in group["params"]]

    def _change(self, modules: Mapping[str, nn.Module], together: bool = False) -> list[Replaced]:
        """Changes the layers; returns the weights that were replaced. `together`: all ranks call this and begin
        equal.
        """
        if self.kind == "float8":
            convert_to_float8(modules, layers=self._layers, who=self._who, **self._options)
            return []
        from torchao.quantization import quantize_
        from torchao.quantization.qat import QATConfig

        uses = Counter(
            id(parameter)
            for module in {each for root in modules.values() for each in root.modules()}
            for parameter in own_parameters(module).values()
        )

        def misfit(layer: nn.Linear) -> str | None:
            if self.group_size is not None and layer.in_features % self.group_size:
                return f"its {layer.in_features} inputs are no multiple of group_size={self.group_size}"
            if layer.weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                return f"torchao rounds fp32, bf16 and fp16, and its weight is {layer.weight.dtype}"
            return "its weight is another layer's too" if self.frozen and uses[id(layer.weight)] > 1 else None

        exchanged: list[Replaced] = []
        chosen = choose_layers(modules, self._layers, misfit, self._who, exchanges=not self.frozen)
        for key, layers in chosen.items():
            before = {layer: layer.weight for layer in layers.values()}
            if self.frozen and together:
                _take_from_rank_zero(before.values())
            try:
                quantize_(
                    modules[key],
                    self.config if self.frozen else QATConfig(self.config, step="prepare"),
                    # A layer that occurs twice comes twice.
                    filter_fn=lambda layer, _, before=before: layer in before and not is_torchaos(layer.weight),
                )
            except Exception as error:
                device = next(iter(before.values())).device
                error.add_note(f"{self._who} on {device} with: {self.config}")
                raise
            carry_over(layers, modules[key])
            if self.frozen:
                exchanged += [(weight, layer.weight) for layer, weight in before.items()]
                for layer in before:
                    keep_plain_state(layer)
        return exchanged

    def _hide_from_replicas(self) -> None:
        """DistributedDataParallel can't broadcast torchao's tensors; they are equal already."""
        for module in self.modules().values() if dist.world_size() > 1 else ():
            names = [name for name, parameter in module.named_parameters() if is_torchaos(parameter)]
            leave_out_of_replicas(module, names)

    def _leave_optimizers(self) -> None:
        for update in self._updates:
            for group in update.optimizer.param_groups:
                stay = [place for place, parameter in enumerate(group["params"]) if not is_torchaos(parameter)]
                for key in {"params", "param_names"} & group.keys():
                    group[key][:] = [group[key][place] for place in stay]

    def _check_trainable(self) -> None:
        from torchao.quantization.qat import FakeQuantizedLinear

        layers = [layer for module in self.modules().values() for layer in module.modules()]
        if self.kind.startswith("qat") and not any(isinstance(layer, FakeQuantizedLinear) for layer in layers):
            raise ValueError(f"{self._who} is converted: the weights are integers now, and are no longer trained")
        for update in self._updates:
            if self.frozen and not update.trainable():
                raise ValueError(
                    f"{self._who} froze the weights it made, and the optimizer of update {update.name!r} has nothing "
                    'else to train; attach LoRA, change fewer layers (layers=), or take a kind that trains: "qat-int8"'
                )


def _take_from_rank_zero(weights: Any) -> None:
    with torch.no_grad():
        for weight in weights:
            for dimension in ("tensor", "context", "data"):  # stages of a pipeline have other weights
                weight.copy_(dist.broadcast(weight, over=dimension))
