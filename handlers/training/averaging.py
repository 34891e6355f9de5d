"""The base of handlers that average weights: when averages are made, swapped into the model, and saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage, Update
from leyden.engine.step import plain_name
from leyden.handlers.checkpoint.state.model_state import unwrapped
from leyden.handlers.common.updates import share_update
from leyden.handlers.training.averaged_weights import AveragedWeights

"""Around all others of an event: whoever looks at the model in an evaluation sees the averages."""


class Averaging:
    """Base of handlers that average the weights of a run; a subclass says when in `listen`, and how.

    With `evaluate`, each run of an evaluator that the trainer knows (`Evaluate`) finds the averages in the model, from
    its STARTED to its CLOSED, also when it is run by hand later.
    """

    told_apart_by = ("update",)
    refuses_second_engine = True
    settings: tuple[str, ...] = ("evaluate",)

    @property
    def same_on_ranks(self) -> tuple[str, ...]:
        return ("update", *self.settings)

    def __init__(self, *, evaluate: bool, update: str | None) -> None:
        self.evaluate = evaluate
        self.update = update
        self._weights: dict[str, AveragedWeights] = {}

    def attach(self, engine: Engine[Any, Any]) -> None:
        if self._weights:
            raise ValueError(f"this {type(self).__name__} is attached to an engine already; make one for each")
        for update in engine.targets(self.update, self):
            weights = self._weights[update.name] = AveragedWeights(update)
            engine.setup.add(Stage.AVERAGE, weights.set_up, owner=self, each_run=True)
            self.listen(engine, update, weights)

    def listen(self, engine: Engine[Any, Any], update: Update, weights: AveragedWeights) -> None:
        """Adds the handlers that average the weights of one update."""
        raise NotImplementedError

    def refuses(self, other: object) -> str | None:
        if isinstance(other, Averaging) and self.evaluate and other.evaluate and share_update(self, other):
            return "an evaluation would find the weights of both in one model; give evaluate=False to one of them"
        return None

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Swaps the averages into the model while the evaluator runs."""
        if not self.evaluate:
            return
        swaps = ExitStack()
        # CLOSED comes also where another handler of STARTED has failed before this one: the stack is then empty.
        engine.add_event_handler(
            Events.STARTED, lambda: swaps.enter_context(self.swapped()), order=Order.BEFORE_METRICS
        )
        engine.add_event_handler(Events.CLOSED, swaps.close, order=Order.AFTER_SAVERS)

    # -- the averages, for use -------------------------------------------------------------------------------

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within this context the model has the averaged weights; afterwards it has its own weights and buffers again,
        to the bit.

        Within another `swapped()`, or an evaluation that has swapped, it changes nothing; so it does before the first
        average, when the model's own weights are all there is. Raises RuntimeError at an optimizer step within it.
        """
        with ExitStack() as stack:
            for weights in self._weights.values():
                weights.swap_in()
                stack.callback(weights.swap_out)
            yield

    def averaged(self, module: nn.Module | None = None) -> dict[str, Any]:
        """The state_dict of the averaged model, in memory of its own: averaged where a parameter is trained; frozen
        parameters and buffers as the model has them now.

        `module`: which of the trained modules, where there are several. Of a sharded model the tensors are shards.
        """
        source = self._source(module)
        with self.swapped(), torch.no_grad():
            state = unwrapped(source).state_dict()
            return {
                plain_name(name): value.detach().clone() if isinstance(value, torch.Tensor) else value
                for name, value in state.items()
            }

    @torch.no_grad()
    def copy_to(self, model: nn.Module, module: nn.Module | None = None) -> None:
        """Copies the averaged model into another of the same form: parameters and buffers, all of them.

        `module`: which of the trained modules it is, where there are several. Shards are gathered where `model` has
        none; all ranks then call this. Raises ValueError for a model of another form.
        """
        source = self._source(module)
        targets = _tensors(model)
        with self.swapped():
            values = _tensors(source)
            differ = [name for name in {**values, **targets} if _shape(values, name) != _shape(targets, name)]
            if differ:
                name = differ[0]
                raise ValueError(
                    f"{type(self).__name__} averages a {type(unwrapped(source)).__name__}, and the "
                    f"{type(model).__name__} to copy to has another form: {name} is {_shape(values, name)} there and "
                    f"{_shape(targets, name)} here"
                )
            for name, target in targets.items():
                value: Any = values[name]
                target.copy_(value.full_tensor() if dist.is_sharded(value) and not dist.is_sharded(target) else value)

    def _source(self, module: nn.Module | None) -> nn.Module:
        modules = [each for weights in self._weights.values() for each in weights.modules]
        if module is not None and any(module is each for each in modules):
            return module
        if module is None and len(modules) == 1:
            return modules[0]
        there = ", ".join(type(unwrapped(each)).__name__ for each in modules) or "none: attach it to an engine first"
        what = "which of them is meant is not said" if module is None else f"not this {type(module).__name__}"
        raise ValueError(f"the modules that {type(self).__name__} averages are: {there}; {what}, give module=")

    # -- state -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"updates": {name: weights.state_dict() for name, weights in self._weights.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads such a state. Raises ValueError if it belongs to other updates or another model."""
        saved = state_dict["updates"]
        if saved.keys() != self._weights.keys():
            there, here = (", ".join(map(repr, names)) or "none" for names in (saved, self._weights))
            raise ValueError(
                f"the saved {type(self).__name__} has averages of the updates {there}; this one, of {here}"
            )
        for name, weights in self._weights.items():
            weights.load_state_dict(saved[name])


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    model = unwrapped(model)
    tensors = dict[str, torch.Tensor]([*model.named_parameters(), *model.named_buffers()])
    return {plain_name(name): tensor for name, tensor in tensors.items()}


def _shape(tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
