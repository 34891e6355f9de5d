"""The states of a loader's parts that determine its next pass: generators, counts of passes, states of their own."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader, IterableDataset

from leyden.engine.data.loader_parts import SamplerLayer, chain, index_sampler, knows_its_place
from leyden.engine.data.parts_below import below, has_own_state, is_generator

OWN, GENERATOR, LAYER = "state_dict()", "generator()", "layer"
"""Under which names the state lies that a part tells by itself, that of a generator, and that of a layer."""


def parts_state(data: Any) -> dict[str, Any]:
    """The state of each generator that a part of the data has for itself, and what else decides on its next pass."""
    placed = knows_its_place(data)  # it tells the state of its dataset and its sampler too
    states: dict[str, Any] = {}
    roots = {id(part) for _, part in _roots(data)}
    for role, part in parts(data):
        own = part is not data and not (placed and id(part) in roots) and has_own_state(part)
        if state := _part_state(part, own=own):
            states[role] = state
    return states


def set_parts_state(data: Any, states: Mapping[str, Any], *, replayed: bool = False) -> None:
    """Puts the parts back to such states; of parts that are not there, nothing is set.

    `replayed`: a pass was begun again up to its place, so samplers and streams have come by themselves to where they
    were.
    """
    set_states(parts(data), states, replayed=replayed)


def set_states(those: Iterable[tuple[str, Any]], states: Mapping[str, Any], *, replayed: bool = False) -> None:
    """The same for parts that were named before."""
    for role, part in those:
        if role in states:
            done = replayed and (not role.startswith("data") or isinstance(part, IterableDataset))
            state = {name: saved for name, saved in states[role].items() if not (done and name == OWN)}
            _set_part_state(part, state)


def without_layers(states: Mapping[str, Any]) -> dict[str, Any]:
    """The states but for those of leyden's own layers, which the setup of each run begins anew."""
    return {role: state for role, state in states.items() if LAYER not in state}


def parts(data: Any) -> Iterator[tuple[str, Any]]:
    """What the data is made of, each with a name that is the same in each process: the loader, its datasets and
    samplers, and what lies below them.
    """
    roots = list(_roots(data))
    seen = {id(part) for _, part in roots}
    for role, part in roots:
        yield role, part
    for role, part in roots:
        if not isinstance(part, SamplerLayer) and (isinstance(part, DataLoader) or not has_own_state(part)):
            for path, each in below(part, seen):
                yield role + path, each


def _roots(data: Any) -> Iterator[tuple[str, Any]]:
    yield "data", data
    if not isinstance(data, DataLoader):
        return
    depth = 0
    dataset: Any = data.dataset
    while dataset is not None and depth < 10:
        yield f"dataset-{depth}", dataset
        dataset, depth = getattr(dataset, "dataset", None), depth + 1
    depth = 0
    for link in chain(index_sampler(data)):
        if isinstance(link, SamplerLayer):
            yield type(link).__name__, link
        else:
            # Counted from below: a layer may be there in one process and not in another.
            yield f"{type(link).__name__}-{depth}", link
            depth += 1


def _part_state(part: Any, *, own: bool) -> dict[str, Any]:
    if isinstance(part, SamplerLayer):
        return {LAYER: part.pass_state()}
    if is_generator(part):
        return {GENERATOR: _generator_state(part)}
    attributes = getattr(part, "__dict__", {})
    state = {name: _generator_state(value) for name, value in attributes.items() if is_generator(value)}
    if own and (told := part.state_dict()) is not None:
        state[OWN] = copy.deepcopy(told)
    epoch = getattr(part, "epoch", None)
    if isinstance(epoch, int) and callable(getattr(part, "set_epoch", None)):
        state["epoch"] = int(epoch)
    return state


def _set_part_state(part: Any, state: Mapping[str, Any]) -> None:
    if isinstance(part, SamplerLayer):
        part.load_pass_state(state[LAYER])
        return
    own = getattr(part, "__dict__", {})
    for name, saved in state.items():
        value = part if name == GENERATOR else own.get(name)
        if is_generator(value):
            _set_generator(value, saved)
        elif name == OWN and has_own_state(part):
            part.load_state_dict(copy.deepcopy(saved))
        elif name == "epoch" and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(saved)


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, numpy.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, numpy.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
