"""What the script says beside what a checkpoint says. Where they differ it is told once, and which of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from leyden import distributed as dist
from leyden.distributed.compat import last_rates
from leyden.engine import Engine, Update
from leyden.engine.data import known_length
from leyden.engine.step import LateOptimizer, groups_before
from leyden.handlers.searching.learning_rates import schedulers_of

UNTOLD = frozenset(
    {"params", "param_names", "foreach", "fused", "capturable", "differentiable", "initial_lr", "min_lr", "swa_lr"}
)
"""Options of an optimizer's groups that change no number, or follow from others."""
NEEDS_STATE = frozenset({"amsgrad", "centered"})
"""Options with which an optimizer looks for a state that it has not kept without them."""

Groups = list[dict[str, Any]]


def optimizer_options(engine: Engine[Any, Any]) -> dict[str, Groups]:
    """The options of each optimizer's groups by update, as plain data, as they are now."""
    return {
        name: [_options(group) for group in update.optimizer.param_groups] for name, update in engine.updates.items()
    }


def data_options(engine: Engine[Any, Any]) -> dict[str, Any]:
    """What is known of the data that the user gave: batch size, sampler, batches and samples of a pass."""
    data = engine.run_data.given
    sampler, samples = getattr(data, "sampler", None), known_length(getattr(data, "dataset", None))
    size, batches = getattr(data, "batch_size", None), known_length(data)
    found = {
        "batch size": size if isinstance(size, int) else None,
        "sampler": None if sampler is None else type(sampler).__name__,
        "samples": samples,
        "batches": batches if batches is not None and batches < 2**63 else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def limits(engine: Engine[Any, Any]) -> dict[str, Any]:
    """The limits of the run."""
    return {name: getattr(engine.state, name) for name in ("max_epochs", "max_iters")}


class Script:
    """What the script said of its optimizers before anything was restored into them."""

    def __init__(self) -> None:
        self.optimizers: dict[str, Groups] = {}
        self._late: list[str] = []  # updates whose optimizers the setup makes

    def take(self, engine: Engine[Any, Any]) -> None:
        """Notes what the script says, as the setup of a run begins."""
        self.optimizers = optimizer_options(engine)
        self._late = [name for name, each in engine.updates.items() if isinstance(each.optimizer, LateOptimizer)]

    def take_late(self, engine: Engine[Any, Any]) -> None:
        """The same for optimizers that are made in the setup of a run, once they are."""
        options = optimizer_options(engine)
        self.optimizers |= {name: options[name] for name in self._late}

    def state_dict(self, engine: Engine[Any, Any]) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "data": data_options(engine), "limits": limits(engine)}

    def settle(self, engine: Engine[Any, Any], saved: Mapping[str, Any], override: Sequence[str]) -> list[str]:
        """After the optimizers were restored: lets the script win in the options that `override` names; gives, in
        words, in which others it does not.

        Raises ValueError for an option that no optimizer has, or that can't be changed in mid-run.
        """
        self._check(engine, override)
        told = []
        for name, update in engine.updates.items():
            theirs = saved.get("optimizers", {}).get(name, [])
            ours = self.optimizers.get(name, [])
            for place, (mine, old) in enumerate(zip(ours, theirs, strict=False)):
                where = f"update {name!r}" + (f", group {place}" if len(ours) > 1 else "")
                for option in (mine.keys() & old.keys()) - {"initial_lr"}:
                    if option == "lr" and option in override:
                        _set_rate(engine, update, place, mine, old)
                    if mine[option] == old[option]:
                        continue
                    if option not in override:
                        told.append(
                            f"{option} of {where}: {mine[option]!r} in the script, {old[option]!r} in the checkpoint, "
                            f'which holds; override=("{option}",) lets the script win'
                        )
                        mine[option] = old[option]
                    elif option != "lr":
                        _put(update.optimizer.param_groups[place], option, mine[option])
        return sorted(told)

    def _check(self, engine: Engine[Any, Any], override: Iterable[str]) -> None:
        there = {option for groups in self.optimizers.values() for group in groups for option in group}
        for option in override:
            if option in NEEDS_STATE:
                raise ValueError(
                    f"override= can't name {option!r}: the optimizer would look for a state that the checkpoint does "
                    "not have. Begin a new run from the weights alone (load_weights)"
                )
            if engine.updates and option not in there:
                raise ValueError(
                    f"override= names {option!r}, but the options of the optimizers are: {', '.join(sorted(there))}"
                )


