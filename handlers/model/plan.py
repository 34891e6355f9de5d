"""What is unfrozen when: the plan of a finetuning as a user writes it, applied to an update's models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from leyden.engine import Update
from leyden.handlers.common.number_checks import require_epochs
from leyden.handlers.common.updates import trained_elsewhere
from leyden.handlers.model.naming import Outline


@dataclass(frozen=True)
class Unfreeze:
    """An entry of a plan: which parts, and how they are trained.

    lr_ratio: their learning rate as a part of the optimizer's own. train_batch_norm: None lets the batch norms in them
    stay frozen as long as the rest and then train; True trains them from the beginning, False never.
    """

    names: str | Sequence[str]
    lr_ratio: float | None = None
    train_batch_norm: bool | None = None


@dataclass(frozen=True)
class Part:
    """An entry with its defaults filled in; `epoch` is the first in which it is trained, counted from 1."""

    epoch: int
    names: tuple[str, ...]
    lr_ratio: float
    train_batch_norm: bool | None

    @property
    def stays(self) -> bool:
        """True if it is trained from the beginning with the optimizer's own options, and so needs no group of its
        own.
        """
        return self.epoch == 1 and self.lr_ratio == 1.0

    def places(self, outline: Outline) -> list[str]:
        return list(dict.fromkeys(place for name in self.names for place in outline.places(name)))

    def parameters(self, outline: Outline) -> dict[str, nn.Parameter]:
        """The parameters that are trained at some point, by name."""
        found = outline.parameters_in(self.places(outline))
        if self.train_batch_norm is False:
            found = {name: found[name] for name in found if name not in self.norm_parameters(outline)}
        return found

    def norm_parameters(self, outline: Outline) -> dict[str, nn.Parameter]:
        return outline.parameters_in(outline.norms_in(self.places(outline)))


def read_plan(plan: Mapping[int, Any], lr_ratio: float, train_batch_norm: bool | None) -> list[Part]:
    """The parts of a plan, by epoch. `lr_ratio` and `train_batch_norm` are for entries that say nothing of it; those
    of epoch 1 have then the ratio 1.

    Raises TypeError or ValueError for an empty plan and for invalid epochs, entries and ratios.
    """
    if not isinstance(plan, Mapping):
        raise TypeError(f'Finetune takes a plan {{epoch: what}}, such as {{1: "head", 3: "layer4"}}, but got {plan!r}')
    if not plan:
        raise ValueError('Finetune needs a plan of at least one epoch, such as {1: "head", 3: "layer4"}')
    require_epochs("Finetune's plan", plan)
    parts = []
    for epoch in sorted(plan):
        default = 1.0 if epoch == 1 else lr_ratio
        for entry in _entries(plan[epoch], epoch):
            ratio = default if entry.lr_ratio is None else entry.lr_ratio
            if isinstance(ratio, bool) or not isinstance(ratio, int | float):
                raise TypeError(f"Finetune takes a number for a learning-rate ratio, but got {ratio!r}")
            if not 0 < ratio < math.inf:
                raise ValueError(f"Finetune needs learning-rate ratios above 0, but got {ratio} for {entry.names!r}")
            names = (entry.names,) if isinstance(entry.names, str) else tuple(entry.names)
            norms = train_batch_norm if entry.train_batch_norm is None else entry.train_batch_norm
            parts.append(Part(epoch, names, float(ratio), norms))
    return parts


def _entries(given: Any, epoch: int) -> list[Unfreeze]:
    """The entries of one epoch; adjacent names form one entry."""
    if isinstance(given, Unfreeze):
        return [given]
    if isinstance(given, str):
        return [Unfreeze((given,))]
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int | float):
        names, ratio = given
        return [replace(entry, lr_ratio=ratio) for entry in _entries(names, epoch)]
    if isinstance(given, list | tuple) and given:
        if all(isinstance(each, str) for each in given):
            return [Unfreeze(tuple(given))]
        return [entry for each in given for entry in _entries(each, epoch)]
    raise TypeError(
        f"Finetune's plan has {given!r} for epoch {epoch}; it takes a name, several names, (names, lr_ratio), "
        "Unfreeze(...), or a list of these"
    )


def check_plan(parts: Sequence[Part], update: Update) -> None:
    """Raises ValueError if two entries mean one parameter, or if nothing is trained in the first epoch."""
    outline = Outline(update)
    owners: dict[int, tuple[str, Part]] = {}
    for part in parts:
        for name, parameter in outline.parameters_in(part.places(outline)).items():
            other = owners.setdefault(id(parameter), (name, part))
            if other[1] is not part:
                also = "" if other[0] == name else f" (it is {other[0]} too)"
                raise ValueError(
                    f"Finetune's plan unfreezes {name}{also} twice: with {', '.join(other[1].names)} in epoch "
                    f"{other[1].epoch} and with {', '.join(part.names)} in epoch {part.epoch}. Name each part once"
                )
    if not owners:
        return  # the plan is for other updates
    foreign = trained_elsewhere(update)
    planned = [p for part in parts for p in trained_in(part, 1, outline) if id(p) not in foreign]
    others = [p for group in update.optimizer.param_groups for p in group["params"] if id(p) not in owners]
    if not any(p.requires_grad for p in others) and not planned:
        raise ValueError(
            f"Finetune's plan leaves update {update.name!r} nothing to train in epoch 1: it unfreezes first in epoch "
            f"{min(part.epoch for part in parts)}, and the optimizer has nothing else. Give epoch 1 an entry"
        )


def trained_in(part: Part, epoch: int, outline: Outline) -> list[nn.Parameter]:
    """The parameters of a part that are trained in an epoch."""
    if epoch >= part.epoch:
        return list(part.parameters(outline).values())
    return list(part.norm_parameters(outline).values()) if part.train_batch_norm else []
