"""The weights of one model, wherever they were kept: in a checkpoint, averaged or not, or in a safetensors file."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine.step import plain_name
from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.files.manifest import verify_files
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.files.validation import is_count
from leyden.handlers.checkpoint.reading import locate
from leyden.handlers.checkpoint.state import model_state
from leyden.handlers.checkpoint.store.paths import StoragePath, to_path
from leyden.handlers.checkpoint.weights.weight_files import SUFFIX, WeightFile, find_weight_file

EVALUATED = "evaluated"
"""The weights that the run's evaluations saw."""
VERSIONS = "leyden.versions"
"""The key of a file's metadata with the versions of modules, as JSON; of those that are not {"version": 1}."""


@dataclass(frozen=True)
class Weights:
    """A model's state, not loaded yet.

    outline: something with a shape for each tensor, by name. versions: of its modules, by which torch decides how to
    load them. metadata: what is known of where they come from.
    """

    place: StoragePath
    outline: Mapping[str, Any]
    versions: Mapping[str, Any]
    metadata: Mapping[str, str]
    load: Callable[[], dict[str, Any]]


def load_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    name: str | None = None,
    strict: bool = True,
    averaged: str | None = EVALUATED,
) -> None:
    """Copies weights into a model, which needs no engine, and may be sharded.

    `path`: a checkpoint, or a directory of them for the newest, of which what is read is verified; or a safetensors
    file, the index of several, or a folder with `model.safetensors`, as `export_weights` and other libraries write
    them.
    `name`: which model, as "<update>/<module>", where a checkpoint holds several. `averaged`: by default the weights
    are those that the run evaluated, and a printed line tells where these are averages (of an EMA, say); None takes
    the model's own, and the name of a handler ("EMA") its averages. `strict=False` leaves alone the parameters and
    buffers that only one of them has; a warning tells if these are all.

    Raises ValueError if the model does not fit, before it is changed; CheckpointDamagedError if a file is not whole.
    """
    weights = find_weights(path, name, averaged)
    outline = _with_aliases(model, weights.outline)
    check = model_state.model_problems if strict else model_state.shape_problems
    if problems := check(model, outline, type(model_state.unwrapped(model)).__name__):
        raise ValueError(f"{weights.place} does not fit the model:\n  " + "\n  ".join(problems))
    names = list(model_state.model_state(model))
    if not strict and outline.keys().isdisjoint(names):
        there, here = (", ".join(each[:3]) or "no weights" for each in (list(outline), names))
        warnings.warn(f"nothing was loaded: {weights.place} has {there}, ..., the model {here}, ...", stacklevel=2)
    state = _spread(model, _with_aliases(model, weights.load()))
    model_state.load_model(model, state, weights.versions, strict=strict)


def find_weights(path: str | os.PathLike[str], name: str | None, averaged: str | None) -> Weights:
    """The weights at a path; the arguments are those of `load_weights`, and so are the errors."""
    place = to_path(path)
    if not isinstance(place, Path) and place.name.endswith(SUFFIX):
        raise ValueError(f"a file of weights is read from a local path, but got {place}; copy it to one")
    file = find_weight_file(place) if isinstance(place, Path) else None
    if file is None:
        return _of_checkpoint(locate(path), name, averaged)
    if name is not None or averaged not in (None, EVALUATED):
        given = f"name={name!r}" if averaged in (None, EVALUATED) else f"averaged={averaged!r}"
        raise ValueError(f"{file} holds the weights of one model; {given} is for a checkpoint")
    opened = WeightFile(file)
    return Weights(file, opened.shapes, _file_versions(opened), opened.metadata, opened.load)


def _of_checkpoint(folder: StoragePath, name: str | None, averaged: str | None) -> Weights:
    contents = CheckpointContents.read(folder)
    if not contents.manifest.has_index:
        verify_files(folder, contents.manifest)
    models = {f"{update}/{key}": (update, key) for update, each in contents.outline["models"].items() for key in each}
    if name is None and len(models) == 1:
        (name,) = models
    if name not in models:
        asked = "has several models; name= says which" if name is None else f"has no model {name!r}"
        raise ValueError(f"{folder} {asked}: {', '.join(models) or 'none'}")
    update, key = models[name]
    if averaged == EVALUATED:
        averaged = _evaluated(contents, update)
    outline: dict[str, Any] = dict(contents.outline["models"][update][key])
    averages = {} if averaged is None else _averages(contents, update, key, averaged)

    def load() -> dict[str, Any]:
        infos = [*averages.values(), *(info for info in outline.values() if isinstance(info, TensorInfo))]
        loaded = contents.read_tensors({info.name: info for info in infos}.values())
        state = {}
        for place, info in outline.items():
            if not isinstance(info, TensorInfo):
                state[place] = info
            elif info.name in averages:  # in the model they have its dtype
                state[place] = loaded[averages[info.name].name].to(info.dtype)
            else:
                state[place] = loaded[info.name]
        return state

    manifest = contents.manifest
    metadata = {count: str(getattr(manifest, count)) for count in ("epoch", "iteration", "step")}
    if averaged is not None:
        metadata["averaged"] = averaged
    return Weights(folder, outline, contents.outline["versions"][update][key], metadata, load)


