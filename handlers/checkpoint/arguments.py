"""What can be wrong with the arguments of Checkpoint, told where they are given."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from leyden.engine.events import AnyEvent
from leyden.engine.values import as_whole


def check_directory(directory: Any) -> None:
    """Raises TypeError, ValueError for what can't be the place of checkpoints."""
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f'Checkpoint takes the path or URL of a directory ("runs/digits"), but got {directory!r}')
    text = os.fspath(directory)
    if not isinstance(text, str):
        raise TypeError(
            f"Checkpoint takes a path as text, but got the bytes {text!r}; os.fsdecode() makes text of them"
        )
    if not text.strip():
        raise ValueError(
            f'Checkpoint needs a directory for its checkpoints ("runs/digits"), but got {text!r}; for the working '
            'directory itself say "."'
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the directory {text!r} has a name that is no UTF-8, which the library of the files' format can't read; "
            "take another name"
        ) from None


def check_moments(every: Any, event: AnyEvent | None, every_minutes: Any) -> None:
    """Raises TypeError, ValueError for moments that can't be meant."""
    if every is not None and event is not None:
        raise ValueError(f"Checkpoint saves every={every} epochs or at event={event}; give only one of them")
    if every is not None and as_whole(every) is None:
        raise TypeError(f"Checkpoint saves after each every-th epoch, a whole number, but got every={every!r}")
    if every_minutes is None:
        return
    if isinstance(every_minutes, bool) or not isinstance(every_minutes, int | float):
        raise TypeError(f"Checkpoint saves every so many minutes, a number, but got {every_minutes=}")
    if not (every_minutes > 0 and math.isfinite(every_minutes)):
        raise ValueError(f"Checkpoint saves every so many minutes, more than 0, but got {every_minutes=}")


def check_options(best: Any, resume: Any, on_error: Any, extra: Any, override: Any, flags: Mapping[str, Any]) -> None:
    """Raises TypeError, ValueError for others that can't be meant."""
    if best is not None and not isinstance(best, str):
        raise TypeError(f'Checkpoint ranks by a metric, whose name best= gives ("val/loss"), but got {best!r}')
    if best == "":
        raise ValueError('Checkpoint ranks by a metric, whose name best= gives ("val/loss"), but got an empty name')
    if resume is not None and not isinstance(resume, str | os.PathLike):
        raise TypeError(f'Checkpoint resumes "auto", from a path, or not (None), but got resume={resume!r}')
    if resume == "":
        raise ValueError('Checkpoint resumes "auto", from a path, or not (None), but got an empty path')
    if on_error not in ("warn", "raise"):
        raise ValueError(f'Checkpoint needs on_error "warn" or "raise", but got {on_error!r}')
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"Checkpoint takes {name}=True or False, but got {flag!r}")
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f'Checkpoint takes extra={{"name": object}}, but got {extra!r}')
    for name, item in (extra or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"Checkpoint saves extra objects by name, but got the name {name!r}")
        if not (hasattr(item, "state_dict") and hasattr(item, "load_state_dict")):
            kind = type(item).__name__
            raise TypeError(f"extra {name!r} is a {kind}, which has no state_dict() and load_state_dict()")
    if isinstance(override, str) or not all(isinstance(name, str) for name in override):
        raise TypeError(
            f'Checkpoint takes the names of options as override=("lr", "weight_decay"), but got {override!r}'
        )
