"""Where checkpoints lie: a local path, or a place in any file system that fsspec reaches by a URL."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TypeAlias


class RemotePath:
    """As much of `pathlib.Path` as checkpoints need, over fsspec: "s3://bucket/run", "memory://run", ...

    Nothing is remembered of what lies there: each question goes to the file system, since other processes write too.
    `str(path)` and `os.fspath(path)` are its URL. Raises ImportError, naming the package to install, for a protocol
    whose file system is not there, and ValueError for one that fsspec does not know.
    """

    def __init__(self, url: str, *, filesystem: Any = None) -> None:
        self.url = url.rstrip("/")
        if filesystem is None:
            import fsspec.core

            filesystem, _ = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self.filesystem = filesystem
        self.key: str = filesystem._strip_protocol(self.url)
        """The place as the file system itself names it."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url.rpartition("/")[0], filesystem=self.filesystem)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}", filesystem=self.filesystem)

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies directly under it; some stores list a folder as a member of itself."""
        names = {str(key).rstrip("/").rpartition("/")[2] for key in self.filesystem.ls(self.key, detail=False)}
        return (self / name for name in sorted(names - {"", self.name}))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Of what lies directly under it, what has a name like the pattern."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def exists(self) -> bool:
        return self._kind() is not None

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=int(self.filesystem.size(self.key)))

    def open(self, mode: str = "rb") -> IO[bytes]:
        file: IO[bytes] = self.filesystem.open(self.key, mode)
        return file

    def read_bytes(self) -> bytes:
        return bytes(self.filesystem.cat_file(self.key))

    def write_bytes(self, data: bytes) -> int:
        """In one piece, so that the file is there whole or not at all where the store is one of objects."""
        self.filesystem.pipe_file(self.key, data)
        return len(data)

    def unlink(self) -> None:
        self.filesystem.rm_file(self.key)

    def _kind(self) -> str | None:
        """What lies there, None if nothing does; raises where the store can't tell. fsspec's own questions answer False
        then, and what has no manifest is deleted.
        """
        try:
            return str(self.filesystem.info(self.key)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def __fspath__(self) -> str:
        return self.url

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __hash__(self) -> int:
        return hash(self.url)


StoragePath: TypeAlias = Path | RemotePath
"""Where a checkpoint, a directory of them or a file of one lies."""


def to_path(path: str | os.PathLike[str]) -> StoragePath:
    """The place that a path or URL names; "file://..." is a local path as any other."""
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://")).absolute()
    if "://" in text:
        return RemotePath(text)
    return Path(text).expanduser()