def _evaluated(contents: CheckpointContents, update: str) -> str | None:
    """The handler whose averages evaluations saw in the place of the model's weights; tells it on rank 0."""
    engine = contents.outline["engine"]
    kept = _with_averages(contents, update)
    found = [name for name, state in kept.items() if is_count(state.get("count")) and state["count"] > 0]
    if engine.get("handler_marks") is None:
        if found and dist.rank() == 0:
            warnings.warn(
                f"{contents.path} was written by an earlier version, and does not tell whether its run evaluated the "
                f"averages of {found[0]}; these are the model's own weights. averaged={found[0]!r} takes the averages, "
                "or averaged=None",
                stacklevel=2,
            )
        return None
    settings = {name: engine["handler_marks"].get(name, {}).get("settings", {}) for name in found}
    handler = next((name for name in found if settings[name].get("evaluate") is True), None)
    if handler is not None and dist.rank() == 0:
        print(
            f"the weights from {contents.path} are the averages of {handler}, which its run evaluated; averaged=None "
            "takes the model's own",
            flush=True,
        )
    return handler


def _with_averages(contents: CheckpointContents, update: str) -> dict[str, Any]:
    """The states of handlers that keep averages of an update's weights, by their names."""
    return {
        name: state["updates"][update]
        for name, state in contents.outline["engine"]["handlers"].items()
        if isinstance(state, dict) and "averages" in state.get("updates", {}).get(update, {})
    }


def _averages(contents: CheckpointContents, update: str, key: str, handler: str) -> dict[str, TensorInfo]:
    """The averages of one model's parameters, by the names of the tensors in whose place they come."""
    kept = _with_averages(contents, update)
    if handler not in kept:
        there = ", ".join(kept) or "none"
        raise ValueError(f"{contents.path} has no averages of {handler!r}; handlers that kept some: {there}")
    if kept[handler]["count"] == 0:
        raise ValueError(f"{contents.path} was saved before {handler} had averaged anything")
    model = contents.outline["models"][update][key]
    within = f"{key}/"
    averages = kept[handler]["averages"].items()
    own = {name.removeprefix(within): info for name, info in averages if name.startswith(within)}
    if not own.keys() <= model.keys():  # named as in DistributedDataParallel
        own = {name.removeprefix("module."): info for name, info in own.items()}
    return {model[name].name: info for name, info in own.items() if isinstance(model.get(name), TensorInfo)}


def _file_versions(file: WeightFile) -> dict[str, Any]:
    """As the file tells; one of another library tells nothing."""
    if VERSIONS not in file.metadata:
        return {}
    try:
        told = json.loads(file.metadata[VERSIONS])
        special = {name: {"version": int(each["version"])} for name, each in told.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointDamagedError(f"{file.path} has {VERSIONS} that can't be read: {error}") from None
    modules = {name.rpartition(".")[0] for name in file.shapes}
    return {**{name: {"version": 1} for name in modules}, **special}


def _with_aliases(model: nn.Module, saved: Mapping[str, Any]) -> dict[str, Any]:
    """What is saved, also under those names of the model that mean the same tensor as one that is saved: of tied
    weights most libraries write one.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in model_state.unwrapped(model).state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(plain_name(name))
    found = dict(saved)
    for alike in names.values():
        source = next((name for name in alike if name in saved), None)
        if source is not None:
            found |= {name: saved[source] for name in alike if name not in saved}
    return found


def _spread(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with tensors spread over ranks where the model's are."""
    spread = dict(state)
    for name, live in model_state.model_state(model).items():
        value = spread.get(name)
        if dist.is_sharded(live) and isinstance(value, torch.Tensor) and not dist.is_sharded(value):
            spread[name] = dist.sharded_like(live, value)  # each rank has read it itself, so none has to send it
    return spread
