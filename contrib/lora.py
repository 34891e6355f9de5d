"""Low-rank adapters, by peft. What is done with them after training is in `leyden.contrib.adapters`."""

from __future__ import annotations

import copy
import functools
import re
import warnings
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from leyden.contrib.adapter_groups import Kin, enter_optimizer, find_kin
from leyden.contrib.adapters import adapted_layers
from leyden.engine import Engine, Stage, Update
from leyden.engine.step import LateOptimizer, named_parameters, optimizers_in
from leyden.engine.values import as_whole
from leyden.handlers import Finetune, Freeze, ParamSchedule, Quantize, Schedule
from leyden.handlers.common import require_number, require_package, share_update

PEFTS_NAMES = {"r": "rank", "lora_alpha": "alpha", "target_modules": "targets", "lora_dropout": "dropout"}


class LoRA:
    """Freezes a model and trains low-rank adapters of its layers instead, by peft; the model stays the same object.

    `rank`, `alpha`, `dropout`: a layer's output gets alpha / rank * B(A(dropout(x))), with A and B of that rank.
    `targets`: names of layers, whole or their last parts (["q_proj", "v_proj"]), or a regular expression; by default
    all linear layers. `update` names the one update it is for; by default all, and a module of it without a target is
    left as it is. Further arguments go to peft.LoraConfig (`modules_to_save`, `bias`, `use_dora`, ...).

    The adapters take the places of their layers' weights in the optimizer, in the same groups, so that schedulers and
    rates by group go on; or, with `lr`, a group of their own with that learning rate. What is frozen leaves it.
    The layers may have been quantized: `Quantize("int8-weights")`.

    Afterwards: `merge(model)`, `adapter_state(model)` and `save_adapters(model, folder)` of leyden.contrib.adapters.

    Raises ModuleNotFoundError without peft; ValueError for an engine without an Update, for company that freezes
    weights itself, and, when the run starts, for targets that are not there and adapters that are there already.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685.
    """

    same_on_ranks = ("targets", "lr", "update")

    def __init__(
        self,
        rank: int = 8,
        *,
        alpha: float = 16,
        targets: Collection[str] | str | None = None,
        dropout: float = 0.0,
        lr: float | None = None,
        update: str | None = None,
        **options: Any,
    ) -> None:
        if (whole := as_whole(rank)) is None or whole < 1:
            raise ValueError(f"LoRA needs a whole rank of at least 1, but got {rank!r}")
        require_number("LoRA", "an alpha", alpha, above=0)
        require_number("LoRA", "a dropout", dropout, least=0, below=1)
        if lr is not None:
            require_number("LoRA", "a learning rate (lr)", lr, above=0)
        for theirs, ours in PEFTS_NAMES.items():
            if theirs in options:
                raise TypeError(f"LoRA takes peft's {theirs} under the name {ours}: LoRA({ours}={options[theirs]!r})")
        require_package("peft", "lora", "LoRA")
        import peft

        config_class: Any = peft.LoraConfig  # whose types are narrower than what it takes
        if targets is None and "target_parameters" not in options:
            targets = "all-linear"
        self.targets = targets if targets is None or isinstance(targets, str) else list(targets)
        self.lr = lr
        self.update = update
        self._config: Any = config_class(
            r=whole, lora_alpha=alpha, target_modules=self.targets, lora_dropout=dropout, **options
        )
        self._updates: list[Update] = []
        self._names: dict[int, str] = {}  # of the parameters that the optimizers have when adapters come in, by id
        self._made: dict[str, dict[str, int]] = {}  # by update: the parameters that peft made, and each one's group

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._updates = engine.targets(self.update, self)
        if self.lr is not None and any(isinstance(update.optimizer, LateOptimizer) for update in self._updates):
            raise ValueError(
                f"LoRA(lr={self.lr}) makes a group of the adapters, and the optimizer of this update is made by a "
                "function, which gets just them: give it the learning rate there, and leave lr= out"
            )
        for other in engine.find_handlers(Schedule):
            if reason := self.refuses(other):
                raise ValueError(f"LoRA and Schedule can't both be attached to one engine: {reason}")
        engine.setup.add(Stage.ADAPT, functools.partial(self._adapt, engine), owner=self)
        engine.setup.add(Stage.OPTIMIZER, lambda: self._enter_optimizers(engine), owner="adapters of LoRA")
        engine.setup.add(Stage.OPTIMIZER, self._check_unmerged, each_run=True)

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, Schedule):  # asked once more when this one is attached and knows its optimizers
            mine = self._optimizers()
            both = other.optimizer is not None and any(each in mine for each in optimizers_in(other.optimizer))
            return self._lr_conflict() if both else None
        if not isinstance(other, LoRA | Freeze | Finetune | ParamSchedule | Quantize) or not share_update(self, other):
            return None
        if isinstance(other, LoRA):
            return "both adapt the models of one update; attach one, or name the update that each is for"
        if isinstance(other, Freeze | Finetune):
            return "LoRA freezes the model itself; what is to be trained in full beside it: LoRA(modules_to_save=[...])"
        if isinstance(other, Quantize) and other.kind.startswith("qat"):
            return f'LoRA freezes the weights that "{other.kind}" is to train; take Quantize("int8-weights")'
        return self._lr_conflict() if isinstance(other, ParamSchedule) else None

    def _lr_conflict(self) -> str | None:
        if self.lr is None:
            return None
        return (
            f"LoRA(lr={self.lr}) makes a group of parameters that a scheduler made before does not know; leave "
            "lr= out, and the adapters have the scheduled rate of the weights whose places they take"
        )

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [each for update in self._updates for each in update.optimizers]

    # -- the model -------------------------------------------------------------------------------------------

    def _adapt(self, engine: Engine[Any, Any]) -> None:
        modules = list({id(module): module for each in self._updates for module in each.modules.values()}.values())
        self._check_targets(modules)
        before = {id(parameter) for module in modules for parameter in module.parameters()}
        for module in modules:
            if any(self._is_target(name, layer) for name, layer in module.named_modules()):
                self._inject(module, engine)
        kin: dict[int, list[Kin]] = {}
        for update in self._updates:
            names = named_parameters(update.modules)
            groups = {
                id(p): place for place, group in enumerate(update.optimizer.param_groups) for p in group["params"]
            }
            held = {name: groups[id(parameter)] for name, parameter in names.items() if id(parameter) in groups}
            made = [name for name, parameter in names.items() if id(parameter) not in before]
            self._names |= {id(names[name]): name for name in held}
            for each in find_kin(update.name, made, held):
                kin.setdefault(id(names[each.name]), []).append(each)
        self._made = {update.name: {} for update in self._updates}
        for found in kin.values():  # where updates share a model, each adapter goes to the one that its kin is of
            nearest = min(found, key=lambda each: each.distance)
            self._made[nearest.update][nearest.name] = nearest.group

    def _inject(self, module: nn.Module, engine: Engine[Any, Any]) -> None:
        from peft import inject_adapter_in_model

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*without `get_apply_tensor_subclass`")  # it is given below
            inject_adapter_in_model(copy.deepcopy(self._config), module)
        for quantize in engine.find_handlers(Quantize):
            if quantize.frozen and any(module is each for each in quantize.modules().values()):
                for layer in adapted_layers(module).values():
                    if hasattr(layer, "get_apply_tensor_subclass"):  # how to quantize anew after merging
                        layer.get_apply_tensor_subclass = functools.partial(copy.copy, quantize.config)

    def _is_target(self, name: str, layer: nn.Module) -> bool:
        if not name:  # the model itself, whose place peft can't give to another
            return False
        if self.targets is None:  # parameters are named instead, in the options
            return True
        if isinstance(self.targets, list):
            return any(_names(target, name) for target in self.targets)
        return isinstance(layer, nn.Linear) if self.targets == "all-linear" else bool(re.fullmatch(self.targets, name))

    def _check_targets(self, modules: list[nn.Module]) -> None:
        for module in modules:
            if adapters := adapted_layers(module):
                name = next(iter(adapters))
                raise ValueError(f"LoRA finds an adapter in the model already, at {name}; make adapters only once")
        layers = {name: layer for module in modules for name, layer in module.named_modules()}
        if shapeless := [
            n for n, layer in layers.items() if self._is_target(n, layer) and isinstance(layer, LazyModuleMixin)
        ]:
            raise ValueError(
                f"LoRA is to adapt {shapeless[0]}, which has no shape yet (lazy modules); send one batch through the "
                "model before the run"
            )
        named = self.targets if isinstance(self.targets, list) else []
        lost = [target for target in named if not any(_names(target, name) for name in layers)]
        if lost or not any(self._is_target(name, layer) for name, layer in layers.items()):
            linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear) and name]
            there = ", ".join(linear[:8]) + (", ..." if len(linear) > 8 else "")
            raise ValueError(
                f"LoRA is to adapt {', '.join(lost) or self.targets}, and finds no such layer inside the model; its "
                f"linear layers are: {there or 'none (a model that is itself a layer: wrap it in nn.Sequential)'}"
            )

    def _check_unmerged(self) -> None:
        for update in self._updates:
            for module in update.modules.values():
                if any(layer.merged for layer in adapted_layers(module).values()):
                    raise ValueError(
                        "LoRA can't train adapters that are merged into their weights; unmerge(model) first"
                    )

    def _enter_optimizers(self, engine: Engine[Any, Any]) -> None:
        # No update.trainable_changed(): replicas are made after the adapters are, and a run ties its optimizers later.
        for update in self._updates:
            enter_optimizer(update, self._made[update.name], self._names, self.lr)
        for update in engine.updates.values():
            if not update.trainable():
                raise ValueError(
                    f"LoRA leaves update {update.name!r} nothing to train: the weights of its optimizer are frozen, "
                    "and no adapter stands for one of them. Adapt more layers (targets=), or let LoRA work on all "
                    "updates that share the model"
                )


def _names(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")
