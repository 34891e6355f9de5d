"""Batches on the device before they are needed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader

from leyden.engine import DataStage, Engine
from leyden.engine.data import Rest
from leyden.engine.values import as_whole, mover
from leyden.handlers.data.read_ahead import BatchCopier, ReadAhead, stream_module
from leyden.handlers.data.seeded_loaders import fresh_copy
from leyden.handlers.data.wrapping import WrappedData


class DeviceTransfer:
    """Copies batches to the device, each while the step before it still runs; on the CPU it does nothing.

    Tensors are found in nested dicts, lists, tuples, named tuples and dataclasses, and in objects with a method
    `to(device, non_blocking=...)`. `device`: by default the engine's own. `pin_memory`: batches go through page-locked
    memory, which a loader with workers fills in a thread of its own. `prefetch`: how many batches are read before they
    are asked for; 0 copies each when it is asked for, on the stream of the work. Evaluators that the trainer runs get
    the same, for their own device.

    Batches that are read ahead and not used, at the end of a run or an epoch that is cut short, are read again in the
    next pass. An iterator has no next pass: they stay with the engine, which takes them first when it is run with the
    same iterator again, but are gone for anyone else who reads from it. The engine counts, and `state_dict` of the data
    gives, what was used. Samples that are loaded in this process draw their random numbers a batch earlier;
    `Reproducible` makes that no difference.

    Raises TypeError and ValueError for a `prefetch` that is no number of batches, and for switches that are no bool.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        *,
        non_blocking: bool = True,
        pin_memory: bool = True,
        prefetch: int = 1,
    ) -> None:
        if as_whole(prefetch) is None:
            raise TypeError(f"DeviceTransfer takes a whole number of batches as prefetch, but got {prefetch!r}")
        if prefetch < 0:
            raise ValueError(f"DeviceTransfer can't read {prefetch} batches ahead; prefetch is 0 or more")
        for name, value in (("non_blocking", non_blocking), ("pin_memory", pin_memory)):
            if not isinstance(value, bool):
                raise TypeError(f"DeviceTransfer takes True or False as {name}, but got {value!r}")
        self.device = None if device is None else torch.device(device)
        self.non_blocking = non_blocking
        self.pin_memory = pin_memory
        self.prefetch = int(prefetch)
        self._pinning: WeakKeyDictionary[DataLoader[Any], DataLoader[Any]] = WeakKeyDictionary()
        self._iterators: dict[Engine[Any, Any], TransferredIterator] = {}

    def refuses(self, other: Any) -> str | None:
        return "both move its batches; attach one of them" if isinstance(other, DeviceTransfer) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        # A loader that pins is a loader still; what stands before its batches comes after the limits.
        engine.data_setup.add(DataStage.SEED, functools.partial(self._pin, engine))
        engine.data_setup.add(DataStage.TRANSFER, functools.partial(self._transfer, engine), owner=self)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Copies the evaluator's batches, unless the evaluator has a transfer of its own."""
        if not engine.find_handlers(DeviceTransfer):
            self.attach(engine)

    def _pins(self, device: torch.device) -> bool:
        return self.pin_memory and self.non_blocking and stream_module(device) is not None

    def _pin(self, engine: Engine[Any, Any], data: Any) -> Any:
        if not isinstance(data, DataLoader) or data.pin_memory or not self._pins(self.device or engine.device):
            return data
        if data not in self._pinning:
            pinning = self._pinning[data] = fresh_copy(data)
            pinning.pin_memory = True
        return self._pinning[data]

    def _transfer(self, engine: Engine[Any, Any], data: Any) -> Any:
        device = self.device or engine.device
        if data is None or device.type == "cpu":
            return data
        move = mover(device, self.non_blocking, self._pins(device))
        copies = BatchCopier(device, move, beside=self.prefetch > 0 and self.non_blocking)
        if not isinstance(data, Iterator):
            return TransferredData(data, copies, self.prefetch)
        kept = self._iterators.get(engine)
        if kept is None or kept.data is not data:
            kept = self._iterators[engine] = TransferredIterator(data, copies, self.prefetch)
        return kept


class TransferredData(WrappedData):
    """Data whose batches come on the device."""

    def __init__(self, data: Any, copies: BatchCopier, ahead: int) -> None:
        super().__init__(data)
        self._copies = copies
        self._ahead = ahead
        self._pass: ReadAhead | None = None

    def go_on(self, rest: Rest, position: int) -> Rest:
        return Rest(self._read(rest.iterator), rest.left)

    def __iter__(self) -> Iterator[Any]:
        return self._read(iter(self.data))

    def _read(self, batches: Iterator[Any]) -> Iterator[Any]:
        state = getattr(self.data, "state_dict", None) if self._ahead else None
        self._pass = ReadAhead(batches, self._copies, self._ahead, state)
        return self._pass

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name == "load_state_dict":
            self._pass = None
        return self._state_of_what_was_used if name == "state_dict" else value

    def _state_of_what_was_used(self) -> Any:
        used = None if self._pass is None else self._pass.state
        return self.data.state_dict() if used is None else used


class TransferredIterator(ReadAhead):
    """The same for an iterator, which can be gone through only once: what was read of it stays here."""

    def __init__(self, data: Iterator[Any], copies: BatchCopier, ahead: int) -> None:
        super().__init__(data, copies, ahead)
        self.data = data
