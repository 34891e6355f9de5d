"""The training step: the update, its slots, its window. The supervised engines stand in here too; as they stand on
`Engine`, `leyden.engine` hands them on."""

from leyden.engine.step.batches import ModelCall, call_arguments
from leyden.engine.step.late_optimizer import LateOptimizer, MakeOptimizer
from leyden.engine.step.parameters import named_parameters, plain_name
from leyden.engine.step.several_optimizers import groups_before, optimizer_kind, optimizers_in
from leyden.engine.step.slots import Driver, GradientScaler, GradientSync, Tail
from leyden.engine.step.step_count import Stand, completed, planned_steps, steps_to_come
from leyden.engine.step.update import Update
from leyden.engine.step.window import parameters_by_name

__all__ = [
    "Driver",
    "GradientScaler",
    "GradientSync",
    "LateOptimizer",
    "MakeOptimizer",
    "ModelCall",
    "Stand",
    "Tail",
    "Update",
    "call_arguments",
    "completed",
    "groups_before",
    "named_parameters",
    "optimizer_kind",
    "optimizers_in",
    "parameters_by_name",
    "plain_name",
    "planned_steps",
    "steps_to_come",
]
