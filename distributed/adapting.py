"""Fit a model, an optimizer or a data loader to the processes there are: `auto_model`, `auto_optim`, `auto_dataloader`.

For scripts that come from ignite.distributed. With leyden's handlers, `DataParallel` and its like do the same in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler

from leyden.distributed.mesh import data_rank, data_size, mesh
from leyden.distributed.samplers import check_place, place_of_sampler
from leyden.distributed.session import device, is_initialized, local_world_size, world_size

T = TypeVar("T")


def auto_model(model: nn.Module, sync_bn: bool = False, **kwargs: Any) -> nn.Module:
    """Move a model to this rank's device and, with several processes, wrap it in DistributedDataParallel.

    A model that is wrapped already, or has no parameter to train, is not wrapped.

    Args:
        model: the model; moved in place.
        sync_bn: turn batch norms into ones whose statistics are those of all ranks (accelerators only).
        kwargs: for DistributedDataParallel; `device_ids` is chosen here.

    Raises:
        ValueError: `device_ids` was given.
        RuntimeError: there are several processes, but `initialize` was not called.
    """
    if "device_ids" in kwargs:
        raise ValueError(f"auto_model chooses device_ids itself, but got device_ids={kwargs['device_ids']}")
    here = device()
    if any(tensor.device != here for tensor in (*model.parameters(), *model.buffers())):
        model.to(here)
    if world_size() == 1 or isinstance(model, DistributedDataParallel):
        return model
    if not is_initialized():
        raise RuntimeError("auto_model needs the process group: call leyden.distributed.initialize() first")
    if sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    if data_size() < world_size():
        kwargs.setdefault("process_group", mesh().group("data"))
    return DistributedDataParallel(model, device_ids=None if here.type == "cpu" else [here.index], **kwargs)


def auto_optim(optimizer: T, **kwargs: Any) -> T:
    """The optimizer itself: on these backends gradients are averaged by the model's wrapper.

    Args:
        optimizer: any optimizer.
        kwargs: accepted for scripts that pass options of a backend; none of these backends has any.
    """
    return optimizer


def auto_dataloader(dataset: Dataset[Any], **kwargs: Any) -> DataLoader[Any]:
    """A DataLoader that gives each rank its share of the data set.

    `batch_size` and `num_workers` are those of the whole job: the batch is divided by the ranks that see different
    data, the workers by the ranks of this node (rounded up); a number too small to divide stays as it is. The data are
    dealt out by a DistributedSampler (which shuffles unless `shuffle=False`), or from `sampler` if one is given, unless
    that one has a `rank` and so deals by itself. An iterable data set and a `batch_sampler` are used as they are.
    Beside an accelerator memory is pinned unless `pin_memory=False`.

    Args:
        dataset: the data.
        kwargs: for DataLoader.

    Raises:
        ValueError: a sampler was given that deals to another rank, or to another number of them.
    """
    ranks = data_size()
    if ranks > 1:
        if (kwargs.get("batch_size") or 0) >= ranks:
            kwargs["batch_size"] //= ranks
        if kwargs.get("num_workers", 0) >= local_world_size():
            kwargs["num_workers"] = -(-kwargs["num_workers"] // local_world_size())
        if kwargs.get("batch_sampler") is None and not isinstance(dataset, IterableDataset):
            kwargs["sampler"] = _sampler_of_rank(dataset, kwargs.get("sampler"), kwargs.pop("shuffle", None))
    kwargs.setdefault("pin_memory", device().type != "cpu")
    return DataLoader(dataset, **kwargs)


def _sampler_of_rank(dataset: Dataset[Any], sampler: Sampler[Any] | None, shuffle: bool | None) -> Sampler[Any]:
    if sampler is None:
        return DistributedSampler(
            dataset, num_replicas=data_size(), rank=data_rank(), shuffle=True if shuffle is None else shuffle
        )
    place = place_of_sampler(sampler)
    if isinstance(sampler, DistributedSampler):
        place = (sampler.rank, sampler.num_replicas)
    if place is None:
        return DistributedProxySampler(sampler, num_replicas=data_size(), rank=data_rank())
    check_place(sampler, place, (data_rank(), data_size()))
    return sampler


class DistributedProxySampler(DistributedSampler[Any]):
    """Deals what another sampler draws to the ranks, in turn, as many to each.

    All ranks draw the same sequence: torch's generator is seeded with `seed + epoch` for the drawing and put back after
    it, so call `set_epoch` before each epoch. Where the ranks don't divide the length, the first samples come twice.

    Args:
        sampler: a sampler with a length, not a DistributedSampler.
        num_replicas: how many ranks there are; None for those of this job that see different data.
        rank: the rank to deal to; None for this one.
        seed: added to the epoch.

    Raises:
        TypeError: `sampler` is no such sampler.
    """

    def __init__(
        self, sampler: Sampler[Any], num_replicas: int | None = None, rank: int | None = None, seed: int = 0
    ) -> None:
        if (
            not isinstance(sampler, Sampler)
            or isinstance(sampler, DistributedSampler)
            or not isinstance(sampler, Sized)
        ):
            raise TypeError(
                "DistributedProxySampler deals from a torch Sampler that has a length and is not distributed itself, "
                f"but got {type(sampler).__name__}"
            )
        super().__init__(
            cast(Dataset[Any], sampler),
            num_replicas=data_size() if num_replicas is None else num_replicas,
            rank=_this_rank() if rank is None else rank,
            shuffle=False,
            seed=seed,
        )
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            drawn = list(self.sampler)
        while len(drawn) < self.total_size:
            drawn += drawn[: self.total_size - len(drawn)]
        return iter(drawn[self.rank : self.total_size : self.num_replicas])


def _this_rank() -> int:
    return data_rank()
