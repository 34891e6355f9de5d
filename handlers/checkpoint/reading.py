"""For those who have a checkpoint and no engine: what is in it, whether it is whole, and its weights in a bare
module.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from leyden.handlers.checkpoint import parts
from leyden.handlers.checkpoint.contents import CheckpointContents
from leyden.handlers.checkpoint.directory import CheckpointDirectory, describe_place
from leyden.handlers.checkpoint.manifest import MANIFEST, Manifest, verify_files


def read(path: str | os.PathLike[str]) -> CheckpointContents:
    """What a checkpoint holds: its manifest, and its tensors' names, shapes and dtypes, without loading them.

    `path`: the folder of a checkpoint, or a directory of them, for the newest.
    Raises ValueError for a path that is neither, CheckpointDamagedError (a ValueError) for one that can't be read.
    """
    return CheckpointContents.read(locate(path))


def verify(path: str | os.PathLike[str]) -> Manifest:
    """Compares each file of a checkpoint with the size and SHA-256 in its manifest, which it returns.

    `path`: as for `read`. Raises CheckpointDamagedError (a ValueError), which names what is wrong.
    """
    folder = locate(path)
    manifest = Manifest.read(folder)
    verify_files(folder, manifest.files)
    return manifest


def load_weights(
    path: str | os.PathLike[str], model: nn.Module, *, name: str | None = None, strict: bool = True
) -> CheckpointContents:
    """Copies the weights of a checkpoint into a model, which needs no engine; the checkpoint is verified first.

    `path`: as for `read`. `name`: which model, as "<update>/<module>", where the checkpoint holds several.
    `strict=False` leaves alone the parameters and buffers that only one of them has.

    Raises ValueError if the model does not fit, before it is changed; CheckpointDamagedError if a file is not whole.
    """
    folder = locate(path)
    verify_files(folder, Manifest.read(folder).files)
    contents = CheckpointContents.read(folder)
    models = {f"{update}/{key}": (update, key) for update, each in contents.outline["models"].items() for key in each}
    if name is None and len(models) == 1:
        (name,) = models
    if name not in models:
        asked = "has several models; name= says which" if name is None else f"has no model {name!r}"
        raise ValueError(f"{folder} {asked}: {', '.join(models) or 'none'}")
    update, key = models[name]
    check = parts.model_problems if strict else parts.shape_problems
    what = type(parts.unwrapped(model)).__name__
    if problems := check(model, contents.outline["models"][update][key], what):
        raise ValueError(f"{folder} does not fit the model:\n  " + "\n  ".join(problems))
    weights = contents.load_model(update, key)
    parts.load_model(model, weights, contents.outline["versions"][update][key], strict=strict)
    return contents


def locate(path: str | os.PathLike[str]) -> Path:
    """The checkpoint at a path: the folder itself, or the newest in a directory.

    Raises ValueError, telling what was found there, if there is none.
    """
    folder = Path(path).expanduser()
    if is_checkpoint(folder):
        return folder
    entries = CheckpointDirectory(folder).entries()
    if not entries:
        raise ValueError(
            f"{folder} is no checkpoint: {describe_place(folder)}. Expected is the folder of a checkpoint, which holds "
            f"{MANIFEST}, or a directory of such folders (epoch=0001-iteration=00000100, ...)"
        )
    return entries[-1].path


def is_checkpoint(folder: Path) -> bool:
    """True if the folder has a manifest; whether it is whole is another question."""
    return (folder / MANIFEST).is_file()
