"""The names of `ignite.utils` that scripts use."""

from __future__ import annotations

import logging
from typing import Any, TextIO

import torch

from leyden import distributed as dist
from leyden.engine import to_device
from leyden.handlers import seed_everything

FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"


def manual_seed(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch."""
    seed_everything(seed)


def convert_tensor(x: Any, device: str | torch.device | None = None, non_blocking: bool = False) -> Any:
    """The tensors in `x`, itself or in containers at any depth, on `device`; all else as it is."""
    return x if device is None else to_device(x, torch.device(device), non_blocking)


def to_onehot(indices: torch.Tensor, num_classes: int) -> torch.Tensor:
    """From class indices (N, ...) to one-hot vectors (N, num_classes, ...) in uint8."""
    onehot = torch.zeros((indices.shape[0], num_classes, *indices.shape[1:]), dtype=torch.uint8, device=indices.device)
    return onehot.scatter_(1, indices.unsqueeze(1), 1)


def setup_logger(
    name: str | None = "ignite",
    level: int = logging.INFO,
    stream: TextIO | None = None,
    format: str = FORMAT,
    filepath: str | None = None,
    distributed_rank: int | None = None,
    reset: bool = False,
    encoding: str | None = "utf-8",
) -> logging.Logger:
    """A logger of that name that writes to `stream` (stderr by default) and `filepath`, on rank 0 alone.

    One that is set up already stays as it is, unless `reset`.
    """
    rank = dist.rank() if distributed_rank is None else distributed_rank
    known = name is None or name in logging.root.manager.loggerDict
    logger = logging.getLogger(name)
    if rank > 0 or reset:
        logger.handlers.clear()
    if rank > 0:
        logger.addHandler(logging.NullHandler())
    if rank > 0 or (known and not reset):
        return logger
    logger.setLevel(level)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if filepath is not None:
        handlers.append(logging.FileHandler(filepath, encoding=encoding))
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(format))
        logger.addHandler(handler)
    if name is not None:
        logger.propagate = False
    return logger
