"""Where Ignite's checkpoints go: one file each, which `torch.load` reads."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from leyden import distributed as dist


class BaseSaveHandler(ABC):
    """Takes a checkpoint, and takes one away again; the base of savers of one's own."""

    @abstractmethod
    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Saves it under that name."""

    @abstractmethod
    def remove(self, filename: str) -> None:
        """Removes what was saved under that name."""


class DiskSaver(BaseSaveHandler):
    """Writes each checkpoint to a file of `dirname` by `torch.save`; `kwargs` go to it.

    `atomic`: written under another name, flushed to the disk, then renamed, so that a file with its own name is whole.
    Only the rank `save_on_rank` writes.

    Raises ValueError for a folder that is not there with `create_dir=False`, and, with `require_empty`, for one that
    holds checkpoints already.
    """

    def __init__(
        self,
        dirname: str | os.PathLike[str],
        atomic: bool = True,
        create_dir: bool = True,
        require_empty: bool = True,
        save_on_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        self.dirname = Path(dirname).expanduser()
        self.save_on_rank = save_on_rank
        self._atomic = atomic
        self._kwargs = kwargs
        if dist.rank() != save_on_rank:
            return
        if create_dir:
            self.dirname.mkdir(parents=True, exist_ok=True)
        if not self.dirname.is_dir():
            raise ValueError(f"DiskSaver writes to {self.dirname}, but that folder is not there; pass create_dir=True")
        if require_empty and (there := sorted(path.name for path in self.dirname.glob("*.pt"))):
            raise ValueError(
                f"{self.dirname} holds checkpoints already: {', '.join(there)}. Pass require_empty=False to write "
                "beside them, or name another folder"
            )

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        if dist.rank() != self.save_on_rank:
            return
        if not self._atomic:
            torch.save(checkpoint, self.dirname / filename, **self._kwargs)
            return
        descriptor, temporary = tempfile.mkstemp(dir=self.dirname, prefix=".writing-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                torch.save(checkpoint, file, **self._kwargs)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.dirname / filename)
        except BaseException:
            os.unlink(temporary)
            raise

    def remove(self, filename: str) -> None:
        if dist.rank() == self.save_on_rank:
            (self.dirname / filename).unlink(missing_ok=True)
