"""Forward passes in low precision, and the loss scaling that fp16 needs."""

from __future__ import annotations

import functools
from typing import Any

import torch

from leyden.engine import Engine, Stage, Update

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class MixedPrecision:
    """Runs forward passes under torch.autocast, in bf16 or fp16; fp16 scales the loss and skips steps that overflow.

    `precision`: "bf16", "fp16" or "fp32" (nothing is done). `update` names the one update it is for; by default all.
    Evaluators that a trainer runs (`Evaluate`) get the same autocast, without scaling.
    Further arguments go to torch.amp.GradScaler (`init_scale`, `growth_interval`, ...).

    Raises ValueError for an unknown precision, a second one on the same update, an engine without an Update, and, when
    the run starts, for a device on which torch has no such autocast.
    """

    def __init__(self, precision: str = "bf16", *, update: str | None = None, **scaler_options: Any) -> None:
        if precision not in DTYPES:
            raise ValueError(f"MixedPrecision knows the precisions {', '.join(DTYPES)}, but got {precision!r}")
        if scaler_options and precision != "fp16":
            raise ValueError(f"only fp16 scales the loss; {precision} has no use for: {', '.join(scaler_options)}")
        self.precision = precision
        self._update = update
        self._scaler_options = scaler_options

    def attach(self, engine: Engine[Any, Any]) -> None:
        if not engine.training and not engine.updates:
            if engine.find_handlers(MixedPrecision):
                raise ValueError(
                    "MixedPrecision and MixedPrecision both set the autocast of one engine; attach only one"
                )
            self._wrap(engine)
            return
        for update in engine.targets(self._update, self):
            update.slots.claim("autocast", self, None)
            if self.precision == "fp16":
                update.slots.claim("scaler", self, LossScaler(update.optimizer, **self._scaler_options))
            engine.setup.add(Stage.MATERIALISE, functools.partial(self._fill, update))

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Runs the evaluator's whole process function under autocast, unless it has a precision of its own."""
        if not engine.find_handlers(MixedPrecision):
            self._wrap(engine)

    def _wrap(self, engine: Engine[Any, Any]) -> None:
        dtype = DTYPES[self.precision]
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

    def _fill(self, update: Update) -> None:
        dtype = DTYPES[self.precision]
        if dtype is None:
            return
        # Of the modules, not of the optimizer, which may still hold what a move has exchanged.
        device = next(p.device.type for module in update.modules.values() for p in module.parameters())
        update.slots.autocast = _autocast(device, dtype)
        if isinstance(update.slots.scaler, LossScaler):
            update.slots.scaler.place(device)


def _autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    if not torch.amp.is_autocast_available(device):
        raise ValueError(
            f"MixedPrecision asks for {dtype} on the device {device!r}, for which torch has no autocast; "
            'train in "fp32", or on one of cpu, cuda, xpu, mps, xla'
        )
    return torch.autocast(device, dtype=dtype)


class LossScaler:
    """torch.amp.GradScaler for one optimizer, telling whether it stepped without asking the device a second time."""

    def __init__(self, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        self._options = options
        self._scaler = torch.amp.GradScaler("cpu", **options)
        self._stepped = False
        # A fused optimizer is always called and skips on the device, so only the scale tells.
        self._skips_itself = getattr(optimizer, "_step_supports_amp_scaling", False)
        optimizer.register_step_post_hook(self._note_step)

    def place(self, device: str) -> None:
        """Goes on on the device that the setup of a run has found."""
        state = self._scaler.state_dict()
        self._scaler = torch.amp.GradScaler(device, **self._options)
        self._scaler.load_state_dict(state)

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        before = self._scaler.get_scale() if self._skips_itself else 0.0
        self._stepped = False
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._stepped and not (self._skips_itself and self._scaler.get_scale() < before)

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state_dict)
