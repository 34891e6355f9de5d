"""Steps of an engine that leave no trace."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from leyden.distributed.compat import is_compiled
from leyden.engine import Engine, Events, Update, UpdateEvents
from leyden.engine.data import Feed
from leyden.engine.events import Entry, Table
from leyden.engine.randomness import rng_state, set_rng_state
from leyden.engine.values import NEVER
from leyden.handlers.searching.data_parts import keep_data
from leyden.handlers.searching.kept_values import KeptValues

STEPS_ARE_SILENT = (UpdateEvents.STEP_COMPLETED, UpdateEvents.STEP_SKIPPED)


class Rehearsal:
    """Runs an engine's own process function on batches of `data`; when the context ends, all is as it was, to the bit.

        with Rehearsal(engine, data) as rehearsal:
            output = rehearsal.step()

    A process function works on the live model and optimizer, so these run, and are put back from copies afterwards,
    also after an error: parameters, buffers, gradients and other attributes of the updates' modules, optimizers,
    scalers, the updates, `engine.state`, the random numbers of python, numpy, torch, each device and the data. What a
    process function changes elsewhere (a list of its own, a module that no update has) is not known here.

    Events of the engine and STEP_COMPLETED, STEP_SKIPPED are silent: no logger, schedule or average sees the steps.
    Those that shape a gradient (FORWARD_*, BACKWARD_*, GRADIENTS_READY) fire, and the attributes of the handlers that
    hear them are put back too. Accumulation begins with a fresh window, and no end of an epoch cuts one.

    The copies take the memory of the model and its optimizer once more, on their device, or on the host with `offload`.
    `synchronise=False`: gradients are not exchanged with other ranks. `started=False`: the run's STARTED is still to
    come, so the handlers that shape a gradient get it here. Code that torch.compile made is made anew afterwards, since
    what it specialises on hangs on the batches it has seen.

    The engine's setup must be done. Raises ValueError for data that can be gone through only once.
    """

    def __init__(
        self,
        engine: Engine[Any, Any],
        data: Iterable[Any] | None,
        *,
        started: bool = False,
        offload: bool = False,
        synchronise: bool = True,
    ) -> None:
        self._feed = Feed(data)
        if self._feed.one_shot:
            raise ValueError(
                f"a search takes batches before the run does, but this data ({type(data).__name__}) can be gone "
                "through only once; give data that can be iterated again (a DataLoader, a list of batches)"
            )
        self._engine = engine
        self._copies = KeptValues(offload=offload)
        self._started = started
        self._synchronise = synchronise
        self._undo = ExitStack()
        self.batches = 0
        """Batches taken."""
        self.passes = 0
        """Passes over the data begun."""
        self.skipped: dict[str, int] = dict.fromkeys(engine.updates, 0)
        """Optimizer steps skipped, by update; those done are `update.steps`, which begins at 0."""

    def __enter__(self) -> Self:
        engine, copies = self._engine, self._copies
        with ExitStack() as undo:
            for update in engine.updates.values():
                _prepare(update)
            undo.callback(set_rng_state, rng_state())
            undo.callback(self._forget_graphs)
            undo.callback(copies.put_back)
            undo.callback(setattr, engine, "run_end", engine.run_end)
            undo.callback(setattr, engine, "last_iteration", engine.last_iteration)
            self._keep()
            keep_data(copies, self._feed.data)
            starts = [] if self._started else _starts(engine)
            undo.enter_context(_silent(engine))
            undo.callback(self._close)
            for entry in starts:
                entry.function(*entry.args, **entry.kwargs)
            self._begin()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    def step(self) -> Any:
        """Runs the process function on the next batch; gives its output."""
        engine, state = self._engine, self._engine.state
        state.batch = self._next()
        state.iteration += 1
        state.output = engine.process(engine, state.batch)
        return state.output

    def _keep(self) -> None:
        engine, copies = self._engine, self._copies
        copies.keep(vars(engine.state))
        for update in engine.updates.values():
            for module in _modules(update):
                copies.keep(vars(module))
            copies.keep(update.optimizer)
            copies.keep(vars(update))
            copies.keep(vars(update.slots))
            if update.slots.scaler is not None:
                copies.keep(vars(update.slots.scaler))
            for owner in _owners(update):
                copies.keep(vars(owner))

    def _begin(self) -> None:
        engine, state = self._engine, self._engine.state
        engine.last_iteration = engine.run_end = NEVER
        state.epoch = max(state.epoch, 1)  # steps belong to an epoch, and those before the first one to the first
        state.note_data(self._feed.data)
        for update in engine.updates.values():
            for parameter in _parameters(update):
                parameter.grad = None
            update.reset()
            update.prepare()
            update.rearm()
            if not self._synchronise:
                update.slots.sync = None
            update.add_event_handler(UpdateEvents.STEP_SKIPPED, self._note_skip)

    def _note_skip(self, engine: Engine[Any, Any], update: Update) -> None:
        self.skipped[update.name] += 1

    def _next(self) -> Any:
        for _ in range(2):
            if self._feed.iterator is None:
                self._feed.begin_pass()
                self.passes += 1
            assert self._feed.iterator is not None
            try:
                batch = next(self._feed.iterator)
            except StopIteration:
                self._feed.iterator = None
            else:
                self.batches += 1
                return batch
        raise ValueError(f"the data of the run is empty: {type(self._feed.data).__name__} gave no batch")

    def _close(self) -> None:
        close = getattr(self._feed.iterator, "close", None)
        if close is not None:
            close()
        self._feed.iterator = None  # which ends its workers

    def _forget_graphs(self) -> None:
        """Resets gradient exchange and compiled modules, as if the steps had never been taken."""
        compiled = False
        for update in self._engine.updates.values():
            if update.slots.sync is not None and self._synchronise:
                update.slots.sync.rebuild(update)
            compiled = compiled or any(map(is_compiled, _modules(update)))
        if compiled:
            torch.compiler.reset()


def _prepare(update: Update) -> None:
    """Ties the optimizer to the model for good, and leaves the gradients alone."""
    gradients = [(parameter, parameter.grad) for parameter in _parameters(update)]
    update.prepare()
    for parameter, gradient in gradients:
        parameter.grad = gradient


@contextmanager
def _silent(engine: Engine[Any, Any]) -> Iterator[None]:
    """Silences the given events, and remembers how far each handler's filter has come."""
    tables = [*engine.tables(), *(table for update in engine.updates.values() for table in update.tables.values())]
    before = [(table, table.entries, table.due, table.last, [entry.due for entry in table.entries]) for table in tables]
    silent: list[Table] = [*engine.tables()]
    silent += [update.tables[event] for update in engine.updates.values() for event in STEPS_ARE_SILENT]
    try:
        for table in silent:
            table.entries = ()
            table.due = NEVER
        yield
    finally:
        for table, entries, due, last, dues in before:
            table.entries, table.due, table.last = entries, due, last
            for entry, entry_due in zip(entries, dues, strict=True):
                entry.due = entry_due


