"""The loop: Engine, its events and state, and the Update that makes a training step composable."""

from leyden.engine.data.setup import CompositeData, DataStage
from leyden.engine.engine import Engine
from leyden.engine.evaluation.eval_mode import custom_evaluator
from leyden.engine.events.attached_alike import AlikeOnRanks, attached_lines
from leyden.engine.events.dispatch import RemovableEventHandle
from leyden.engine.events.listeners import Order
from leyden.engine.events.names import EventEnum, Events, EventsList, FilteredEvent, UpdateEvents
from leyden.engine.events.registry import Attachable, Selective
from leyden.engine.setup import Stage
from leyden.engine.state import State
from leyden.engine.step.slots import GradientScaler, GradientSync, Tail
from leyden.engine.step.update import Update
from leyden.engine.supervised import (
    create_supervised_evaluator,
    create_supervised_trainer,
    supervised_evaluator,
    supervised_trainer,
)
from leyden.engine.values.metric_values import MetricValues
from leyden.engine.values.moving import to_device

__all__ = [
    "AlikeOnRanks",
    "Attachable",
    "CompositeData",
    "DataStage",
    "Engine",
    "EventEnum",
    "Events",
    "EventsList",
    "FilteredEvent",
    "GradientScaler",
    "GradientSync",
    "MetricValues",
    "Order",
    "RemovableEventHandle",
    "Selective",
    "Stage",
    "State",
    "Tail",
    "Update",
    "UpdateEvents",
    "attached_lines",
    "create_supervised_evaluator",
    "create_supervised_trainer",
    "custom_evaluator",
    "supervised_evaluator",
    "supervised_trainer",
    "to_device",
]
