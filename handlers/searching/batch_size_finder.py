"""A batch size found by trying."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sized
from typing import Any

from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.engine import CompositeData, DataStage, Engine, Stage
from leyden.engine.data import known_length
from leyden.engine.values import whole_number
from leyden.handlers.data.batch_size import with_batch_size
from leyden.handlers.searching.kept_values import KeptValues
from leyden.handlers.searching.out_of_memory import free_memory, is_out_of_memory
from leyden.handlers.searching.rehearsal import Rehearsal, owner_of
from leyden.handlers.training.batch_size_schedule import BatchSizeSchedule

logger = logging.getLogger(__name__)

LONGEST_TRIAL = 100
"""In one trial, where an update does not step as often as it should."""


class BatchSizeFinder:
    """Finds the largest batch size that fits in memory, before the first step of a run.

    It doubles the size, from `start`, until memory runs out or `max_size` or the size of the data set is reached; with
    mode "binary" it then searches between the last that fits and the first that does not (below `start` too). Each of
    the at most `max_trials` trials is `steps` optimizer steps on batches of the run's own loader, from the state in
    which the run begins, which is put back afterwards, bit for bit (`Rehearsal`; its copies lie on the host).

    With `apply` the run gets a copy of its DataLoader with the size found; the user's own stays as it is. `size` is
    what was found, in samples a rank; it is saved, so that a resumed run goes on with it. On several ranks the least
    holds; gradients are not exchanged in a trial, so that one rank may run out of memory alone: models that talk to
    other ranks in their forward pass (sharded ones) must do so on all together. Validation takes memory of its own, and
    so do longer sequences than those that were tried.

    Raises ValueError for bad bounds, an engine without an Update, data whose batch size can't be changed, and
    RuntimeError where not even the smallest size fits.
    """

    same_on_ranks = ("start", "mode", "steps", "max_size", "max_trials")

    def __init__(
        self,
        start: int = 2,
        *,
        mode: str = "power",
        steps: int = 3,
        max_size: int | None = None,
        max_trials: int = 25,
        apply: bool = True,
    ) -> None:
        numbers = {"start": start, "steps": steps, "max_trials": max_trials}
        for name, number in numbers.items() if max_size is None else {**numbers, "max_size": max_size}.items():
            whole_number(name, number, 1, who="BatchSizeFinder")
        if max_size is not None and max_size < start:
            raise ValueError(f"BatchSizeFinder starts at {start}, which is above max_size={max_size}")
        if mode not in ("power", "binary"):
            raise ValueError(f'BatchSizeFinder needs mode "power" or "binary", but got {mode!r}')
        self.start = int(start)
        self.mode = mode
        self.steps = int(steps)
        self.max_size = None if max_size is None else int(max_size)
        self.max_trials = int(max_trials)
        self.apply = apply
        self.size: int | None = None
        """The size found, or the one restored."""
        self._trying = False

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._check(engine)
        engine.data_setup.add(DataStage.BATCH, functools.partial(self._set_up, engine), owner=self)

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, BatchSizeFinder):
            return "each sets the batch size that the other has found; attach one"
        if isinstance(other, BatchSizeSchedule) and self.apply:
            return (
                "both set the size of batches; search with apply=False, or by BatchSizeFinder().find(trainer, loader), "
                "and make the schedule from what was found"
            )
        return None

    def find(self, engine: Engine[Any, Any], data: DataLoader[Any]) -> int:
        """Searches now; the engine's setup is done before, up to what a run would restore."""
        self._check(engine)
        engine.setup.run(Stage.DEVICE, Stage.SCHEDULE)
        self._search(engine, data)
        assert self.size is not None
        return self.size

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.size = state_dict["size"]

    def _check(self, engine: Engine[Any, Any]) -> None:
        if not engine.training:
            raise ValueError(
                "BatchSizeFinder tries the steps of a trainer, but this engine evaluates (training=False); "
                "attach it to the trainer"
            )
        engine.require_update(self)

    def _set_up(self, engine: Engine[Any, Any], data: Any) -> Any:
        """The data of a run with the batch size found; searches for it first if the run is at its beginning."""
        if self._trying:
            return data
        if self.size is None:
            if engine.state.iteration > 0:
                logger.warning(
                    "BatchSizeFinder does not search in the middle of a run (iteration %d): its data stays as it is",
                    engine.state.iteration,
                )
                return data
            self._search(engine, data)
        assert self.size is not None
        return with_batch_size(data, self.size) if self.apply else data

    def _search(self, engine: Engine[Any, Any], data: Any) -> None:
        if isinstance(data, CompositeData) or isinstance(engine.run_data.given, CompositeData):
            raise ValueError(
                "BatchSizeFinder searches for the batch size of one DataLoader, but this data is made of several; "
                "find the size of each beforehand, by BatchSizeFinder().find(trainer, loader)"
            )
        most = _most_samples(data, self.max_size)
        with_batch_size(data, 1)  # raises what is wrong with the data
        failed: list[int] = []

        def fits(size: int) -> tuple[bool, bool]:
            fit, whole = self._try(engine, data, size, endless=most == math.inf)
            if not fit:
                failed.append(size)
            return fit, whole

        size = largest(fits, int(min(self.start, most)), most, binary=self.mode == "binary", trials=self.max_trials)
        if size == 0:
            raise RuntimeError(
                f"BatchSizeFinder: not even batches of {min(failed)} fit in memory; "
                + ("start lower, or " if min(failed) > 1 else "")
                + "make the model smaller, its numbers shorter (MixedPrecision) or its activations fewer "
                "(ActivationCheckpointing)"
            )
        self.size = size
        if dist.rank() == 0:
            why = f"{min(failed)} do not fit in memory" if failed else "memory allows more"
            logger.info("BatchSizeFinder: batches of %d samples (%s)", size, why)

    def _try(self, engine: Engine[Any, Any], data: DataLoader[Any], size: int, *, endless: bool) -> tuple[bool, bool]:
        """Whether a size fits, on all ranks, and whether one batch of it held all of the data."""
        fit, whole = True, False
        changers = self._changers(engine)
        self._trying = True
        try:
            copy = engine.data_setup(with_batch_size(data, size))
            with Rehearsal(engine, copy, offload=True, synchronise=False) as rehearsal:
                # One batch alone would not show whether it was all that there is.
                while rehearsal.batches < 2 * endless or not (
                    self._stepped(engine) or rehearsal.batches >= LONGEST_TRIAL
                ):
                    rehearsal.step()
                whole = rehearsal.batches > 1 and rehearsal.passes == rehearsal.batches
        except Exception as error:
            if not is_out_of_memory(error):
                error.add_note(f"raised while BatchSizeFinder tried batches of {size}; max_size= keeps it below")
                raise
            fit = False
        finally:
            self._trying = False
            changers.put_back()
        free_memory()  # only here: the error and its frames, which hold the activations, are gone
        return bool(dist.all_reduce(fit, op="and")), bool(dist.all_reduce(whole, op="and"))

    def _changers(self, engine: Engine[Any, Any]) -> KeptValues:
        """The handlers that change the data of a run, as they are now: a trial must not show in what they count."""
        copies = KeptValues()
        for change in engine.data_setup.changes:
            owner = owner_of(change)
            if owner is not self and hasattr(owner, "__dict__"):
                copies.keep_items(vars(owner))
        return copies

    def _stepped(self, engine: Engine[Any, Any]) -> bool:
        return all(update.steps >= self.steps for update in engine.updates.values())


def largest(
    fits: Callable[[int], tuple[bool, bool]], start: int, most: float, *, binary: bool, trials: int
) -> int:  # fmt: skip
    """The largest size that fits, 0 if none did; `fits` also says whether a larger one would be the same batch."""
    good, bad, size = 0, math.inf, start
    for _ in range(trials):
        fit, whole = fits(size)
        if fit:
            good = size
        else:
            bad = size
        if bad == math.inf:
            if good >= most or whole:
                break
            size = int(min(2 * good, most))
        elif binary and bad - good > 1:
            size = (good + int(bad)) // 2
        else:
            break
    return good


def _most_samples(data: Any, max_size: int | None) -> float:
    """The size at which one batch holds a rank's whole share of the data, or `max_size` if that is less."""
    sampler = getattr(data, "sampler", None)
    dataset = getattr(data, "dataset", None)
    counts = [known_length(part) for part in (sampler, dataset) if isinstance(part, Sized)]
    samples = min((count for count in counts if count is not None), default=math.inf)
    if samples != math.inf:
        samples = max(1, samples // dist.data_size())
    return samples if max_size is None else min(samples, max_size)
