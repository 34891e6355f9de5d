"""Less memory for more arithmetic: activations computed a second time instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from leyden.engine import Engine, Stage, Update
from leyden.handlers.model.blocks import repeated_blocks
from leyden.handlers.model.checkpointed import Checkpointed, ops_of
from leyden.handlers.model.naming import Outline
from leyden.handlers.updates import share_update

Predicate = Callable[[str, nn.Module], bool]


class ActivationCheckpointing:
    """Keeps only the inputs of blocks for the backward pass, which computes what is in them a second time.

    The blocks: by default those that the model repeats (children of one class in a ModuleList, Sequential or
    ModuleDict); `modules`, a class or several, or `predicate(name, module)` choose others, the outermost where they are
    nested. Of these each `every`-th. `selective`: ops whose results are kept all the same, those that cost most to
    compute again (`torch.ops.aten.mm.default`; `torch.ops.aten.mm` for all its forms). `update` names the one update it
    is for; by default all.

    In place: a block stays the object it was, only its `forward` is exchanged. Gradients, dropout and the statistics of
    batch norms are to the bit those of the run without it. By torch.utils.checkpoint, not reentrant.

    Raises ValueError for `every` below 1, both `modules` and `predicate`, a second one on the same update, and where no
    block is found; TypeError for what is no op.
    """

    def __init__(
        self,
        every: int = 1,
        *,
        modules: type[nn.Module] | Iterable[type[nn.Module]] | None = None,
        predicate: Predicate | None = None,
        selective: Iterable[Any] | None = None,
        update: str | None = None,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"ActivationCheckpointing takes each 1st, 2nd, ... block, but got every={every!r}")
        if modules is not None and predicate is not None:
            raise ValueError("ActivationCheckpointing takes modules= (classes) or predicate=, but got both")
        self.every = every
        self.classes = None if modules is None else (modules,) if isinstance(modules, type) else tuple(modules)
        for each in self.classes or ():
            if not isinstance(each, type):
                raise TypeError(f"modules= takes classes of modules, but got {each!r}; for names use predicate=")
        self.predicate = predicate
        self.ops = ops_of(selective)
        self.update = update

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, ActivationCheckpointing) and share_update(self, other):
            return "give one of them all classes, modules=(A, B), or name the update that each is for"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        for update in updates:
            self._chosen(update)
        engine.setup.add(Stage.ACTIVATION_CHECKPOINTING, lambda: self._exchange(updates), owner=self)

    def _exchange(self, updates: list[Update]) -> None:
        for update in updates:
            for block in self._chosen(update).values():
                block.forward = Checkpointed(block, self.ops)

    def _chosen(self, update: Update) -> dict[str, nn.Module]:
        """The blocks by name. Raises ValueError if there is none."""
        found: dict[str, nn.Module] = {}
        for module in update.modules.values():
            found |= self._outermost(module, "")
        chosen = dict(list(found.items())[self.every - 1 :: self.every])
        if chosen:
            return chosen
        if found:
            raise ValueError(
                f"ActivationCheckpointing takes each {self.every}. block, and the model of update {update.name!r} has "
                f"only {len(found)}: {', '.join(found)}"
            )
        if self.classes is not None:
            meant = " or ".join(each.__name__ for each in self.classes)
        else:
            meant = "repeated block" if self.predicate is None else f"module that satisfies {self.predicate!r}"
        raise ValueError(
            f"ActivationCheckpointing finds no {meant} in the model of update {update.name!r}, which has modules of "
            f"the classes: {Outline(update).classes()}. Choose by modules= (classes) or predicate=(name, module)"
        )

    def _outermost(self, module: nn.Module, name: str) -> dict[str, nn.Module]:
        if self.classes is None and self.predicate is None:
            return repeated_blocks(module)
        if isinstance(module, self.classes) if self.classes is not None else self.predicate(name, module):  # type: ignore[misc]
            return {name: module}
        found: dict[str, nn.Module] = {}
        for key, child in module.named_children():
            found |= self._outermost(child, f"{name}.{key}" if name else key)
        return found
