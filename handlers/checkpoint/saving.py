"""One save, from an engine to a whole checkpoint under its final name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.checkpoint.codec import Json, encode
from leyden.handlers.checkpoint.contents import write_rest
from leyden.handlers.checkpoint.directory import CheckpointDirectory
from leyden.handlers.checkpoint.manifest import Manifest, numbers
from leyden.handlers.checkpoint.ranks import gather_ranks
from leyden.handlers.checkpoint.retention import to_remove
from leyden.handlers.checkpoint.tensors import is_sharded, write_tensors
from leyden.handlers.checkpoint.together import on_rank_zero
from leyden.handlers.checkpoint.training_state import Stateful, collect, collect_own


@dataclass(frozen=True)
class Keeping:
    """How many checkpoints stay: the `keep` last, or best by a metric; None for all."""

    keep: int | None
    best: str | None
    mode: str


def save_checkpoint(
    directory: CheckpointDirectory,
    engine: Engine[Any, Any],
    extra: Mapping[str, Stateful],
    keeping: Keeping,
    *,
    new_metrics: list[str],
    superseded: Path | None,
) -> Path:
    """Writes what there is to save, makes it a checkpoint, and then deletes older ones. Every rank calls it.

    new_metrics: names of metrics that no earlier checkpoint had with this value. superseded: a checkpoint of the same
    moment, which this one replaces.
    """
    json, tensors, together = _gather_state(engine, extra, keeping.best)
    state = engine.state
    manifest = Manifest(
        serial=0,
        epoch=state.epoch,
        iteration=state.iteration,
        step=state.step,
        epoch_open=engine.cursor.epoch_open,
        world_size=dist.world_size(),
        metrics=numbers(state.metrics),
        scored=[name for name in numbers(state.metrics) if name in new_metrics],
    )
    folder = on_rank_zero(lambda: directory.begin(manifest.epoch, manifest.iteration))
    together = together or is_sharded(tensors.values())
    try:
        if together:
            write_tensors(folder, tensors, together=True)
            tensors = {}
        return on_rank_zero(lambda: _finish(directory, folder, tensors, json, manifest, keeping, superseded))
    except BaseException as error:
        error.add_note(f"while writing the checkpoint {folder}; the older ones are as they were")
        if dist.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _gather_state(
    engine: Engine[Any, Any], extra: Mapping[str, Stateful], best: str | None
) -> tuple[Json, dict[str, torch.Tensor], bool]:
    failure: Exception | None = None
    json: Json = {}
    tensors: dict[str, torch.Tensor] = {}
    own: dict[str, Any] = {}
    try:
        metrics = engine.state.metrics
        if best is not None and best in metrics and best not in numbers(metrics):
            raise TypeError(f'Checkpoint ranks by "{best}", which is no number, but a {type(metrics[best]).__name__}')
        json, tensors = encode(collect(engine, extra))
        own = collect_own(engine)
    except Exception as error:  # raised once all ranks know of it
        failure = error
    ranks = gather_ranks(own, failure)
    return {**json, **ranks.json}, {**tensors, **ranks.tensors}, ranks.together


def _finish(
    directory: CheckpointDirectory,
    folder: Path,
    tensors: dict[str, torch.Tensor],
    json: Json,
    manifest: Manifest,
    keeping: Keeping,
    superseded: Path | None,
) -> Path:
    if tensors:
        write_tensors(folder, tensors, together=False)
    entries = directory.entries()
    manifest = replace(manifest, serial=1 + max((entry.manifest.serial for entry in entries), default=0))
    old = [entry for entry in entries if entry.path == superseded and keeping.keep is not None]
    for entry in old:
        scored = {*entry.manifest.scored, *manifest.scored} & manifest.metrics.keys()
        manifest = replace(manifest, scored=sorted(scored))
    write_rest(folder, json, manifest)
    path = directory.publish(folder)
    entries = [entry for entry in directory.entries() if entry not in old]
    for entry in [*old, *to_remove(entries, keeping.keep, keeping.best, keeping.mode)]:
        directory.remove(entry.path)
    return path
