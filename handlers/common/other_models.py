"""Warns of an evaluation of another model than the one that is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.engine.evaluation import models_named_by


def tell_other_model(
    trainer: Engine[Any, Any], evaluator: Engine[Any, Any], evaluators: Sequence[Engine[Any, Any]], prefix: str
) -> bool:
    """Warns, on rank 0, if no part of what the evaluator evaluates is trained; True if so.

    Where nothing says what it evaluates, that can't be known. It is meant where the two engines know of each other's
    models: an average or a teacher that the process function or a handler of the trainer names, a copy that a handler
    of the evaluator fills; and where another of `evaluators`, all that the trainer runs, evaluates what is trained.
    """
    trained = [module for update in trainer.updates.values() for module in update.modules.values()]
    models = evaluator.evaluated_models
    if not trained or not any(True for model in models for _ in model.parameters()):
        return False
    if any(_share(each.evaluated_models, trained) for each in evaluators) or _is_meant(trainer, evaluator, trained):
        return False
    if dist.rank() == 0:
        warnings.warn(
            f"Evaluate(prefix={prefix!r}) evaluates {_names(models)}, and the trainer trains {_names(trained)}, which "
            "share no module: training does not change what is measured. Make the evaluator with the model that is "
            "trained. Where another is meant (a teacher, a copy), a process function or handler that names it says so",
            stacklevel=2,
        )
    return True


def _is_meant(trainer: Engine[Any, Any], evaluator: Engine[Any, Any], trained: Sequence[nn.Module]) -> bool:
    models = evaluator.evaluated_models
    if any(isinstance(part, AveragedModel) for model in models for part in model.modules()):
        return True
    return _knows(trainer, models) or _knows(evaluator, trained)


def _knows(engine: Engine[Any, Any], models: Sequence[nn.Module]) -> bool:
    """Whether its process function or a handler names one of the models."""
    tables = [*engine.tables(), *(table for update in engine.updates.values() for table in update.tables.values())]
    entries = [entry for table in tables for entry in table.entries]
    functions = [engine.process, *(entry.function for entry in entries)]
    named = [model for function in functions for model in models_named_by(function, deep=True)]
    given = [each for entry in entries for each in (*entry.args, *entry.kwargs.values())]
    return _share([*named, *(each for each in given if isinstance(each, nn.Module))], models)


def _share(some: Iterable[nn.Module], others: Iterable[nn.Module]) -> bool:
    return not _parts(some).isdisjoint(_parts(others))


def _parts(models: Iterable[nn.Module]) -> set[int]:
    """The ids of their modules and parameters."""
    return {id(part) for model in models for part in (*model.modules(), *model.parameters())}


def _names(models: Iterable[nn.Module]) -> str:
    return " and ".join(f"a {type(model).__name__}" for model in models)
