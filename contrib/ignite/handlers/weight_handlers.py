"""What Ignite's TensorboardLogger logs of a model at an event: weights and gradients, as numbers or histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from leyden.contrib.ignite.handlers.log_handlers import count_of
from leyden.engine import Engine

Whitelist = Sequence[str] | Callable[[str, nn.Parameter], bool] | None


class _OfModel:
    """Base. `whitelist`: beginnings of names, or a function of name and parameter; `tag`: what stands before names."""

    kind = "weights"
    of_gradients: ClassVar[bool] = False

    def __init__(self, model: nn.Module, tag: str | None = None, whitelist: Whitelist = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"{type(self).__name__} takes a module, but got {model!r}")
        self.model = model
        self.tag = tag
        self.weights = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if whitelist is None
            or (whitelist(name, parameter) if callable(whitelist) else name.startswith(tuple(whitelist)))
        ]

    def __call__(self, engine: Engine[Any, Any], logger: Any, event: Any) -> None:
        if not hasattr(logger, "writer"):
            raise RuntimeError(f"{type(self).__name__} works with TensorboardLogger, not {type(logger).__name__}")
        step = count_of(engine, event)
        for name, parameter in self.weights:
            tensor = parameter.grad if self.of_gradients else parameter
            if tensor is not None:
                self._log(logger, name.replace(".", "/"), tensor.detach(), step)

    def _name(self, name: str, kind: str) -> str:
        return "/".join([*([self.tag] if self.tag else ()), kind, name])

    def _log(self, logger: Any, name: str, tensor: torch.Tensor, step: int) -> None:
        raise NotImplementedError


class _Histogram(_OfModel):
    def _log(self, logger: Any, name: str, tensor: torch.Tensor, step: int) -> None:
        logger.writer.add_histogram(self._name(name, self.kind), tensor.float().cpu().numpy(), step)


class _Scalar(_OfModel):
    """`reduction` makes one number of a tensor, by default its norm."""

    def __init__(
        self,
        model: nn.Module,
        reduction: Callable[[torch.Tensor], Any] = torch.norm,
        tag: str | None = None,
        whitelist: Whitelist = None,
    ) -> None:
        super().__init__(model, tag, whitelist)
        if not callable(reduction):
            raise TypeError(f"reduction is a function of a tensor, but got {reduction!r}")
        number = reduction(torch.ones(4, 2))
        if isinstance(number, torch.Tensor) and number.ndim > 0:
            raise TypeError(f"reduction has to give one number, but gives a tensor of shape {tuple(number.shape)}")
        self.reduction = reduction

    def _log(self, logger: Any, name: str, tensor: torch.Tensor, step: int) -> None:
        kind = f"{self.kind}_{getattr(self.reduction, '__name__', 'reduction')}"
        logger.log_metrics({self._name(name, kind): self.reduction(tensor)}, step=step)


class WeightsScalarHandler(_Scalar):
    """One number of each weight: `weights_norm/<name>`."""


class WeightsHistHandler(_Histogram):
    """A histogram of each weight: `weights/<name>`."""


class GradsScalarHandler(_Scalar):
    """One number of each gradient: `grads_norm/<name>`. Where the engine has an Update, of those its step takes."""

    kind = "grads"
    of_gradients = True


class GradsHistHandler(_Histogram):
    """A histogram of each gradient: `grads/<name>`. Where the engine has an Update, of those its step takes."""

    kind = "grads"
    of_gradients = True
