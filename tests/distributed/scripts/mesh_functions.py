"""What four ranks in a mesh tell of it."""

import os

import torch
import torch.distributed as torch_dist

from leyden import distributed as dist


def square():
    """Data x tensor, asked for where the processes are joined."""
    groups_before = len(torch_dist.distributed_c10d._world.pg_map)
    dist.initialize(mesh={"replicate": 2, "tensor": 2})
    told = {"groups": [len(torch_dist.distributed_c10d._world.pg_map) - groups_before]}
    mesh, rank = dist.mesh(), dist.rank()
    told["mesh"] = repr(mesh)
    told["place"] = (dist.data_rank(), dist.data_size(), mesh.rank("tensor"), mesh.size("tensor"))
    told["groups"].append(len(torch_dist.distributed_c10d._world.pg_map) - groups_before)
    told["sums"] = {over: dist.all_reduce(10**rank, over=over) for over in ("data", "tensor", "shard", "world", None)}
    told["mean"] = dist.all_reduce(torch.tensor([float(rank)]), "mean", over="data").tolist()
    told["gathered"] = dist.all_gather(torch.tensor([rank]), over="tensor").tolist()
    told["strings"] = dist.all_gather(f"rank {rank}", over="data")
    told["objects"] = dist.all_gather_object({rank}, over="context")
    told["broadcast"] = dist.broadcast(torch.tensor([rank]), 1, over="tensor").item()
    told["object"] = dist.broadcast_object({rank}, 1, over="data")
    try:
        dist.broadcast(0, 2, over="data")
    except ValueError as error:
        told["no such rank"] = str(error)
    try:
        dist.all_reduce(0, group=[0, 1, 2, 3], over="data")
    except ValueError as error:
        told["both"] = str(error)
    dist.barrier(over="tensor")
    told["groups"].append(len(torch_dist.distributed_c10d._world.pg_map) - groups_before)
    of_torch = mesh.device_mesh
    told["device mesh"] = (of_torch.mesh_dim_names, of_torch.mesh.tolist(), of_torch.get_coordinate())
    told["same group"] = of_torch["tensor"].get_group() is mesh.group("tensor")
    told["timeouts"] = (mesh.group("data")._get_backend(torch.device("cpu")).options._timeout.total_seconds(),)
    return told


def wishes():
    """Handlers ask one after the other, before the mesh is used and after."""
    dist.request_mesh("TensorParallel", {"tensor": 2})
    dist.request_mesh("FullyShard", {"shard": -1})
    told = {"errors": []}
    for owner, sizes in (("ContextParallel", {"context": 3}), ("another", {"tensor": 4}), ("HSDP", {"replicate": -1})):
        try:
            dist.request_mesh(owner, sizes)
        except ValueError as error:
            told["errors"].append(str(error))
    told["sizes"] = dist.mesh().sizes
    dist.request_mesh("a second engine", {"tensor": 2, "shard": -1})
    try:
        dist.request_mesh("late", {"context": 2})
    except RuntimeError as error:
        told["errors"].append(str(error))
    return told


def whole_world(wished):
    """Where all ranks see different data no group is made beside the world's."""
    dist.initialize(mesh=wished)
    total = dist.all_reduce(torch.tensor(2 ** dist.rank()), over="data").item()
    world = dist.mesh().group("data") is torch_dist.group.WORLD
    return total, world, (dist.data_rank(), dist.data_size()), len(torch_dist.distributed_c10d._world.pg_map)


def some_ranks_alone():
    """Ranks of one row use a group that the others never ask for."""
    dist.initialize(mesh={"pipeline": 2, "replicate": 2})
    last = dist.mesh().rank("pipeline") == 1
    return dist.all_reduce(dist.rank(), over="data") if last else None


def survives_a_new_group():
    """A group that is left takes the wishes and the mesh with it."""
    dist.initialize(mesh={"tensor": 4})
    first = dist.data_size()
    dist.barrier()
    dist.finalize()
    os.environ["MASTER_PORT"] = os.environ["SECOND_PORT"]
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    dist.initialize("gloo", mesh={"tensor": 2})
    return first, dist.data_size()


def other_wishes(wishes):
    """Each rank asks for a mesh of its own."""
    if (mine := wishes[dist.rank()]) is not None:
        dist.request_mesh("this rank", mine)
    dist.barrier()
    if dist.rank() > 0:
        dist.barrier()  # rank 0 is the first to use it
    try:
        dist.data_rank()
    except ValueError as error:
        return str(error)
    finally:
        if dist.rank() == 0:
            dist.barrier()
    return None
