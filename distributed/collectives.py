"""Collectives on tensors, numbers, strings and objects, the same over every backend. No input is modified.

Numbers are gathered and then combined in Python in the order of ranks: exact for whole numbers, the same bits on
every rank, and a rank may give 0 where another gives 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar, cast, overload

import torch

from leyden.distributed.backends import Backend, SerialBackend
from leyden.distributed.backends.base import Reduction
from leyden.distributed.mesh import backend_over
from leyden.distributed.session import session

T = TypeVar("T")
Group = Any
"""A process group, or the ranks in it."""

_NUMBER_OPS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sum": sum,
    "mean": lambda numbers: sum(numbers) / len(numbers),
    "min": min,
    "max": max,
    "product": math.prod,
    "and": all,
    "or": any,
}
# For truth values, "and" is the least and "or" the greatest.
_TENSOR_OPS: dict[str, Reduction] = {
    "sum": "sum", "mean": "sum", "min": "min", "max": "max", "product": "product", "and": "min", "or": "max"
}  # fmt: skip


@overload
def all_reduce(
    value: torch.Tensor, op: str = "sum", group: Group | None = None, *, over: str | None = None
) -> torch.Tensor: ...
@overload
def all_reduce(value: int, op: str = "sum", group: Group | None = None, *, over: str | None = None) -> int: ...
@overload
def all_reduce(value: float, op: str = "sum", group: Group | None = None, *, over: str | None = None) -> float: ...
def all_reduce(
    value: torch.Tensor | float, op: str = "sum", group: Group | None = None, *, over: str | None = None
) -> torch.Tensor | float:
    """Combine a value over all ranks; every rank gets the result.

    Args:
        value: a tensor of one shape and dtype on all ranks, or a number. Whole numbers have up to 64 bits.
        op: "sum", "mean", "min", "max", "product", or for truth values "and", "or". The mean of whole numbers is a
            float; the sum of truth values counts them.
        group: what `new_group` gave, or a list of ranks; None for all of them. All ranks call this; one that is not in
            the group gets its own value back.
        over: a dimension of the run's mesh ("data", "tensor", ...): each rank's result is over those that differ from
            it in that dimension alone. None or "world" is all ranks.

    Raises:
        ValueError: unknown `op` or dimension, or both `group` and `over`.
        TypeError: `value` is neither tensor nor number, or not a truth value under "and" and "or"; `over` is no name.
    """
    name = op.lower()
    if name not in _TENSOR_OPS:
        raise ValueError(f"all_reduce knows no op {op!r}; it knows: {', '.join(_TENSOR_OPS)}")
    backend = _among(group, over)
    if backend is None:
        return value
    if isinstance(value, torch.Tensor):
        _check_truth(name, value.dtype == torch.bool, f"a tensor of {value.dtype}")
        reduced = backend.reduce(value, _TENSOR_OPS[name])
        if value.dtype == torch.bool and name == "sum":
            return reduced.to(torch.int64)
        return reduced / backend.size if name == "mean" else reduced
    number = _as_number(value, "all_reduce")
    _check_truth(name, isinstance(number, bool), f"a {type(number).__name__}")
    return cast(float, _NUMBER_OPS[name](backend.gather_numbers(number)))


@overload
def all_gather(
    value: torch.Tensor,
    group: Group | None = None,
    *,
    over: str | None = None,
    lengths: Sequence[int] | None = None,
) -> torch.Tensor: ...
@overload
def all_gather(value: str, group: Group | None = None, *, over: str | None = None) -> list[str]: ...
@overload
def all_gather(value: int, group: Group | None = None, *, over: str | None = None) -> list[int]: ...
@overload
def all_gather(value: float, group: Group | None = None, *, over: str | None = None) -> list[float]: ...
def all_gather(
    value: torch.Tensor | float | str,
    group: Group | None = None,
    *,
    over: str | None = None,
    lengths: Sequence[int] | None = None,
) -> torch.Tensor | list[int] | list[float] | list[str]:
    """Bring the values of all ranks together, in the order of ranks; every rank gets them.

    Tensors are concatenated along dimension 0, a tensor without dimensions counting as a vector of one. They may differ
    in their first dimension, and a rank with nothing may give an empty vector of any dtype. Numbers and strings come
    back as a list. `group` and `over` as in `all_reduce`; a rank that is not in the group gets what it would get alone.
    `lengths`: the first dimension of each rank's tensor, where every rank knows them all; telling them, which takes a
    collective of its own, is then left out.

    Raises:
        TypeError: `value` is no tensor, number or string (`all_gather_object` takes any object).
        ValueError: the tensors of the ranks differ in dtype or in a later dimension, which is raised on every rank; or
            as for `all_reduce`.
    """
    backend = _among(group, over) or SerialBackend()
    if isinstance(value, torch.Tensor):
        tensor = value.detach().reshape(1) if value.dim() == 0 else value.detach()
        return _gather_tensors(backend, tensor) if lengths is None else _gather_padded(backend, tensor, lengths)
    if isinstance(value, str):
        return cast(list[str], backend.gather_objects(value))
    return backend.gather_numbers(_as_number(value, "all_gather", "a string (all_gather_object takes any object)"))


def gather(
    value: torch.Tensor, dst: int = 0, *, lengths: Sequence[int], over: str | None = None
) -> torch.Tensor | None:
    """The tensors of all ranks, concatenated along dimension 0 in the order of ranks, on rank `dst`; None elsewhere.

    `lengths`: the first dimension of each rank's tensor, which every rank knows. They are alike but for that. `over`: a
    dimension of the run's mesh, along which `dst` then counts; see `all_reduce`.

    Raises:
        ValueError: there is no rank `dst`, or no such dimension.
    """
    backend = backend_over(over)
    _check_rank(backend, dst, "to gather to")
    gathered = backend.gather_to(_padded(value.detach(), lengths), dst)
    return None if gathered is None else _without_padding(gathered, lengths)


def broadcast(value: Any, src: int = 0, *, over: str | None = None) -> Any:
    """The value of rank `src`, on every rank: a tensor, a number or a string.

    `over`: a dimension of the run's mesh, along which `src` then counts; see `all_reduce`. The value of the other ranks
    doesn't matter and may be None. A tensor arrives on the CPU if it was there on rank
    `src`, else on the receiving rank's own device.

    Raises:
        TypeError: rank `src` gave something else (`broadcast_object` takes any object); raised on every rank.
        ValueError: there is no rank `src`, or no such dimension.
    """
    backend = backend_over(over)
    _check_rank(backend, src)
    header = _Header.of(value) if backend.index == src else None
    header = cast(_Header, backend.broadcast_object(header, src))
    if header.kind == "unsupported":
        raise _unsupported("broadcast", header.content, "a string (broadcast_object takes any object)")
    if header.kind == "value":
        return header.content
    if backend.index == src:
        return backend.broadcast(value, src)
    shape, dtype, on_cpu = header.content
    here = torch.empty(shape, dtype=dtype, device="cpu" if on_cpu else backend.device())
    return backend.broadcast(here, src)


def all_gather_object(value: T, group: Group | None = None, *, over: str | None = None) -> list[T]:
    """The picklable object of each rank, by rank. `group` and `over` as in `all_gather`."""
    return (_among(group, over) or SerialBackend()).gather_objects(value)


def broadcast_object(value: T, src: int = 0, *, over: str | None = None) -> T:
    """The picklable object of rank `src`. The value of the other ranks doesn't matter. `over` as in `broadcast`.

    Raises:
        ValueError: there is no rank `src`, or no such dimension.
    """
    backend = backend_over(over)
    _check_rank(backend, src)
    return cast(T, backend.broadcast_object(value, src))


def barrier(*, over: str | None = None) -> None:
    """Wait until every rank is here, or each that differs from this one in the mesh's dimension `over` alone."""
    backend_over(over).barrier()


