"""One save, from an engine to a whole checkpoint: what is taken while training waits, and what is written beside it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from leyden import distributed as dist
from leyden.distributed import on_rank_zero
from leyden.engine import Engine
from leyden.engine.resume import ways_of_sharing
from leyden.handlers.checkpoint.errors import ScoreError
from leyden.handlers.checkpoint.files.codec import Json, encode
from leyden.handlers.checkpoint.files.index import INDEX, Index, ShardRecord
from leyden.handlers.checkpoint.files.manifest import STATE, Manifest, numbers
from leyden.handlers.checkpoint.files.rank_file import rank_file_name, write_rank_file
from leyden.handlers.checkpoint.files.reader import pieces_in, write_shard
from leyden.handlers.checkpoint.files.shards import HostBuffer, Layout, Piece, file_name, ordered, pieces_of
from leyden.handlers.checkpoint.saving.writer import Exchange
from leyden.handlers.checkpoint.state.preconditions import require_same_models
from leyden.handlers.checkpoint.state.training_state import Stateful, collect, collect_own
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory, Entry
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.retention import Keeping
from leyden.handlers.checkpoint.store.writing import write_file


@dataclass(frozen=True)
class Copied:
    """Tensors as they are to lie in a file: copied into a buffer, or without one where they are."""

    layout: Layout
    data: memoryview | Sequence[Piece]

    @classmethod
    def of(cls, pieces: Sequence[Piece], buffer: HostBuffer | None) -> Copied:
        pieces = ordered(pieces)
        layout = Layout.of(pieces)
        return cls(layout, pieces if buffer is None else buffer.fill(pieces, layout))


@dataclass(frozen=True)
class Taken:
    """What this rank is to write, apart from the run: nothing of it changes as training goes on.

    name: the checkpoint's. token: a word of its own. state: what all ranks share, on rank 0; own: what this one has for
    itself. shard, own_tensors: the tensors of each that this rank writes. ways: how another number of ranks shares out
    what this one has for itself.
    """

    name: str
    token: str
    state: Json
    own: Json
    manifest: Manifest
    shard: Copied
    own_tensors: Copied
    ways: Mapping[str, str]


def take(
    engine: Engine[Any, Any],
    extra: Mapping[str, Stateful],
    directory: CheckpointDirectory,
    best: str | None,
    new_metrics: list[str],
    buffers: tuple[HostBuffer, HostBuffer] | None,
    script: Mapping[str, Any],
) -> Taken:
    """All that is to be saved, copied into the buffers (what ranks share, what each has for itself); without them,
    tensors are left where they are. Every rank calls it.

    new_metrics: names of metrics that no earlier checkpoint had with this value.
    Raises TypeError for a state that can't be saved, on all ranks if one of them has it.
    """
    state = engine.state
    failure: Exception | None = None
    shared: dict[str, Any] = {}
    json: Json = {}
    own: Json = {}
    ways: dict[str, str] = {}
    shard = own_tensors = Copied.of((), None)
    of_shared, of_own = buffers or (None, None)
    try:
        if best is not None and best in state.metrics and best not in numbers(state.metrics):
            kind = type(state.metrics[best]).__name__
            raise ScoreError(f'Checkpoint ranks by "{best}", which is no number, but a {kind}')
        shared = collect(engine, extra, script)
        json, tensors = encode(shared)
        live = collect_own(engine)
        own, mine = _encode_own(live)
        ways = ways_of_sharing(engine, live["engine"])
        shard = Copied.of(pieces_of(tensors, whole=dist.rank() == 0), of_shared)
        own_tensors = Copied.of(pieces_of(mine, whole=True), of_own)
    except Exception as error:  # raised once all ranks know of it
        failure = error
    require_same_models(shared.get("models", {}), failure)
    name, token = on_rank_zero(lambda: (directory.next_name(state.epoch, state.iteration), uuid.uuid4().hex))
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
    return Taken(name, token, json if dist.rank() == 0 else {}, own, manifest, shard, own_tensors, ways)


def _encode_own(own: Mapping[str, Any]) -> tuple[Json, dict[str, torch.Tensor]]:
    """As `encode` does it, with names that tell whose they are."""
    rank = str(dist.rank())
    json, tensors = encode({"ranks": {rank: own}})
    return json["ranks"][rank], tensors


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
    word = failure and f"{type(failure).__name__}: {failure}"
    folder, told, ways = exchange.broadcast(taken.token, (folder, word, taken.ways))
    if told is not None:
        raise failure or RuntimeError(f"rank 0 failed: {told}")
    assert folder is not None
    try:
        shards, ways = _write_own(folder, taken, exchange, ways)
        if dist.rank() != 0:
            return ()
        entries = directory.entries()
        manifest = replace(taken.manifest, serial=1 + max((entry.manifest.serial for entry in entries), default=0))
        old = [entry for entry in entries if entry.path == superseded and keeping.keep is not None]
        for entry in old:
            scored = {*entry.manifest.scored, *manifest.scored} & manifest.metrics.keys()
            manifest = replace(manifest, scored=sorted(scored))
        files = {
            INDEX: write_file(folder / INDEX, Index.to_bytes(taken.token, shards, ways)),
            STATE: write_file(folder / STATE, json.dumps(taken.state, allow_nan=False).encode()),
        }
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


def _write_own(
    folder: StoragePath, taken: Taken, exchange: Exchange, ways: Mapping[str, str]
) -> tuple[list[ShardRecord], Mapping[str, str]]:
    """Writes this rank's files; gives, on rank 0, the records of all ranks' files of tensors, and the ways of sharing
    out what any of them has for itself. `ways`: rank 0's; it is told only of more.
    """
    record: ShardRecord | None = None
    failure: Exception | None = None
    rank, own = dist.rank(), taken.own_tensors
    try:
        if taken.shard.layout.entries or rank == 0:
            record = write_shard(folder / file_name(rank), taken.shard.layout, taken.shard.data)
        path = folder / rank_file_name(rank)
        write_rank_file(path, taken.token, rank, taken.own, own.layout, pieces_in(own.layout, own.data))
    except Exception as error:  # raised once rank 0 knows of it
        failure = error
    told = failure and f"{type(failure).__name__}: {failure}"
    more = {name: way for name, way in taken.ways.items() if name not in ways}
    gathered = exchange.gather(taken.token, (record, told, more) if record or told or more else None)
    if failure is not None:
        raise failure
    for other, (_, message, _) in gathered.items():
        if message is not None:
            raise RuntimeError(f"rank {other} failed: {message}")
    for _, _, more in gathered.values():
        ways = {**more, **ways}
    return [shard for shard, _, _ in gathered.values() if shard is not None], ways


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
