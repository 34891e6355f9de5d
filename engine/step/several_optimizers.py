"""Several optimizers of one update, seen as one: Muon for the matrices and AdamW for the rest, say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from leyden.engine.step.late_optimizer import LateOptimizer

Closure = Callable[[], Any]


class SeveralOptimizers(Optimizer):
    """Steps its optimizers one after the other. Its groups and states are theirs, one optimizer's after another's.

    Raises TypeError for what is no optimizer; ValueError for an empty list, for LBFGS, whose step evaluates the model
    by itself, and for a parameter that two of them have.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        # A set's order is another in each process.
        if isinstance(optimizers, set | frozenset | Mapping) or not isinstance(optimizers, Iterable):
            kind = type(optimizers).__name__
            raise TypeError(f"an Update takes an optimizer or a list of them, in their order, but got a {kind}")
        self.optimizers = tuple(optimizers)
        for each in self.optimizers:
            if not isinstance(each, Optimizer):
                raise TypeError(f"an Update takes an optimizer or a list of them, but the list has {each!r}")
            if isinstance(each, torch.optim.LBFGS):
                raise ValueError("LBFGS evaluates the model several times in its step, so it can't be one of several")
        if not self.optimizers:
            raise ValueError("an Update takes an optimizer or a list of them, but the list is empty")
        held: dict[int, str] = {}
        for each in self.optimizers:
            kind = type(each).__name__
            for parameter in {id(p): p for group in each.param_groups for p in group["params"]}.values():
                if id(parameter) in held:
                    raise ValueError(
                        f"a parameter of shape {tuple(parameter.shape)} is trained by {held[id(parameter)]} and by "
                        f"{kind}, which would both move it; give each parameter to one optimizer"
                    )
                held[id(parameter)] = kind
        self.defaults: dict[str, Any] = {}
        for each in reversed(self.optimizers):
            self.defaults |= each.defaults
        self.__setstate__({})  # hooks, which torch makes there too

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The live groups, in a list that is made for each call: what is put into it goes nowhere."""
        return [group for each in self.optimizers for group in each.param_groups]

    @property
    def state(self) -> MutableMapping[Any, Any]:  # type: ignore[override]
        return _States(self.optimizers)

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("several optimizers can't share a closure; update.backward(loss) steps them all")
        for each in self.optimizers:
            each.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Gives the group to the last optimizer, so that it is the last group here too."""
        self.optimizers[-1].add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As torch's optimizers have it, parameters numbered through; beside it what else an optimizer keeps, by its
        place.
        """
        state: dict[Any, Any] = {}
        groups: list[dict[str, Any]] = []
        rest: dict[str, Any] = {}
        begin = 0
        for place, each in enumerate(self.optimizers):
            saved = dict(each.state_dict())
            numbers = {old for group in saved["param_groups"] for old in group["params"]}
            own = saved.pop("state")
            state |= {key + begin: value for key, value in own.items() if key in numbers}
            saved["others"] = {key: value for key, value in own.items() if key not in numbers}
            for group in saved.pop("param_groups"):
                groups.append({**group, "params": [old + begin for old in group["params"]]})
            begin += len(numbers)
            if kept := {key: value for key, value in saved.items() if value}:
                rest[str(place)] = kept
        return {"state": state, "param_groups": groups} | ({"optimizers": rest} if rest else {})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError for another number of groups."""
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise ValueError(f"the loaded state has {len(groups)} groups, the optimizers have {len(self.param_groups)}")
        for place, each in enumerate(self.optimizers):
            own, groups = groups[: len(each.param_groups)], groups[len(each.param_groups) :]
            numbers = {number for group in own for number in group["params"]}
            rest = dict(state_dict.get("optimizers", {}).get(str(place), {}))
            state = {key: value for key, value in state_dict["state"].items() if key in numbers}
            each.load_state_dict({"state": state | rest.pop("others", {}), "param_groups": own, **rest})

    def __repr__(self) -> str:
        return " and ".join(map(repr, self.optimizers))


class _States(MutableMapping[Any, Any]):
    """The states of several optimizers by parameter; a new one goes to the optimizer that has the parameter."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers

    def __getitem__(self, key: Any) -> Any:
        for each in self._optimizers:
            if key in each.state:
                return each.state[key]
        return self._owner(key).state[key]  # which may make one

    def __setitem__(self, key: Any, value: Any) -> None:
        self._owner(key).state[key] = value

    def __delitem__(self, key: Any) -> None:
        for each in self._optimizers:
            if key in each.state:
                del each.state[key]
                return
        raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        return any(key in each.state for each in self._optimizers)

    def __iter__(self) -> Iterator[Any]:
        for each in self._optimizers:
            yield from each.state

    def __len__(self) -> int:
        return sum(len(each.state) for each in self._optimizers)

    def _owner(self, key: Any) -> Optimizer:
        for each in self._optimizers:
            if any(key is parameter for group in each.param_groups for parameter in group["params"]):
                return each
        return self._optimizers[0]


def as_one(optimizer: Optimizer | Sequence[Optimizer]) -> Optimizer:
    """The optimizer, the one of a list, or several as one."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, list | tuple) and len(optimizer) == 1 and isinstance(optimizer[0], Optimizer):
        return optimizer[0]
    return SeveralOptimizers(optimizer)


def optimizers_in(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """The optimizer, or those that it is made of."""
    return optimizer.optimizers if isinstance(optimizer, SeveralOptimizers) else (optimizer,)


def optimizer_kind(optimizer: Optimizer) -> str:
    """What is told of it: its class, or those of several."""
    if isinstance(optimizer, LateOptimizer):
        return repr(optimizer)
    return " + ".join(type(each).__name__ for each in optimizers_in(optimizer))


def groups_before(optimizer: Optimizer, part: Optimizer) -> int | None:
    """How many groups of the optimizer come before those of one that it is made of; None if it has no such part."""
    count = 0
    for each in optimizers_in(optimizer):
        if each is part:
            return count
        count += len(each.param_groups)
    return 0 if part is optimizer else None