def data_differences(engine: Engine[Any, Any], saved: Mapping[str, Any], ranks: int) -> list[str]:
    """In words: in what the data, or the run's limits, are others than those of the run that is gone on with, whose
    data were dealt to so many ranks. Batches that are as large over all ranks are no others.
    """
    old, new = saved.get("data", {}), data_options(engine)
    differ = [name for name in new if name in old and new[name] != old[name]]
    told = []
    if "batch size" in old and "batch size" in new:
        told = _batch_size_difference(old["batch size"], ranks, new["batch size"], dist.data_size())
    if "batches" in differ and len(differ) > 1:  # follows from the rest
        differ.remove("batches")
    others = [name for name in differ if name != "batch size"]
    told += [f"{name} of the data: {new[name]!r} now, {old[name]!r} when it was saved" for name in others]
    if others and engine.cursor.epoch_open:
        told[-1] += "; the open epoch goes on where it was in the old order, so samples may be missed or come twice"
    for name, limit in limits(engine).items():
        before = saved.get("limits", {}).get(name)
        if limit is not None and isinstance(before, int) and limit < before:
            told.append(f"{name}: {limit} now, {before} when it was saved; the run ends earlier")
    return told


def _batch_size_difference(old: int, old_ranks: int, new: int, new_ranks: int) -> list[str]:
    if old * old_ranks == new * new_ranks:
        return []
    if old_ranks == new_ranks:
        return [f"batch size of the data: {new} now, {old} when it was saved"]
    now = f"{new_ranks * new} now ({new_ranks} x {new})"
    then = f"{old_ranks * old} when it was saved ({old_ranks} x {old})"
    return [f"batch size of the data over all ranks: {now}, {then}"]


def scaler_differences(saved: Iterable[str], present: Iterable[str]) -> list[str]:
    """In words: which updates have a gradient scaler (fp16) only here, or only in the checkpoint."""
    there, here = set(saved), set(present)
    return [
        *(
            f"update {name!r} was trained with a gradient scaler (fp16), and is not now"
            for name in sorted(there - here)
        ),
        *(f"update {name!r} has a gradient scaler (fp16) now, which begins anew" for name in sorted(here - there)),
    ]


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _plain(value) for name, value in group.items() if name not in UNTOLD}
    if "initial_lr" in group:
        found["initial_lr"] = _plain(group["initial_lr"])
    return {
        name: value
        for name, value in found.items()
        if value is None or isinstance(value, bool | int | float | str | list)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else None
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _put(group: dict[str, Any], option: str, value: Any) -> None:
    present = group[option]
    if isinstance(present, torch.Tensor):
        present.fill_(value)
    else:
        group[option] = tuple(value) if isinstance(present, tuple) else value


def _set_rate(
    engine: Engine[Any, Any], update: Update, place: int, mine: Mapping[str, Any], old: Mapping[str, Any]
) -> None:
    """Takes over the script's learning rate; what a schedule made of the checkpoint's so far, it makes of this one."""
    new_base, old_base = (each.get("initial_lr", each["lr"]) for each in (mine, old))
    if new_base == old_base and mine["lr"] == old["lr"]:
        return
    group = update.optimizer.param_groups[place]
    factor = new_base / old_base if old_base else 1.0
    present = float(group["lr"])
    _put(group, "lr", mine["lr"] if present == old["lr"] else present * factor)
    for name in ("initial_lr", "max_lr", "min_lr"):
        if name in group:
            was = float(group[name])
            _put(group, name, new_base if name == "initial_lr" and was == old_base else was * factor)
    for scheduler in schedulers_of(engine.handlers.values(), update.optimizer):
        own = place - (groups_before(update.optimizer, scheduler.optimizer) or 0)
        if 0 <= own < len(getattr(scheduler, "base_lrs", ())):
            was = float(scheduler.base_lrs[own])
            scheduler.base_lrs[own] = new_base if was == old_base else was * factor
        if 0 <= own < len(rates := last_rates(scheduler)):
            rates[own] = float(group["lr"])
