"""Several cases one after the other in the same ranks: starting processes takes longer than the cases do."""

import importlib
import traceback

import torch

from leyden import distributed as dist


def run_cases(names):
    """{(function's name, *arguments): (its value, None) or (None, its traceback)} of this rank."""
    outcomes = {}
    for module, *case in names:
        name, *arguments = case
        torch.manual_seed(100 + dist.rank())  # ranks differ in all that is not made equal
        try:
            outcomes[tuple(case)] = (getattr(importlib.import_module(module), name)(*arguments), None)
        except Exception:
            outcomes[tuple(case)] = (None, traceback.format_exc())
    return outcomes
