"""The names of `ignite.distributed`, which are those of `leyden.distributed`."""

from leyden.distributed import *  # noqa: F403
from leyden.distributed import __all__  # noqa: F401
