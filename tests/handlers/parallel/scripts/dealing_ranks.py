"""One process plays all ranks: what each of them would iterate."""

import torch

from leyden.handlers.parallel.dealing import Deal, deal_data


def deals(world_size, seed=0, even=True):
    return [Deal(rank, world_size, seed, even) for rank in range(world_size)]


def batches_of_ranks(make, world_size, even, seed=0, epoch=1):
    """The batches that each rank iterates, as lists; `make()` makes the data anew for each rank, as processes do."""
    shares = []
    for deal in deals(world_size, seed, even):
        deal.set_epoch(epoch)
        shares.append(
            [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in deal_data(make(), deal)]
        )
    return shares


def samples(shares):
    """All samples of all ranks, in one list."""
    return [sample for share in shares for batch in share for sample in (batch if isinstance(batch, list) else [batch])]
