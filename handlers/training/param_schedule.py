"""Drives any number of a run by a shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from leyden.engine import Engine, Events, Order, Stage, State, Update, UpdateEvents
from leyden.engine.step import LateOptimizer, optimizer_kind, optimizers_in
from leyden.handlers.training.drawing import draw
from leyden.handlers.training.param_fields import Field, check_field_values, parse_target
from leyden.handlers.training.schedule import Schedule
from leyden.handlers.training.shapes import Shape, shape_in_words
from leyden.handlers.training.torch_schedulers import cycles_momentum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ScheduledField = tuple[int, Field, int | None]
"""The id of an optimizer or a state, the number that is set there, and the index of its group (None: all groups)."""

EVENTS = {
    "step": UpdateEvents.STEP_COMPLETED,
    "iteration": Events.ITERATION_COMPLETED,
    "epoch": Events.EPOCH_COMPLETED,
}


class ParamSchedule:
    """Drives any number of the optimizer's parameter groups, or of the engine's state, by a shape.

    `target`: a field of the groups ("lr", "weight_decay", "momentum"; one number of several as "betas.0" or
    ("betas", 0)), or "state.temperature" for `engine.state.temperature`. `shape`: Linear, Cosine, ... (see `Shape`), in
    values; one for all groups, a list with one for each group, or one for the group with the index `group` alone.

    `per`: what the shape counts: optimizer steps ("step"; a skipped one does not count), "iteration" or "epoch"; with
    `every=n` n of them to a count. As with torch's schedulers the value at count k is there during the (k+1)-th step.
    It is computed from the run's own counters, so nothing has to be saved. `update` names the one update it is for;
    by default all.

    Coming from Ignite: CosineAnnealingScheduler and LinearCyclicalScheduler are a Cyclic of Cosine or Linear,
    PiecewiseLinear is Piecewise, ConcatScheduler is `+` or Concatenate, create_lr_scheduler_with_warmup is
    `shape.with_warmup(n, start)`, StateParamScheduler is the target "state.name"; the shapes say it in numbers.

    Raises ValueError for a field that the groups do not have, TypeError for one that is no number, and ValueError where
    another handler (a Schedule of the same optimizer, a second ParamSchedule) sets the same number.
    """

    @property
    def same_on_ranks(self) -> dict[str, Any]:
        told = {"target": self.target, "shape": [shape_in_words(each) for each in self.shapes], "group": self._group}
        return told | {"per": self.per, "every": self.every, "update": self.update}

    def __init__(
        self,
        target: str | tuple[str, int],
        shape: Shape | Sequence[Shape],
        *,
        per: str = "step",
        every: int = 1,
        update: str | None = None,
        group: int | None = None,
    ) -> None:
        self._of_state, self._field = parse_target(target)
        self._several = not isinstance(shape, Shape)
        shapes = [shape] if isinstance(shape, Shape) else shape
        if not (isinstance(shapes, Sequence) and shapes and all(isinstance(each, Shape) for each in shapes)):
            raise TypeError(f"ParamSchedule follows a shape (Linear, Cosine, ...) or a list of them, but got {shape!r}")
        if per not in EVENTS:
            raise ValueError(f'ParamSchedule counts per "step", "iteration" or "epoch", but got per={per!r}')
        if self._several and group is not None:
            raise ValueError(
                f"ParamSchedule has a shape for each group, or one for group={group}; give only one of the two"
            )
        if self._of_state and (self._several or group is not None):
            raise ValueError(f"{target} is one number, so it follows one shape, and belongs to no group")
        if self._of_state and per != "step" and update is not None:
            raise ValueError(f"{target} counts each {per} of the engine, whatever its updates do; leave update= out")
        if not self._of_state:
            for each in shapes:
                check_field_values(str(target), self._field.name, each)
        self.target = target
        self.shapes = tuple(shapes)
        self.per = per
        self.every = every
        self.places: list[ScheduledField] = []
        """The numbers it sets, once it is attached."""
        self.update = update
        self._group = group

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = [] if self._of_state and self.per != "step" else engine.targets(self.update, self)
        if not self._of_state and any(isinstance(update.optimizer, LateOptimizer) for update in updates):
            engine.setup.add(Stage.SCHEDULE, lambda: self._take_places(engine, self._check_groups(updates)))
        else:
            self._take_places(
                engine, self._check_state(engine, updates) if self._of_state else self._check_groups(updates)
            )
        counted: Sequence[Update | None] = updates or [None]
        for update in counted:
            advance = self._make_advance(engine, update)
            source: Any = engine if update is None or self.per != "step" else update
            source.add_event_handler(EVENTS[self.per](every=self.every), advance)
            # What was restored says where the run stands; early, so that other handlers find the value.
            engine.add_event_handler(Events.STARTED, advance, order=Order.METRICS)
        if self._of_state:
            setattr(engine.state, self._field.name, self.shapes[0](0))

    def _take_places(self, engine: Engine[Any, Any], places: list[ScheduledField]) -> None:
        for other in engine.handlers.values():
            if other is not self and (reason := _shared(places, _places_of(other))):
                names = f"{type(self).__name__} and {type(other).__name__}"
                raise ValueError(f"{names} can't both be attached to one engine: {reason}")
        self.places = places

    def refuses(self, other: Any) -> str | None:
        return _shared(self.places, _places_of(other))

    def simulate(self, counts: int | None = None, *, group: int = 0) -> list[tuple[int, float]]:
        """The pairs (steps, iterations or epochs done, value) of the first `counts` of them; by default to the shape's
        end. `group`: whose value, where there is a shape for each.

        Raises ValueError where there is no end and no number is given.
        """
        shape = self.shapes[group if self._several else 0]
        if counts is None:
            counts = (len(shape.simulate()) - 1) * self.every + 1
        return [(count, shape(count // self.every)) for count in range(counts)]

    def plot(self, counts: int | None = None, axes: Axes | None = None) -> Axes:
        """Draws what `simulate` gives, a line for each shape, into `axes` or a new figure, by matplotlib."""
        names = [f"group {group}" for group in range(len(self.shapes))] if self._several else [""]
        curves = {name: self.simulate(counts, group=group) for group, name in enumerate(names)}
        return draw(curves, self.per, str(self.target), axes)

    def _make_advance(self, engine: Engine[Any, Any], update: Update | None) -> Callable[[], None]:
        """A function that sets the value for the count at which the run stands."""
        state, per, every = engine.state, self.per, self.every
        field, shapes, several, chosen = self._field, self.shapes, self._several, self._group
        shape = shapes[0]

        def count() -> int:
            if per == "step":
                assert update is not None
                return update.steps // every
            return (state.iteration if per == "iteration" else state.epoch - engine.cursor.epoch_open) // every

        def advance_state() -> None:
            setattr(state, field.name, shape(count()))

        def advance_groups() -> None:
            assert update is not None
            groups, at = update.optimizer.param_groups, count()
            if several:
                for group, its_shape in zip(groups, shapes, strict=False):
                    field.put((group,), its_shape(at))
            else:
                field.put(groups if chosen is None else (groups[chosen],), shape(at))

        return advance_state if self._of_state else advance_groups

    def _check_state(self, engine: Engine[Any, Any], updates: list[Update]) -> list[ScheduledField]:
        if len(updates) > 1:
            there = ", ".join(update.name for update in updates)
            raise ValueError(f"{self.target} counts the steps of one update; name it by update=, one of: {there}")
        if self._field.name in vars(State()):
            raise ValueError(f"the engine itself sets {self.target}; drive an attribute with a name of its own")
        return [(id(engine.state), self._field, None)]

    def _check_groups(self, updates: list[Update]) -> list[ScheduledField]:
        places: list[ScheduledField] = []
        for update in updates:
            optimizer, kind = update.optimizer, optimizer_kind(update.optimizer)
            groups = optimizer.param_groups
            if self._several and len(self.shapes) != len(groups):
                raise ValueError(
                    f"ParamSchedule has {len(self.shapes)} shapes, but the {kind} has {len(groups)} groups"
                )
            if self._group is not None and not 0 <= self._group < len(groups):
                raise ValueError(f"ParamSchedule is for group {self._group}, but the {kind} has {len(groups)} groups")
            for each in optimizers_in(optimizer) if self._group is None else ():
                self._field.check(each, each.param_groups)
            if self._group is not None:
                self._field.check(optimizer, [groups[self._group]])
            places += fields_of_groups(optimizer, self._field, self._group)
        return places


def _places_of(handler: Any) -> list[ScheduledField]:
    """The numbers that a handler sets at each step."""
    if isinstance(handler, ParamSchedule):
        return handler.places
    if not isinstance(handler, Schedule) or (optimizer := handler.optimizer) is None:
        return []
    places: list[ScheduledField] = []
    for each in optimizers_in(optimizer):
        fields = [Field("lr")]
        if handler.scheduler is not None and cycles_momentum(handler.scheduler):
            fields.append(Field("betas", 0) if "betas" in each.defaults else Field("momentum"))
        places += [(id(each), field, None) for field in fields]
    return places


def fields_of_groups(optimizer: torch.optim.Optimizer, field: Field, group: int | None) -> list[ScheduledField]:
    """A field of one group of an optimizer, or of all, by the optimizer that has the group where there are several."""
    parts = optimizers_in(optimizer)
    if group is None:
        return [(id(each), field, None) for each in parts]
    for each in parts:
        if group < len(each.param_groups):
            return [(id(each), field, group)]
        group -= len(each.param_groups)
    return []


def _shared(places: list[ScheduledField], others: list[ScheduledField]) -> str | None:
    for owner, field, group in places:
        for other_owner, other_field, other_group in others:
            same_group = group == other_group or group is None or other_group is None
            if owner == other_owner and field == other_field and same_group:
                return f'both set the same "{field}"; attach one of them, or give each an update or a group of its own'
    return None
