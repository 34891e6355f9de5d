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


class ModelCall:
    """From an input to a prediction, where more stands between them than the model."""

    def __init__(
        self,
        model: nn.Module,
        model_fn: Callable[[nn.Module, Any], Any] | None,
        model_transform: Callable[[Any], Any] | None,
        model_inputs: ModelInputs | None,
    ) -> None:
        if model_fn is not None and model_inputs is not None:
            raise ValueError("model_fn and model_inputs both say how the model is called; give only one of them")
        self.model = model
        self.model_fn = model_fn
        self.transform = model_transform
        self._by_name = isinstance(model_inputs, Mapping)
        self._several = _is_several(model_inputs)

    def __call__(self, x: Any) -> Any:
        if self.model_fn is not None:
            prediction = self.model_fn(self.model, x)
        elif self._by_name:
            prediction = self.model(**x)
        elif self._several:
            prediction = self.model(*x)
        else:
            prediction = self.model(x)
        return prediction if self.transform is None else self.transform(prediction)

    def arguments(self, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Those of the model: by place, and by name. Raises ValueError where model_fn alone knows how to call it."""
        if self.model_fn is not None:
            raise ValueError(
                "model_fn calls the whole model, which nobody has where a pipeline cuts it into stages; leave it out, "
                "and say by model_inputs what of a batch the model is called with"
            )
        if self._by_name:
            return (), dict(x)
        return tuple(x) if self._several else (x,), {}


def call_arguments(forward: Callable[[Any], Any], x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments by place and by name with which the model gets an input; for a driver that calls parts of it."""
    return forward.arguments(x) if isinstance(forward, ModelCall) else ((x,), {})


def caller(
    model: nn.Module,
    model_fn: Callable[[nn.Module, Any], Any] | None,
    model_transform: Callable[[Any], Any] | None,
    model_inputs: ModelInputs | None,
) -> Callable[[Any], Any]:
    """The function from an input to a prediction; the model itself, where nothing stands between."""
    if (
        model_fn is None
        and model_transform is None
        and not (isinstance(model_inputs, Mapping) or _is_several(model_inputs))
    ):
        return model
    return ModelCall(model, model_fn, model_transform, model_inputs)


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
