"""Parts of a model that are not trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from leyden.engine import Engine, Events, Stage, Update
from leyden.handlers.model.frozen import HeldNorms, set_trainable
from leyden.handlers.model.naming import Outline, What, require_places


class Freeze:
    """Freezes parts of a model: their parameters get no gradient, their batch norms keep their running statistics.

    `parts`: each a dotted name of a module or a parameter ("encoder.layer1", which means all below it too), a class of
    modules, or a condition(name, module). Optimizers pass over what has no gradient: neither weight decay nor momentum
    moves it. Batch norms (and other modules with running statistics) in these parts are in eval mode in each forward
    pass inside `update.forward()`, also where a step calls model.train(); `train_batch_norm=True` leaves them out, so
    that their weights and statistics go on being trained. `update` names the one update it is for; by default all that
    have such a part.

    Raises ValueError for a part that no model has, and at the start of a run for an update with nothing left to train.
    """

    same_on_ranks = ("update",)

    def __init__(self, *parts: What, train_batch_norm: bool = False, update: str | None = None) -> None:
        if not parts:
            raise ValueError('Freeze takes what to freeze: names ("encoder"), classes (nn.Embedding) or conditions')
        for part in parts:
            if not isinstance(part, str) and not callable(part):
                raise TypeError(f"Freeze takes names, classes of modules and conditions, but got {part!r}")
        self.parts = parts
        self.train_batch_norm = train_batch_norm
        self.update = update

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = engine.targets(self.update, self)
        require_places(updates, self.parts, "Freeze")
        engine.setup.add(Stage.ADAPT, lambda: self._freeze(updates), owner=self)
        engine.add_event_handler(Events.STARTED, self.check, updates)

    def parameters(self, update: Update) -> list[nn.Parameter]:
        """The parameters that it freezes in an update's models."""
        if self.update not in (None, update.name):
            return []
        outline = Outline(update)
        places = self._places(outline)
        spared = outline.parameters_in(outline.norms_in(places)) if self.train_batch_norm else {}
        return [each for name, each in outline.parameters_in(places).items() if name not in spared]

    def _places(self, outline: Outline) -> list[str]:
        return [place for part in self.parts for place in outline.places(part)]

    def _freeze(self, updates: list[Update]) -> None:
        for update in updates:
            for parameter in self.parameters(update):
                set_trainable(parameter, False)
            if not self.train_batch_norm:
                outline = Outline(update)
                HeldNorms(update).hold(outline.norms_in(self._places(outline)).values())

    def check(self, engine: Engine[Any, Any], updates: list[Update]) -> None:
        """Raises ValueError if an update has nothing left to train."""
        for update in updates:
            if not update.trainable():
                raise ValueError(
                    f"update {update.name!r} has nothing left to train: each parameter of its optimizer is frozen. "
                    "Freeze less, or give the optimizer other parameters of the model"
                )
