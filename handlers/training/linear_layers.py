"""Chooses the linear layers that torchao changes, and carries their hooks over to the new ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from torch import nn

from leyden.distributed.compat import HOOKS

LayerFilter = Collection[str] | Callable[[str, nn.Module], bool] | None
"""The linear layers of these names (whole, or their last parts: "attention.out", "out"); those of which a function of
name and module says so; or all."""


def choose_layers(
    modules: Mapping[str, nn.Module],
    layers: LayerFilter,
    misfit: Callable[[nn.Linear], str | None],
    who: str,
    *,
    exchanges: bool,
) -> dict[str, dict[str, nn.Linear]]:
    """The layers to change, by module and name. `misfit` says why one can't be changed; such are left out.

    `exchanges`: a layer will be another module, which can't be done to a model that is itself a layer.
    Raises ValueError if none is left, and if one that is asked for by name is not there or can't be changed.
    """
    if isinstance(layers, str):
        raise TypeError(f"{who} takes a list of names of layers, but got {layers!r}; write [{layers!r}]")
    asked = None if layers is None or callable(layers) else set(layers)
    chosen: dict[str, dict[str, nn.Linear]] = {}
    problems: list[str] = []
    met: set[str] = set()
    for key, name, layer in _linear_layers(modules):
        matches = {each for each in asked or () if name == each or name.endswith(f".{each}")}
        met |= matches
        if (asked is not None and not matches) or (callable(layers) and not layers(name, layer)):
            continue
        reason = _unfit(layer) or misfit(layer)
        if exchanges and not name:
            reason = "the model is itself the layer, and stays the user's object; wrap it: nn.Sequential(layer)"
        if reason is None:
            chosen.setdefault(key, {})[name] = layer
        else:
            problems.append(f"{name or key}: {reason}")
    if asked is not None and (missing := sorted(asked - met)):
        there = ", ".join(name for _, name, _ in _linear_layers(modules)) or "none"
        raise ValueError(f"{who} names {', '.join(missing)}, but the linear layers are: {there}")
    if problems and (asked is not None or not chosen):
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{who} can't change " + "; ".join(problems[:3]) + more)
    if not chosen:
        kinds = ", ".join(type(module).__name__ for module in modules.values())
        raise ValueError(f"{who} changes linear layers (nn.Linear), and finds none to change in {kinds}")
    return chosen


def carry_over(layers: Mapping[str, nn.Module], model: nn.Module) -> None:
    """Gives the modules that took the places of layers, by name, their mode and hooks; hooks' handles stay good."""
    for name, before in layers.items():
        now = model.get_submodule(name)
        if now is not before:
            now.train(before.training)
            now.__dict__.update({kind: before.__dict__[kind] for kind in HOOKS})


def is_torchaos(value: object) -> bool:
    """A layer or a weight that torchao made."""
    return type(value).__module__.startswith("torchao.")


def _linear_layers(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, nn.Linear]]:
    for key, module in modules.items():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                yield key, name, layer


def _unfit(layer: nn.Linear) -> str | None:
    """The reason why torchao can't change the layer at all; None if it can."""
    if nn.parameter.is_lazy(layer.weight):
        return "it has no shape yet; run the model once before"
    if nn.utils.parametrize.is_parametrized(layer):
        return "its weight is parametrized"
    if is_torchaos(layer) or is_torchaos(layer.weight):
        return "torchao has changed it already"
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "attention reads its weight without calling it"
    return None
