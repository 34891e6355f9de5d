"""Runs that can be run again."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage
from leyden.handlers.data.generators import check_seed, derive_seed, seed_generators
from leyden.handlers.data.overfit import Overfit
from leyden.handlers.data.passes import Passes
from leyden.handlers.data.seeded_loaders import SeededData

logger = logging.getLogger(__name__)


class Reproducible:
    """Seeds a run, and lets each sample's randomness depend on seed, epoch and index alone.

    A run that starts from the beginning seeds python, numpy, torch and every device with `seed` + r after its setup, in
    which all ranks draw alike; r is the rank among those that see different data (`dist.data_rank()`). One that is
    continued or restored is left where it was.
    `seed_everything` is for the model, which is built before. `state.seed` is the seed.

    `samples`: the order of a DataLoader's samples, what a dataset draws in __getitem__ (from python's, numpy's or
    torch's global generators of the CPU) and what its collate function draws follow from the seed, the epoch and the
    index (the batch's indices, for collate functions and datasets with __getitems__); so they are the same with any
    number of workers, persistent or not, of ranks, with or without batches read ahead, and after a resume in
    mid-epoch; and loading draws nothing from the stream that dropout uses. A sample that is drawn twice in an epoch is
    augmented alike both times. Evaluators that the trainer runs draw the same in each evaluation. Of an
    IterableDataset each worker has a stream of its own, from seed, epoch and the worker's number: their count matters.
    Generators that a dataset makes for itself are its own affair; a sampler's own is replaced by the seed.

    `deterministic`: True forbids torch what has no deterministic algorithm (it raises), "warn" only tells of it; cuDNN
    then compares no algorithms, and CUBLAS_WORKSPACE_CONFIG is set if it is not, so attach this before the first work
    on a GPU. After each run the settings are as they were before it.

    A resumed run keeps the seed it began with. Raises ValueError for a seed that is not in 0 ... 2**32 - 1.
    """

    refuses_second_engine = True
    same_on_ranks = ()  # the seed may be each rank's own

    def __init__(self, seed: int = 0, *, deterministic: bool | str = False, samples: bool = True) -> None:
        check_seed(seed, "Reproducible")
        if not isinstance(samples, bool):
            raise TypeError(f"Reproducible takes samples=True or False, but got {samples!r}")
        if not isinstance(deterministic, bool) and deterministic != "warn":
            raise ValueError(f'Reproducible takes deterministic=True, False or "warn", but got {deterministic!r}')
        self.seed = int(seed)
        self.deterministic = deterministic
        self.samples = samples
        self._engine: Engine[Any, Any] | None = None
        self._passes = Passes(lambda: self.seed)
        self.told_misplaced = False
        self._saved_by: int | None = None  # ranks of the run that was restored
        self._settings: tuple[bool, bool, bool, bool] | None = None

    def refuses(self, other: Any) -> str | None:
        return "a run has one seed; attach one of them" if isinstance(other, Reproducible) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        if self._engine is not None:
            raise ValueError("this Reproducible seeds another engine already; make one for each")
        self._engine = engine
        engine.state.seed = self.seed
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            engine.setup.add(Stage.DEVICE, self._be_deterministic, each_run=True)
            engine.add_event_handler(Events.CLOSED, self._put_back, order=Order.LAST)
        engine.setup.add(Stage.DEVICE, functools.partial(self._seed_setup, engine), owner=self, each_run=True)
        engine.setup.add(Stage.SEED, functools.partial(self._seed_restored, engine), each_run=True)
        engine.add_event_handler(Events.STARTED, self._seed_run, order=Order.SEEDS)
        if self.samples:
            engine.setup.add(Stage.DATA, functools.partial(self._heed_overfit, engine), each_run=True)
            self._passes.follow(engine)
            SeededData(self._passes).add_to(engine, self)

    def on_evaluator(self) -> str:
        return (
            f"it seeds all generators with {self.seed} at the start of each, so that the training after it draws the "
            "same numbers in each epoch. Attach it to the trainer; the data of its evaluations is seeded with it"
        )

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Seeds the evaluator's data, unless it has a seed of its own."""
        if self.samples and not engine.find_handlers(Reproducible):
            passes = Passes(lambda: self.seed)
            passes.follow(engine)
            SeededData(passes).add_to(engine, self)

    def _seed_setup(self, engine: Engine[Any, Any]) -> None:
        if engine.state.iteration == 0:
            seed_generators(self.seed)

    def _seed_restored(self, engine: Engine[Any, Any]) -> None:
        """Before STARTED, after which the numbers of a run that goes on are as they were before it."""
        rank, ranks = dist.data_rank(), dist.data_size()
        if engine.state.iteration > 0 and self._saved_by not in (None, ranks):
            # No generator's state was saved for these ranks.
            seed_generators(derive_seed(self.seed, engine.state.iteration, ranks, rank))
        self._saved_by = None

    def _seed_run(self, engine: Engine[Any, Any]) -> None:
        if engine.state.iteration == 0:
            seed_generators(self.seed + dist.data_rank())

    def _heed_overfit(self, engine: Engine[Any, Any]) -> None:
        self._passes.fixed = bool(engine.find_handlers(Overfit))

    def _be_deterministic(self) -> None:
        cudnn = torch.backends.cudnn
        self._settings = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.deterministic,
            cudnn.benchmark,
        )
        torch.use_deterministic_algorithms(True, warn_only=self.deterministic == "warn")
        cudnn.deterministic, cudnn.benchmark = True, False

    def _put_back(self) -> None:
        if self._settings is not None:
            enabled, warn_only, deterministic, benchmark = self._settings
            self._settings = None
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "pass": list(self._passes.place), "ranks": dist.data_size()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["seed"] != self.seed and dist.rank() == 0:
            logger.warning("the resumed run goes on with its seed, %d, not with %d", state_dict["seed"], self.seed)
        self.seed = state_dict["seed"]
        epoch, number = state_dict["pass"]
        self._passes.place = (epoch, number)
        self._saved_by = state_dict["ranks"]
        if self._engine is not None:
            self._engine.state.seed = self.seed
