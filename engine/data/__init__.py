"""The data of a run: passes over it, where a pass stands, and how it begins again at the batch it had come to."""

from leyden.engine.data.data_pass import DataPass
from leyden.engine.data.draw_record import DRAW_AT_ONCE
from leyden.engine.data.feed import Feed
from leyden.engine.data.index_order import END
from leyden.engine.data.layers import DataLayer, Rest
from leyden.engine.data.loader_parts import (
    SamplerLayer,
    chain,
    has_random_access,
    index_sampler,
    only_batches,
    own_generators,
    place_of_indices,
)
from leyden.engine.data.part_states import parts_state, set_parts_state
from leyden.engine.data.pass_length import SEQUENCE_TYPES, keeps_its_length, known_length
from leyden.engine.data.setup import CompositeData, DataStage

__all__ = [
    "DRAW_AT_ONCE",
    "END",
    "SEQUENCE_TYPES",
    "CompositeData",
    "DataLayer",
    "DataPass",
    "DataStage",
    "Feed",
    "Rest",
    "SamplerLayer",
    "chain",
    "has_random_access",
    "index_sampler",
    "keeps_its_length",
    "known_length",
    "only_batches",
    "own_generators",
    "parts_state",
    "place_of_indices",
    "set_parts_state",
]
