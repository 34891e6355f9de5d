"""Ways to save a training state, one class each: `save` is what training waits for, `done` tells that it is on disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leyden.engine import Events, supervised_trainer
from leyden.handlers.checkpoint import Checkpoint

LIGHTNING = find_spec("pytorch_lightning") is not None
NEVER = Events.EPOCH_COMPLETED(every=10**9)


class Training:
    """A model of Linear layers and its AdamW, whose states are of `megabytes` together, and an engine that trains it.

    A step changes each tensor, so what is saved while steps go on must have been copied before.
    """

    def __init__(self, megabytes: float) -> None:
        width = 2048 if megabytes >= 200 else 128
        layers = max(1, round(megabytes * 1e6 / (3 * 4 * (width + 1) * width)))
        torch.manual_seed(0)
        self.model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.engine = supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        self.batch = (torch.randn(1, width), torch.randn(1, width))

    def state(self) -> dict[str, Any]:
        """The live tensors of the model and of the optimizer."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()["state"]}

    def tensors(self) -> list[torch.Tensor]:
        state = self.state()
        moments = [value for entry in state["optimizer"].values() for value in entry.values()]
        return [*state["model"].values(), *moments]

    def megabytes(self) -> float:
        return sum(tensor.nbytes for tensor in self.tensors()) / 1e6


class Rival:
    """One way of saving; each of its saves has a place of its own, which `clear` removes."""

    def __init__(self, training: Training, folder: Path) -> None:
        self.training = training
        self.folder = folder
        folder.mkdir(parents=True)
        self.place = folder

    def begin(self, number: int) -> None:
        """Before a save, and not part of its time."""
        self.place = self.folder / str(number)

    def save(self) -> None:
        raise NotImplementedError

    def done(self) -> bool:
        return True

    def first_weight(self) -> torch.Tensor:
        """The first layer's weight as it was saved."""
        raise NotImplementedError

    def clear(self) -> None:
        """After a save."""
        if self.place.is_dir():
            shutil.rmtree(self.place)
        else:
            self.place.unlink(missing_ok=True)


class Copy(Rival):
    """A copy of the tensors in new memory, which is what every save beside training has to make."""

    copies: list[torch.Tensor]

    def save(self) -> None:
        self.copies = [tensor.detach().clone() for tensor in self.training.tensors()]

    def first_weight(self) -> torch.Tensor:
        return self.copies[0]

    def clear(self) -> None:
        self.copies = []


class CopyInto(Copy):
    """The same into memory that is there from the time before: the system has no pages to find."""

    def begin(self, number: int) -> None:
        if not hasattr(self, "copies"):
            self.copies = [tensor.detach().clone() for tensor in self.training.tensors()]

    @torch.no_grad()
    def save(self) -> None:
        torch._foreach_copy_(self.copies, self.training.tensors())

    def clear(self) -> None:
        pass


class TorchSave(Rival):
    """torch.save into one file; it does not wait for the disk."""

    def save(self) -> None:
        torch.save(self.training.state(), self.place)

    def first_weight(self) -> torch.Tensor:
        weight: torch.Tensor = torch.load(self.place, mmap=True)["model"]["0.weight"]
        return weight


class LightningAsync(TorchSave):
    """Lightning's AsyncCheckpointIO around its TorchCheckpointIO: a copy, then torch.save in a thread."""

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

        written = self.written = threading.Event()

        class Telling(TorchCheckpointIO):
            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                super().save_checkpoint(*args, **kwargs)
                written.set()

        self.plugin = AsyncCheckpointIO(Telling())

    def save(self) -> None:
        self.written.clear()
        self.plugin.save_checkpoint(self.training.state(), str(self.place))

    def done(self) -> bool:
        return self.written.is_set()


class DistributedAsync(Rival):
    """torch.distributed.checkpoint.async_save as it comes: a copy, then writing in a thread."""

    future: Any

    def save(self) -> None:
        from torch.distributed import checkpoint

        self.future = checkpoint.async_save(self.training.state(), checkpoint_id=str(self.place), no_dist=True)

    def done(self) -> bool:
        return bool(self.future.done())

    def first_weight(self) -> torch.Tensor:
        from torch.distributed import checkpoint

        self.future.result()
        loaded = {"model": {"0.weight": torch.empty_like(self.training.model[0].weight)}}
        checkpoint.load(loaded, checkpoint_id=str(self.place), no_dist=True)
        return loaded["model"]["0.weight"]


class LeydenCheckpoint(Rival):
    """leyden's Checkpoint: everything attached, hashed, flushed to the disk, renamed when it is whole."""

    asynchronous = True

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self.checkpoint = Checkpoint(folder / "kept", event=NEVER, keep=1, asynchronous=self.asynchronous)
        training.engine.attach(self.checkpoint)
        self._saved_at = 0

    def save(self) -> None:
        self._saved_at = self.training.engine.state.iteration
        self.checkpoint.save(self.training.engine)

    def done(self) -> bool:
        return any(self.checkpoint.directory.glob(f"epoch=*-iteration={self._saved_at:08d}*"))

    def first_weight(self) -> torch.Tensor:
        from leyden.handlers.checkpoint import load_weights

        self.checkpoint.wait()
        model = nn.Sequential(*(nn.Linear(*layer.weight.shape[::-1]) for layer in self.training.model))
        load_weights(self.checkpoint.directory, model)
        return model[0].weight.detach()

    def clear(self) -> None:
        pass  # it keeps one


RIVALS: dict[str, Callable[[Training, Path], Rival]] = {
    "a copy of the tensors": Copy,
    "a copy into memory that is kept": CopyInto,
    "torch.save": TorchSave,
    **({"Lightning AsyncCheckpointIO": LightningAsync} if LIGHTNING else {}),
    "torch DCP async_save": DistributedAsync,
    "leyden": LeydenCheckpoint,
}
