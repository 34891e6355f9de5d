"""The copy of tensors to host memory: all that training waits for when it is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from leyden.distributed.compat import foreach_copy_
from leyden.handlers.checkpoint.files.shards import Layout, Piece


class HostBuffer:
    """Memory that holds what is to be written as it lies in the file; used again from save to save.

    It is pinned where tensors come from a GPU, so that they are copied at the bus's full speed. It grows to the largest
    state there was, and is used again only when the write before has ended.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._layout: Layout | None = None
        self._views: list[torch.Tensor] = []

    def fill(self, pieces: Sequence[Piece], layout: Layout) -> memoryview:
        """Copies the pieces, and returns once they are there: they may be changed from then on."""
        pinned = any(piece.tensor.is_cuda for piece in pieces)
        if self._memory.numel() < layout.size or (pinned and not self._memory.is_pinned()):
            self._views = []
            self._memory = torch.empty(layout.size, dtype=torch.uint8, pin_memory=pinned)
            self._layout = None
        if layout != self._layout:
            self._views = [
                self._memory[start:end].view(dtype).view(shape)
                for (_, dtype, shape, _), (start, end) in zip(layout.entries, layout.spans, strict=True)
            ]
            self._layout = layout
        if pieces:
            foreach_copy_(self._views, [piece.tensor for piece in pieces], non_blocking=pinned)
        for device in {piece.tensor.device for piece in pieces if pinned and not piece.tensor.is_cpu}:
            torch.accelerator.current_stream(device).synchronize()
        return self._memory.numpy().data[: layout.size]


def bytes_of(pieces: Sequence[Piece]) -> Iterator[memoryview]:
    """The same bytes without a copy of all of them: one piece after the other, as they are when they are asked for."""
    for piece in pieces:
        tensor = piece.tensor.resolve_neg().to("cpu", memory_format=torch.contiguous_format).contiguous()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
