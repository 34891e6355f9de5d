"""Forward passes in low precision, and the loss scaling that fp16 needs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from leyden.engine import Engine, Stage, Update
from leyden.engine.values import Move, map_tensors, whole_number
from leyden.handlers.common.number_checks import require_number
from leyden.handlers.common.updates import modules_of
from leyden.handlers.training.fast_precision import fast_precision, warn_if_slow
from leyden.handlers.training.loss_scaler import LossScaler

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
TRUE = {"bf16-true": torch.bfloat16, "fp64-true": torch.float64}


class MixedPrecision:
    """Runs forward passes under torch.autocast, in bf16 or fp16; fp16 scales the loss and skips steps that overflow.

    `precision`: "bf16", "fp16" or "fp32" (nothing is done); by default that of these which the device computes fast, as
    `print(engine)` tells: bf16 on newer GPUs and on processors that have instructions for it, fp16 on GPUs before
    those, fp32 elsewhere. "fp8": linear layers multiply in float8 through torchao, the rest is bf16. These leave
    parameters as they are, and, like torch.autocast, inputs and outputs too. "bf16-true" and "fp64-true" change the
    model itself, its parameters, buffers and optimizer states, to that dtype; floating inputs follow, and outputs come
    in it.

    `update` names the one update it is for; by default all. Evaluators that a trainer runs (`Evaluate`) get the same
    autocast, without scaling. Further arguments go to torch.amp.GradScaler (fp16: `init_scale`, `growth_interval`, ...)
    or to `leyden.handlers.training.float8.convert_to_float8` (fp8: `recipe`, ...).

    fp16 asks the device once a step whether it overflowed, as torch's GradScaler does; the others never do.

    Raises ValueError for an unknown precision, a second one on the same update, an engine without an Update, and, when
    the run starts, for a device that has no such precision.
    """

    told_apart_by = ("update",)
    settings = ("precision",)
    same_on_ranks = ("update", "precision")

    def __init__(self, precision: str | None = None, *, update: str | None = None, **options: Any) -> None:
        known = [*AUTOCAST, *TRUE]
        if precision is not None and precision not in known:
            raise ValueError(f"MixedPrecision knows the precisions {', '.join(known)}, but got {precision!r}")
        if options and precision not in ("fp16", "fp8"):
            chosen = "one that the device chooses" if precision is None else precision
            raise ValueError(f"only fp16 and fp8 have options; {chosen} has no use for: {', '.join(options)}")
        if "init_scale" in options:
            require_number("MixedPrecision", "an init_scale", options["init_scale"], above=0)
        if "growth_interval" in options:
            whole_number("a growth_interval", options["growth_interval"], 1, who="MixedPrecision")
        self.precision = precision or "fp32"
        self._chooses = precision is None
        self.update = update
        self._options = options
        if precision == "fp8":
            from leyden.handlers.training.float8 import convert_to_float8, require_torchao

            require_torchao()
            self._convert = functools.partial(convert_to_float8, **options)

    def attach(self, engine: Engine[Any, Any]) -> None:
        shown = self._choose(engine)
        if not engine.training and not engine.updates:
            self._attach_to_lone_evaluator(engine)
            return
        updates = engine.targets(self.update, self)
        for update in updates:
            update.slots.claim("autocast", self, None)
            if self.precision == "fp16":
                update.slots.claim("scaler", self, LossScaler(**self._options))
        if self.precision in TRUE:
            engine.setup.add(Stage.DEVICE, lambda: self._cast(updates), owner=self)
            return
        if self.precision == "fp8":
            convert = functools.partial(self._convert, modules_of(updates))
            engine.setup.add(Stage.QUANTIZE, convert, owner="MixedPrecision in fp8")
        # At each run: an error may have stopped the scaler between unscaling and stepping.
        engine.setup.add(Stage.MATERIALISE, lambda: self._fill(updates), owner=shown, each_run=True)

    def _choose(self, engine: Engine[Any, Any]) -> str:
        """Takes what the engine's device computes fast, unless a precision was said; gives what is shown of that."""
        if not self._chooses:
            warn_if_slow(self.precision, engine.device)
            return ""
        self.precision, reason = fast_precision(engine.device)
        return f"MixedPrecision in {self.precision}, {reason}"

    def _attach_to_lone_evaluator(self, engine: Engine[Any, Any]) -> None:
        if engine.find_handlers(MixedPrecision):
            raise ValueError("MixedPrecision and MixedPrecision both set the autocast of one engine; attach only one")
        if self.precision in TRUE or self.precision == "fp8":
            raise ValueError(
                f"MixedPrecision changes the model of an Update for {self.precision}, and an evaluator has none; "
                "attach it to the trainer that runs this evaluator, or change the model yourself: model.to(dtype)"
            )
        self._wrap(engine)

    def _cast(self, updates: list[Update]) -> None:
        dtype = TRUE[self.precision]
        cast = functools.partial(_to_dtype, dtype=dtype)
        for module in modules_of(updates).values():
            module.to(dtype)
            module.register_forward_pre_hook(functools.partial(_cast_inputs, cast), with_kwargs=True)
        for update in updates:
            _cast_states(update.optimizer)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Runs the evaluator's whole process function under autocast, unless it has a precision of its own."""
        if not engine.find_handlers(MixedPrecision):
            self._wrap(engine)

    def _wrap(self, engine: Engine[Any, Any]) -> None:
        dtype = AUTOCAST.get(self.precision)
        if dtype is None:
            return
        process = engine.process
        contexts: dict[str, torch.autocast] = {}

        @functools.wraps(process)
        def process_in_low_precision(engine: Engine[Any, Any], batch: Any) -> Any:
            with contexts["autocast"]:
                return process(engine, batch)

        engine.process = process_in_low_precision
        engine.setup.add(Stage.MATERIALISE, lambda: contexts.update(autocast=_autocast(engine.device.type, dtype)))

    def _fill(self, updates: list[Update]) -> None:
        dtype = AUTOCAST[self.precision]
        if dtype is None:
            return
        for update in updates:
            device = update.engine.device.type  # parameters may be offloaded to another
            update.slots.autocast = _autocast(device, dtype)
            if isinstance(update.slots.scaler, LossScaler):
                update.slots.scaler.place(device, update.slots.join)


def _cast_states(optimizer: torch.optim.Optimizer) -> None:
    """Gives states the dtypes of their parameters, as loading them does; counts of steps stay as they are."""
    for parameter, state in optimizer.state.items():
        cast = functools.partial(_to_dtype, dtype=parameter.dtype)
        state.update({name: map_tensors(value, cast) for name, value in state.items() if name != "step"})


def _cast_inputs(
    cast: Move, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return map_tensors(args, cast), map_tensors(kwargs, cast)


def _to_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    if not torch.amp.is_autocast_available(device):
        raise ValueError(
            f"MixedPrecision asks for {dtype} on the device {device!r}, for which torch has no autocast; "
            'train in "fp32", or on one of cpu, cuda, xpu, mps, xla'
        )
    return torch.autocast(device, dtype=dtype)
