"""The tensors of a checkpoint on disk: safetensors files, planned and written by torch.distributed.checkpoint.

Its planner decides who writes which shard, so one layout serves one rank and thousands; its own default storage is not
used because reading that one unpickles.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.guards import check_declared
from leyden.handlers.checkpoint.leaves import TensorInfo


def is_sharded(tensors: Iterable[torch.Tensor]) -> bool:
    """True if a tensor is spread over ranks, so that all of them have to write."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(tensor, DTensor) for tensor in tensors)


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], *, together: bool) -> None:
    """Writes the tensors into files of the folder, flushed to disk.

    `together`: all ranks call this, each writes its shards; else this rank writes everything alone.
    Raises OSError, or RuntimeError where another rank failed.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _alone_without_a_warning():
            save(_storable(tensors), storage_writer=writer, no_dist=not together)
    except CheckpointException as error:
        raise _cause(error) from error


def read_tensors(
    folder: Path, wanted: Iterable[TensorInfo], like: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors by name, in new memory: on the CPU, or sharded over ranks as the tensor of that name in `like` is.

    Raises CheckpointDamagedError where the files don't hold what is wanted.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    sharded = like or {}
    wanted = list(wanted)
    loaded: dict[str, torch.Tensor] = {}
    reader = HuggingFaceStorageReader(str(folder))
    try:
        metadata = reader.read_metadata()
        check_declared(wanted, metadata.state_dict_metadata)
    except Exception as error:  # whatever can be wrong with the files
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointDamagedError(f"the tensors of {folder} can't be read: {reason}") from error
    reader.read_metadata = lambda *_, **__: metadata  # type: ignore[method-assign]  # read just now
    try:
        for info in wanted:
            if info.name in sharded:
                loaded[info.name] = torch.empty_like(sharded[info.name], dtype=info.dtype)
            elif info.dtype.is_complex:
                loaded[info.name] = torch.empty((*info.shape, 2), dtype=info.dtype.to_real())
            else:
                loaded[info.name] = torch.empty(info.shape, dtype=info.dtype)
        with _alone_without_a_warning():
            load(loaded, storage_reader=reader, no_dist=True)
    except (CheckpointException, RuntimeError, OverflowError) as error:  # the latter where no memory is that large
        cause = _cause(error) if isinstance(error, CheckpointException) else error
        reason = f"{type(cause).__name__}: {cause}"
        raise CheckpointDamagedError(f"the tensors of {folder} can't be read: {reason}") from error
    for info in wanted:
        if info.dtype.is_complex and info.name not in sharded:
            loaded[info.name] = torch.view_as_complex(loaded[info.name])
    return loaded


def _storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values as safetensors takes them: contiguous, real, no two over the same memory."""
    from torch.distributed.tensor import DTensor

    storable: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
        else:
            real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
            local = real.resolve_neg().contiguous()
        value = tensor if isinstance(tensor, DTensor) else local
        pointer = local.untyped_storage().data_ptr()
        storable[name] = value.clone() if pointer in memory else value
        memory |= {pointer} - {0}  # empty tensors have no memory
    return storable


@contextmanager
def _alone_without_a_warning() -> Iterator[None]:
    """torch warns whenever one process saves or loads by itself, which is what is asked for here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _cause(error: BaseException) -> Exception:
    """The first rank's own exception out of torch's collection of them, which no `except Exception` would catch."""
    failures = getattr(error, "failures", {})
    for _, (cause, _) in sorted(failures.items()):
        if isinstance(cause, Exception):
            return cause
    return RuntimeError(str(error))
