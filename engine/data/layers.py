"""Data that wraps a user's data or is made of several, and what it must offer so that a pass can continue anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Rest(NamedTuple):
    """What is left of a pass, and how many batches that is; None if unknown."""

    iterator: Iterator[Any]
    left: int | None


class DataLayer:
    """Data that wraps other data and gives its batches in another way; each of its passes is one over the other
    data.
    """

    ranks = 1
    """Among how many ranks it deals the batches."""

    def inner_data(self) -> Any:
        """The data that it wraps."""
        raise NotImplementedError

    def go_on(self, rest: Rest, position: int) -> Rest:
        """What is left of a pass of which `position` batches were used, given what is left of the other's."""
        raise NotImplementedError


@runtime_checkable
class KnowsItsPass(Protocol):
    """Data that takes care of its own passes: made of several loaders, for example."""

    def apart(self) -> KnowsItsPass:
        """The same data for one who goes through it: others may be in a pass of their own."""

    def pass_state(self, position: int) -> Any:
        """Where the present pass stands after `position` batches."""

    def load_pass_state(self, state: Any) -> None:
        """Called before the next pass is begun or gone on with."""

    def go_on_at(self, position: int) -> Rest:
        """What is left of a pass after `position` batches."""

    def end_pass(self) -> None:
        """The pass is over, also one that was loaded, and the next has not begun."""

    @property
    def keeps_its_length(self) -> bool:
        """True if each pass has as many batches as len() says."""

    @property
    def dealt_anew(self) -> bool:
        """True if what was left was dealt to another number of ranks than before."""