def _owners(update: Update) -> list[Any]:
    """The objects whose methods act in a step: as handlers of its events, or in a slot."""
    tables = [table for event, table in update.tables.items() if event not in STEPS_ARE_SILENT]
    functions: list[Any] = [entry.function for table in tables for entry in table.entries]
    functions += [update.slots.window, update.slots.weight]
    owners = []
    for owner in map(owner_of, functions):
        if hasattr(owner, "__dict__") and not isinstance(owner, Engine | Update | nn.Module | type):
            owners.append(owner)
    return owners


def owner_of(function: Any) -> Any:
    """The object of a method; None for a function."""
    return owner_of(function.func) if isinstance(function, functools.partial) else getattr(function, "__self__", None)


def _starts(engine: Engine[Any, Any]) -> list[Entry]:
    """The STARTED handlers of the objects that act in a step."""
    owners = {id(owner) for update in engine.updates.values() for owner in _owners(update)}
    entries = next(table.entries for table in engine.tables() if table.event is Events.STARTED)
    return [entry for entry in entries if id(owner_of(entry.function)) in owners]


def _modules(update: Update) -> list[nn.Module]:
    return [module for root in update.modules.values() for module in root.modules()]


def _parameters(update: Update) -> list[nn.Parameter]:
    of_modules = [parameter for root in update.modules.values() for parameter in root.parameters()]
    return [*of_modules, *(parameter for group in update.optimizer.param_groups for parameter in group["params"])]
