"""The outputs that docs/from-ignite-metrics.md names, three batches of each."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch

N = 12


def classes(groups: int = 5) -> torch.Tensor:
    """Each class at least twice."""
    return (torch.arange(N) % groups)[torch.randperm(N)]


def scores() -> torch.Tensor:
    return torch.randn(N, 5).softmax(1)


def numbers() -> torch.Tensor:
    return 0.5 + torch.rand(N)


def above(y: torch.Tensor, by: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of up to so much too high."""
    return y + by * torch.rand_like(y), y


def words(count: int) -> list[str]:
    """Of four kinds, so that many are found again."""
    return [string.ascii_lowercase[each] * 3 for each in torch.randint(0, 4, (count,)).tolist()]


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    labels = classes(3)
    return torch.randn(N, 4) + 3 * labels[:, None], labels


def image() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Four boxes of three classes, found about where they are, and two that aren't there."""
    corners = 90 * torch.rand(6, 2)
    true = torch.cat([corners, corners + 40 + 60 * torch.rand(6, 2)], 1)
    labels = torch.randint(0, 3, (6,))
    found = {"bbox": true + 4 * torch.randn(6, 4), "scores": torch.rand(6), "labels": labels}
    return found, {"bbox": true[:4], "labels": labels[:4]}


def boxes() -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
    images = [image() for _ in range(4)]
    return [found for found, _ in images], [true for _, true in images]


BATCHES: dict[str, Callable[[], Any]] = {
    "a number": lambda: 1 + torch.rand(()).item(),
    "numbers, numbers": lambda: above(numbers(), 0.3),
    "vectors": lambda: torch.rand(N, 4),
    "vectors, vectors": lambda: above(torch.randn(N, 4), 2.0),
    "vectors, clusters": clusters,
    "logits, classes": lambda: (torch.randn(N, 5), classes()),
    "scores, classes": lambda: (scores(), classes()),
    "scores, classes, groups": lambda: (scores(), classes(), classes(2)),
    "classes, classes": lambda: (classes(), classes()),
    "labels, labels": lambda: (torch.randint(0, 2, (N, 3)), torch.randint(0, 2, (N, 3))),
    "probabilities, 0 or 1": lambda: (torch.rand(N), classes(2)),
    "logits, logits": lambda: (torch.randn(N, 5), torch.randn(N, 5)),
    "scores, relevance": lambda: (torch.rand(N, 6), torch.randint(0, 2, (N, 6)) * classes(2)[:, None]),
    "images": lambda: torch.rand(N, 3, 16, 16),
    "images, images": lambda: above(torch.rand(N, 3, 16, 16), 0.2),
    "boxes, boxes": boxes,
    "texts, texts": lambda: ([" ".join(words(8)) for _ in range(6)], [" ".join(words(9)) for _ in range(6)]),
    "words, references": lambda: ([words(12) for _ in range(6)], [[words(14)] for _ in range(6)]),
}


def outputs(kind: str) -> list[Any]:
    torch.manual_seed(1)
    return [BATCHES[kind]() for _ in range(3)]
