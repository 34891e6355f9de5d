"""One save, from an engine to a whole checkpoint: what is taken while training waits, and what is written beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.checkpoint.errors import ScoreError
from leyden.handlers.checkpoint.files.codec import Json, encode
from leyden.handlers.checkpoint.files.manifest import STATE, FileRecord, Manifest, numbers
from leyden.handlers.checkpoint.files.shards import Layout, Piece, file_name, ordered, pieces_of
from leyden.handlers.checkpoint.files.staging import HostBuffer, bytes_of
from leyden.handlers.checkpoint.saving.writers import Exchange
from leyden.handlers.checkpoint.shared_outcomes import gather_or_fail
from leyden.handlers.checkpoint.state.per_rank import LIGHT, gather_ranks
from leyden.handlers.checkpoint.state.training_state import Stateful, collect, collect_own
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory, Entry
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.retention import Keeping
from leyden.handlers.checkpoint.store.writing import write_file


@dataclass(frozen=True)
class Taken:
    """What this rank is to write, apart from the run: nothing of it changes as training goes on.

    name: the checkpoint's. together: all ranks write. json: the whole state, on rank 0.
    """

    name: str
    together: bool
    json: Json
    manifest: Manifest
    layout: Layout
    data: memoryview | Sequence[Piece]


def take(
    engine: Engine[Any, Any],
    extra: Mapping[str, Stateful],
    directory: CheckpointDirectory,
    best: str | None,
    new_metrics: list[str],
    buffer: HostBuffer | None,
    script: Mapping[str, Any],
) -> Taken:
    """All that is to be saved, copied into the buffer; without one, tensors are left where they are. Every rank calls
    it.

    new_metrics: names of metrics that no earlier checkpoint had with this value.
    Raises TypeError for a state that can't be saved, on all ranks if one of them has it.
    """
    state = engine.state
    failure: Exception | None = None
    json: Json = {}
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    pieces: list[Piece] = []
    data: memoryview | Sequence[Piece]
    sharded = False
    try:
        if best is not None and best in state.metrics and best not in numbers(state.metrics):
            kind = type(state.metrics[best]).__name__
            raise ScoreError(f'Checkpoint ranks by "{best}", which is no number, but a {kind}')
        shared = collect(engine, extra, script)
        json, tensors = encode(shared)
        sharded = any(map(dist.is_sharded, tensors.values()))
        pieces = pieces_of(tensors, whole=dist.rank() == 0)
        own = collect_own(engine)
    except Exception as error:  # raised once all ranks know of it
        failure = error
    ranks = gather_ranks(own, failure, shared.get("models"))
    name, layout, data = "", Layout.of(()), memoryview(b"")
    try:
        pieces = ordered([*pieces, *pieces_of(_to_write(ranks.tensors), whole=True)])
        layout = Layout.of(pieces)
        data = pieces if buffer is None else buffer.fill(pieces, layout)
        if dist.rank() == 0:
            name = directory.next_name(state.epoch, state.iteration)
    except Exception as error:
        failure = error
    try:
        name = gather_or_fail(name, failure)[0]
    except Exception:
        directory.give_back(name)
        raise
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
    return Taken(
        name,
        sharded or ranks.together,
        {**json, **ranks.json},
        manifest,
        layout,
        data,
    )


def _to_write(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of what ranks have for themselves: on rank 0 that and what others handed to it, on others what is too much for
    that.
    """
    if dist.rank() == 0:
        return own
    mine = {name: tensor for name, tensor in own.items() if name.startswith(f"ranks/{dist.rank()}/")}
    return mine if sum(tensor.nbytes for tensor in mine.values()) > LIGHT else {}


def write(
    taken: Taken,
    directory: CheckpointDirectory,
    lock: DirectoryLock,
    keeping: Keeping,
    superseded: StoragePath | None,
    exchange: Exchange,
) -> tuple[str, ...]:
    """Writes what was taken, makes it a checkpoint, and then deletes older ones; nothing half written is left.

    superseded: a checkpoint of the same moment, which this one replaces. Gives what is to be told of older ones that
    can't be deleted. Raises DirectoryInUseError, OSError, or RuntimeError where another rank failed.
    """
    folder, failure = _begin(taken, directory, lock)
    folder, told = exchange.broadcast((folder, failure and f"{type(failure).__name__}: {failure}"))
    if told is not None:
        raise failure or RuntimeError(f"rank 0 failed: {told}")
    assert folder is not None
    try:
        files = _write_own(folder, taken, exchange)
        if dist.rank() != 0:
            return ()
        entries = directory.entries()
        manifest = replace(taken.manifest, serial=1 + max((entry.manifest.serial for entry in entries), default=0))
        old = [entry for entry in entries if entry.path == superseded and keeping.keep is not None]
        for entry in old:
            scored = {*entry.manifest.scored, *manifest.scored} & manifest.metrics.keys()
            manifest = replace(manifest, scored=sorted(scored))
        files[STATE] = write_file(folder / STATE, json.dumps(taken.json, allow_nan=False).encode())
        lock.check()
        directory.storage.publish(folder, replace(manifest, files=files).to_bytes())
    except BaseException as error:
        error.add_note(f"while writing the checkpoint {folder}; the older ones are as they were")
        if dist.rank() == 0:
            directory.storage.discard(folder)
            directory.give_back(taken.name)
        raise
    return _remove(directory, keeping, old)


def _begin(
    taken: Taken, directory: CheckpointDirectory, lock: DirectoryLock
) -> tuple[StoragePath | None, Exception | None]:
    if dist.rank() != 0:
        return None, None
    try:
        lock.check()
        return directory.storage.begin(taken.name), None
    except Exception as error:  # raised once the others know of it
        error.add_note(f"while writing the checkpoint {taken.name}; the older ones are as they were")
        directory.give_back(taken.name)
        return None, error


def _write_own(folder: StoragePath, taken: Taken, exchange: Exchange) -> dict[str, FileRecord]:
    """Writes this rank's file; gives, on rank 0, the records of all ranks' files."""
    files: dict[str, FileRecord] = {}
    failure: Exception | None = None
    try:
        if taken.layout.entries:
            name = file_name(dist.rank())
            data = [taken.data] if isinstance(taken.data, memoryview) else bytes_of(taken.data)
            files[name] = write_file(folder / name, chain([taken.layout.header()], data))
    except Exception as error:  # raised once rank 0 knows of it
        failure = error
    if not taken.together:
        if failure is not None:
            raise failure
        return files
    told = exchange.gather((files, failure and f"{type(failure).__name__}: {failure}"))
    if failure is not None:
        raise failure
    for rank, (_, message) in enumerate(told):
        if message is not None:
            raise RuntimeError(f"rank {rank} failed: {message}")
    return {name: record for of_rank, _ in told for name, record in of_rank.items()}


def _remove(directory: CheckpointDirectory, keeping: Keeping, old: Sequence[Entry]) -> tuple[str, ...]:
    """Deletes what is superseded and what need not stay. The new one is whole: that is what counts, whatever fails."""
    try:
        doomed = [*old, *keeping.to_remove([entry for entry in directory.entries() if entry not in old])]
    except Exception as error:
        return (f"older checkpoints in {directory.path} can't be looked for: {type(error).__name__}: {error}",)
    remarks = []
    for entry in doomed:
        try:
            directory.remove(entry)
        except Exception as error:
            remarks.append(f"the checkpoint {entry.path} can't be deleted: {type(error).__name__}: {error}")
    return tuple(remarks)
