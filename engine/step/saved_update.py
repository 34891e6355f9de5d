"""What of an update is saved and restored: its steps, the scaler, an open window with its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine.step.batch_count import BatchCount
from leyden.engine.step.optimized import Optimized
from leyden.engine.step.span import Spanned
from leyden.engine.step.window import gradients_by_name, merge, put_gradients


class SavedUpdate(BatchCount, Optimized, Spanned):
    """The state of an `Update`. The step itself is there."""

    steps: int
    _scaler_state: dict[str, Any] | None
    _gradients: dict[str, Any] | None

    def state_dict(self) -> dict[str, Any]:
        """What all ranks share: steps, the scaler's state, and of an open window the gradients that are shards."""
        scaler = self.slots.scaler
        state: dict[str, Any] = {"steps": self.steps}
        if scaler is not None:
            state["scaler"] = scaler.state_dict()
        if self._several:
            state["several"] = True
        return state | ({"gradients": shards} if (shards := self._open_gradients(sharded=True)) else {})

    def rank_state_dict(self) -> dict[str, Any]:
        """What this rank has for itself: an open window, with gradients that are not synchronised yet; the tensors are
        the live ones. Empty between two windows.
        """
        if self.is_between_windows():
            return {}
        state = {
            "done": self._done,
            "size": self._size,
            "divisor": self._divisor,
            "weight": self._weight,
            "gradients": self._open_gradients(sharded=False),
        }
        return state | ({"open": True} if self.batch_open else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        self._several = state_dict.get("several", False)
        self._scaler_state = state_dict.get("scaler")
        self._restore_scaler()
        self._done, self._weight, self.batch_open = 0, None, False
        self._gradients = dict(state_dict.get("gradients", {}))

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on in the window that was open; after `load_state_dict`. `states`: those of all ranks that were saved.
        Of as many as there are now this rank takes its own; of another number rank r of R takes the sum of the ranks
        r, r + R, r + 2R, ..., scaled for the mean over the ranks.
        """
        rank, ranks = dist.data_rank(), dist.data_size()
        sharded = any(map(dist.is_sharded, self.trainable()))
        if len(states) != ranks:
            window = merge(states, rank, ranks, sharded=sharded)
        else:
            window = states[rank]
            if window and window["gradients"] and sharded and ranks > 1:
                raise ValueError(
                    f"update {self.name!r} was saved inside an accumulation window, with gradients of whole parameters "
                    "that each rank had for itself, and has sharded ones now: they can't become shards. Go on with "
                    "replicas, from a checkpoint between two windows, or with another number of ranks"
                )
        if not window:
            return
        self._done, self._size, self._divisor = window["done"], window["size"], window["divisor"]
        self._full = self._size
        self._weight, self.batch_open = window["weight"], window.get("open", False)
        self._to_be_reduced = self.batch_open
        self._gradients = {**(self._gradients or {}), **window["gradients"]}

    def _open_gradients(self, *, sharded: bool) -> dict[str, Any]:
        if self.is_between_windows():
            return {}
        if self._gradients is not None:
            loaded = self._gradients.items()
            return {
                name: data
                for name, data in loaded
                if (isinstance(data, torch.Tensor) and dist.is_sharded(data)) is sharded
            }
        return gradients_by_name(self, sharded=sharded)

    def _restore_window(self) -> None:
        """Gives the parameters the gradients of a loaded window, now that they are those that will be trained."""
        gradients, self._gradients = self._gradients, None
        if gradients is None or self.is_between_windows():
            return
        put_gradients(self, gradients)
        if isinstance(self._weight, torch.Tensor):
            self._weight = self._weight.to(self.trainable()[0].device, copy=True)

    def _restore_scaler(self) -> None:
        """Gives the scaler its saved state, which waits where the scaler is attached only later."""
        if self._scaler_state is not None and self.slots.scaler is not None:
            self.slots.scaler.load_state_dict(self._scaler_state)
            self._scaler_state = None
