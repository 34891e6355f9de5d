"""Ignite's checkpoints: what the user names, in one file, the n best or newest kept.

`leyden.handlers.Checkpoint` saves all that a run needs without being told, and resumes by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from leyden.contrib.ignite.handlers.files import BaseSaveHandler, DiskSaver
from leyden.engine import Engine, EventEnum

Replicas = (nn.DataParallel, nn.parallel.DistributedDataParallel)
StepTransform = Callable[[Engine[Any, Any], Any], int]


class CheckpointEvents(EventEnum):
    """Fired by Checkpoint on the engine that it is attached to."""

    SAVED_CHECKPOINT = "saved_checkpoint"


class Item(NamedTuple):
    """A checkpoint that is kept."""

    priority: float
    filename: str


class Checkpoint:
    """Saves the objects of `to_save` each time it is called: `engine.add_event_handler(event, checkpoint)`.

    `save_handler`: a folder, a DiskSaver, or a function of (checkpoint, filename). The `n_saved` best by
    `score_function(engine)` are kept (by the metric `score_name`, if only that is given), else the newest; None keeps
    all. A file is called `{filename_prefix}_{name}_{global_step}_{score_name}={score}.pt` as far as these are
    there: `name` is that of the one object, or "checkpoint"; `global_step_transform(engine, event)` gives the number,
    without it the engine's iteration is taken where there is no score. `include_self` saves what is kept, too, as
    "checkpointer".

    Raises TypeError for objects without state_dict(), ValueError for contradicting arguments.
    """

    SAVED_CHECKPOINT = CheckpointEvents.SAVED_CHECKPOINT

    def __init__(
        self,
        to_save: Mapping[str, Any],
        save_handler: str | os.PathLike[str] | Callable[..., Any] | BaseSaveHandler,
        filename_prefix: str = "",
        score_function: Callable[[Engine[Any, Any]], float] | None = None,
        score_name: str | None = None,
        n_saved: int | None = 1,
        global_step_transform: StepTransform | None = None,
        filename_pattern: str | None = None,
        include_self: bool = False,
        greater_or_equal: bool = False,
        save_on_rank: int = 0,
    ) -> None:
        if n_saved is not None and n_saved < 1:
            raise ValueError(f"Checkpoint keeps n_saved checkpoints, at least 1, or all with None, but got {n_saved}")
        if global_step_transform is not None and not callable(global_step_transform):
            raise TypeError(f"global_step_transform is a function, but got {global_step_transform!r}")
        self._check(to_save, "to_save", "state_dict")
        if include_self and (not isinstance(to_save, MutableMapping) or "checkpointer" in to_save):
            raise ValueError('include_self adds the key "checkpointer" to to_save, which must be a dict without it')
        if isinstance(save_handler, str | os.PathLike):
            save_handler = DiskSaver(save_handler, save_on_rank=save_on_rank)
        elif not callable(save_handler):
            raise TypeError(f"save_handler is a folder, a DiskSaver or a function, but got {save_handler!r}")
        if score_name is not None and score_function is None:
            score_function = self.get_default_score_fn(score_name)
        self.to_save = to_save
        self.save_handler = save_handler
        self.filename_prefix = filename_prefix
        self.score_function = score_function
        self.score_name = score_name
        self.n_saved = n_saved
        self.global_step_transform = global_step_transform
        self.filename_pattern = filename_pattern
        self.include_self = include_self
        self.greater_or_equal = greater_or_equal
        self.save_on_rank = save_on_rank
        self._saved: list[Item] = []  # the worst first

    def __call__(self, engine: Engine[Any, Any]) -> None:
        step = None
        if self.global_step_transform is not None:
            step = self.global_step_transform(engine, engine.last_event_name)
        if self.score_function is not None:
            priority = self.score_function(engine)
            if not isinstance(priority, Real):
                raise ValueError(f"a score_function gives a number, but this one gave {priority!r}")
        else:
            step = engine.state.iteration if step is None else step
            priority = step
        full = self.n_saved is not None and len(self._saved) >= self.n_saved
        if full and not self._is_better(priority):
            return
        filename = self._filename(step, priority)
        kept, dropped = self._kept_with(Item(priority, filename), full)
        self._save(filename, priority, kept)
        self._saved = kept
        if dropped is not None and isinstance(self.save_handler, BaseSaveHandler):
            self.save_handler.remove(dropped.filename)  # now that the new one is there
        if not engine.has_registered_events(*CheckpointEvents):
            engine.register_events(*CheckpointEvents)
        engine.fire_event(CheckpointEvents.SAVED_CHECKPOINT)

    def _is_better(self, priority: float) -> bool:
        worst = self._saved[0].priority
        return priority >= worst if self.greater_or_equal else priority > worst

    def _kept_with(self, new: Item, full: bool) -> tuple[list[Item], Item | None]:
        """What is kept, the worst first, once the new one is saved, and what then goes."""
        kept = [item for item in self._saved if item.filename != new.filename]
        dropped = kept.pop(0) if full and len(kept) == len(self._saved) else None
        return sorted([*kept, new], key=lambda item: item.priority), dropped

    def _save(self, filename: str, priority: float, kept: list[Item]) -> None:
        states: dict[str, Any] = {name: _without_replicas(each).state_dict() for name, each in self.to_save.items()}
        if len(states) == 1:
            (states,) = states.values()
        if self.include_self:
            states["checkpointer"] = _state_of(kept)
        if isinstance(self.save_handler, BaseSaveHandler):
            prefix = f"{self.filename_prefix}_" if self.filename_prefix else ""
            about = {"basename": prefix + self._name(), "score_name": self.score_name, "priority": priority}
            self.save_handler(states, filename, about)
        else:
            self.save_handler(states, filename)

    def _name(self) -> str:
        return next(iter(self.to_save)) if len(self.to_save) == 1 else "checkpoint"

    def _filename(self, step: int | None, priority: Any, name: str | None = None) -> str:
        pattern = self.filename_pattern or self.setup_filename_pattern(
            with_prefix=bool(self.filename_prefix),
            with_score=self.score_function is not None,
            with_score_name=self.score_name is not None,
            with_global_step=step is not None,
        )
        score = priority if isinstance(priority, Integral | str) or priority is None else f"{priority:.4f}"
        return pattern.format(
            filename_prefix=self.filename_prefix,
            ext="pt",
            name=self._name() if name is None else name,
            score_name=self.score_name,
            score=None if self.score_function is None else score,
            global_step=step,
        )

    @property
    def last_checkpoint(self) -> str | Path | None:
        """The best one, or the newest where there is no score: a path, or a function's filename."""
        if not self._saved:
            return None
        name = self._saved[-1].filename
        return self.save_handler.dirname / name if isinstance(self.save_handler, DiskSaver) else name

    def reset(self) -> None:
        """Forgets what was saved, and leaves the files where they are."""
        self._saved = []

    def state_dict(self) -> dict[str, Any]:
        return _state_of(self._saved)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._saved = [Item(*item) for item in state_dict["_saved"]]

    @staticmethod
    def load_objects(
        to_load: Mapping[str, Any], checkpoint: str | os.PathLike[str] | Mapping[str, Any], **kwargs: Any
    ) -> None:
        """Gives each object its state from a checkpoint, or from the path of one; `kwargs` go to the modules' load.

        Raises ValueError for an object that the checkpoint has no state of.
        """
        Checkpoint._check(to_load, "to_load", "load_state_dict")
        if isinstance(checkpoint, Mapping):
            states = checkpoint
        else:
            states = torch.load(checkpoint, weights_only=True, map_location="cpu")
        if len(to_load) == 1 and next(iter(to_load)) not in states:
            _load(next(iter(to_load.values())), states, kwargs)
            return
        if missing := [name for name in to_load if name not in states]:
            raise ValueError(f"the checkpoint has no {', '.join(missing)}; it has: {', '.join(states)}")
        for name, each in to_load.items():
            _load(each, states[name], kwargs)

    def reload_objects(
        self, to_load: Mapping[str, Any], load_kwargs: Mapping[str, Any] | None = None, **filename_components: Any
    ) -> None:
        """Loads from the file of this checkpointer whose name has these parts (`global_step=`, `score=`, `name=`)."""
        if not isinstance(self.save_handler, DiskSaver):
            raise AttributeError(f"reload_objects reads from a DiskSaver's folder, but saves go to {self.save_handler}")
        parts = filename_components
        name = self._filename(parts.get("global_step"), parts.get("score"), parts.get("name"))
        self.load_objects(to_load, self.save_handler.dirname / name, **dict(load_kwargs or {}))

    @staticmethod
    def setup_filename_pattern(
        with_prefix: bool = True, with_score: bool = True, with_score_name: bool = True, with_global_step: bool = True
    ) -> str:
        """A pattern of these parts."""
        if not (with_global_step or with_score):
            raise ValueError("a file's name needs a global step or a score, so that no two are the same")
        if with_score_name and not with_score:
            raise ValueError("a score's name stands beside a score; pass with_score=True")
        pattern = "{filename_prefix}_{name}" if with_prefix else "{name}"
        if with_global_step:
            pattern += "_{global_step}"
        if with_score:
            pattern += "_{score_name}={score}" if with_score_name else "_{score}"
        return pattern + ".{ext}"

    @staticmethod
    def get_default_score_fn(metric_name: str, score_sign: float = 1.0) -> Callable[[Engine[Any, Any]], float]:
        """A score that is a metric of the engine; `score_sign=-1` for one that is better when lower."""
        if score_sign not in (1.0, -1.0):
            raise ValueError(f"score_sign is 1 or -1, but got {score_sign}")

        def score(engine: Engine[Any, Any]) -> float:
            value: float = score_sign * engine.state.metrics[metric_name]
            return value

        return score

    @staticmethod
    def _check(objects: Any, argument: str, method: str) -> None:
        if not isinstance(objects, Mapping):
            raise TypeError(f"{argument} maps names to objects, but got {objects!r}")
        for name, each in objects.items():
            if not hasattr(each, method):
                raise TypeError(f"{argument} has {name!r}, a {type(each).__name__}, which has no {method}()")


