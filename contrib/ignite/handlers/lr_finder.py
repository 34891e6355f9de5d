"""Ignite's learning rate finder, for any engine and optimizer; `leyden.handlers.LearningRateFinder` needs an Update."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine, Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FastaiLRFinder:
    """Raises the learning rate from iteration to iteration until the loss diverges, then puts back what was there.

    finder = FastaiLRFinder()
    with finder.attach(trainer, to_save={"model": model, "optimizer": optimizer}) as trainer_with_lr_finder:
        trainer_with_lr_finder.run(loader)
    finder.get_results(), finder.lr_suggestion(), finder.apply_suggested_lr(optimizer)
    """

    def __init__(self) -> None:
        self._history: dict[str, list[Any]] = {}
        self._best = float("inf")
        self._diverged = False

    @contextmanager
    def attach(
        self,
        trainer: Engine[Any, Any],
        to_save: Mapping[str, Any],
        output_transform: Callable[[Any], Any] = lambda output: output,
        num_iter: int | None = None,
        start_lr: float | Sequence[float] | None = None,
        end_lr: float | Sequence[float] = 10.0,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
    ) -> Iterator[Engine[Any, Any]]:
        """Searches during the run within this context, for `num_iter` iterations (by default all of the run).

        `to_save`: what comes back to its state afterwards; its "optimizer" is searched for. The rates go from
        `start_lr` (by default those of the groups) to `end_lr`, by one factor ("exp") or on a line ("linear"). The loss
        is smoothed: smooth_f * loss + (1 - smooth_f) * the value before; above `diverge_th` times its least value the
        run ends.

        Raises ValueError for contradicting arguments.
        """
        optimizer = to_save.get("optimizer")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(f'to_save needs the optimizer to search for under "optimizer", but has: {list(to_save)}')
        if not 0 <= smooth_f < 1 or diverge_th < 1:
            raise ValueError(
                f"the finder needs 0 <= smooth_f < 1 and diverge_th >= 1, but got {smooth_f=}, {diverge_th=}"
            )
        if step_mode not in ("exp", "linear"):
            raise ValueError(f'step_mode is "exp" or "linear", but is {step_mode!r}')
        if num_iter is not None and num_iter < 1:
            raise ValueError(f"num_iter is a number of iterations, at least 1, but is {num_iter}")
        groups = optimizer.param_groups
        starts = [group["lr"] for group in groups] if start_lr is None else _for_each(start_lr, groups, "start_lr")
        ends = _for_each(end_lr, groups, "end_lr")
        if any(start >= end for start, end in zip(starts, ends, strict=True)):
            raise ValueError(f"start_lr must be less than end_lr, but they are {starts} and {ends}")

        def begin(engine: Engine[Any, Any]) -> None:
            state = engine.state
            length = num_iter
            if length is None:
                if state.epoch_length is None or state.max_epochs is None:
                    raise ValueError("the length of this run is not known; say how many iterations to try: num_iter=")
                length = state.epoch_length * state.max_epochs
            elif state.epoch_length is not None:
                state.max_epochs = max(state.max_epochs or 1, -(-length // state.epoch_length))
            rates[:] = [_rates(start, end, length, step_mode) for start, end in zip(starts, ends, strict=True)]

        def set_rates(engine: Engine[Any, Any]) -> None:
            for group, of_group in zip(groups, rates, strict=True):
                group["lr"] = of_group[min(engine.state.iteration, len(of_group)) - 1]

        def note(engine: Engine[Any, Any]) -> None:
            self._note(engine, output_transform(engine.state.output), [group["lr"] for group in groups], smooth_f)
            if self._history["loss"][-1] > diverge_th * self._best:
                self._diverged = True
                engine.terminate()
            elif engine.state.iteration >= len(rates[0]):
                engine.terminate()

        rates: list[list[float]] = []
        self._history, self._best, self._diverged = {"lr": [], "loss": []}, float("inf"), False
        before = {name: copy.deepcopy(each.state_dict()) for name, each in to_save.items()}
        trainer_before = trainer.state_dict()
        handles = [
            trainer.add_event_handler(Events.STARTED, begin),
            trainer.add_event_handler(Events.ITERATION_STARTED, set_rates),
            trainer.add_event_handler(Events.ITERATION_COMPLETED, note),
        ]
        try:
            yield trainer
        finally:
            for handle in handles:
                handle.remove()
            for name, each in to_save.items():
                each.load_state_dict(before[name])
            trainer.load_state_dict(trainer_before)
        if not self._diverged:
            warnings.warn(
                "the loss did not diverge within the rates that were tried: raise end_lr, lower diverge_th, or look at "
                "plot()",
                stacklevel=3,
            )

    def _note(self, engine: Engine[Any, Any], loss: Any, rates: list[float], smooth_f: float) -> None:
        try:
            value = float(loss)
        except (TypeError, ValueError):
            raise TypeError(
                f"the finder needs the loss as a number, but the output is a {type(loss).__name__}; pass "
                "output_transform=lambda output: ..."
            ) from None
        value = dist.all_reduce(value, over="data")
        losses = self._history["loss"]
        if losses and smooth_f > 0:
            value = smooth_f * value + (1 - smooth_f) * losses[-1]
        self._best = min(self._best, value)
        losses.append(value)
        self._history["lr"].append(rates[0] if len(rates) == 1 else rates)

    def get_results(self) -> dict[str, list[Any]]:
        """The learning rates and the smoothed losses, under "lr" and "loss"."""
        return self._history

    def lr_suggestion(self) -> Any:
        """The rate at which the loss falls fastest before its least value; a list where there are several groups.

        Raises RuntimeError where nothing was searched, or the loss does not fall.
        """
        losses = self._history.get("loss", [])
        falling = losses[: losses.index(min(losses)) + 1] if losses else []
        if len(falling) < 3:
            raise RuntimeError(
                "the loss has no falling part to take a learning rate from; run the finder, with a lower start_lr or a "
                "higher end_lr"
            )
        slopes = [falling[i + 1] - falling[i - 1] for i in range(1, len(falling) - 1)]
        return self._history["lr"][slopes.index(min(slopes)) + 1]

    def apply_suggested_lr(self, optimizer: torch.optim.Optimizer) -> None:
        """Sets the suggestion. Raises RuntimeError for another number of groups."""
        rates = self.lr_suggestion()
        rates = rates if isinstance(rates, list) else [rates]
        if len(rates) != len(optimizer.param_groups):
            raise RuntimeError(f"the rates of {len(rates)} groups were found, but it has {len(optimizer.param_groups)}")
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def plot(self, skip_start: int = 10, skip_end: int = 5, log_lr: bool = True, ax: Axes | None = None) -> Axes:
        """Draws the losses over the learning rates, without the first and last ones, by matplotlib."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots()[1]
        last = len(self._history["lr"]) - skip_end
        ax.plot(self._history["lr"][skip_start:last], self._history["loss"][skip_start:last])
        if log_lr:
            ax.set_xscale("log")
        ax.set_xlabel("Learning rate")
        ax.set_ylabel("Loss")
        return ax


def _for_each(rate: float | Sequence[float], groups: list[Any], name: str) -> list[float]:
    rates = list(rate) if isinstance(rate, Sequence) else [float(rate)] * len(groups)
    if len(rates) != len(groups):
        raise ValueError(f"{name} has {len(rates)} values for {len(groups)} groups of the optimizer")
    return rates


def _rates(start: float, end: float, steps: int, step_mode: str) -> list[float]:
    if step_mode == "linear":
        return [start + (end - start) * step / steps for step in range(steps)]
    return [start * (end / start) ** (step / steps) for step in range(1, steps + 1)]
