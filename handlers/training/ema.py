"""A moving average of the weights."""

from __future__ import annotations

import functools
from typing import Any

import torch

from leyden.distributed.compat import foreach_add_, foreach_copy_, foreach_lerp_, foreach_mul_
from leyden.engine import Engine, Events, RemovableEventHandle, Update, UpdateEvents
from leyden.engine.values import as_whole
from leyden.handlers.training.averaged_weights import AveragedWeights
from leyden.handlers.training.averaging import Averaging


class EMA(Averaging):
    """Keeps an exponential moving average of the weights, which evaluations and exports use in their place.

    After each optimizer step (after each `every`-th, and only after the first `start_step`; a skipped step does not
    count): average = decay * average + (1 - decay) * weight. The first weights that come are copied, as in
    torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn and in timm, to whose arithmetic it is equal to the
    bit. `warmup=True`: the decay is min(decay, (1 + n) / (10 + n)) with n averages made before, as in
    tf.train.ExponentialMovingAverage, so that the first weights are soon forgotten.

    Averages are fp32 where weights are bf16 or fp16, and shards where weights are; nothing is gathered. Frozen
    parameters and buffers are not averaged: the averaged model has those of the model. A parameter unfrozen in
    mid-run is averaged from there on. A run from the beginning begins a new average.

    `evaluate`: evaluations that the trainer runs (`Evaluate`) are of the averaged weights; training goes on from its
    own, bit for bit. For other uses: `with ema.swapped():`, `ema.averaged()`, `ema.copy_to(model)`. `update` names the
    one update it is for; by default all.

    Raises ValueError for numbers out of range, an engine without an Update, and, beside another average of the same
    weights, where evaluations would want both.
    """

    settings = ("decay", "warmup", "every", "start_step", "evaluate")

    def __init__(
        self,
        decay: float = 0.999,
        *,
        warmup: bool = False,
        every: int = 1,
        start_step: int = 0,
        evaluate: bool = True,
        update: str | None = None,
    ) -> None:
        super().__init__(evaluate=evaluate, update=update)
        if isinstance(decay, bool) or not isinstance(decay, int | float):
            raise TypeError(f"EMA takes a decay as a number, but got {decay!r}")
        if not 0 <= decay < 1:
            still = ", with which the average would stay what it was at first" if decay == 1 else ""
            raise ValueError(f"EMA needs a decay from 0 to 1, but got {decay}{still}")
        for name, value, least in (("every", every, 1), ("start_step", start_step, 0)):
            if (whole := as_whole(value)) is None or whole < least:
                raise ValueError(f"EMA takes {name} as a number of steps, at least {least}, but got {value!r}")
        self.decay = decay
        self.warmup = warmup
        self.every = int(every)
        self.start_step = int(start_step)
        self._no_grad = torch.no_grad()
        self._watches: dict[str, RemovableEventHandle] = {}

    def listen(self, engine: Engine[Any, Any], update: Update, weights: AveragedWeights) -> None:
        event: Any = UpdateEvents.STEP_COMPLETED
        if self.every > 1 or self.start_step > 0:
            event = event(every=self.every, after=self.start_step)
        update.add_event_handler(event, functools.partial(self.average, weights))
        engine.add_event_handler(Events.STARTED, functools.partial(self._watch, weights))

    def average(self, weights: AveragedWeights) -> None:
        """Adds the current weights to the average."""
        count = weights.count
        if count == 0:
            self._begin(weights)
            return
        weights.require_own()
        decay = self.decay
        if self.warmup and (early := (1 + count) / (10 + count)) < decay:
            decay = early
        with self._no_grad:
            for averages, values in weights.groups():
                if averages[0].dtype is values[0].dtype:
                    foreach_lerp_(averages, values, 1 - decay)
                else:
                    foreach_mul_(averages, decay)
                    foreach_add_(averages, values, alpha=1 - decay)
        weights.count = count + 1

    def _begin(self, weights: AveragedWeights) -> None:
        weights.require_own()
        with self._no_grad:
            for averages, values in weights.groups():
                foreach_copy_(averages, values)
        weights.count = 1
        self._watch(weights)

    def _watch(self, weights: AveragedWeights) -> None:
        """Watches for parameters that are unfrozen, once there is an average and only if some are frozen."""
        name = weights.update.name
        if name in self._watches:
            self._watches.pop(name).remove()
        if weights.frozen and weights.count > 0:
            watch = functools.partial(self._take_in, weights)
            self._watches[name] = weights.update.add_event_handler(UpdateEvents.GRADIENTS_READY, watch)

    def _take_in(self, weights: AveragedWeights) -> None:
        """Before their first step, since the average begins with what they were while frozen."""
        for parameter in weights.frozen:
            if parameter.requires_grad:
                weights.collect()
                self._watch(weights)
                return
