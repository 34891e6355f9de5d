"""Less memory for more arithmetic: activations are recomputed instead of kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from leyden.engine import Engine, Stage, Update
from leyden.engine.values import as_whole
from leyden.handlers.common.updates import share_update
from leyden.handlers.model.blocks import repeated_blocks
from leyden.handlers.model.checkpointed import Checkpointed, ops_of
from leyden.handlers.model.naming import Outline, What, require_places


class ActivationCheckpointing:
    """Keeps only the inputs of blocks for the backward pass, which recomputes what lies within them.

    The blocks: by default those that the model repeats (children of one class in a ModuleList, Sequential or
    ModuleDict); `parts` names others as in `Freeze`: a dotted name, a class of modules or a condition(name, module), or
    several of these; where such are nested, the outermost. Of these each `every`-th. `selective`: ops whose results are
    kept all the same, those that cost most to compute again (`torch.ops.aten.mm.default`; `torch.ops.aten.mm` for all
    its forms). `update` names the one update it is for; by default all that have such blocks.

    In place: a block stays the object it was, only its `forward` is exchanged. Gradients, dropout and the statistics of
    batch norms are to the bit those of the run without it. By torch.utils.checkpoint, not reentrant.

    Raises ValueError for `every` below 1, a second one on the same update, a part that no model has, and where no block
    is found; TypeError for what is no part or no op.
    """

    def __init__(
        self,
        every: int = 1,
        *,
        parts: What | Iterable[What] = (),
        selective: Iterable[Any] | None = None,
        update: str | None = None,
    ) -> None:
        whole = as_whole(every)
        if whole is None or whole < 1:
            raise ValueError(f"ActivationCheckpointing takes each 1st, 2nd, ... block, but got every={every!r}")
        self.every = whole
        self.parts: tuple[What, ...] = (parts,) if isinstance(parts, str) or callable(parts) else tuple(parts)
        for part in self.parts:
            if not isinstance(part, str) and not callable(part):
                raise TypeError(f"parts= takes names, classes of modules and conditions, but got {part!r}")
        self.ops = ops_of(selective)
        self.update = update

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, ActivationCheckpointing) and share_update(self, other):
            return "give one of them all parts, parts=(A, B), or name the update that each is for"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        require_places(updates, self.parts, "ActivationCheckpointing")
        chosen = [self._chosen(update) for update in updates]
        if not any(chosen):
            meant = f"module at {self.parts}" if self.parts else "repeated block"
            there = ", ".join(Outline(update).classes() for update in updates)
            raise ValueError(
                f"ActivationCheckpointing finds no {meant} in the model, which has modules of the classes: {there}. "
                "Say which are its blocks, by parts= (a name, a class or a condition)"
            )
        engine.setup.add(Stage.ACTIVATION_CHECKPOINTING, lambda: self._exchange(updates), owner=self)

    def _exchange(self, updates: list[Update]) -> None:
        for update in updates:
            for block in self._chosen(update).values():
                block.forward = Checkpointed(block, self.ops)

    def _chosen(self, update: Update) -> dict[str, nn.Module]:
        """The blocks by name. Raises ValueError if there are some, but fewer than `every`."""
        if self.parts:
            outline = Outline(update)
            found = outline.outermost(place for part in self.parts for place in outline.places(part))
        else:
            found = {}
            for module in update.modules.values():
                found |= repeated_blocks(module)
        chosen = dict(list(found.items())[self.every - 1 :: self.every])
        if found and not chosen:
            raise ValueError(
                f"ActivationCheckpointing takes one block in {self.every}, and the model of update {update.name!r} has "
                f"only {len(found)}: {', '.join(found)}"
            )
        return chosen
