"""What is kept of every sample until the epoch ends: tensors of any dtype, bit by bit, as rows of bytes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence

import torch

from leyden.metrics.base import Metric
from leyden.metrics.errors import NotComputableError
from leyden.metrics.outputs import described

LAYOUT_SIZE = 1024
"""Bytes for what the rows hold, as JSON: a rank without data learns it from the others."""
COMPILED_BY_LENGTH = ("xla",)
"""Kinds of device where each length of what was kept is compiled anew."""
_END = 256


class KeepsRows(Metric):
    """Base of metrics whose value needs all samples at once. They are one state of bytes, so that ranks gather them
    with one collective, whatever is kept; and a rank without data needs not know what that is.

    The list grows with the epoch: on XLA, where each length is compiled anew, a warning says so once; with
    device="cpu" it grows in the host's memory.
    """

    rows: list[torch.Tensor]
    layout: torch.Tensor

    def declare_rows(self) -> None:
        self.add_state("rows", torch.empty(0, dtype=torch.uint8), "cat")
        # Each byte and its complement, so that the greatest of the ranks tell whether they are equal.
        self.add_state("layout", torch.zeros(2, LAYOUT_SIZE, dtype=torch.int64), "max")
        self._row: str | None = None

    def reset(self) -> None:
        super().reset()
        self._row = None

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor | int]) -> None:
        super().load_state_dict(state_dict)
        self._row = None

    def keep(self, tensors: Sequence[torch.Tensor], names: Sequence[str] | None = None) -> None:
        """Keeps tensors (N, ...) of one length. Raises ValueError for other lengths, or other dtypes and shapes than
        those of the batches before.
        """
        samples = {len(tensor) if tensor.ndim else None for tensor in tensors}
        if len(samples) != 1 or None in samples:
            raise ValueError(
                f"{type(self).__name__} keeps tensors (N, ...) with one row for each sample, but found "
                f"{described(tuple(tensors))}"
            )
        row = json.dumps([[[str(t.dtype).removeprefix("torch."), list(t.shape[1:])] for t in tensors], names])
        if row != self._row:
            self._begin(row)
            if self.rows[0].device.type in COMPILED_BY_LENGTH:
                warn_of_growth(type(self).__name__)
        rows = [_bytes(tensor) for tensor in tensors if tensor.numel()]
        if rows:
            self.rows.append(torch.cat(rows, 1).to(self.rows[0].device))

    def _begin(self, row: str) -> None:
        if self._row is None and any(rows.numel() for rows in self.rows):
            self._row = _decoded(self.layout)  # what was loaded
        if self._row is not None and row != self._row:
            raise ValueError(
                f"{type(self).__name__} began with {_told(self._row)} for each sample, but now found {_told(row)}"
            )
        if len(row) > LAYOUT_SIZE:
            raise ValueError(
                f"{type(self).__name__} can't keep so many tensors, or under such long names: their description has "
                f"{len(row)} characters, above {LAYOUT_SIZE}"
            )
        self._row = row
        self.layout = _encoded(row)

    def kept(self) -> tuple[list[torch.Tensor], list[str] | None]:
        """All that was kept, and the names if there were any. Raises ValueError if ranks kept different things."""
        parts, names = json.loads(_decoded(self.layout))
        rows = torch.cat([rows for rows in self.rows if rows.numel()] or self.rows[:1])
        if not rows.numel():
            raise NotComputableError(f"{type(self).__name__} has seen no sample, so it has no value")
        tensors, start = [], 0
        for dtype_name, shape in parts:
            dtype: torch.dtype = getattr(torch, dtype_name)
            width = torch.Size(shape).numel() * dtype.itemsize
            piece = rows[:, start : start + width].clone(memory_format=torch.contiguous_format)
            tensors.append(piece.view(dtype).view(len(rows), *shape))
            start += width
        return tensors, names


def warn_of_growth(kind: str) -> None:
    """Warns, once at each place of Python's, that a list on an XLA device has each epoch's end compiled anew."""
    warnings.warn(
        f"{kind} keeps every sample on the XLA device, where the end of each epoch of another length is compiled anew: "
        f'{kind}(..., device="cpu") keeps them in the host\'s memory, and AUROC and AveragePrecision with thresholds= '
        "count in bins",
        stacklevel=2,
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """(N, bytes)."""
    rows = tensor.reshape(len(tensor), -1)
    # One row may count as contiguous, however far its numbers lie apart.
    rows = rows if rows.stride(-1) == 1 else rows.clone(memory_format=torch.contiguous_format)
    return rows.view(torch.uint8)


def _encoded(row: str) -> torch.Tensor:
    layout = torch.zeros(2, LAYOUT_SIZE, dtype=torch.int64)
    layout[0, : len(row)] = torch.tensor(list(row.encode("ascii")))
    layout[1, : len(row)] = _END - layout[0, : len(row)]
    return layout


def _decoded(layout: torch.Tensor) -> str:
    codes, complements = layout.tolist()
    used = [(code, complement) for code, complement in zip(codes, complements, strict=True) if code]
    if any(code + complement != _END for code, complement in used):
        raise ValueError(
            "the ranks have kept outputs of different dtypes or shapes, which can't be joined; all ranks need outputs "
            "of one kind"
        )
    return bytes(code for code, _ in used).decode("ascii")


def _told(row: str) -> str:
    parts, names = json.loads(row)
    told = [f"{dtype} {tuple(shape)}" for dtype, shape in parts]
    return ", ".join(told if names is None else [f"{name}: {each}" for name, each in zip(names, told, strict=True)])
