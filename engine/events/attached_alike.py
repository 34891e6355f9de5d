"""What ranks that train together have to attach alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leyden import distributed as dist
from leyden.engine.events.handler_states import settings_in_words

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

_CURE = (
    "Attach on every rank, with the same settings, what trains, measures, stops or saves; a handler that prints or "
    "writes does so on rank 0 by itself, and may also be attached there alone"
)


@runtime_checkable
class AlikeOnRanks(Protocol):
    """A handler that communicates, or changes the training: one rank can't have it without the others.

    `same_on_ranks`: names of its own attributes, which hold plain data, that are to be equal on all ranks; () where it
    only has to be there. It may also be a mapping, of the settings themselves.
    """

    @property
    def same_on_ranks(self) -> tuple[str, ...] | Mapping[str, Any]: ...


def require_alike(engine: Engine[Any, Any], optimizers: Sequence[str]) -> None:
    """As a run begins: raises ValueError, the same on all ranks, where they have attached different handlers, or train
    together by different optimizers or limits.

    One rank may run an engine alone which has none of those that communicate. An evaluator that `Evaluate` runs was
    compared with its trainer.
    """
    if dist.world_size() > 1 and not engine.is_hosted and (lines := _lines_to_compare(engine)):
        dist.require_alike([*lines, *optimizers], "attaches", _CURE, calls=_calls(engine))


def tell_failure(engine: Engine[Any, Any], error: BaseException) -> None:
    """Tells the other ranks of an error that ends a run, if they may be waiting for this one."""
    if dist.world_size() > 1 and _lines_to_compare(engine):
        dist.tell_failure(error)


@contextmanager
def telling_failure(engine: Engine[Any, Any]) -> Iterator[None]:
    """The same for an error before the run."""
    try:
        yield
    except BaseException as error:
        tell_failure(engine, error)
        raise


def _lines_to_compare(engine: Engine[Any, Any]) -> list[str]:
    """Empty where each rank trains a model of its own."""
    updates = engine.updates.values()
    return [] if updates and all(update.independent for update in updates) else attached_lines(engine)


def _calls(engine: Engine[Any, Any]) -> list[str]:
    """How long the run is to be, where ranks train together: those with more to do would wait for the others."""
    if all(update.independent for update in engine.updates.values()):
        return []
    asked = engine.asked
    limits = {"max_epochs": asked.max_epochs, "max_iters": asked.max_iters, "epoch_length": asked.epoch_length}
    return [f"run({settings_in_words(limits)})"]


def attached_lines(engine: Engine[Any, Any]) -> list[str]:
    """What ranks compare of an engine: each of its updates, that its stops are shared, and each handler that
    says `same_on_ranks`.
    """
    independent = {name for name, update in engine.updates.items() if update.independent}
    lines = [f"Update({name!r})" for name in engine.updates if name not in independent]
    if engine.shares_stops:
        lines.append("share_stops()")
    for handler in engine.handlers.values():
        if isinstance(handler, AlikeOnRanks) and getattr(handler, "update", None) not in independent:
            lines.append(_line(handler))
    return lines


def _line(handler: AlikeOnRanks) -> str:
    given = handler.same_on_ranks
    settings = given if isinstance(given, Mapping) else {name: getattr(handler, name) for name in given}
    return f"{type(handler).__name__}({settings_in_words(settings)})"