class ModelCheckpoint(Checkpoint):
    """Saves to a folder what it is called with: `engine.add_event_handler(event, checkpoint, {"model": model})`."""

    def __init__(
        self,
        dirname: str | os.PathLike[str],
        filename_prefix: str = "",
        score_function: Callable[[Engine[Any, Any]], float] | None = None,
        score_name: str | None = None,
        n_saved: int | None = 1,
        atomic: bool = True,
        require_empty: bool = True,
        create_dir: bool = True,
        global_step_transform: StepTransform | None = None,
        filename_pattern: str | None = None,
        include_self: bool = False,
        greater_or_equal: bool = False,
        save_on_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            {},
            DiskSaver(dirname, atomic, create_dir, require_empty, save_on_rank, **kwargs),
            filename_prefix=filename_prefix,
            score_function=score_function,
            score_name=score_name,
            n_saved=n_saved,
            global_step_transform=global_step_transform,
            filename_pattern=filename_pattern,
            include_self=include_self,
            greater_or_equal=greater_or_equal,
            save_on_rank=save_on_rank,
        )

    def __call__(self, engine: Engine[Any, Any], to_save: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._check(to_save, "to_save", "state_dict")
        if not to_save:
            raise ValueError("ModelCheckpoint was called with nothing to save")
        self.to_save = to_save
        super().__call__(engine)


def _state_of(saved: list[Item]) -> dict[str, Any]:
    return {"_saved": [tuple(item) for item in saved]}


def _without_replicas(item: Any) -> Any:
    return item.module if isinstance(item, Replicas) else item


def _load(item: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
    item = _without_replicas(item)
    if isinstance(item, nn.Module):
        item.load_state_dict(state, **kwargs)
    else:
        item.load_state_dict(state)
