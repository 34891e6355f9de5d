"""What each draw of a sampler began from, so that it can be drawn again.

A sampler of a user's own may draw all along a pass, from generators that the steps between draw from too: its order
then hangs on what they drew. It is drawn again by putting the generators back before each draw. Mersenne twisters
rewrite their state once in 624 numbers, so the states differ little, and a draw takes some tens of bytes.
"""

from __future__ import annotations

import array
import random
import struct
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from leyden.engine.data.loader_parts import SamplerLayer, chain

DRAW_AT_ONCE = (
    BatchSampler, DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler,
    list, tuple, range,
)  # fmt: skip
"""Samplers that draw from global generators when their first index is asked for, and not after that."""


def draws_all_along(sampler: Any) -> bool:
    """True if the order can't be drawn again from the generators as they were when its pass began."""
    links = chain(sampler)
    if any(isinstance(link, SamplerLayer) for link in links):
        return False  # these draw from seeds of their own
    return not all(map(is_of_torch, links))


def is_of_torch(sampler: Any) -> bool:
    """True for a sampler of torch or torchdata, or plain data in its place; a user's own may do anything."""
    return type(sampler) in DRAW_AT_ONCE or type(sampler).__module__.startswith(("torch.utils.data.", "torchdata."))


class DrawRecord:
    """The states of the host's generators before each draw of a pass. `drawn`: the states of draws to repeat; draws
    after them are recorded.
    """

    def __init__(self, drawn: Sequence[bytes] = ()) -> None:
        self.entries = list(drawn)
        self._repeated = 0
        self._raw = b""

    @property
    def repeats(self) -> bool:
        """True if the next draw is to be repeated."""
        return self._repeated < len(self.entries)

    def before_draw(self) -> None:
        """Called before each draw; puts the generators back for one that is to be repeated."""
        if self.repeats:
            self._raw = _apply(self._raw, self.entries[self._repeated])
            _set(self._raw)
        else:
            raw = _get()
            self.entries.append(_difference(self._raw, raw))
            self._raw = raw
        self._repeated += 1


def _difference(before: bytes, after: bytes) -> bytes:
    if before == after:  # nobody drew: most samplers have a generator of their own
        return b""
    if not before:
        return zlib.compress(after, 1)
    return zlib.compress((numpy.frombuffer(before, "u1") ^ numpy.frombuffer(after, "u1")).tobytes(), 1)


def _apply(before: bytes, entry: bytes) -> bytes:
    if not entry:
        return before
    raw = zlib.decompress(entry)
    return raw if not before else (numpy.frombuffer(before, "u1") ^ numpy.frombuffer(raw, "u1")).tobytes()


def _get() -> bytes:
    _, words, gauss = random.getstate()
    parts = [torch.default_generator.get_state().numpy().tobytes()]
    parts.append(array.array("I", words).tobytes() + struct.pack("<?d", gauss is not None, gauss or 0.0))
    key: bytes = bytes(4 * 624)
    rest: tuple[Any, ...] = (False, 0, 0, 0.0)
    if "numpy.random" in sys.modules:
        state: Any = numpy.random.get_state()
        if state[0] == "MT19937":
            key, rest = state[1].tobytes(), (True, *state[2:])
    parts.append(key + struct.pack("<?IId", *rest))
    return b"".join(parts)


def _set(raw: bytes) -> None:
    torch_bytes = torch.default_generator.get_state().numel()
    torch.default_generator.set_state(torch.frombuffer(bytearray(raw[:torch_bytes]), dtype=torch.uint8))
    place = torch_bytes
    words = array.array("I", raw[place : place + 4 * 625])
    place += 4 * 625
    has_gauss, gauss = struct.unpack_from("<?d", raw, place)
    random.setstate((3, tuple(words), gauss if has_gauss else None))
    place += struct.calcsize("<?d")
    key = numpy.frombuffer(raw[place : place + 4 * 624], "u4")
    used, pos, numpy_gauss, cached = struct.unpack_from("<?IId", raw, place + 4 * 624)
    if used:
        numpy.random.set_state(("MT19937", key, pos, numpy_gauss, cached))
