"""The leaves of a tree that is saved, one by one: tensors, numpy's numbers, bytes and dtypes, as JSON can say them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch

NUMPY_KINDS = "biufc"
"""The kinds of numpy's dtypes that are numbers."""
_NUMPY_NAME = re.compile(rf"[<>|=]?[{NUMPY_KINDS}]\d{{1,2}}")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of a checkpoint: its name there, its shape over all ranks, its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def stored_in(self, dtype: torch.dtype) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype as they stand in a file of that dtype, where complex numbers may be pairs of real ones."""
        if self.dtype.is_complex and not dtype.is_complex:
            return (*self.shape, 2), self.dtype.to_real()
        return self.shape, self.dtype

    def __str__(self) -> str:
        return f"{tuple(self.shape)} {str(self.dtype).removeprefix('torch.')}"


def check_storable(value: torch.Tensor, place: str) -> None:
    """Raises TypeError, naming the place, for a tensor whose values can't be written."""
    from torch.distributed.tensor import DTensor

    if torch.nn.parameter.is_lazy(value):
        raise TypeError(f"{place} has no shape yet; run the model once before it is saved")
    kind = type(value.detach())
    if kind not in (torch.Tensor, DTensor):
        raise TypeError(f"{place} is a {kind.__module__}.{kind.__qualname__}: no tensor that a checkpoint can hold")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        what = "meta" if value.is_meta else "quantized" if value.is_quantized else str(value.layout)
        raise TypeError(f"{place} is a {what} tensor; a checkpoint holds dense tensors that have values")


def identity(value: torch.Tensor) -> tuple[Any, ...] | None:
    """Equal for tensors that are the same memory seen the same way; None where ranks might differ in the answer."""
    if type(value) is not torch.Tensor or value.numel() == 0:
        return None
    flags = (value.dtype, value.device, value.is_conj(), value.is_neg())
    return (value.data_ptr(), tuple(value.shape), value.stride(), *flags)


def to_text(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def to_dtype(name: Any) -> torch.dtype:
    """torch.float32 for "float32". Raises ValueError for what is no dtype."""
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise ValueError(f"{name!r} is no dtype of torch {torch.__version__}")
    return dtype


_DTYPES = {dtype_name(item): item for item in vars(torch).values() if isinstance(item, torch.dtype)}


def to_info(json: dict[str, Any]) -> TensorInfo:
    """The tensor that JSON with the tag $tensor stands for. Raises ValueError where it can't be one."""
    name, shape = json["$tensor"], json.get("shape")
    if not isinstance(name, str) or not is_shape(shape):
        raise ValueError(f"a tensor is described by {json}")
    return TensorInfo(name, tuple(shape), to_dtype(json.get("dtype")))


def to_numpy(json: dict[str, Any], tag: str) -> Any:
    """The array, or with the tag $number the number, of JSON. Raises ValueError for what is none."""
    name, shape = json["dtype"], json["shape"]
    if not isinstance(name, str) or not _NUMPY_NAME.fullmatch(name):
        raise ValueError(f"numpy's dtype {name!r} is not one of numbers")
    if not is_shape(shape) or (tag == "$number" and shape):
        raise ValueError(f"numpy's shape {shape!r} is none")
    array = np.frombuffer(base64.b64decode(json[tag], validate=True), np.dtype(name)).reshape(shape).copy()
    return array if tag == "$array" else array[()]


def is_shape(value: Any) -> TypeGuard[list[int]]:
    """True for a list of sizes that a tensor could have."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)
