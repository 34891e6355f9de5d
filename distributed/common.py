"""What this process remembers of what it does in common with the other ranks of the group that it has joined."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Common:
    """Made anew for each group that the process joins."""

    def __init__(self) -> None:
        self._first_thread: int | None = None
        self._agreement_group: Any = None
        self._agreements = 0
        self.begin_words(0)

    def in_first_thread(self) -> bool:
        """Whether this is the thread that asked first. What all engines of a process share is used by it alone: nothing
        tells the ranks whose turn it is where several threads use it at the same time.
        """
        if self._first_thread is None:
            self._first_thread = threading.get_ident()
        return self._first_thread == threading.get_ident()

    def join_agreements(self, make_group: Callable[[], Any]) -> tuple[Any, int]:
        """The group that the agreements of this process share, made at first need, by all ranks; and the number of one
        more of them, from 1.
        """
        if self._agreement_group is None:
            self._agreement_group = make_group()
        self._agreements += 1
        return self._agreement_group, self._agreements

    def leave_agreements(self, end_group: Callable[[Any], None]) -> None:
        """Ends that group, if there is one."""
        if self._agreement_group is not None:
            end_group(self._agreement_group)
            self._agreement_group = None

    def begin_words(self, comparisons: int) -> None:
        """After so many comparisons of what the ranks do: the words that a rank left before the last are forgotten."""
        self.comparisons = comparisons
        self.failed = False
        """This rank has failed since."""
        self.abandoned, self.abandoned_for = 0, 0
        """How many batches it has given up since, and the id of the error in hand at the last one."""
