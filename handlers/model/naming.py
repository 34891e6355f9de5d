"""Finds parts of models by what a user calls them: a dotted name, a class, or a condition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from leyden.distributed.compat import NormWithStatistics
from leyden.engine import Update
from leyden.engine.step import plain_name

What = str | type[nn.Module] | Callable[[str, nn.Module], bool]


class Outline:
    """The submodules and parameters of an update's models, by names without what wrapping a module adds to them.

    Where an update has several models, a name begins with the model's place ("0/encoder.layer1"); one given without it
    means each model that has such a part.
    """

    def __init__(self, update: Update) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        for key, model in update.modules.items():
            prefix = "" if len(update.modules) == 1 else f"{key}/"
            # With duplicates: what is shared goes by each of its names.
            for name, module in model.named_modules(remove_duplicate=False):
                self.modules[prefix + plain_name(f"{name}.").removesuffix(".")] = module
            for name, parameter in model.named_parameters(remove_duplicate=False):
                self.parameters[prefix + plain_name(name)] = parameter

    def places(self, what: What) -> list[str]:
        """The full names of all matching parts."""
        if isinstance(what, str):
            return [name for name in (*self.modules, *self.parameters) if what in (name, name.partition("/")[2])]
        if isinstance(what, type):
            return [name for name, module in self.modules.items() if isinstance(module, what)]
        return [name for name, module in self.modules.items() if what(name, module)]

    def outermost(self, places: Iterable[str]) -> dict[str, nn.Module]:
        """The modules at these places, each once, without those that are inside of others of them."""
        meant = set(places)
        found: dict[int, tuple[str, nn.Module]] = {}
        for name, module in self.modules.items():
            if name in meant and not _inside(name, meant - {name}):
                found.setdefault(id(module), (name, module))
        return dict(found.values())

    def parameters_in(self, places: Iterable[str]) -> dict[str, nn.Parameter]:
        """The parameters at these places and below."""
        return {name: each for name, each in self.parameters.items() if _inside(name, places)}

    def norms_in(self, places: Iterable[str]) -> dict[str, nn.Module]:
        """The modules with running statistics (batch norms, mostly) at these places and below."""
        return {
            name: module
            for name, module in self.modules.items()
            if isinstance(module, NormWithStatistics) and module.track_running_stats and _inside(name, places)
        }

    def near(self, name: str) -> str:
        """For a name that does not exist: the children of the deepest part that it leads to."""
        parts = name.split(".")
        depth = next((n for n in range(len(parts) - 1, 0, -1) if self.places(".".join(parts[:n]))), 0)
        stem = ".".join(parts[:depth])
        children: dict[str, None] = {}
        for place in self.places(stem) if stem else [each for each in self.modules if _is_root(each)]:
            prefix = place if _is_root(place) else f"{place}."
            for each in (*self.modules, *self.parameters):
                if each.startswith(prefix) and each != place:
                    children[prefix + each[len(prefix) :].partition(".")[0]] = None
        return ", ".join(children) or f"{stem}, which has no parts"

    def classes(self) -> str:
        """The names of all classes of modules that are there."""
        return ", ".join(dict.fromkeys(type(module).__name__ for module in self.modules.values()))


def require_places(updates: Sequence[Update], whats: Sequence[What], who: str) -> None:
    """Raises ValueError for the first of `whats` that matches nothing in any of the updates' models."""
    outlines = [Outline(update) for update in updates]
    for what in whats:
        if any(outline.places(what) for outline in outlines):
            continue
        if isinstance(what, str):
            there = ", ".join(outline.near(what) for outline in outlines)
            raise ValueError(f"{who} names {what!r}, but the model has: {there}")
        there = ", ".join(outline.classes() for outline in outlines)
        meant = f"a {what.__name__}" if isinstance(what, type) else f"a module that satisfies {what!r}"
        raise ValueError(f"{who} looks for {meant}, but the model has only modules of the classes: {there}")


def _is_root(place: str) -> bool:
    return place == "" or place.endswith("/")


def _inside(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(place if _is_root(place) else f"{place}.") for place in places)
