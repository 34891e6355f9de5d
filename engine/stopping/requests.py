"""Requests to stop a run: they are collected here and, if ranks share their stops, agreed among them."""

from __future__ import annotations

from leyden import distributed as dist
from leyden.engine.state import State
from leyden.engine.stopping.shared_stops import StopPoll
from leyden.engine.stopping.stops import EpochTerminated, Interrupted, Stop, Terminated


class StopRequests:
    """What a run was asked to do. What is not obeyed at once waits for a point of the loop that allows it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.heard: set[Stop] = set()
        """The requests to obey; the loop only checks whether there are any."""
        self.poll: StopPoll | None = None
        """Where requests made on this rank go first, if ranks share them."""
        self.shared = False

    def add(self, stop: Stop) -> None:
        """Safe to be called from a signal handler or a thread."""
        if stop is Stop.DIVERGED:
            self._state.diverged = True
        (self.heard if self.poll is None else self.poll.requests).add(stop)

    def asks(self, stop: Stop) -> bool:
        """True if this rank was asked for it, or all ranks agreed on it, and it is not done."""
        return stop in self.heard or (self.poll is not None and stop in self.poll.requests)

    def take_back(self, *stops: Stop) -> None:
        """Forgets what this rank was asked, as long as the ranks have not agreed on it."""
        for requests in (self.heard,) if self.poll is None else (self.poll.requests,):
            requests.difference_update(stops)

    def forget(self) -> None:
        self.heard.clear()
        if self.poll is not None:
            self.poll.requests.clear()

    def connect(self) -> None:
        """Where several ranks share their stops: from now on a request made on one rank holds for all."""
        if self.shared and self.poll is None and dist.world_size() > 1:
            self.poll = StopPoll()
            self.poll.requests |= self.heard  # asked for during the setup
            self.heard.clear()

    def take_all(self) -> set[Stop]:
        """What was asked and not obeyed, which is then forgotten; called by all ranks at the same point."""
        return set(self.heard) if self.poll is None else self.heard | self.poll.forget()

    def obey(self, allowed: frozenset[Stop]) -> None:
        """Leaves the loop, if what is heard says so."""
        stops = self.heard & allowed
        if Stop.TERMINATE in stops:
            raise Terminated
        if Stop.EPOCH in stops:
            self.heard.discard(Stop.EPOCH)
            raise EpochTerminated
        if Stop.INTERRUPT in stops:
            raise Interrupted

    def heed(self, allowed: frozenset[Stop]) -> None:
        """Obeys between iterations, where ranks may wait for each other."""
        if self.poll is not None:
            self._take(self.poll.meet())
        self.obey(allowed)
        self.heard.difference_update((Stop.EPOCH, Stop.SKIP_EPOCH_COMPLETED))  # no epoch runs here that could end

    def ask(self, iteration: int) -> int:
        """Lets the ranks' poll advance; gives the iteration at which it is due again."""
        assert self.poll is not None
        self._take(self.poll.poll(iteration))
        return self.poll.due

    def _take(self, decided: set[Stop]) -> None:
        self.heard |= decided
        if Stop.DIVERGED in decided:
            self._state.diverged = True
