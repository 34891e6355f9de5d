"""Random number generators of a process: the host's, from which data is drawn, and those of its devices."""

from leyden.engine.randomness.generators import GeneratorsKept, rng_state, set_rng_state
from leyden.engine.randomness.host import Aside, Stream, host_state, seed_host, set_host_state

__all__ = [
    "Aside",
    "GeneratorsKept",
    "Stream",
    "host_state",
    "rng_state",
    "seed_host",
    "set_host_state",
    "set_rng_state",
]
