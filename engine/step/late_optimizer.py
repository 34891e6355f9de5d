"""An optimizer that is made when a run's models are what is trained: after adapters, sharding and moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer | Sequence[Optimizer]]


class _Unmade(dict[str, Any]):
    """The group of an optimizer that is not made yet: it has no options."""

    def __init__(self, group: dict[str, Any], update: str) -> None:
        super().__init__(group)
        self._update = update

    def __missing__(self, option: str) -> NoReturn:
        raise RuntimeError(
            f"{option!r} of the optimizer of update {self._update!r} is not known yet: it is made when the run starts. "
            "What needs the optimizer before is made then, too: Schedule(lambda optimizer, steps: "
            "StepLR(optimizer, 30)), or in a handler of Events.STARTED"
        )


class LateOptimizer(Optimizer):
    """Stands in an update until its optimizer is made, as if it had one group of all that its models train."""

    def __init__(self, make: MakeOptimizer, modules: Mapping[str, nn.Module], update: str) -> None:
        if isinstance(make, nn.Module):
            raise TypeError(f"an Update takes the optimizer after its model, but got a second {type(make).__name__}")
        self._make = make
        self._modules = modules
        self._update = update
        self.defaults: dict[str, Any] = {}
        self.state: Any = {}
        self.__setstate__({})  # hooks, which torch makes there too

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """As they are now, in a list that is made for each call."""
        return [_Unmade({"params": self.parameters()}, update=self._update)]

    def parameters(self) -> list[nn.Parameter]:
        """What the models train now, each once."""
        found = {id(p): p for module in self._modules.values() for p in module.parameters() if p.requires_grad}
        return list(found.values())

    def make(self) -> Optimizer | Sequence[Optimizer]:
        """What the function makes of them. Raises TypeError for what is no optimizer, ValueError for parameters that
        are not those it was given.
        """
        parameters = self.parameters()
        made = self._make(parameters)
        several = [made] if isinstance(made, Optimizer) else made
        if not isinstance(several, Sequence) or not all(isinstance(each, Optimizer) for each in several):
            raise TypeError(
                f"the function that makes the optimizer of update {self._update!r} is to give an optimizer or a list "
                f"of them, but gave {made!r}"
            )
        given = set(map(id, parameters))
        if any(id(p) not in given for each in several for group in each.param_groups for p in group["params"]):
            raise ValueError(
                f"the function that makes the optimizer of update {self._update!r} took parameters that it was not "
                "given: let it take those of its argument, which are the ones that are trained in this run"
            )
        return made

    def step(self, closure: Any = None) -> NoReturn:
        raise RuntimeError(
            f"the optimizer of update {self._update!r} is made when a run starts, and none has: engine.run(...) does it"
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter.grad)

    def __repr__(self) -> str:
        return "an optimizer that is made when the run starts"
