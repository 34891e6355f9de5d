"""The loop: Engine, its events and state, and the Update that makes a training step composable."""

from leyden.engine.data_setup import CompositeData, DataStage
from leyden.engine.dispatch import RemovableEventHandle
from leyden.engine.engine import Engine
from leyden.engine.eval_mode import custom_evaluator
from leyden.engine.events import EventEnum, Events, EventsList, FilteredEvent, UpdateEvents
from leyden.engine.listeners import Order
from leyden.engine.metric_values import MetricValues
from leyden.engine.moving import to_device
from leyden.engine.registry import Attachable, Selective
from leyden.engine.setup import Stage
from leyden.engine.slots import GradientScaler, GradientSync, Tail
from leyden.engine.state import State
from leyden.engine.supervised import (
    create_supervised_evaluator,
    create_supervised_trainer,
    supervised_evaluator,
    supervised_trainer,
)
from leyden.engine.update import Update

__all__ = [
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
    "create_supervised_evaluator",
    "create_supervised_trainer",
    "custom_evaluator",
    "supervised_evaluator",
    "supervised_trainer",
    "to_device",
]
