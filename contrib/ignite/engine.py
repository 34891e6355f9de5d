"""The names of `ignite.engine`: leyden's own engine, which has them too."""

from leyden.engine import (
    Engine,
    EventEnum,
    Events,
    EventsList,
    RemovableEventHandle,
    State,
    create_supervised_evaluator,
    create_supervised_trainer,
)

__all__ = [
    "Engine",
    "EventEnum",
    "Events",
    "EventsList",
    "RemovableEventHandle",
    "State",
    "create_supervised_evaluator",
    "create_supervised_trainer",
]
