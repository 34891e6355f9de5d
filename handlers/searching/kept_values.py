"""Values as they are now, and the way back to them: into the same objects, bit for bit."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch

from leyden.engine import MetricValues

OPENED = (torch.optim.Optimizer, torch.amp.GradScaler)
"""Kinds of objects whose attributes are kept, wherever they are found."""


class KeptValues:
    """Keeps tensors (values, gradients, requires_grad), generators of random numbers and what containers hold.

    Tensors are copied on their device, or to the host with `offload`. Of other objects only the reference is kept:
    what they hold inside is kept where their `vars()` are given.
    """

    def __init__(self, *, offload: bool = False) -> None:
        self._offload = offload
        self._ways_back: list[Callable[[], None]] = []
        self._known: dict[int, Any] = {}  # the values themselves, so that no id is used twice

    def keep(self, value: Any) -> None:
        """Keeps a value, and the values in it; a second time does nothing."""
        if id(value) in self._known:
            return
        if isinstance(value, torch.Tensor):
            self._known[id(value)] = value
            self._keep_tensor(value)
        elif isinstance(value, MetricValues):
            self._keep_metrics(value)
        elif isinstance(value, dict):
            self.keep_items(value)
            self._keep_all(list(value.values()))
        elif isinstance(value, list | deque | set):
            self._keep_members(value)
            self._keep_all(list(value))
        elif isinstance(value, tuple):
            self._keep_all(value)
        elif isinstance(value, OPENED):
            self.keep(vars(value))
        else:
            self.keep_generator(value)

    def keep_items(self, items: dict[Any, Any]) -> None:
        """Keeps which keys and objects a dict holds, not what is in them; `vars(object)` is such a dict."""
        self._known[id(items)] = items
        before = list(items.items())

        def put_back() -> None:
            now = items.items()
            if len(now) == len(before) and all(
                key is old_key and value is old for (key, value), (old_key, old) in zip(now, before, strict=True)
            ):
                return
            items.clear()
            items.update(before)

        self._ways_back.append(put_back)

    def _keep_metrics(self, metrics: MetricValues) -> None:
        """What was put in, which is not what comes out: reading copies a number from the device."""
        self._known[id(metrics)] = metrics
        before, times_set = dict(dict.items(metrics)), dict(metrics.times_set)
        set_at = dict(metrics.set_at)
        self._keep_all(list(before.values()))

        def put_back() -> None:
            dict.clear(metrics)
            dict.update(metrics, before)
            metrics.times_set = times_set
            metrics.set_at = set_at

        self._ways_back.append(put_back)

    def keep_generator(self, value: Any) -> bool:
        """Keeps the state of a generator of random numbers; False if the value is none."""
        if isinstance(value, torch.Generator):
            state = value.get_state()
            self._ways_back.append(lambda: _ignore(value.set_state(state)))
        elif isinstance(value, random.Random):
            python_state = value.getstate()
            self._ways_back.append(lambda: value.setstate(python_state))
        elif type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator"):
            numpy_state = value.bit_generator.state
            self._ways_back.append(lambda: setattr(value.bit_generator, "state", numpy_state))
        elif type(value).__name__ == "RandomState" and hasattr(value, "set_state"):
            legacy_state = value.get_state(legacy=False)
            self._ways_back.append(lambda: value.set_state(legacy_state))
        else:
            return False
        self._known[id(value)] = value
        return True

    def put_back(self) -> None:
        """Makes everything as it was when it was kept."""
        with torch.no_grad():
            for way_back in self._ways_back:
                way_back()

    def _keep_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.keep(value)

    def _keep_members(self, members: Any) -> None:
        self._known[id(members)] = members
        before = list(members)
        add = members.update if isinstance(members, set) else members.extend

        def put_back() -> None:
            if len(members) != len(before) or any(now is not old for now, old in zip(members, before, strict=True)):
                members.clear()
                add(before)

        self._ways_back.append(put_back)

    def _keep_tensor(self, tensor: torch.Tensor) -> None:
        if tensor.grad_fn is not None:
            return  # a result, which nobody changes in place while a graph needs it
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(
                "the model has parameters without a shape yet (lazy modules), which can't be copied; send one batch "
                "through it before the search"
            )
        gradient, requires_grad = tensor.grad, tensor.requires_grad
        if gradient is not None:
            self.keep(gradient)
        values = tensor.detach()
        copy = values.to("cpu", copy=True) if self._offload else values.clone()

        def put_back() -> None:
            tensor.copy_(copy)
            tensor.grad = gradient
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)

        self._ways_back.append(put_back)


def _ignore(_: object) -> None:
    """Drops the value that a function returns."""
