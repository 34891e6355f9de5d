"""The ground floor: which process this is, on what device it computes, how it talks to the others, how they start.

In one process every collective is the identity, so code written with this room runs unchanged from one process to many.
"""

from leyden.distributed.adapting import DistributedProxySampler, auto_dataloader, auto_model, auto_optim
from leyden.distributed.agreement import Agreement
from leyden.distributed.alike import require_alike
from leyden.distributed.collectives import (
    all_gather,
    all_gather_object,
    all_reduce,
    barrier,
    broadcast,
    broadcast_object,
    gather,
    new_group,
)
from leyden.distributed.control_group import control_group, store
from leyden.distributed.idist import (
    get_local_rank,
    get_nnodes,
    get_node_rank,
    get_nproc_per_node,
    get_rank,
    get_world_size,
    has_native_dist_support,
    hostname,
    model_name,
    set_local_rank,
    show_config,
    spawn,
)
from leyden.distributed.joining import available_backends
from leyden.distributed.launching import RankError, launch
from leyden.distributed.mesh import data_rank, data_size, mesh, request_mesh
from leyden.distributed.mesh_layout import Mesh
from leyden.distributed.parallel import Parallel
from leyden.distributed.ranks import on_rank_zero, one_rank_first, one_rank_only
from leyden.distributed.samplers import check_place, place_of_sampler
from leyden.distributed.session import (
    backend,
    device,
    finalize,
    initialize,
    is_initialized,
    local_rank,
    local_world_size,
    node_count,
    node_rank,
    rank,
    world_size,
)
from leyden.distributed.sharded_tensors import (
    as_shard_of,
    end_pass_of_shards,
    gathers_shards,
    is_sharded,
    is_whole,
    local_part,
    reshard,
    shard_for,
    sharded_like,
)
from leyden.distributed.words import tell_abandoned, tell_failure

__all__ = [
    "Agreement",
    "DistributedProxySampler",
    "Mesh",
    "Parallel",
    "RankError",
    "all_gather",
    "all_gather_object",
    "all_reduce",
    "as_shard_of",
    "auto_dataloader",
    "auto_model",
    "auto_optim",
    "available_backends",
    "backend",
    "barrier",
    "broadcast",
    "broadcast_object",
    "check_place",
    "control_group",
    "data_rank",
    "data_size",
    "device",
    "end_pass_of_shards",
    "finalize",
    "gather",
    "gathers_shards",
    "get_local_rank",
    "get_nnodes",
    "get_node_rank",
    "get_nproc_per_node",
    "get_rank",
    "get_world_size",
    "has_native_dist_support",
    "hostname",
    "initialize",
    "is_initialized",
    "is_sharded",
    "is_whole",
    "launch",
    "local_part",
    "local_rank",
    "local_world_size",
    "mesh",
    "model_name",
    "new_group",
    "node_count",
    "node_rank",
    "on_rank_zero",
    "one_rank_first",
    "one_rank_only",
    "place_of_sampler",
    "rank",
    "request_mesh",
    "require_alike",
    "reshard",
    "set_local_rank",
    "shard_for",
    "sharded_like",
    "show_config",
    "spawn",
    "store",
    "tell_abandoned",
    "tell_failure",
    "world_size",
]
