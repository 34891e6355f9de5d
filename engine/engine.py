"""The engine: what a user calls. It fires events around a function of theirs; all other behaviour is attached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from torch import nn

from leyden import distributed as dist
from leyden.engine.data.feed import Cursor, Feed
from leyden.engine.events.attached_alike import require_alike, tell_failure, telling_failure
from leyden.engine.events.describe import describe
from leyden.engine.events.names import Events
from leyden.engine.events.signatures import check_process
from leyden.engine.loop import Loop
from leyden.engine.resume.rank_state import copied, of_this_rank, rank_snapshot, restore_ranks
from leyden.engine.resume.snapshot import restore_snapshot, snapshot
from leyden.engine.setup import Setup, Stage
from leyden.engine.state import State
from leyden.engine.step.exchange import require_exchange
from leyden.engine.step.mode_check import ModeCheck
from leyden.engine.step.step_count import RunArguments, total_steps
from leyden.engine.step.told_optimizers import optimizers_in_words
from leyden.engine.stopping.stops import Interrupted, Stop, Suspended, Terminated
from leyden.engine.values.attach_metrics import attach_metric
from leyden.engine.values.measured_pair import MeasuredPair

Batch = TypeVar("Batch")
Output = TypeVar("Output")
Process = Callable[["Engine[Batch, Output]", Batch], Output]


class Engine(Loop, Generic[Batch, Output]):
    """Runs `process_function(engine, batch)` over data, epoch after epoch, and fires events around it.

    The function returns the output of an iteration, which is then `engine.state.output`. `training=False` says that it
    runs forward passes only: handlers of the forward pass (MixedPrecision) know that no `Update` belongs to it, and a
    run that was ended within an epoch is not gone on with.

    Raises TypeError if the function can't be called with (engine, batch), or if a call would run nothing (async and
    generator functions); AttributeError where an attribute is set that an engine does not have: those of a user's own
    go to `engine.state`, or to a class derived from this one.
    """

    _made = False

    def __init__(self, process_function: Process[Batch, Output], *, training: bool = True) -> None:
        super().__init__()
        check_process(process_function)
        self.process: Process[Batch, Output] = process_function
        self.training = training
        self.device = dist.device()
        """Where the engine computes: the process's own device, unless its maker chose another."""
        self.setup = Setup()
        """Functions that prepare models, optimizers and the restored state, by `Stage`."""
        self.setup.add(Stage.OPTIMIZER, self._make_optimizers, each_run=True)
        self.mode_check = None if training else ModeCheck(process_function)
        """Checks that an engine that only evaluates calls its models in eval mode; None if that is taken care of."""
        self.evaluated_models: tuple[nn.Module, ...] = ()
        """The models of an engine that evaluates; empty if only the process function knows them."""
        self.measured: MeasuredPair | None = None
        """What `attach_metric` measures in place of the output, on a supervised trainer."""
        self._running = False
        self.asked = RunArguments()
        """What the last `run` was called with."""
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        known = name in vars(self) or hasattr(Engine, name) or name.startswith("__")
        if self._made and not known and type(self) is Engine:
            close = get_close_matches(name, [each for each in dir(self) if not each.startswith("_")], n=1)
            meant = f"did you mean {close[0]!r}? A" if close else "a"
            raise AttributeError(
                f"an engine has no attribute {name!r} to set; {meant} value of your own goes to engine.state.{name}"
            )
        super().__setattr__(name, value)

    def run(
        self,
        data: Iterable[Batch] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> State:
        """Runs until `max_epochs` or `max_iters` and returns the state.

        Without a limit: one epoch, or the limit that the state already has. `epoch_length` batches make an epoch; else
        one pass over the data does. Data shorter than that is begun anew; data without end needs it (or `max_iters`).
        `data=None` takes the data of the run before; where there was none, each batch is None.

        A run that was interrupted, terminated, failed or restored goes on with the next batch, in its last epoch too;
        a larger limit continues; the same limit again after its end, or `state.max_epochs = None`, starts from the
        beginning. An evaluation (`training=False`) goes on only if it was interrupted or restored.

        Raises ValueError for limits that contradict each other or the state and for empty data, TypeError for data that
        can't be iterated, RuntimeError for several ranks whose gradients nothing exchanges, ValueError on all ranks
        where they differ in what they attach, in their optimizers or their limits, and whatever the process function or
        a handler raises, after EXCEPTION_RAISED and CLOSED.
        """
        if self._running:
            raise RuntimeError("this engine is running already; a run inside its run needs an engine of its own")
        limits, source = self._limits, self.run_data
        with telling_failure(self):
            for update in self.updates.values():
                require_exchange(update)
            max_epochs, max_iters, epoch_length = limits.check(max_epochs, max_iters, epoch_length)
            data = source.given if data is None else data
            self.asked = RunArguments(data, max_epochs, max_iters, epoch_length)
            limits.check_data(Feed(data), self.state, max_iters, epoch_length)
            open_still = self.cursor.epoch_open
            if limits.restarts(self.state, max_epochs, max_iters, epoch_open=open_still, training=self.training):
                self._reset()
        continues = source.is_open_on(data)
        self._running = True
        self._forget_stop_requests()
        self.state.diverged = False
        failure: BaseException | None = None
        started_at = time.perf_counter()
        try:
            # What is restored may say how data is dealt and batched, so the data comes last.
            require_alike(self, optimizers_in_words(self.updates.values()))
            self.settle_handler_states()
            self.setup.run(Stage.DEVICE, Stage.SEED)
            if not continues:
                source.open(data)
            open_still = self.cursor.epoch_open or self.suspended is not None
            limits.settle(self.state, source.feed, max_epochs, max_iters, epoch_length, open_still)
            self.asked = RunArguments(data, max_epochs, max_iters, epoch_length, source.feed.length)
            self._ready()
            self.logger.info("a run starts: max_epochs=%s, max_iters=%s", self.state.max_epochs, self.state.max_iters)
            try:
                terminated = self.suspended is not None and self.suspended.terminated
                try:
                    self._run_epochs()
                except Terminated:
                    terminated = True
                    self._fire(Events.TERMINATE)
                if not self.cursor.epoch_open:
                    self._step_watch.tell_unused(self.state)
                self.state.times["COMPLETED"] = time.perf_counter() - started_at
                limits.ended = True
                self.logger.info("the run is complete, after %.1f s", self.state.times["COMPLETED"])
                if not (terminated and self._stop_requests.asks(Stop.SKIP_COMPLETED)):
                    self._fire(Events.COMPLETED, self.state.epoch)
            except Interrupted as stop:
                limits.ended = False
                self.interrupted = True
                if isinstance(stop, Suspended):
                    self._note_suspension(stop, terminated)
                self._fire(Events.INTERRUPT)
                return self.state
        except BaseException as error:
            failure = error
            limits.ended = True
            tell_failure(self, error)
            for raised in self._tables[Events.EXCEPTION_RAISED].fire_all((error,)):
                if failure is error:
                    failure = raised  # in the place of the error, which is its context
                else:
                    failure.add_note(f"another handler of EXCEPTION_RAISED raised {type(raised).__name__}: {raised}")
            if failure is not error:
                raise failure from (failure.__cause__ or error)
            raise
        finally:
            self._running = False
            self._close(failure)
        return self.state

    def attach_metric(
        self,
        name: str,
        metric: Any,
        output_transform: Callable[[Any], Any] | None = None,
        usage: Any = None,
    ) -> None:
        """Measures the outputs with a metric, into `state.metrics[name]`: one of leyden, or of torchmetrics (metrics,
        collections, wrappers), which is taken as it is. Of a supervised trainer it measures (prediction, target).

        `output_transform` makes of an output what the metric takes; a metric of leyden has its own. `usage` says when
        the metric is reset and computed: by default each epoch. Raises TypeError for what is no metric, ValueError for
        a name that is taken.
        """
        attach_metric(self, name, metric, output_transform, usage)

    # -- data and state --------------------------------------------------------------------------------------

    def total_steps(
        self,
        data: Iterable[Batch] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
        *,
        update: str | None = None,
    ) -> int:
        """Optimizer steps of a run with these arguments, from its beginning: what a scheduler is made for.

        Attach first what deals data to ranks, limits it or accumulates gradients. `update`: whose steps, where there
        are several. Without a limit: that of the run that is being set up, or goes on. Each batch is taken to go
        backward once, and no step to be skipped. Raises ValueError where the data does not tell its length.
        """
        return total_steps(self, RunArguments(data, max_epochs, max_iters, epoch_length), update)

    def set_data(self, data: Iterable[Batch]) -> None:
        """Takes the next batches from other data. Where the data before had a length, or `epoch_length` was given,
        epochs stay as long as they were, and shorter data is begun anew.
        """
        self.run_data.replace(data, running=self._running)
        if self._running and self.cursor.epoch_open:
            self._note_ends()

    def _ready(self) -> None:
        self._stop_requests.connect()
        for update in self.updates.values():
            update.prepare()
        if self.mode_check is not None:
            self.mode_check.begin()
        self._rearm()

    def _make_optimizers(self) -> None:
        for update in self.updates.values():
            update.make_optimizer()

    def _reset(self) -> None:
        state = self.state
        state.epoch = state.iteration = state.step = 0
        state.epoch_length = None
        self.cursor.take_over(Cursor())
        self.suspended = None
        self.run_data.forget()
        for update in self.updates.values():
            update.reset()

    def _close(self, failure: BaseException | None) -> None:
        """Runs every CLOSED handler, also after one of them failed; the run's own error goes first."""
        if self._limits.ended:
            self.run_data.close()
        if self.mode_check is not None:
            self.mode_check.end()
        self._step_watch.end()
        errors = self._tables[Events.CLOSED].fire_all()
        if failure is not None:
            for error in errors:
                failure.add_note(f"then a handler of Events.CLOSED raised {type(error).__name__}: {error}")
            return
        failures = [error for error in errors if isinstance(error, Exception)]
        if len(failures) > 1:
            raise ExceptionGroup("several handlers of Events.CLOSED failed", failures)
        if errors:
            raise (failures or errors)[0]

    def state_dict(self, *, own: bool = True) -> dict[str, Any]:
        """Where the run stands, the user's keys of the state, and the states of the updates and the attached handlers;
        plain data and tensors. Models and optimizers are not in it.

        With `own`, what this rank has for itself (`rank_state_dict`) is in it too, in memory of its own: in one
        process nothing is missing; of several ranks each loads what it gave itself.
        """
        state = snapshot(self, fixed_length=self._limits.epoch_length is not None)
        if own:
            state["own"] = {"rank": dist.rank(), "ranks": dist.world_size(), "state": copied(rank_snapshot(self))}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads such a state, from which the next `run` continues. Raises ValueError for any other mapping."""
        self._limits.restore(restore_snapshot(self, state_dict), self.state)
        self.run_data.forget()
        mesh = state_dict.get("mesh")
        if (states := of_this_rank(state_dict.get("own"), mesh)) is not None:
            self.load_rank_state_dicts(states, mesh)
        self._rearm()

    def rank_state_dict(self) -> dict[str, Any]:
        """What this rank has for itself beside `state_dict(own=False)`: gradients of an open accumulation window, what
        its metrics have seen of the epoch, an evaluation that was stopped halfway. The tensors may be the live ones.
        """
        return rank_snapshot(self)

    def load_rank_state_dicts(self, states: Sequence[Any], mesh: Mapping[str, int] | None = None) -> None:
        """Goes on from what each rank had for itself, in the order of ranks; after `load_state_dict`.

        Of as many ranks as there are now, each takes its own, and the others may be None. Where their number differs
        all are needed, and what they had is shared out: nothing is lost, and nothing counts twice. `mesh`: that of the
        run which had them (the key "mesh" of its state); the ranks that count are those that see different data.
        """
        restore_ranks(self, states, mesh)

    def __str__(self) -> str:
        return describe(self)

    __repr__ = __str__  # what a notebook shows of an engine
