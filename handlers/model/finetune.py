"""A pretrained model is trained further, one part after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from leyden.engine import Engine, Events, Order, Stage, Update
from leyden.handlers.common.plans import warn_if_beyond
from leyden.handlers.common.updates import share_update, trained_elsewhere
from leyden.handlers.model.freeze import Freeze
from leyden.handlers.model.frozen import HeldNorms, set_trainable
from leyden.handlers.model.groups import complete_first_group, give_group
from leyden.handlers.model.naming import Outline, require_places
from leyden.handlers.model.plan import Part, check_plan, read_plan, trained_in
from leyden.handlers.training.param_schedule import ParamSchedule
from leyden.handlers.training.schedulers_of_several import outermost_in


class Finetune:
    """Unfreezes a model by a plan: what is trained from which epoch on, and with which part of the learning rate.

    `plan`: {epoch: what}, epochs counted from 1: `{1: "head", 3: "layer4", 6: ("backbone", 0.01)}`. What: the dotted
    name of a module or parameter, several names, (names, lr_ratio), `Unfreeze(names, lr_ratio=, train_batch_norm=)`, or
    a list of these. A part is frozen until its epoch; what the plan does not name stays as it is. `lr_ratio`: for parts
    of later epochs that give none. `train_batch_norm`: None lets batch norms stay frozen as long as the part they are
    in, statistics too, and then train; True trains them from the beginning, False never.

    The optimizer gets all its groups before the first step, one for each part and each group its parameters were in,
    with the options of that group and its learning rate times the ratio; parameters that no optimizer had follow its
    first group. Schedulers of an attached `Schedule` scale them too. What is trained follows from the epoch alone, so
    a run resumes in mid-plan. `update` names the one update it is for; by default all that have such a part.

    Raises TypeError or ValueError for a plan that is none, a name that no model has, a parameter named twice or frozen
    by `Freeze`, a plan with nothing to train in epoch 1, an optimizer with a single group by nature (LBFGS), a second
    Finetune on the same update, and a ParamSchedule that would set the ratios aside.
    """

    same_on_ranks = ("update",)

    def __init__(
        self,
        plan: Mapping[int, Any],
        *,
        lr_ratio: float = 1.0,
        train_batch_norm: bool | None = None,
        update: str | None = None,
    ) -> None:
        self.parts = read_plan(plan, lr_ratio, train_batch_norm)
        self.update = update
        self._norms: dict[str, HeldNorms] = {}

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, Finetune | ParamSchedule) or not share_update(self, other):
            return None
        if isinstance(other, Finetune):
            return "both would say what one model trains; put all into one plan, or name the update that each is for"
        if other.target == "lr" and any(part.lr_ratio != 1 for part in self.parts):
            return "it sets learning rates whatever their ratio; a torch scheduler in Schedule keeps the plan's ratios"
        if len(other.shapes) > 1 and not all(part.stays for part in self.parts):
            return "it has a shape for each group of the optimizer, and the plan makes more groups; give it one shape"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        require_places(updates, [name for part in self.parts for name in part.names], "Finetune's plan")
        for update in updates:
            if any(isinstance(each, torch.optim.LBFGS) for each in update.optimizers):
                raise ValueError("Finetune gives the optimizer groups with learning rates of their own; LBFGS has one")
            check_plan(self.parts, update)
            self._norms[update.name] = HeldNorms(update)

        def begin() -> None:
            changed = [self._apply(update, engine.state.epoch) for update in updates]
            if any(changed):  # a change in a model that two share concerns both
                for update in updates:
                    update.trainable_changed()

        engine.setup.add(Stage.ADAPT, lambda: self._freeze(engine, updates), owner=self)
        engine.setup.add(Stage.OPTIMIZER, lambda: self._regroup(engine, updates), owner=self)
        # At STARTED too: a run that is resumed in mid-epoch does not begin that epoch again.
        engine.add_event_handler(Events.STARTED | Events.EPOCH_STARTED, begin, order=Order.METRICS)
        engine.add_event_handler(Events.STARTED, self._check_reach)

    def _check_reach(self, engine: Engine[Any, Any]) -> None:
        last = self.parts[-1]
        never = f"{', '.join(last.names)} is never trained"
        warn_if_beyond(engine, "Finetune unfreezes in", last.epoch, never)

    def _freeze(self, engine: Engine[Any, Any], updates: list[Update]) -> None:
        for update in updates:
            outline = Outline(update)
            planned = {id(p): n for part in self.parts for n, p in part.parameters(outline).items()}
            for freeze in engine.find_handlers(Freeze):
                if both := [planned[id(p)] for p in freeze.parameters(update) if id(p) in planned]:
                    raise ValueError(
                        f"Freeze and Finetune both say whether {both[0]} is trained; leave it out of one of them"
                    )
            self._apply(update, engine.state.epoch)

    def _regroup(self, engine: Engine[Any, Any], updates: list[Update]) -> None:
        held = [getattr(handler, "scheduler", None) for handler in engine.handlers.values()]
        schedulers = [part for each in held if isinstance(each, LRScheduler) for part in outermost_in(each)]
        for update in updates:
            update.prepare()  # earlier stages may have exchanged parameters
            outline = Outline(update)
            foreign = trained_elsewhere(update)
            for part in self.parts:
                parameters = {name: p for name, p in part.parameters(outline).items() if id(p) not in foreign}
                for optimizer, own in _by_optimizer(update, parameters):
                    if part.stays:
                        complete_first_group(optimizer, own)
                    else:
                        theirs = [each for each in schedulers if each.optimizer is optimizer]
                        give_group(optimizer, theirs, own, part.lr_ratio)

    def _apply(self, update: Update, begun: int) -> bool:
        """Freezes and unfreezes as the plan says for the epoch in work, `begun` being how many have begun; True if that
        changed anything.
        """
        epoch, outline = max(begun, 1), Outline(update)
        changed = False
        norms: list[nn.Module] = []
        for part in self.parts:
            trained = {id(parameter) for parameter in trained_in(part, epoch, outline)}
            for parameter in outline.parameters_in(part.places(outline)).values():
                changed |= set_trainable(parameter, id(parameter) in trained)
            if not _trains_norms(part, epoch):
                norms += outline.norms_in(part.places(outline)).values()
        self._norms[update.name].hold(norms)
        return changed


def _by_optimizer(
    update: Update, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]]:
    """Each of the update's optimizers with its share of the parameters; those that no optimizer has go to the first."""
    held = {id(p): each for each in update.optimizers for group in each.param_groups for p in group["params"]}
    for optimizer in update.optimizers:
        owns = {name: p for name, p in parameters.items() if held.get(id(p), update.optimizers[0]) is optimizer}
        if owns:
            yield optimizer, owns


def _trains_norms(part: Part, epoch: int) -> bool:
    return epoch >= part.epoch if part.train_batch_norm is None else part.train_batch_norm
