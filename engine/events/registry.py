"""The handlers attached to an engine, its updates, and the names of the metrics it will have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leyden.engine.events.attachment import check_unattached, mark_attached
from leyden.engine.events.handler_states import LoadedStates, Mark, find_twins, labels_of
from leyden.engine.events.listeners import Listeners

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


@runtime_checkable
class Attachable(Protocol):
    """A handler object."""

    def attach(self, engine: Any) -> Any: ...


@runtime_checkable
class Selective(Protocol):
    """A handler that can't be combined with certain others."""

    def refuses(self, other: Any) -> str | None:
        """Why the other handler can't be attached to the same engine, and what to do; None if it can."""


@runtime_checkable
class PerRank(Protocol):
    """A handler with a state that each rank has for itself, beside what `state_dict` gives, which all share."""

    def rank_state_dict(self) -> dict[str, Any]:
        """Plain data and tensors; empty if there is nothing."""

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on from the states of all ranks that were saved, in their order; called after `load_state_dict`.

        Of as many as there are ranks now, each takes its own, and no other is there (None). Of another number, each
        is there, and the ranks have to share them out: nothing may be lost or count twice. A class whose attribute
        `shared_out` is "dealt" lets rank r of R take the states r, r + R, r + 2R, ...; with "first" the first state is
        enough for all. The others may then be {}: no rank has to read what it does not take.
        """


class Registry(Listeners):
    """The handlers of an engine. `Engine` is one; the loop itself is there."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: dict[str, Attachable] = {}
        """What `attach` attached, by the name it was given, or by its class, numbered in the order of attaching."""
        self.updates: dict[str, Update] = {}
        self.state_dict_user_keys: list[str] = []
        """Attributes of the state that a user sets and wants saved."""
        self._of_all_updates: list[object] = []  # handlers that took them as they were
        self._metric_sources: list[Callable[[], Iterable[str]]] = []
        self._given_names: dict[int, str] = {}  # by the id of the handler
        self._loaded = LoadedStates({})

    # -- handlers --------------------------------------------------------------------------------------------

    def attach(self, *handlers: Attachable, name: str | None = None) -> None:
        """Calls `handler.attach(engine)` for each and remembers it; its state is part of `state_dict` from then on.

        A saved state finds its handler again by its class and what tells it apart from others of its class, in whatever
        order they are attached. `name`: of one handler, where that is not enough.

        Raises TypeError for what has no `attach`, ValueError for a handler that is attached already, for two that
        can't work together (`refuses`), and for a name that is taken.

        Raises ValueError, too, for a handler of another engine, unless it has `shareable = True`.
        """
        if name is not None:
            self._check_name(name, handlers)
        for handler in handlers:
            if isinstance(handler, type):
                kind = handler.__name__
                raise TypeError(f"the class {kind} has no attach(engine) to call; attach an object: {kind}(...)")
            if not isinstance(handler, Attachable):
                raise TypeError(f"{handler!r} has no attach(engine); {_instead_of_attaching(handler)}")
            if any(handler is other for other in self.handlers.values()):
                raise ValueError(f"this {type(handler).__name__} is attached to this engine already")
            check_unattached(handler, self)
            self._check_company(handler)
            handler.attach(self)
            mark_attached(handler, self)
            self.handlers[name or self._numbered(handler)] = handler
            if name is not None:
                self._given_names[id(handler)] = name
            if self._loaded.waits:
                self._hand_out(exactly=True)

    def _check_name(self, name: str, handlers: Sequence[Any]) -> None:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(
                f"a handler is given a name without slashes, by which its state is saved, but got {name!r}"
            )
        if len(handlers) != 1:
            raise ValueError(f"name={name!r} is for one handler, but {len(handlers)} are to be attached")
        if name in self.handlers:
            raise ValueError(
                f"a handler {name!r} is attached to this engine already; it has: {', '.join(self.handlers)}"
            )

    def _check_company(self, handler: Attachable) -> None:
        for other in self.handlers.values():
            for one, another in ((handler, other), (other, handler)):
                reason = one.refuses(another) if isinstance(one, Selective) else None
                if reason is not None:
                    names = f"{type(one).__name__} and {type(another).__name__}"
                    raise ValueError(f"{names} can't both be attached to one engine: {reason}")

    def _numbered(self, handler: Attachable) -> str:
        kind = type(handler).__name__
        same = sum(1 for other in self.handlers.values() if type(other).__name__ == kind)
        name = kind if same == 0 else f"{kind}-{same + 1}"
        while name in self.handlers:
            same += 1
            name = f"{kind}-{same + 1}"
        return name

    # -- their states ----------------------------------------------------------------------------------------

    def _marked(self) -> list[tuple[Mark, Any]]:
        """Handlers with a state or with settings, and what each is known by."""
        found = []
        for handler in self.handlers.values():
            if hasattr(handler, "state_dict") or isinstance(handler, PerRank) or hasattr(handler, "settings"):
                found.append((Mark.of(handler, self._given_names.get(id(handler))), handler))
        return found

    def labelled(self) -> dict[str, Any]:
        """The handlers that have a state or settings, by the labels under which these are saved."""
        marked = self._marked()
        return dict(zip(labels_of([mark for mark, _ in marked]), (handler for _, handler in marked), strict=True))

    def handler_states(self) -> dict[str, Any]:
        """The state of each handler that has one which all ranks share, by its label."""
        return {label: each.state_dict() for label, each in self.labelled().items() if hasattr(each, "state_dict")}

    def handler_marks(self) -> dict[str, Any]:
        """What each handler of `labelled` is known by, as plain data."""
        marks = [mark for mark, _ in self._marked()]
        return {label: mark.state_dict() for label, mark in zip(labels_of(marks), marks, strict=True)}

    def load_handler_states(self, states: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        """Gives each attached handler its saved state; the states of others wait until they are attached, or until the
        run starts. `marks`: of the handlers that were saved, as `handler_marks` gave them.
        """
        self._loaded = LoadedStates(states, marks)
        self._hand_out()

    def load_handler_rank_states(self, states: dict[str, list[Any]], absent: list[Any]) -> None:
        """The same for what each rank has for itself: of each handler, the states of all ranks that were saved.

        `absent`: what a handler gets of which nothing was saved.
        """
        loaded = self._loaded
        loaded.rank_states = dict(states)
        loaded.find(self._marked())
        owned = set(map(id, loaded.owners.values()))
        for label, handler in loaded.owners.items():
            if isinstance(handler, PerRank):
                handler.load_rank_state_dicts(loaded.rank_states.pop(label, absent))
        for handler in self.handlers.values():
            if isinstance(handler, PerRank) and id(handler) not in owned:
                handler.load_rank_state_dicts(absent)

    def settle_handler_states(self) -> None:
        """As a run starts: no more handlers come, and what is left of loaded states goes to those it may be of."""
        if self._loaded.waits:
            self._hand_out()

    def _hand_out(self, *, exactly: bool = False) -> None:
        loaded = self._loaded
        for label, handler in loaded.find(self._marked(), exactly=exactly).items():
            if label in loaded.states and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(loaded.states.pop(label))
            if label in loaded.rank_states and isinstance(handler, PerRank):
                handler.load_rank_state_dicts(loaded.rank_states.pop(label))

    def state_owners(self, states: Iterable[str], marks: dict[str, Any] | None) -> dict[str, str]:
        """Labels of saved states, and the labels that their handlers have now; nothing is loaded."""
        present = self.labelled()
        owners = LoadedStates(dict.fromkeys(states), marks).find(self._marked())
        return {saved: label for saved, owner in owners.items() for label, each in present.items() if each is owner}

    def changed_handlers(self) -> list[str]:
        """In words: how the handlers differ from those of the state that was loaded last."""
        return self._loaded.differences(self._marked())

    def require_distinct_handlers(self) -> None:
        """Raises ValueError if a saved state could be that of one handler as well as of another."""
        with_state = [mark for mark, each in self._marked() if hasattr(each, "state_dict") or isinstance(each, PerRank)]
        if (twin := find_twins(with_state)) is not None:
            raise ValueError(
                f"two handlers {twin.describe()} are attached, and nothing tells which of their saved states would be "
                f'whose when the run goes on; give each a name: engine.attach({twin.kind}(...), name="...")'
            )

    def find_handlers(self, kind: type[Any]) -> list[Any]:
        """The attached handlers that are of a class."""
        return [handler for handler in self.handlers.values() if isinstance(handler, kind)]

    def targets(self, name: str | None, who: object) -> list[Update]:
        """The updates that a handler of the step works on: the one of that name, or all.

        Raises ValueError if there is none; `who` is the handler, which the error names.
        """
        self.require_update(who)
        if name is None:
            self._of_all_updates.append(who)
            return list(self.updates.values())
        if name not in self.updates:
            handler = type(who).__name__
            raise ValueError(f"{handler} names the update {name!r}, but the engine has: {', '.join(self.updates)}")
        return [self.updates[name]]

    def require_update(self, who: object) -> None:
        """Raises ValueError if the engine has no update; `who` is the handler that needs one."""
        if not self.updates:
            raise ValueError(
                f"{type(who).__name__} works on an Update, and this engine has none: make Update(engine, model, "
                "optimizer) before attaching it, and use its forward() and backward() in the process function"
            )

    def check_new_update(self, name: str) -> None:
        """Raises ValueError if it is too late to make an update of this name."""
        if name in self.updates:
            raise ValueError(f"the engine has an update {name!r} already; give this one a name of its own")
        for handler in self.handlers.values():
            if any(handler is other for other in self._of_all_updates):
                kind = type(handler).__name__
                raise ValueError(
                    f"{kind} works on all updates of the engine ({', '.join(self.updates)}) and was attached before "
                    f"the update {name!r} was made, which it would miss; make each Update before attaching {kind}, or "
                    "tell it by update= which one it works on"
                )

    # -- names of metrics ------------------------------------------------------------------------------------

    def declare_metrics(self, *sources: str | Callable[[], Iterable[str]]) -> None:
        """Declares names that will appear in `state.metrics`: a name, or a function that returns names when a run
        starts. This lets handlers that watch a metric report a misspelt name at the start of a run.
        """
        for source in sources:
            self._metric_sources.append(partial(list, (source,)) if isinstance(source, str) else source)

    def metric_names(self) -> list[str]:
        """The names declared on this engine, and those that are in `state.metrics` now."""
        names = dict.fromkeys(name for source in self._metric_sources for name in source())
        return sorted({*names, *self.state.metrics})

    def require_metric(self, name: str, who: str) -> None:
        """Raises ValueError if there will be no metric of that name; `who` is the handler that watches it."""
        names = self.metric_names()
        if name not in names:
            raise ValueError(
                f'{who} watches "{name}", but the engine has: {", ".join(names) or "no metric"}. A metric that a '
                "handler of your own puts into state.metrics, or an item of a value that is a mapping, is made known "
                f'by engine.declare_metrics("{name}")'
            )


def _instead_of_attaching(thing: Any) -> str:
    if isinstance(thing, list | tuple):
        return "attach takes handlers one after the other: engine.attach(*handlers)"
    if hasattr(thing, "get_last_lr"):
        return "a scheduler of torch is stepped by a handler: engine.attach(Schedule(scheduler))"
    if all(hasattr(thing, method) for method in ("reset", "update", "compute")):
        return f'a metric is measured under a name: engine.attach_metric("name", {type(thing).__name__}(...))'
    return "a plain function is added by add_event_handler or on"