def new_group(ranks: Sequence[int], *, timeout: timedelta | float | None = None) -> Any:
    """A group of some ranks, for `group=` of the collectives. Every rank calls this, in the group or not.

    Args:
        ranks: those of the group.
        timeout: how long its collectives may wait, in seconds or as a timedelta; None for that of `initialize`.

    Raises:
        ValueError: a rank is not there, comes twice, or there is none.
    """
    return session.group_of(ranks, timeout)


def _among(group: Group | None, over: str | None) -> Backend | None:
    """The backend for the ranks of a group or along a dimension, None if this one is not in the group."""
    if group is None:
        return backend_over(over)
    if over is not None:
        raise ValueError(f"a collective goes over a group or over a dimension of the mesh, but got both; over={over!r}")
    backend = session.current()
    return backend.among(session.group_of(group, None) if isinstance(group, list | tuple | range) else group)


class _Header(NamedTuple):
    """What rank `src` is about to broadcast, so that the others can make room, or fail together with it."""

    kind: str
    content: Any

    @classmethod
    def of(cls, value: object) -> _Header:
        if isinstance(value, torch.Tensor):
            return cls("tensor", (tuple(value.shape), value.dtype, value.device.type == "cpu"))
        if isinstance(value, str | Real):
            return cls("value", value if isinstance(value, str) else _as_number(value, "broadcast"))
        return cls("unsupported", type(value).__name__)


def _gather_tensors(backend: Backend, tensor: torch.Tensor) -> torch.Tensor:
    described = backend.gather_objects((tuple(tensor.shape), tensor.dtype))
    full = [(shape, dtype) for shape, dtype in described if shape != (0,)]
    if not full:
        return tensor.clone()
    (_, *rest), dtype = full[0]
    if any((list(shape[1:]), other) != (rest, dtype) for shape, other in full):
        found = "; ".join(f"rank {i}: {list(shape)} {dtype}" for i, (shape, dtype) in enumerate(described))
        raise ValueError(f"all_gather needs tensors alike but for their first dimension, but found {found}")
    lengths = [shape[0] for shape, _ in described]
    return _gather_padded(backend, tensor.reshape(len(tensor), *rest).to(dtype), lengths)


def _gather_padded(backend: Backend, tensor: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    return _without_padding(backend.gather(_padded(tensor, lengths)), lengths)


def _padded(tensor: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    return padded


def _without_padding(gathered: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    return torch.cat([row[:length] for row, length in zip(gathered, lengths, strict=True)])


def _as_number(value: object, function: str, more: str = "") -> bool | int | float:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise _unsupported(function, type(value).__name__, more)


def _unsupported(function: str, found: str, more: str) -> TypeError:
    allowed = "a tensor, a number (int, float, bool)" + (f" or {more}" if more else "")
    return TypeError(f"{function} takes {allowed}, but got {found}")


def _check_truth(op: str, is_truth: bool, found: str) -> None:
    if op in ("and", "or") and not is_truth:
        raise TypeError(f"all_reduce combines truth values (bool) with {op!r}, but got {found}")


def _check_rank(backend: Backend, rank: int, purpose: str = "to broadcast from") -> None:
    if not 0 <= rank < backend.size:
        raise ValueError(f"there is no rank {rank} {purpose}: ranks go from 0 to {backend.size - 1}")
