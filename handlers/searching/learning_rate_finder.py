"""A learning rate found by trying."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage, Update
from leyden.engine.values import as_whole
from leyden.handlers.common.updates import share_update
from leyden.handlers.searching.learning_rates import LearningRates, schedulers_of
from leyden.handlers.searching.range_test import RangeTest
from leyden.handlers.searching.rehearsal import Rehearsal
from leyden.handlers.training.param_schedule import ParamSchedule

logger = logging.getLogger(__name__)

OWN_RATES = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
"""Schedulers that take their learning rates as arguments, whatever the optimizer begins with."""
AFTER_THE_USERS_OWN = Order.DEFAULT + 1
"""After a user's own handlers of STARTED, which may make what the process function needs, and before loggers and
savers, which should see the rate that was found.
"""
MOST_SKIPPED = 64
LONGEST_SEARCH = 1000


class LearningRateFinder:
    """Finds a learning rate before the first step of a run: raises it from step to step until the loss diverges.

    The range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186): optimizer step k
    of `steps` has the learning rate start_lr * f^k with f = (end_lr / start_lr)^(1 / (steps - 1)) ("exponential"), or
    start_lr + k * (end_lr - start_lr) / (steps - 1) ("linear"). It ends when the loss, smoothed by `smoothing` (see
    `RangeTest`), exceeds `diverge` times its least value. The suggestion is where the smoothed loss falls fastest over
    log(lr). A batch that makes several optimizer steps (TruncatedBPTT) has one rate for them. Model, optimizer,
    counters, random numbers and data are then as they were, bit for bit (`Rehearsal`).

    With `apply` the optimizer then begins from the suggestion, all groups in the ratios they had (the numbers are those
    of the fastest group), and so do its schedulers that are attached: their `base_lrs` are set. A run that is resumed
    is not searched. `result` is the `RangeTest`, with `lrs`, `losses`, `smoothed`, `suggestion` and `plot()`; it can
    also be had without a run: `finder.find(trainer, data)`.

    `output_transform(output)`: the loss in what the process function gives, if that is not the loss itself. `update`
    names the update whose learning rate it is, where the engine has several; the others train along as they are.

    Raises ValueError for bad bounds, an engine without an Update, several where none is named, and, when it is to
    apply what it finds, for a schedule that takes its rates from its own arguments (OneCycleLR, CyclicLR, a
    ParamSchedule of "lr"); at the start of the run for data that can be gone through only once.
    """

    same_on_ranks = ("start_lr", "end_lr", "steps", "mode", "update")

    def __init__(
        self,
        start_lr: float = 1e-6,
        end_lr: float = 10.0,
        *,
        steps: int = 100,
        mode: str = "exponential",
        smoothing: float = 0.05,
        diverge: float = 4.0,
        apply: bool = True,
        update: str | None = None,
        output_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if not 0 < start_lr < end_lr < math.inf:
            raise ValueError(f"LearningRateFinder needs 0 < start_lr < end_lr, but got {start_lr=} and {end_lr=}")
        if as_whole(steps) is None:
            raise TypeError(f"LearningRateFinder takes a whole number of steps, but got {steps!r}")
        if steps < 2:
            raise ValueError(f"LearningRateFinder needs at least 2 steps, but got {steps}")
        if mode not in ("exponential", "linear"):
            raise ValueError(f'LearningRateFinder needs mode "exponential" or "linear", but got {mode!r}')
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing is the weight of a new loss, above 0 and at most 1, but got {smoothing}")
        if not diverge > 1:
            raise ValueError(f"diverge is a factor above 1 on the least loss, but got {diverge}")
        self.start_lr = start_lr
        self.end_lr = end_lr
        self.steps = int(steps)
        self.mode = mode
        self.smoothing = smoothing
        self.diverge = diverge
        self.apply = apply
        self.result: RangeTest | None = None
        """What the last search found."""
        self.update = update
        self._output_transform = output_transform
        self._target: Update | None = None

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._target = self._target_on(engine)
        for handler in engine.handlers.values():
            if reason := self.refuses(handler):
                names = f"LearningRateFinder and {type(handler).__name__}"
                raise ValueError(f"{names} can't both be attached to one engine: {reason}")
        engine.add_event_handler(Events.STARTED, self.start, order=AFTER_THE_USERS_OWN)

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, LearningRateFinder):
            return "each sets the learning rate that the other has found; attach one, and search others by find()"
        if not self.apply or self._target is None:  # asked once more when this one is attached
            return None
        if isinstance(other, ParamSchedule) and other.target == "lr" and share_update(self, other):
            return (
                "the schedule's shape is in learning rates of its own, so none can be set; search with apply=False, "
                "then make the shape from what was found"
            )
        for scheduler in schedulers_of([other], self._target.optimizer):
            if isinstance(scheduler, OWN_RATES):
                name = type(scheduler).__name__
                return (
                    f"{name} takes its learning rates from its own arguments, so none can be set; search with "
                    f"apply=False, then make the {name} from what was found"
                )
        return None

    def start(self, engine: Engine[Any, Any]) -> None:
        """Searches, if the run is at its beginning."""
        if engine.state.iteration == 0 and engine.state.epoch == 0:
            self._search(engine, engine.state.dataloader, started=True)

    def find(self, engine: Engine[Any, Any], data: Iterable[Any] | None) -> RangeTest:
        """Searches now, on batches of `data`; the engine's setup is done before, up to what a run would restore."""
        self._target_on(engine)
        engine.setup.run(Stage.DEVICE, Stage.SCHEDULE)
        return self._search(engine, engine.data_setup(data), started=False)

    def rates(self) -> list[float]:
        """The learning rates that are tried, if the loss does not diverge before."""
        if self.mode == "linear":
            return [self.start_lr + k * (self.end_lr - self.start_lr) / (self.steps - 1) for k in range(self.steps)]
        factor = (self.end_lr / self.start_lr) ** (1 / (self.steps - 1))
        return [self.start_lr * factor**k for k in range(self.steps)]

    def _search(self, engine: Engine[Any, Any], data: Any, *, started: bool) -> RangeTest:
        update = self._target_on(engine)
        rates = LearningRates(update.optimizer)
        result = RangeTest(self.smoothing)
        with Rehearsal(engine, data, started=started) as rehearsal:
            for rate in self.rates():
                rates.set(rate)
                loss = self._step(rehearsal, update)
                if not math.isfinite(loss):
                    break
                result.add(rate, loss)
                if result.diverged(self.diverge):
                    break
        result.suggestion = result.steepest()
        self.result = result
        self._tell(result)
        if self.apply and result.suggestion is not None:
            rates.rebase(result.suggestion, schedulers_of(engine.handlers.values(), update.optimizer))
        return result

    def _step(self, rehearsal: Rehearsal, update: Update) -> float:
        """One optimizer step; gives the mean loss of its batches, the same on all ranks."""
        steps, skipped = update.steps, rehearsal.skipped[update.name]
        losses: list[float] = []
        again = 0
        for _ in range(LONGEST_SEARCH):
            losses.append(dist.all_reduce(self._loss(rehearsal.step()), op="mean", over="data"))
            if not math.isfinite(losses[-1]):
                return losses[-1]
            if update.steps > steps:
                return sum(losses) / len(losses)
            if rehearsal.skipped[update.name] > skipped:  # the scale of fp16 settles; the rate is tried again
                skipped += 1
                losses.clear()
                again += 1
                if again > MOST_SKIPPED:
                    break
        if again and steps:
            return math.inf  # no scale helps: its gradients are lost
        raise RuntimeError(
            f"LearningRateFinder: the optimizer of update {update.name!r} did not step once in {rehearsal.batches} "
            f"batches ({again} steps were skipped, their gradients not being finite); is its backward() called?"
        )

    def _loss(self, output: Any) -> float:
        loss = output if self._output_transform is None else self._output_transform(output)
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            return float(loss.detach())
        if isinstance(loss, float | int):
            return float(loss)
        what = "the process function's output" if self._output_transform is None else "what output_transform gives"
        raise TypeError(
            f"LearningRateFinder needs the loss as one number, but {what} is {type(loss).__name__}; give "
            "output_transform=, a function from the output to the loss"
        )

    def _target_on(self, engine: Engine[Any, Any]) -> Update:
        if not engine.training:
            raise ValueError(
                "LearningRateFinder searches for the learning rate of a trainer, but this engine evaluates "
                "(training=False); attach it to the trainer"
            )
        updates = engine.targets(self.update, self)
        if len(updates) > 1:
            raise ValueError(
                f"the engine has several updates ({', '.join(engine.updates)}); name the one whose learning rate is "
                "searched for: LearningRateFinder(update=...)"
            )
        return updates[0]

    def _tell(self, result: RangeTest) -> None:
        tried = f"{len(result.lrs)} steps" + (f", up to {result.lrs[-1]:.3g}" if result.lrs else "")
        if result.suggestion is None:
            warnings.warn(
                f"LearningRateFinder found no learning rate in {tried}: the points are too few, or the loss never "
                "falls. The optimizer keeps its own; try other bounds, or more steps",
                stacklevel=2,
            )
        elif dist.rank() == 0:
            logger.info("LearningRateFinder: the loss falls fastest at %.3g (%s)", result.suggestion, tried)
