"""What a checkpoint folder holds, written and read as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from leyden import distributed as dist
from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.codec import Json, decode, tensors_in
from leyden.handlers.checkpoint.files.index import INDEX, Index
from leyden.handlers.checkpoint.files.indexed_reader import verify_shards
from leyden.handlers.checkpoint.files.manifest import STATE, Manifest, read_recorded, verify_files
from leyden.handlers.checkpoint.files.rank_file import rank_file_name, read_rank_file, without_gradients
from leyden.handlers.checkpoint.files.reader import read_tensors
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.files.validation import check_outline, check_ranks, parse_json
from leyden.handlers.checkpoint.store.paths import StoragePath


@dataclass(frozen=True)
class CheckpointContents:
    """What a checkpoint holds, without the values of its tensors.

    tensors: name, shape over all ranks and dtype of each, by name. The names tell what they are:
    `models/<update>/<module>/<parameter>`, `optimizers/<update>/state/<module>/<parameter>/<key>`, ...
    outline: what all ranks share, with a TensorInfo in the place of each tensor.
    """

    path: StoragePath
    manifest: Manifest
    tensors: dict[str, TensorInfo]
    outline: dict[str, Any]
    _json: Json
    _index: Index | None = None
    """None up to schema 3."""

    @classmethod
    def read(cls, folder: StoragePath) -> CheckpointContents:
        """Raises CheckpointDamagedError for a folder that can't be read. Of files of tensors, and of what ranks have
        for themselves, the sums are compared by who reads them.
        """
        manifest = Manifest.read(folder)
        state, outline, tensors = _read_state(folder, manifest)
        index: Index | None = None
        if manifest.has_index:
            try:
                index = Index.from_bytes(read_recorded(folder, INDEX, manifest))
            except (OSError, ValueError, RecursionError) as error:
                raise _unreadable(folder / INDEX, error) from None
        return cls(folder, manifest, tensors, outline, state, index)

    def load(self, like: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
        """What all ranks share, with its tensors; each is sharded over ranks as the one of its name in `like`, if there
        is one.
        """
        return self._load({key: part for key, part in self._json.items() if key != "ranks"}, like)

    def load_rank(self, rank: int, *, gradients: bool = True) -> dict[str, Any]:
        """What one of the ranks had for itself; `gradients=False` leaves out those of an open window, a model's size.
        Raises KeyError if there was no such rank.
        """
        if not 0 <= rank < self.manifest.world_size:
            raise KeyError(rank)
        if self._index is not None:
            return read_rank_file(self.path, self._index.token, rank, gradients=gradients)
        json = self._json["ranks"][str(rank)]
        return self._load(json if gradients else without_gradients(json))

    @property
    def mesh(self) -> dist.Mesh:
        """That of the ranks which wrote it."""
        return dist.Mesh(self.outline["engine"].get("mesh") or {"replicate": self.manifest.world_size})

    @property
    def own(self) -> Mapping[str, str] | None:
        """What the ranks' own files have for another number of ranks to share out, and how; None if not known."""
        return None if self._index is None else self._index.own

    def rank_outline(self, rank: int) -> dict[str, Any]:
        """What one of the ranks had for itself, with a TensorInfo in the place of each tensor.

        Raises KeyError if there was no such rank, CheckpointDamagedError if its file is not as it was written.
        """
        if not 0 <= rank < self.manifest.world_size:
            raise KeyError(rank)
        if self._index is not None:
            return read_rank_file(self.path, self._index.token, rank, tensors=False)
        outline: dict[str, Any] = self.outline["ranks"][str(rank)]
        return outline

    def verify(self) -> None:
        """Reads all files, and compares their sums. Raises CheckpointDamagedError, naming what is wrong."""
        verify_files(self.path, self.manifest)
        if self._index is None:
            return
        verify_shards(self.path, self._index)
        named = {file.name for file in self._index.files}
        if strange := sorted(path.name for path in self.path.glob("*.safetensors") if path.name not in named):
            raise CheckpointDamagedError(f"{self.path} has {', '.join(strange)}, which {INDEX} does not list")
        for rank in range(self.manifest.world_size):
            read_rank_file(self.path, self._index.token, rank, tensors=False)
        there = {path.name for path in self.path.glob("rank-*.state")}
        if strange := sorted(there - set(map(rank_file_name, range(self.manifest.world_size)))):
            raise CheckpointDamagedError(f"{self.path} has {', '.join(strange)}, and no such ranks wrote it")

    def _load(self, json: Json, like: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
        loaded = self.read_tensors(tensors_in(json).values(), like)
        state: dict[str, Any] = decode(json, lambda info: loaded[info.name])
        return state

    def read_tensors(
        self, wanted: Iterable[TensorInfo], like: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Tensors of the checkpoint by name, on the CPU, or sharded as those of the same names in `like`."""
        return read_tensors(self.path, wanted, like, self._index)

    def load_model(self, update: str, module: str) -> dict[str, Any]:
        """The state_dict of one model, on the CPU."""
        state = self.outline["models"][update][module]
        loaded = self.read_tensors([item for item in state.values() if isinstance(item, TensorInfo)])
        return {name: loaded[item.name] if isinstance(item, TensorInfo) else item for name, item in state.items()}


def _read_state(folder: StoragePath, manifest: Manifest) -> tuple[Json, dict[str, Any], dict[str, TensorInfo]]:
    try:
        state = parse_json(read_recorded(folder, STATE, manifest))
        outline = decode(state, lambda info: info)
        check_outline(outline)
        if not manifest.has_index:
            check_ranks(outline.get("ranks"), manifest.world_size)
        return state, outline, tensors_in(state)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(folder / STATE, error) from None


def _unreadable(path: StoragePath, error: Exception) -> CheckpointDamagedError:
    if isinstance(error, CheckpointDamagedError):
        return error
    return CheckpointDamagedError(f"{path} can't be read: {type(error).__name__}: {error}")
