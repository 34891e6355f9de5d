"""Modules: what torch keeps in them, what torch.compile leaves there, and kinds that have no public name.

Public methods copy (`named_buffers`) or have no counterpart: hooks can be added, not carried over to another module.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from leyden.distributed.compat.relied_on import Reasons

BUFFERS = "_buffers"
"""Where a module keeps its buffers by name: for a step, where setting an attribute of a module costs several calls."""
HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)
"""Where a module keeps its hooks."""

BatchNorm = _BatchNorm
"""All batch norms, lazy and synchronised ones included."""
NormWithStatistics = _NormBase
"""All norms that may keep running statistics: batch norms and instance norms."""
OpOverload = torch._ops.OpOverload
"""`torch.ops.aten.mm.default`, one form of an op."""
OpOverloadPacket = torch._ops.OpOverloadPacket
"""`torch.ops.aten.mm`, with all its forms."""

WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What activation checkpointing and torch.compile put into the names of the parameters of modules they wrap."""

RELIED_ON: Reasons = {
    "torch.nn.Module": {
        "_parameters": "handlers/model/quantize counts how many modules use a parameter",
        "_buffers": "Checkpoint gives buffers memory of their own; ActivationCheckpointing holds batch counts",
        "_modules": "the user's module is found in what torch.compile has wrapped",
        "_compiled_call_impl": "engines tell a module that was compiled in place",
        **dict.fromkeys(HOOKS, "layers that torchao exchanges take their hooks along"),
    },
    "torch.nn.Module.state_dict": {
        "_metadata": "Checkpoint keeps the versions of modules, by which torch reads older states",
    },
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": {
        "_checkpoint_wrapped_module": "parameters are known by the names that the user gave them",
    },
    "torch.compile": {
        "_orig_mod": "the user's module is found in what torch.compile has wrapped",
    },
    "torch.nn.modules.batchnorm": {
        "_BatchNorm": "statistics are refreshed, and shared among ranks, in all batch norms",
        "_NormBase": "ActivationCheckpointing and Freeze hold the statistics of all norms that have some",
    },
    "torch": {
        "_ops": "ActivationCheckpointing(selective=) tells ops from other things",
        "_dynamo": "Compile finds wrapped models, and raises torch's limit of compilations by their number",
    },
    "torch.sparse_coo_tensor": {
        "_indices": "windows are saved with sparse gradients as they are, not coalesced",
        "_values": "windows are saved with sparse gradients as they are, not coalesced",
    },
}


def buffers_of(module: nn.Module) -> MutableMapping[str, torch.Tensor | None]:
    """The module's own buffers by name, without those of its children; setting one sets it in the module."""
    return module._buffers


def own_parameters(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    """The module's own parameters by each of its names for them, without those of its children."""
    return module._parameters


def is_wrapped_by_compile(module: nn.Module) -> bool:
    """True for what `torch.compile(module)` gives, which holds the module."""
    return "_orig_mod" in module._modules


def unwrapped_of_compile(module: nn.Module) -> nn.Module:
    """The module that was given to torch.compile."""
    while is_wrapped_by_compile(module):
        inner = module._modules["_orig_mod"]
        assert inner is not None
        module = inner
    return module


def is_compiled(module: nn.Module) -> bool:
    """True for a module that torch.compile has wrapped, or compiled in place (`module.compile()`)."""
    return getattr(module, "_compiled_call_impl", None) is not None or is_wrapped_by_compile(module)


def recompile_limit() -> int:
    """How often torch.compile compiles a function anew before it gives it up."""
    return torch._dynamo.config.recompile_limit  # imported by torch when it is first asked for


def module_versions(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The versions of modules that a state dict carries, by which torch reads states of earlier releases."""
    versions: Mapping[str, Any] = getattr(state, "_metadata", {})
    return versions


def set_module_versions(state: Any, versions: Mapping[str, Any]) -> None:
    """Gives a state dict (an OrderedDict) such versions."""
    state._metadata = versions


def indices_and_values(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of a sparse tensor as they lie in it, several values for one place included."""
    return tensor._indices(), tensor._values()
