"""Whether ranks that are to keep their share of the same batches do read the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine.values import leaves_of
from leyden.handlers.common.digests import digest_of


class SameBatches:
    """Compares the first batches that each rank reads, once, and warns where they differ. Ranks make it together.

    What is whole numbers, truth values or text counts (labels, indices, tokens), since other numbers may be augmented
    at random; those count where there is nothing else.
    """

    def __init__(self, who: str, name: str) -> None:
        self._who = who
        self._name = name
        self._agreement: dist.Agreement | None = dist.Agreement(2)

    def compare(self, batches: Sequence[Any]) -> None:
        """Called by each rank with its first batches, the same number of them; later calls do nothing."""
        agreement, self._agreement = self._agreement, None
        if agreement is None:
            return
        digest = _digest(batches)
        agreement.post([digest, digest * digest])
        total, squares = agreement.result()
        agreement.close()
        ranks = dist.world_size()
        if squares * ranks != total * total and dist.rank() == 0:  # equal numbers alone have no spread
            warnings.warn(
                f"{self._who}(deal='batches') lets each rank read all of the data and keep its share of the batches, "
                f"but the ranks read different ones from their {self._name}. If each reads a share of its own already, "
                f"most of the data is lost: say deal='samples', which leaves it as it is",
                stacklevel=2,
            )


def _digest(batches: Iterable[Any]) -> int:
    """A number below 2**24 that equal batches share."""
    leaves = [leaf for batch in batches for leaf in leaves_of(batch)]
    whole = [leaf for leaf in leaves if _is_whole(leaf)] or leaves
    values = [leaf.detach().cpu().tolist() if isinstance(leaf, torch.Tensor) else leaf for leaf in whole]
    plain = [value for value in values if isinstance(value, bool | int | float | str | bytes | list)]
    return digest_of(plain, bits=24)


def _is_whole(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return not (leaf.is_floating_point() or leaf.is_complex())
    return isinstance(leaf, bool | int | str | bytes)
