"""What is attached to an engine, what it updates, and the names of the metrics that will come up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leyden.engine.listeners import Listeners

if TYPE_CHECKING:
    from leyden.engine.update import Update


@runtime_checkable
class Attachable(Protocol):
    """A handler object."""

    def attach(self, engine: Any) -> Any: ...


@runtime_checkable
class Selective(Protocol):
    """A handler that can't work beside some others."""

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
        is there, and the ranks have to share them out: nothing may be lost or count twice.
        """


class Registry(Listeners):
    """The handlers of an engine. `Engine` is one; the loop itself is there."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: dict[str, Attachable] = {}
        """What `attach` attached, by the name under which its state is saved."""
        self.updates: dict[str, Update] = {}
        self.state_dict_user_keys: list[str] = []
        """Attributes of the state that a user sets and wants saved."""
        self._of_all_updates: list[object] = []  # handlers that took them as they were
        self._metric_sources: list[Callable[[], Iterable[str]]] = []
        self._handler_states: dict[str, Any] = {}  # loaded before their handlers were attached
        self._rank_states: dict[str, list[Any]] = {}  # likewise, of what each rank has for itself

    # -- handlers --------------------------------------------------------------------------------------------

    def attach(self, *handlers: Attachable) -> None:
        """Calls `handler.attach(engine)` for each and remembers it; its state is part of `state_dict` from then on.

        Raises TypeError for what has no `attach`, ValueError for a handler that is attached already, and for two that
        can't work together (`refuses`).
        """
        for handler in handlers:
            if isinstance(handler, type):
                name = handler.__name__
                raise TypeError(f"the class {name} has no attach(engine) to call; attach an object: {name}(...)")
            if not isinstance(handler, Attachable):
                raise TypeError(
                    f"{handler!r} has no attach(engine); a plain function is added by add_event_handler or on"
                )
            if any(handler is other for other in self.handlers.values()):
                raise ValueError(f"this {type(handler).__name__} is attached to this engine already")
            self._check_company(handler)
            handler.attach(self)
            name = self._name_of(handler)
            self.handlers[name] = handler
            if name in self._handler_states and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(self._handler_states.pop(name))
            if name in self._rank_states and isinstance(handler, PerRank):
                handler.load_rank_state_dicts(self._rank_states.pop(name))

    def _check_company(self, handler: Attachable) -> None:
        for other in self.handlers.values():
            for one, another in ((handler, other), (other, handler)):
                reason = one.refuses(another) if isinstance(one, Selective) else None
                if reason is not None:
                    names = f"{type(one).__name__} and {type(another).__name__}"
                    raise ValueError(f"{names} can't both be attached to one engine: {reason}")

    def _name_of(self, handler: Attachable) -> str:
        kind = type(handler).__name__
        same = sum(1 for other in self.handlers.values() if type(other).__name__ == kind)
        return kind if same == 0 else f"{kind}-{same + 1}"

    def load_handler_states(self, states: dict[str, Any]) -> None:
        """Gives each attached handler its saved state; the states of others wait until they are attached."""
        self._handler_states = dict(states)
        for name, handler in self.handlers.items():
            if name in self._handler_states and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(self._handler_states.pop(name))

    def load_handler_rank_states(self, states: dict[str, list[Any]]) -> None:
        """The same for what each rank has for itself: of each handler, the states of all ranks that were saved."""
        self._rank_states = dict(states)
        for name, handler in self.handlers.items():
            if name in self._rank_states and isinstance(handler, PerRank):
                handler.load_rank_state_dicts(self._rank_states.pop(name))

    def find_handlers(self, kind: type[Any]) -> list[Any]:
        """The attached handlers of a class."""
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
        """Raises ValueError if an update of this name can't be made any more."""
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
        """Says which names will come up in `state.metrics`: a name, or a function that gives names when a run starts.

        Handlers that watch a metric can so tell a misspelt name at the start of a run.
        """
        for source in sources:
            self._metric_sources.append(partial(list, (source,)) if isinstance(source, str) else source)

    def metric_names(self) -> list[str]:
        """The names declared on this engine, and those that are in `state.metrics` now."""
        names = dict.fromkeys(name for source in self._metric_sources for name in source())
        return sorted({*names, *self.state.metrics})

    def require_metric(self, name: str, who: str) -> None:
        """Raises ValueError if no metric of that name will come up; `who` is the handler that watches it."""
        names = self.metric_names()
        if name not in names:
            raise ValueError(
                f'{who} watches "{name}", but the engine has: {", ".join(names) or "no metric"}. A metric that a '
                f'handler of your own puts into state.metrics is made known by engine.declare_metrics("{name}")'
            )
