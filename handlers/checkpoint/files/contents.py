"""What a checkpoint folder holds, written and read as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.codec import Json, decode, tensors_in
from leyden.handlers.checkpoint.files.manifest import STATE, Manifest
from leyden.handlers.checkpoint.files.reader import read_tensors
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.files.validation import check_outline, parse_json, read_text_file
from leyden.handlers.checkpoint.store.paths import StoragePath


@dataclass(frozen=True)
class CheckpointContents:
    """What a checkpoint holds, without the values of its tensors.

    tensors: name, shape over all ranks and dtype of each, by name. The names tell what they are:
    `models/<update>/<module>/<parameter>`, `optimizers/<update>/state/<module>/<parameter>/<key>`, ...
    outline: the whole state, with a TensorInfo in the place of each tensor.
    """

    path: StoragePath
    manifest: Manifest
    tensors: dict[str, TensorInfo]
    outline: dict[str, Any]
    _json: Json

    @classmethod
    def read(cls, folder: StoragePath) -> CheckpointContents:
        """Raises CheckpointDamagedError for a folder that can't be read; hashes are not compared."""
        manifest = Manifest.read(folder)
        try:
            state = parse_json(read_text_file(folder / STATE, manifest.files[STATE].bytes))
            outline = decode(state, lambda info: info)
            check_outline(outline, manifest.world_size)
            return cls(folder, manifest, tensors_in(state), outline, state)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointDamagedError(f"{folder / STATE} can't be read: {type(error).__name__}: {error}") from None

    def load(self, like: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
        """What all ranks share, with its tensors; each is sharded over ranks as the one of its name in `like`, if there
        is one.
        """
        return self._load({key: part for key, part in self._json.items() if key != "ranks"}, like)

    def load_rank(self, rank: int, *, gradients: bool = True) -> dict[str, Any]:
        """What one of the ranks had for itself; `gradients=False` leaves out those of an open window, a model's size.
        Raises KeyError if there was no such rank.
        """
        json = self._json["ranks"][str(rank)]
        return self._load(json if gradients else _without_gradients(json))

    def _load(self, json: Json, like: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
        loaded = read_tensors(self.path, tensors_in(json).values(), like)
        state: dict[str, Any] = decode(json, lambda info: loaded[info.name])
        return state

    def load_model(self, update: str, module: str) -> dict[str, Any]:
        """The state_dict of one model, on the CPU."""
        state = self.outline["models"][update][module]
        loaded = read_tensors(self.path, [item for item in state.values() if isinstance(item, TensorInfo)])
        return {name: loaded[item.name] if isinstance(item, TensorInfo) else item for name, item in state.items()}


def _without_gradients(rank: Json) -> Json:
    engine = rank.get("engine", {})
    lean = {name: window | {"gradients": {}} for name, window in engine.get("updates", {}).items()}
    return rank | {"engine": engine | {"updates": lean}} if lean else rank
