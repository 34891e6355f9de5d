"""The state a run is saved as and continues from: what ranks share, what each has for itself, where it stopped."""

from leyden.engine.data.held import Held
from leyden.engine.events.handler_states import UNKNOWN_SETTING
from leyden.engine.resume.sharing import is_dealt_to_this_rank, shares_needed, ways_of_sharing
from leyden.engine.resume.suspension import GOES_ON_AT, Suspension

__all__ = [
    "GOES_ON_AT",
    "UNKNOWN_SETTING",
    "Held",
    "Suspension",
    "is_dealt_to_this_rank",
    "shares_needed",
    "ways_of_sharing",
]
