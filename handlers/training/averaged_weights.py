"""The averages of one update's parameters, and how they are swapped into the model and out again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.distributed.compat import foreach_copy_
from leyden.engine import Update
from leyden.engine.step import named_parameters
from leyden.handlers.common.updates import trained_elsewhere

Lists = tuple[list[torch.Tensor], list[torch.Tensor]]


class AveragedWeights:
    """An average of each parameter that one update trains, in memory of its own.

    It has the parameter's dtype, or fp32 where that has less, and is a shard where the parameter is one. A parameter
    that is frozen has none, until it is trained: what it is then begins its average. One that several modules share
    has one; one that another update trains is left to that.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.count = 0
        """How many weights have been averaged. The first are copied; before that there is no average."""
        self.frozen: list[nn.Parameter] = []
        """Parameters without an average."""
        self._averages: dict[str, torch.Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._groups: list[tuple[list[torch.Tensor], list[torch.Tensor]]] | None = None
        self._saved: dict[str, Any] | None = None  # loaded before the model was ready
        self._ready = False
        self._loaded = False  # since the last run that averaged
        self._swaps = 0
        self._kept: tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor, int]]] = ([], [])

    # -- averaging -------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """At the start of a run, once the model is set up: makes the averages, or keeps the existing ones. A run from
        the beginning resets them.
        """
        self._ready = True
        if self.update.engine.state.iteration == 0 and not self._loaded:
            self.count = 0
        self.collect()
        if self._saved is not None:
            saved, self._saved = self._saved, None
            self.load_state_dict(saved)

    @torch.no_grad()
    def collect(self) -> None:
        """Gives an average to each parameter that is trained and has none."""
        foreign = trained_elsewhere(self.update)
        dist.reshard(self.update.modules.values())
        averages, self._parameters, self.frozen, self._groups = self._averages, {}, [], None
        self._averages = {}
        seen: set[int] = set()
        for name, parameter in named_parameters(self.update.modules).items():
            if id(parameter) in seen or id(parameter) in foreign or nn.parameter.is_lazy(parameter):
                continue
            seen.add(id(parameter))
            if name in averages:
                self._averages[name] = averages[name].to(dist.local_part(parameter).device)
            elif parameter.requires_grad:
                self._averages[name] = _copy(dist.local_part(parameter))
            else:
                self.frozen.append(parameter)
                continue
            self._parameters[name] = parameter

    def groups(self) -> list[Lists]:
        """Averages and parameters in two lists, for each device and dtype; made at the first step of a run, since
        torch may still move shards before that.
        """
        if self._groups is None:
            self._loaded = False
            self.collect()
            made: dict[Any, Lists] = {}
            with torch.no_grad():
                for name, average in self._averages.items():
                    value = dist.local_part(self._parameters[name])
                    averages, values = made.setdefault((value.device, value.dtype), ([], []))
                    averages.append(average)
                    values.append(value)
            self._groups = list(made.values())
        return self._groups

    def require_own(self) -> None:
        """Raises RuntimeError while the averages are in the model: what was trained would be lost when they go."""
        if self._swaps:
            raise RuntimeError(
                "the model was trained while its averaged weights were swapped in, and the step would be lost when "
                "they are swapped out; train outside of `with swapped():` and of evaluations"
            )

    # -- in the model ----------------------------------------------------------------------------------------

    @property
    def modules(self) -> list[nn.Module]:
        return list(self.update.modules.values())

    @torch.no_grad()
    def put(self) -> None:
        """Copies the averages into the model, for good."""
        averages, values = self._everything()
        foreach_copy_(values, averages)

    @torch.no_grad()
    def swap_in(self) -> None:
        """Puts the averages into the model until `swap_out`; does nothing if they are in it already or there are
        none.
        """
        if self._swaps == 0 and self.count > 0:
            averages, values = self._everything()
            buffers = [dist.local_part(buffer) for module in self.modules for buffer in module.buffers()]
            buffers = [buffer for buffer in buffers if not nn.parameter.is_lazy(buffer)]
            self._kept = (
                [value.clone() for value in values],
                [(buffer, buffer.clone(), buffer._version) for buffer in buffers],
            )
            foreach_copy_(values, averages)
        self._swaps += 1

    @torch.no_grad()
    def swap_out(self) -> None:
        """Gives the model its own weights and buffers back, to the bit."""
        self._swaps -= 1
        weights, buffers = self._kept
        if self._swaps or not weights:
            return
        self._kept = ([], [])
        _, values = self._everything()
        foreach_copy_(values, weights)
        for buffer, kept, version in buffers:
            if buffer._version != version:  # one that shares memory with itself could not be written to
                buffer.copy_(kept)

    def _everything(self) -> Lists:
        dist.reshard(self.modules)
        return list(self._averages.values()), [dist.local_part(self._parameters[name]) for name in self._averages]

    # -- state -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The tensors are the live ones; those of sharded parameters are sharded in the same way."""
        if self._saved is not None:
            return self._saved
        tensors = {name: dist.as_shard_of(self._parameters[name], average) for name, average in self._averages.items()}
        return {"count": self.count, "averages": tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over such a state, whole or sharded in any way, once the model is ready for it.

        Raises ValueError if it has an average that does not fit the model.
        """
        if not self._ready:
            self._saved = state
            return
        dist.reshard(self.modules)
        parameters = named_parameters(self.update.modules)
        averages: dict[str, torch.Tensor] = {}
        for name, value in state["averages"].items():
            if name not in parameters or parameters[name].shape != value.shape:
                there = f"shape {tuple(parameters[name].shape)}" if name in parameters else "no such parameter"
                raise ValueError(
                    f"the saved averages have {name} of shape {tuple(value.shape)}, but the model of update "
                    f"{self.update.name!r} has {there}: they are another model's"
                )
            averages[name] = _copy(dist.shard_for(value, parameters[name]), like=dist.local_part(parameters[name]))
        self._averages = averages
        self.count = state["count"]
        self._loaded = True
        self.collect()


def _copy(value: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
    """In memory of its own, laid out and in the dtype that an average of `like` has."""
    like = value if like is None else like
    return torch.empty_like(like, dtype=torch.promote_types(like.dtype, torch.float32)).copy_(value)
