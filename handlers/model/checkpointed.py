"""A forward function that keeps only its inputs, set on a module in place of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from leyden.distributed.compat import BUFFERS, NormWithStatistics, OpOverload, OpOverloadPacket


class Checkpointed:
    """Calls a module's `forward` under torch.utils.checkpoint; the results of `ops` are kept.

    An object and not a closure: a deep copy of the module has a deep copy of this, bound to the copy; and a function of
    ours and not torch's in a partial: dynamo compiles no frame of torch's own, so that a module compiled by itself
    needs one here.
    """

    def __init__(self, module: nn.Module, ops: tuple[OpOverload, ...]) -> None:
        forward = module.forward
        # One that an earlier engine put there, for the same model, is not put into another.
        self.forward: Callable[..., Any] = forward.forward if isinstance(forward, Checkpointed) else forward
        self.norms = [each for each in module.modules() if isinstance(each, NormWithStatistics)]
        self._set_ops(ops)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # What is compiled updates statistics once by construction, and takes no context but the selective one.
        options = self.compiled if torch.compiler.is_compiling() else self.eager
        return checkpoint(self.forward, *args, use_reentrant=False, **options, **kwargs)

    def _set_ops(self, ops: tuple[OpOverload, ...]) -> None:
        self.ops = ops
        select = functools.partial(create_selective_checkpoint_contexts, list(ops)) if ops else None
        self.compiled = {} if select is None else {"context_fn": select}
        self.eager: dict[str, Any] = self.compiled
        if self.norms:
            kept = _StatisticsKept(self.norms)
            both = kept.contexts if select is None else functools.partial(kept.contexts_with, select)
            self.eager = {"context_fn": both}

    def __getstate__(self) -> dict[str, Any]:
        return {"forward": self.forward, "norms": self.norms, "ops": [str(op) for op in self.ops]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.forward, self.norms = state["forward"], state["norms"]
        self._set_ops(tuple(functools.reduce(getattr, name.split("."), torch.ops) for name in state["ops"]))  # type: ignore[arg-type]


Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
NO_CONTEXT = nullcontext()


class _StatisticsKept:
    """Lets batch norms compute in training mode, with the same tensors saved, without a second update of their running
    statistics.

    One object for all steps, and the dicts behind the modules' attributes: setting these costs a module several calls.
    """

    def __init__(self, norms: list[NormWithStatistics]) -> None:
        self._dicts = [vars(norm) for norm in norms]  # while a copy is made they are still empty

    def __enter__(self) -> None:
        self._before = [(values["momentum"], values[BUFFERS]["num_batches_tracked"]) for values in self._dicts]
        for values in self._dicts:
            values["momentum"] = 0.0
            values[BUFFERS]["num_batches_tracked"] = None

    def __exit__(self, *_: object) -> None:
        for values, (momentum, batches) in zip(self._dicts, self._before, strict=True):
            values["momentum"] = momentum
            values[BUFFERS]["num_batches_tracked"] = batches

    def contexts(self) -> Contexts:
        """Contexts for the forward pass and for its repetition."""
        return NO_CONTEXT, self

    def contexts_with(self, select: Callable[[], Contexts]) -> Contexts:
        """The same contexts if results of ops are kept."""
        forward, again = select()
        return forward, self._beside(again)

    @contextmanager
    def _beside(self, other: AbstractContextManager[Any]) -> Iterator[None]:
        with self, other:
            yield


def ops_of(given: Iterable[Any] | None) -> tuple[OpOverload, ...]:
    """The ops as torch counts them: each overload of `torch.ops.aten.mm` by itself. Raises TypeError for anything that
    is not an op.
    """
    ops: list[OpOverload] = []
    for op in given or ():
        if isinstance(op, OpOverloadPacket):
            ops.extend(getattr(op, form) for form in op.overloads())
        elif isinstance(op, OpOverload):
            ops.append(op)
        else:
            raise TypeError(f"selective= takes ops such as torch.ops.aten.mm.default, but got {op!r}")
    return tuple(ops)
