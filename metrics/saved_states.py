"""The states of a rank as they are saved: its own, and those that it carries for ranks of an earlier run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from leyden.metrics.states import Declaration, StateValue, as_tensor

CARRIED = "carried."
"""With a number, before the names of states in what is saved: they are those of another rank, which this one carries.
"""


def saved(
    contributions: Sequence[Mapping[str, StateValue]], declarations: Mapping[str, Declaration]
) -> dict[str, torch.Tensor | int]:
    """A copy of all of them; the first are the rank's own."""
    copies: dict[str, torch.Tensor | int] = {}
    for place, states in enumerate(contributions):
        prefix = f"{CARRIED}{place - 1}." if place else ""
        for name in declarations:
            value = states[name]
            copies[prefix + name] = value if isinstance(value, int) else as_tensor(value).clone()
    return copies


def split_carried(
    saved: Mapping[str, torch.Tensor | int],
) -> tuple[dict[str, torch.Tensor | int], list[dict[str, torch.Tensor | int]]]:
    """A saved state's own part, and those that it carried."""
    own: dict[str, torch.Tensor | int] = {}
    carried: dict[int, dict[str, torch.Tensor | int]] = defaultdict(dict)
    for name, value in saved.items():
        if name.startswith(CARRIED):
            place, _, state = name.removeprefix(CARRIED).partition(".")
            carried[int(place)][state] = value
        else:
            own[name] = value
    return own, list(carried.values())


def given(states: Mapping[str, torch.Tensor | int], declarations: Mapping[str, Declaration]) -> dict[str, StateValue]:
    """What was saved in the form that a metric knows; states that are missing begin from their defaults."""
    found: dict[str, StateValue] = {}
    for name, declaration in declarations.items():
        value = states.get(name, declaration.default)
        if declaration.counter:
            found[name] = int(value)
        else:
            tensor = torch.as_tensor(value).clone()
            found[name] = [tensor] if declaration.listed else tensor
    return found
