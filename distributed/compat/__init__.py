"""The private parts of torch and torchdata that leyden relies on, each with its reason; no other module names them.

One file for each part of torch. Each has a table `RELIED_ON`: the names by owner, and what leyden needs them for.
tests/distributed/test_compat.py asks torch for all of them, so that a release that takes one away is told in words.
"""

from leyden.distributed.compat import (
    data_loaders,
    foreach,
    gradient_scalers,
    modules,
    optimizers,
    process_groups,
    replicas,
    schedulers,
    shards,
)
from leyden.distributed.compat.data_loaders import (
    PASS,
    begun_pass,
    end_workers,
    forget_pass,
    is_over,
    is_within_a_pass,
    iterates_itself,
    replace_part,
    states_of_workers,
    stream_at_its_end,
    take_indices_from,
)
from leyden.distributed.compat.foreach import (
    foreach_add_,
    foreach_copy_,
    foreach_div_,
    foreach_lerp_,
    foreach_mul_,
    foreach_norm,
    foreach_sub,
)
from leyden.distributed.compat.gradient_scalers import GradScaler
from leyden.distributed.compat.modules import (
    BUFFERS,
    HOOKS,
    WRAPPERS,
    BatchNorm,
    NormWithStatistics,
    OpOverload,
    OpOverloadPacket,
    buffers_of,
    indices_and_values,
    is_compiled,
    is_wrapped_by_compile,
    module_versions,
    own_parameters,
    recompile_limit,
    set_module_versions,
    unwrapped_of_compile,
)
from leyden.distributed.compat.optimizers import skips_by_itself
from leyden.distributed.compat.process_groups import default_store, timeout_of
from leyden.distributed.compat.replicas import (
    begin_pass_of_replica,
    end_pass_of_replica,
    leave_out_of_replicas,
    leaving_out,
    share_buffers_of_replica,
)
from leyden.distributed.compat.schedulers import (
    LAST_RATES,
    MILESTONES,
    PARTS,
    last_rates,
    milestones_of,
    parts_of_scheduler,
)
from leyden.distributed.compat.shards import chunk_of

RELIED_ON = [
    (owner, name, reason)
    for part in (
        data_loaders,
        foreach,
        gradient_scalers,
        modules,
        optimizers,
        process_groups,
        replicas,
        schedulers,
        shards,
    )
    for owner, names in part.RELIED_ON.items()
    for name, reason in names.items()
]
"""(owner, private name, who needs it for what)."""

__all__ = [
    "BUFFERS",
    "HOOKS",
    "LAST_RATES",
    "MILESTONES",
    "PARTS",
    "PASS",
    "RELIED_ON",
    "WRAPPERS",
    "BatchNorm",
    "GradScaler",
    "NormWithStatistics",
    "OpOverload",
    "OpOverloadPacket",
    "begin_pass_of_replica",
    "begun_pass",
    "buffers_of",
    "chunk_of",
    "default_store",
    "end_pass_of_replica",
    "end_workers",
    "foreach_add_",
    "foreach_copy_",
    "foreach_div_",
    "foreach_lerp_",
    "foreach_mul_",
    "foreach_norm",
    "foreach_sub",
    "forget_pass",
    "indices_and_values",
    "is_compiled",
    "is_over",
    "is_within_a_pass",
    "is_wrapped_by_compile",
    "iterates_itself",
    "last_rates",
    "leave_out_of_replicas",
    "leaving_out",
    "milestones_of",
    "module_versions",
    "own_parameters",
    "parts_of_scheduler",
    "recompile_limit",
    "replace_part",
    "set_module_versions",
    "share_buffers_of_replica",
    "skips_by_itself",
    "states_of_workers",
    "stream_at_its_end",
    "take_indices_from",
    "timeout_of",
    "unwrapped_of_compile",
]
