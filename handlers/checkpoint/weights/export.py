"""Weights for the world outside: out of a checkpoint or a live model, into safetensors files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.distributed.compat import module_versions
from leyden.handlers.checkpoint.files.tensor_info import check_storable
from leyden.handlers.checkpoint.reading import is_checkpoint
from leyden.handlers.checkpoint.state import model_state
from leyden.handlers.checkpoint.store.paths import to_path
from leyden.handlers.checkpoint.weights.loading import EVALUATED, VERSIONS, find_weights
from leyden.handlers.checkpoint.weights.weight_files import SUFFIX, write_weights

SHARD_BYTES = 5_000_000_000


def export_weights(
    source: str | os.PathLike[str] | nn.Module | Mapping[str, Any],
    file: str | os.PathLike[str],
    *,
    name: str | None = None,
    averaged: str | None = EVALUATED,
    shard_bytes: int | None = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes the weights of one model into a safetensors file, which `load_weights` reads, and any other library.

    `source`: a checkpoint (or a directory of them, for the newest), which needs no engine and no model; a live model,
    also a wrapped or sharded one; or a state_dict (`ema.averaged()`). `name`, `averaged`: as for `load_weights`, which
    model of a checkpoint, and whose averages ("EMA"): by default the weights that the run evaluated.

    `file` ends with .safetensors. Weights of more than `shard_bytes` bytes (None: no limit) go into several files
    beside it, `model-00001-of-00003.safetensors` and so on, with an index as Hugging Face has it. Returned is the path
    that is to be read: the file, or the index. Metadata: versions of leyden and torch, of a checkpoint its counters,
    and `metadata`. Tied weights are written once, and come back under all their names.

    Where there are several ranks rank 0 writes; of a sharded model all ranks call this, and gather it.

    Raises ValueError for what is asked for wrongly, TypeError for tensors that can't be written, CheckpointDamagedError
    for a checkpoint that is not whole, OSError if the disk does not take it.
    """
    path = to_path(file)
    if not isinstance(path, Path):
        raise ValueError(f"weights are exported to a local file, but got {path}; export to one, and copy that there")
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"weights are exported to a file that ends with {SUFFIX}, but got {path}")
    if is_checkpoint(path.parent):
        raise ValueError(f"{path.parent} is a checkpoint, which a further file would damage; export to another folder")
    if shard_bytes is not None and shard_bytes < 1:
        raise ValueError(f"a shard has at least 1 byte, but got shard_bytes={shard_bytes}")
    if isinstance(source, nn.Module | Mapping):
        if name is not None or averaged not in (None, EVALUATED):
            raise ValueError("name= and averaged= choose from a checkpoint; of live averages give ema.averaged()")
        state, versions, known = _live(source)
    elif dist.rank() == 0:
        weights = find_weights(source, name, averaged)
        state, versions, known = weights.load(), weights.versions, weights.metadata
    else:
        return path
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if others := [key for key in state if key not in tensors]:
        warnings.warn(f"not exported, since they are no tensors: {', '.join(others)}", stacklevel=2)
    for key, value in tensors.items():
        check_storable(value, key)
    tensors = _gathered(tensors)
    if dist.rank() != 0:
        return path
    described = {"leyden": importlib.metadata.version("leyden"), "torch": torch.__version__, **known}
    special = {key: version for key, version in versions.items() if version != {"version": 1}}
    described[VERSIONS] = json.dumps(special)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_weights(path, tensors, {**described, **(metadata or {})}, shard_bytes)


def _live(source: nn.Module | Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]:
    if isinstance(source, nn.Module):
        return model_state.model_state(source), model_state.model_versions(source), {}
    return source, module_versions(source), {}


def _gathered(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The whole of each that is spread over ranks; rank 0 keeps it, on the CPU."""
    from torch.distributed.tensor import DTensor

    whole: dict[str, torch.Tensor] = {}
    gathered: dict[int, torch.Tensor] = {}  # by the shard, which is one for all names of a tied weight
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            whole[name] = tensor
            continue
        shard = tensor.to_local().data_ptr()
        if shard == 0 or shard not in gathered:
            full = tensor.full_tensor().detach()
            gathered[shard] = full.cpu() if dist.rank() == 0 else full.new_empty(0)
        whole[name] = gathered[shard]
    return whole
