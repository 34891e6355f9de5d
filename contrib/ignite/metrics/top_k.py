"""Ignite's TopKCategoricalAccuracy: leyden's Accuracy, with the k first."""

from __future__ import annotations

import torch

from leyden.metrics import Accuracy, OutputTransform


class TopKCategoricalAccuracy(Accuracy):
    """`Accuracy(top_k=k)`."""

    def __init__(
        self,
        k: int = 5,
        output_transform: OutputTransform | None = None,
        device: str | torch.device | None = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, False, device, skip_unrolling, top_k=k)
