"""Makes MLflow's SQLite database: quickly, and so that it is there whole or not at all, whoever makes it beside us."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def make_database(path: Path) -> None:
    """Makes a database unless one is there; of several processes at once one makes it, and the others wait.

    It is built beside and then gets its name, so that who is stopped in the midst of it (Ctrl-C, SIGKILL) leaves
    nothing behind that is broken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        for left in path.parent.glob(f".{path.name}.new-*"):  # by processes that died
            left.unlink(missing_ok=True)
        new = path.with_name(f".{path.name}.new-{os.getpid()}")
        try:
            _build(new, artifacts=path.parent / "mlartifacts")
            _publish(new, path)
        finally:
            for left in path.parent.glob(f"{new.name}*"):  # its journal too
                left.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds a file that is gone afterwards; the system lets go of it when the process dies.

    Where a file system has no locks there is none: `_publish` still lets only one database become the one.
    """
    import fcntl

    while True:
        file = path.open("a")
        try:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    continue  # the one before removed it
            except FileNotFoundError:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            file.close()


def _build(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _not_synchronous(path):
        store = SqlAlchemyStore(f"sqlite:///{path}", artifacts.as_uri())
    store.engine.dispose()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _publish(new: Path, path: Path) -> None:
    """Gives the database its name, unless another one got there first."""
    with suppress(FileExistsError):
        try:
            os.link(new, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            new.rename(path)


@contextmanager
def _not_synchronous(path: Path) -> Iterator[None]:
    """Lets SQLite not wait for the disk while a database is made, which takes MLflow hundreds of small transactions."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: Any, record: object) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        files = [row[2] for row in connection.execute("PRAGMA database_list")]
        if any(file and Path(file).resolve() == path.resolve() for file in files):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
