"""The mean of the weights at the ends of the last epochs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import SWALR

from leyden.distributed.compat import foreach_add_, foreach_copy_, foreach_div_, foreach_lerp_, foreach_sub
from leyden.engine import Engine, Events, Order, Update
from leyden.engine.step import optimizers_in
from leyden.engine.values import as_whole
from leyden.handlers.checkpoint.state.model_state import unwrapped
from leyden.handlers.common.number_checks import require_function, require_number
from leyden.handlers.common.plans import warn_if_beyond
from leyden.handlers.common.updates import share_update
from leyden.handlers.training.averaged_weights import AveragedWeights
from leyden.handlers.training.averaging import Averaging
from leyden.handlers.training.batch_norm import NormRefresh, running_norms
from leyden.handlers.training.param_fields import Field
from leyden.handlers.training.param_schedule import ParamSchedule
from leyden.handlers.training.schedule import Schedule

FOREACH = ("cuda", "xpu")
"""Devices on which AveragedModel interpolates; on others it adds a share of the difference."""


class SWA(Averaging):
    """Averages the weights at the end of each epoch from `start` on, and puts the average into the model when the run
    ends: stochastic weight averaging.

    `start`: an epoch, counted from 1, or a fraction of max_epochs (0.75). `every`: each n-th epoch from there on. The
    arithmetic is that of torch.optim.swa_utils.AveragedModel, to the bit.

    `lr`: the learning rates go to it (one number, or one for each group) in `anneal_epochs` epochs, by "cos" or
    "linear", as torch's SWALR does, stepped at the ends of the epochs from `start` on. It alone sets them then: a
    Schedule of that optimizer is refused; leave `lr` out and give Schedule a SequentialLR that ends in SWALR instead.

    At COMPLETED (the run has reached its limit, or was terminated) batch norm statistics are made anew by one pass of
    an epoch's batches through the averaged model, in train mode without gradients; random numbers and modes are then as
    before. `data`: other batches for it (needed where the run's own come only once); `forward(batch)`: how a batch is
    passed through, by default as supervised_trainer does it or, for a process function of one's own, model(batch), or
    model(batch[0]) where it is a tuple or list; that is tried on the first batch. `update_batch_norm=False` leaves it
    out. A checkpoint of that moment has the average as its weights; a run that goes on, goes on from them and
    begins a new average.

    `evaluate`: evaluations before that are of the average of then, with the batch norm statistics of the model; by
    default of the model's own weights. For other uses: `swapped`, `averaged`, `copy_to`. `update` names the one update
    it is for; by default all.

    Raises ValueError for numbers out of range, an engine without an Update, a run for which a fraction or the pass over
    the data has no meaning. Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
    2018.
    """

    settings = ("start", "lr", "anneal_epochs", "anneal", "every", "update_batch_norm", "evaluate")

    def __init__(
        self,
        start: float,
        *,
        lr: float | Sequence[float] | None = None,
        anneal_epochs: int = 10,
        anneal: str = "cos",
        every: int = 1,
        update_batch_norm: bool = True,
        data: Iterable[Any] | None = None,
        forward: Callable[[Any], Any] | None = None,
        evaluate: bool = False,
        update: str | None = None,
    ) -> None:
        super().__init__(evaluate=evaluate, update=update)
        first = as_whole(start)
        if (first is None or first < 1) and not (isinstance(start, float) and 0 < start < 1):
            raise ValueError(
                f"SWA starts at an epoch, counted from 1, or at a fraction of them between 0 and 1, but got {start!r}"
            )
        if anneal not in ("cos", "linear"):
            raise ValueError(f'SWA anneals by "cos" or "linear", but got anneal={anneal!r}')
        for name, value, least in (("anneal_epochs", anneal_epochs, 0), ("every", every, 1)):
            if (whole := as_whole(value)) is None or whole < least:
                raise ValueError(f"SWA takes {name} as a number of epochs, at least {least}, but got {value!r}")
        for rate in lr if isinstance(lr, Sequence) and not isinstance(lr, str) else () if lr is None else (lr,):
            require_number("SWA", "a learning rate (lr)", rate, least=0)
        require_function("SWA", "forward", forward, "the batch")
        if data is not None and not isinstance(data, Iterable):
            raise TypeError(f"SWA passes over data= for the statistics of batch norm, but got {data!r}")
        self.start: int | float = start if first is None else first
        self.lr = lr if lr is None or isinstance(lr, int | float) else list(lr)
        self.anneal_epochs = int(anneal_epochs)
        self.anneal = anneal
        self.every = int(every)
        self.update_batch_norm = update_batch_norm
        self._refresh = NormRefresh(data, forward)
        self._first = 0
        self._annealing: dict[str, SWALR] = {}

    def refuses(self, other: object) -> str | None:
        if isinstance(other, SWA) and share_update(self, other):
            return "both would put their average into one model at the end of the run"
        optimizers = [weights.update.optimizer for weights in self._weights.values()]
        return self._lr_conflict(other, optimizers) or super().refuses(other)

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        self._check_company(engine, updates)
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._check_company, engine, updates)
        engine.add_event_handler(Events.STARTED, self.start_run)
        if self._refresh.forward is None and self.update_batch_norm:
            engine.add_event_handler(Events.ITERATION_STARTED(once=1), self.try_out)
        # Before evaluations, which may want the average.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch, order=Order.EVALUATION - 1)
        engine.add_event_handler(Events.COMPLETED, self.finish, order=Order.EVALUATION - 1)

    def _check_company(self, engine: Engine[Any, Any], updates: list[Update]) -> None:
        optimizers = [update.optimizer for update in updates]
        for handler in engine.handlers.values():
            if reason := self._lr_conflict(handler, optimizers):
                raise ValueError(f"SWA and {type(handler).__name__} can't both be attached to one engine: {reason}")

    def _lr_conflict(self, other: object, optimizers: list[torch.optim.Optimizer]) -> str | None:
        if self.lr is None:
            return None
        if isinstance(other, Schedule):
            parts = [part for each in optimizers for part in optimizers_in(each)]
            both = other.optimizer is not None and any(part in parts for part in optimizers_in(other.optimizer))
        else:
            ids = [(id(part), "lr") for optimizer in optimizers for part in optimizers_in(optimizer)]
            both = isinstance(other, ParamSchedule) and any((of, field.name) in ids for of, field, _ in other.places)
        if not both:
            return None
        return (
            "both would set the learning rates of one optimizer; leave lr= of SWA out, and give Schedule a "
            "SequentialLR of your scheduler and torch.optim.swa_utils.SWALR"
        )

    def listen(self, engine: Engine[Any, Any], update: Update, weights: AveragedWeights) -> None:
        engine.add_event_handler(
            Events.EPOCH_STARTED, functools.partial(self.begin_epoch, weights=weights), order=Order.AFTER_SAVERS
        )

    # -- averaging -------------------------------------------------------------------------------------------

    def start_run(self, engine: Engine[Any, Any]) -> None:
        """Finds the epoch to start at, and checks that the data can be read once more."""
        state = engine.state
        if state.iteration == 0:
            for scheduler in self._annealing.values():
                for group, lr in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=False):
                    Field("lr").put([group], float(lr))
            self._annealing.clear()
        if isinstance(self.start, int):
            self._first = self.start
        elif state.max_epochs is None:
            raise ValueError(
                f"SWA starts at the fraction {self.start} of max_epochs, but the run ends by max_iters="
                f"{state.max_iters}; give start as an epoch, counted from 1"
            )
        else:
            self._first = max(1, int(self.start * state.max_epochs))
        warn_if_beyond(engine, "SWA starts in", self._first, "no weights are averaged")
        if models := self._with_norms():
            self._refresh.check(engine, models)

    def begin_epoch(self, engine: Engine[Any, Any], weights: AveragedWeights) -> None:
        """Adds newly unfrozen parameters before they are trained, and begins to anneal."""
        if engine.state.epoch < self._first:
            return
        if any(parameter.requires_grad for parameter in weights.frozen):
            weights.collect()
        if self.lr is not None and weights.update.name not in self._annealing:
            self._annealing[weights.update.name] = self._scheduler(weights)

    def end_epoch(self, engine: Engine[Any, Any]) -> None:
        """Adds the current weights to the average."""
        epoch = engine.state.epoch
        if epoch < self._first:
            return
        if (epoch - self._first) % self.every == 0:
            for weights in self._weights.values():
                self.average(weights)
        for scheduler in self._annealing.values():
            if not isinstance(self.lr, list):
                for group in scheduler.optimizer.param_groups:  # one that was added meanwhile
                    group.setdefault("swa_lr", self.lr)
            with warnings.catch_warnings():
                # A process that resumes at the end of an epoch has not called optimizer.step, as torch sees it.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                scheduler.step()

    @torch.no_grad()
    def average(self, weights: AveragedWeights) -> None:
        """Adds one update's current weights to their average."""
        weights.require_own()
        count = weights.count
        for averages, values in weights.groups():
            if count == 0:
                foreach_copy_(averages, values)
            elif averages[0].device.type in FOREACH and averages[0].dtype is values[0].dtype:
                foreach_lerp_(averages, values, 1 / (count + 1))
            else:
                differences = foreach_sub(values, averages)
                foreach_div_(differences, count + 1)
                foreach_add_(averages, differences)
        weights.count = count + 1

    def finish(self, engine: Engine[Any, Any]) -> None:
        """Puts the averages into the model, if there are any, with statistics that fit them."""
        averaged = [weights for weights in self._weights.values() if weights.count > 0]
        for weights in averaged:
            weights.put()
        if averaged and (models := self._with_norms()):
            self._refresh(engine, models, self._autocast(), self._predict())
        for weights in averaged:
            weights.count = 0

    def try_out(self, engine: Engine[Any, Any]) -> None:
        """Tries with the first batch what will be done at the end of the run."""
        models = self._with_norms()
        if models and self._refresh.data is None and self._predict() is None:
            self._refresh.try_out(engine.state.batch, models, self._autocast(), None)

    def _autocast(self) -> Any:
        autocasts = [weights.update.slots.autocast for weights in self._weights.values()]
        return next((each for each in autocasts if each is not None), None)

    def _predict(self) -> Callable[[Any], Any] | None:
        """The trainer's own way of passing a batch through its model, if it has one."""
        updates = [weights.update for weights in self._weights.values()]
        return updates[0].predict if len(updates) == 1 else None

    def _with_norms(self) -> list[nn.Module]:
        models = {id(model): unwrapped(model) for weights in self._weights.values() for model in weights.modules}
        return [model for model in models.values() if self.update_batch_norm and running_norms(model)]

    # -- state -----------------------------------------------------------------------------------------------

    def _scheduler(self, weights: AveragedWeights) -> SWALR:
        lr: Any = self.lr
        return SWALR(weights.update.optimizer, lr, self.anneal_epochs, self.anneal)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        annealing = {name: scheduler.state_dict() for name, scheduler in self._annealing.items()}
        return super().state_dict() | {"annealing": annealing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._annealing = {}
        if self.lr is not None:
            for name, saved in state_dict["annealing"].items():
                self._annealing[name] = self._scheduler(self._weights[name])
                self._annealing[name].load_state_dict(saved)
