"""When a run ends, and what a second call of `run` means."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from leyden.engine.data.feed import Feed
from leyden.engine.state import State
from leyden.engine.values.whole_numbers import NEVER, whole_number

logger = logging.getLogger(__name__)


class Limits:
    """The limits of an engine's runs and how its last run ended."""

    def __init__(self) -> None:
        self.epoch_length: int | None = None
        """Batches an epoch as a user fixed them; None where the data decides."""
        self.ended = False
        """The last run in this process came to its end, or was given up."""
        self.restored = False
        """A state was loaded since the last run."""
        self.exhausted = False
        """The data can give no more batches."""
        self.length: int | None = None
        """Batches in each epoch of the run; None where each pass over the data is an epoch, and ends when it does."""

    def check(self, max_epochs: Any, max_iters: Any, epoch_length: Any) -> tuple[int | None, int | None, int | None]:
        """The arguments of `run` as numbers. Raises TypeError or ValueError for any that is wrong in itself."""
        if max_epochs is not None and max_iters is not None:
            raise ValueError(
                f"a run has one limit, but got max_epochs={max_epochs} and max_iters={max_iters}: give only one of them"
            )
        return (
            None if max_epochs is None else whole_number("max_epochs", max_epochs, 1),
            None if max_iters is None else whole_number("max_iters", max_iters, 1),
            None if epoch_length is None else whole_number("epoch_length", epoch_length, 1),
        )

    def check_data(self, feed: Feed, state: State, max_iters: int | None, epoch_length: int | None) -> None:
        """Raises ValueError for a run without data whose epochs have no length."""
        if feed.data is None and not (epoch_length or max_iters or state.epoch_length or state.max_iters):
            raise ValueError(
                "a run without data needs epoch_length (or max_iters): nothing else says when an epoch ends"
            )

    def restore(self, fixed_length: bool, state: State) -> None:
        """Takes note that a state was loaded; `fixed_length` if its epoch_length was a user's choice."""
        self.restored = True
        self.epoch_length = state.epoch_length if fixed_length else None

    def restarts(
        self, state: State, max_epochs: int | None, max_iters: int | None, *, epoch_open: bool, training: bool
    ) -> bool:
        """True if the run begins from the beginning: the state has no limit, or this process has reached the one
        given. A run that was stopped within its last epoch has not; an evaluation that was ended is not gone on with.
        """
        if self.restored:
            return False
        if state.max_epochs is None and state.max_iters is None:
            return True
        if not self.ended or (epoch_open and training):
            return False
        if max_iters is not None:
            return state.iteration == max_iters
        if max_epochs is not None:
            return state.epoch == max_epochs
        return (state.max_epochs is not None and state.epoch >= state.max_epochs) or (
            state.max_iters is not None and state.iteration >= state.max_iters
        )

    def settle(
        self,
        state: State,
        feed: Feed,
        max_epochs: int | None,
        max_iters: int | None,
        epoch_length: int | None,
        epoch_open: bool,
    ) -> None:
        """Takes the arguments of `run` over into the state, once what is restored is known.

        Raises ValueError if they contradict the state.
        """
        begins = state.iteration == 0 and state.epoch == 0
        advice = "; set engine.state.max_epochs = None before run() to start from the beginning"
        if max_epochs is not None and max_epochs < state.epoch:
            raise ValueError(f"max_epochs={max_epochs} is smaller than the {state.epoch} epochs already run{advice}")
        if max_iters is not None and max_iters < state.iteration:
            raise ValueError(f"max_iters={max_iters} is less than the {state.iteration} iterations run{advice}")
        if epoch_length is not None and not begins and state.epoch_length not in (None, epoch_length):
            raise ValueError(
                f"epoch_length={epoch_length} differs from the {state.epoch_length} of the run that is "
                f"continued{advice}"
            )
        if max_epochs is not None or max_iters is not None:
            state.max_epochs, state.max_iters = max_epochs, max_iters
        elif state.max_epochs is None and state.max_iters is None:
            state.max_epochs = 1
        if epoch_length is not None or (begins and not self.restored):
            self.epoch_length = epoch_length
        if self.epoch_length is None and feed.data is None:
            self.epoch_length = state.max_iters
        self.length = feed.exact_length if self.epoch_length is None else self.epoch_length
        if self.length is not None or begins:
            state.epoch_length = feed.length if self.length is None else self.length
        if self.restored and self.reached(state, epoch_open):
            logger.warning(
                "the restored run is complete already: epoch %d, iteration %d; nothing is left to run. "
                "Give a larger limit to go on with it.",
                state.epoch,
                state.iteration,
            )
        self.ended = self.restored = False
        if feed.iterator is None:  # else it is still the data that has ended
            self.exhausted = False

    def follow(self, state: State, feed: Feed) -> None:
        """Takes over the length of new data as the epoch's, unless a user fixed it."""
        if self.epoch_length is None:
            self.length = feed.exact_length
            if feed.length is not None:
                state.epoch_length = feed.length

    def keep_length(self, state: State, feed: Feed, other: Feed) -> None:
        """Lets epochs keep their length, if there is one, when the batches of `feed` are followed by those of
        `other`.
        """
        length = state.epoch_length if self.length is None and feed.length is not None else self.length
        if length is not None and other.exact_length != length:
            self.epoch_length = self.length = length

    def reached(self, state: State, epoch_open: bool) -> bool:
        """True if no further epoch is to be run."""
        if epoch_open:
            return False
        return self.exhausted or self.reaches_its_limit(state)

    def reaches_its_limit(self, state: State) -> bool:
        """True if the run has all the epochs or iterations that were asked for."""
        if state.max_epochs is not None and state.epoch >= state.max_epochs:
            return True
        return state.max_iters is not None and state.iteration >= state.max_iters

    def epoch_end(self, epoch_start: int, max_iters: int | None, own_length: int | None = None) -> int:
        """The iteration at which an epoch that began after `epoch_start` iterations ends; NEVER if the data decides.

        `own_length`: its batches, where it has another number of them than the others.
        """
        length = self.length if own_length is None else own_length
        end = NEVER if length is None else epoch_start + length
        return end if max_iters is None else min(end, max_iters)

    def run_end(self, epoch_start: int, state: State, own_length: int | None = None, *, varies: bool) -> int:
        """The iteration at which the run ends, seen from an epoch of it; NEVER if only the data knows, as it does where
        the length of the data `varies` from epoch to epoch.
        """
        if state.max_iters is not None:
            return state.max_iters
        if self.length is None or state.max_epochs is None:
            return NEVER
        if varies and self.epoch_length is None and state.epoch < state.max_epochs:
            return NEVER
        first = self.length if own_length is None else own_length
        return epoch_start + first + (state.max_epochs - state.epoch) * self.length

    def tell_exhausted(self, state: State, feed: Feed) -> None:
        """Warns that the data ended for good before the run did, unless no more was needed."""
        self.exhausted = True
        if self.length is None and self.reaches_its_limit(state):
            return
        if state.max_iters is not None and state.iteration >= state.max_iters:
            return
        wanted = f"max_epochs={state.max_epochs}" if state.max_iters is None else f"max_iters={state.max_iters}"
        warnings.warn(
            f"the data ({type(feed.data).__name__}) is exhausted after {state.iteration} iterations, in epoch "
            f"{state.epoch}, before {wanted} is reached; the run ends here. Give data that can be iterated again "
            "(a DataLoader, a list), or new data by set_data() on Events.DATALOADER_STOP_ITERATION.",
            stacklevel=2,
        )
