"""A run that goes on from a checkpoint: restored, and told in what its script differs from that of the one before."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.messages import tell_differences
from leyden.handlers.checkpoint.state.script import Script, data_differences, scaler_differences
from leyden.handlers.checkpoint.state.training_state import Stateful, restore
from leyden.handlers.checkpoint.store.paths import StoragePath

logger = logging.getLogger(__name__)


class GoingOn:
    """`override`: the options of optimizers in which the script holds, and not the checkpoint."""

    def __init__(self, override: Sequence[str]) -> None:
        self.override = tuple(override)
        self.script = Script()
        self._path: StoragePath | None = None
        self._saved: Mapping[str, Any] = {}
        self._differences: list[str] = []

    def restore(self, engine: Engine[Any, Any], extra: Mapping[str, Stateful], path: StoragePath) -> None:
        """Puts everything back where it was. Raises ValueError for a checkpoint of something else."""
        contents = CheckpointContents.read(path)
        restore(engine, extra, contents)
        self._path, self._saved = path, contents.outline.get("script", {})
        scalers = [name for name, update in engine.updates.items() if update.slots.scaler is not None]
        self._differences = [
            *self.script.settle(engine, self._saved, self.override),
            *scaler_differences(contents.outline["scalers"], scalers),
            *engine.changed_handlers(),
        ]
        if dist.rank() == 0:
            state = engine.state
            logger.info("resumed from %s: epoch %d, iteration %d", path, state.epoch, state.iteration)
            print(f"Checkpoint: resumed from {path}: epoch {state.epoch}, iteration {state.iteration}", flush=True)

    def tell(self, engine: Engine[Any, Any]) -> None:
        """Once the data of the run is known: warns of what differs."""
        if self._path is not None:
            tell_differences(self._path, [*self._differences, *data_differences(engine, self._saved)])
            self._path = None
