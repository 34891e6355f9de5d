"""From a batch to what a model is called with, and what its prediction is compared to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine.values.moving import to_device

PrepareBatch = Callable[[Any, torch.device | None, bool], tuple[Any, Any]]
InputKey = str | int
ModelInputs = InputKey | Sequence[InputKey] | Mapping[str, InputKey]
"""Keys of a mapping, or indices of a tuple: positional arguments of the model, or by the names of its parameters."""

_PREPARE = "prepare_batch=lambda batch, device, non_blocking: (input, target) makes a pair of anything"


class Inputs:
    """From a batch to (input, target) on the device; on the CPU only an unpacking."""

    def __init__(
        self,
        device: str | torch.device | None,
        non_blocking: bool,
        prepare_batch: PrepareBatch | None,
        model_inputs: ModelInputs | None = None,
    ) -> None:
        if prepare_batch is not None and model_inputs is not None:
            raise ValueError(
                "prepare_batch and model_inputs both say what of a batch is the input; give only one of them"
            )
        self.device = dist.device() if device is None else torch.device(device)
        self.moves = self.device.type != "cpu"
        self.non_blocking = non_blocking
        self.prepare_batch = prepare_batch
        self.model_inputs = model_inputs
        self.direct = not self.moves and prepare_batch is None and model_inputs is None
        """A batch that is a tuple or list of two is (input, target) as it is."""

    def __call__(self, batch: Any) -> tuple[Any, Any]:
        if self.prepare_batch is not None:
            prepared: Any = self.prepare_batch(batch, self.device, self.non_blocking)
            if not _is_pair(prepared):
                raise ValueError(f"prepare_batch gives (input, target), but gave {_described(prepared)}")
            return prepared[0], prepared[1]
        if self.moves:
            batch = to_device(batch, self.device, self.non_blocking)
        if self.model_inputs is not None:
            return _taken_apart(batch, self.model_inputs)
        if not _is_pair(batch):
            raise ValueError(_no_pair(batch))
        return batch[0], batch[1]


def caller(
    model: nn.Module,
    model_fn: Callable[[nn.Module, Any], Any] | None,
    model_transform: Callable[[Any], Any] | None,
    model_inputs: ModelInputs | None,
) -> Callable[[Any], Any]:
    """The function from an input to a prediction; the model itself, where nothing stands between."""
    if model_fn is not None and model_inputs is not None:
        raise ValueError("model_fn and model_inputs both say how the model is called; give only one of them")
    call: Callable[[Any], Any] = model
    if model_fn is not None:

        def call(x: Any) -> Any:
            return model_fn(model, x)

    elif isinstance(model_inputs, Mapping):

        def call(x: Any) -> Any:
            return model(**x)

    elif _is_several(model_inputs):

        def call(x: Any) -> Any:
            return model(*x)

    return call if model_transform is None else lambda x: model_transform(call(x))


def _is_several(model_inputs: ModelInputs | None) -> bool:
    return model_inputs is not None and not isinstance(model_inputs, str | int) and len(model_inputs) > 1


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _taken_apart(batch: Any, model_inputs: ModelInputs) -> tuple[Any, Any]:
    """(what the model is called with, what is left of the batch)."""
    if isinstance(batch, Mapping):
        there: dict[Any, Any] = dict(batch)
    elif isinstance(batch, tuple | list):
        there = dict(enumerate(batch))
        fields = getattr(batch, "_fields", ())  # of a named tuple
        if not all(isinstance(place, int) for place in _places(model_inputs)):
            there = dict(zip(fields, batch, strict=False))
    else:
        raise ValueError(
            f"model_inputs={model_inputs!r} takes a mapping or a tuple apart, but the batch is {_described(batch)}; "
            f"{_PREPARE}"
        )
    places = _places(model_inputs)
    if missing := [place for place in places if place not in there]:
        raise ValueError(
            f"model_inputs names {', '.join(map(repr, missing))}, but the batch has: {', '.join(map(repr, there))}"
        )
    left = {place: value for place, value in there.items() if place not in places}
    if not left:
        raise ValueError(
            f"model_inputs={model_inputs!r} takes the whole batch, and leaves nothing for the target; {_PREPARE}"
        )
    y = next(iter(left.values())) if len(left) == 1 else left if isinstance(batch, Mapping) else tuple(left.values())
    if isinstance(model_inputs, Mapping):
        return {name: there[place] for name, place in model_inputs.items()}, y
    x = tuple(there[place] for place in places)
    return (x if len(x) > 1 else x[0]), y


def _places(model_inputs: ModelInputs) -> tuple[InputKey, ...]:
    if isinstance(model_inputs, str | int):
        return (model_inputs,)
    return tuple(model_inputs.values() if isinstance(model_inputs, Mapping) else model_inputs)


def _described(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, value))}"
    return f"a {kind} of {len(value)}" if isinstance(value, tuple | list) else f"a {kind}"


def _no_pair(batch: Any) -> str:
    found = f"a supervised engine takes batches of (input, target), but this one is {_described(batch)}. "
    if isinstance(batch, Mapping) and len(batch) > 1:
        first, *_, last = batch
        return found + (
            f"model_inputs=({first!r},) calls the model with {first!r} and keeps the rest ({last!r}, say) as the "
            f"target; model_inputs={{'parameter': {first!r}}} does so by the names of its parameters; {_PREPARE}"
        )
    if isinstance(batch, tuple | list) and len(batch) > 2:
        inputs = tuple(range(len(batch) - 1))
        return found + f"model_inputs={inputs} calls the model with all but the last, which is the target; {_PREPARE}"
    return found + f"{_PREPARE}; a step of one's own is Engine(step) with an Update"
