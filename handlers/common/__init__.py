"""What handlers of several rooms share: checks of arguments, the updates they work on, what they warn of."""

from leyden.handlers.common.metric_modes import require_mode
from leyden.handlers.common.number_checks import require_flag, require_function, require_number
from leyden.handlers.common.packages import require_package
from leyden.handlers.common.updates import share_update

__all__ = [
    "require_flag",
    "require_function",
    "require_mode",
    "require_number",
    "require_package",
    "share_update",
]
