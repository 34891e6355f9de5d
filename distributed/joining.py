"""Makes the process group: chooses the backend, finds the store, joins the ranks."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist

from leyden.distributed.devices import device_of_rank
from leyden.distributed.environment import Environment, RankLayout
from leyden.distributed.meeting import layout_by_host, open_store

_MEETING_TIMEOUT = timedelta(minutes=10)  # how long the first ranks wait for the last, unless the user says


def available_backends() -> tuple[str, ...]:
    """The backends of torch.distributed that this build of PyTorch can use."""
    if not dist.is_available():
        return ()
    return tuple(name for name in dist.Backend.backend_list if name != "undefined" and dist.is_backend_available(name))


def check_backend_name(backend: str | None) -> None:
    """Raise ValueError unless torch.distributed knows the backend, built in or not ("cpu:gloo,cuda:nccl" names two)."""
    if backend is None or not dist.is_available():
        return
    for pair in backend.split(","):
        if pair.rpartition(":")[2].lower() not in dist.Backend.backend_list:
            raise ValueError(f"unknown backend {backend!r}; available here: {', '.join(available_backends())}")


def environment_described_by(init_method: str | None, rank: int | None, world_size: int | None) -> Environment:
    """What the environment and the caller together say about this process.

    Raises:
        ValueError: they leave open who takes part, or an argument comes without its `init_method`.
    """
    url = None if init_method == "env://" else init_method
    if url is not None and not url.startswith(("tcp://", "file://")):
        raise ValueError(f"init_method is 'env://', 'tcp://host:port' or 'file:///path', but got {init_method!r}")
    if (rank is None) != (world_size is None):
        raise ValueError(f"initialize() takes rank= and world_size= together, but got {rank} and {world_size}")
    if rank is not None and world_size is not None:
        # How many of them share a machine is found out when they meet.
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        return Environment(
            "arguments",
            RankLayout(rank, rank, world_size, world_size),
            layout_known=False,
            master_address=address,
            master_port=None if port is None else int(port),
            init_method=url,
        )
    environment = Environment.read(os.environ)
    if url is not None and environment.launcher == "none":
        raise ValueError(
            f"init_method={url!r} says where the ranks meet, but not who they are: give rank= and world_size= too, or "
            "set the environment variables RANK and WORLD_SIZE"
        )
    return replace(environment, init_method=url)


def join(
    environment: Environment, backend: str | None, timeout: timedelta | None
) -> tuple[dist.ProcessGroup, RankLayout]:
    """Make the default process group with the ranks that the environment describes; return it with this rank's place.

    Raises:
        ValueError: the environment names no meeting point.
        RuntimeError: this PyTorch lacks the backend, or the rank has no device.
    """
    if not dist.is_available():
        raise RuntimeError(
            f"the environment describes {environment.place.world_size} processes, but this build of PyTorch "
            "lacks torch.distributed"
        )
    store = open_store(environment, timeout or _MEETING_TIMEOUT)
    place = environment.place if environment.layout_known else layout_by_host(store, environment.place)
    specification, device = _choose(backend, place.local_rank)
    if device is not None:
        torch.accelerator.set_device_index(device.index)
    dist.init_process_group(
        specification,
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
        device_id=device,
    )
    group = dist.group.WORLD
    assert group is not None
    return group, place


def _choose(backend: str | None, local_rank: int) -> tuple[str, torch.device | None]:
    """The backend as torch.distributed wants it, and the accelerator to bind, if the backend drives one."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if backend is None:
        backend = "gloo" if accelerator is None else dist.get_default_backend_for_device(accelerator)
    backend = backend.lower()
    for pair in backend.split(","):
        if not dist.is_backend_available(pair.rpartition(":")[2]):
            raise RuntimeError(
                f"backend {backend!r} is not available in this build of PyTorch; "
                f"available: {', '.join(available_backends())}"
            )
    if ":" in backend:
        drives = accelerator is not None and accelerator.type in backend
        return backend, device_of_rank(local_rank) if drives else None
    if "cpu" in dist.Backend.backend_capability.get(backend, ["cpu"]):
        if accelerator is not None and local_rank < torch.accelerator.device_count():
            torch.accelerator.set_device_index(local_rank)
        return backend, None
    if accelerator is None:
        raise RuntimeError(f"backend {backend!r} needs an accelerator, but this process sees none; use backend='gloo'")
    # gloo beside it carries what lives on the CPU (numbers, objects, checkpoints) without waiting for the accelerator.
    pairs = f"cpu:gloo,{accelerator.type}:{backend}" if dist.is_gloo_available() else backend
    return pairs, device_of_rank(local_rank)
