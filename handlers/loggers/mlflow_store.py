"""MLflow's stores: where runs are kept by default, whether a server is there, and a database made quickly."""

from __future__ import annotations

import logging
import os
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

SQLITE = "sqlite:///"
NOISY = ("alembic", "mlflow.store.db.utils")  # a line for each of sixty migrations


def resolve_uri(tracking_uri: str | None) -> str:
    """The store to use: as given, else MLFLOW_TRACKING_URI, else mlflow.db in the working directory.

    The path of a database is made absolute, so that it stays the same if the working directory changes.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    path = database_path(uri)
    return uri if path is None else f"{SQLITE}{path}"


def database_path(uri: str) -> Path | None:
    """The absolute path of a SQLite store; None for any other."""
    if not uri.startswith(SQLITE) or uri == SQLITE or ":memory:" in uri or "?" in uri:
        return None
    return Path(uri.removeprefix(SQLITE)).absolute()


def without_password(uri: str) -> str:
    """The URI without a user's name and password, for messages."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def check_server(uri: str) -> None:
    """Raises ConnectionError if nobody answers at an http(s) URI; any answer will do.

    MLflow's client itself tries for four minutes, with pauses of up to two, before it says that a server is gone.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    uri = without_password(uri)
    try:
        urlopen(Request(uri, method="HEAD"), timeout=10).close()
    except HTTPError as answer:
        answer.close()
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError):
            return  # somebody is there; what certificates count, MLflow's client decides
        raise ConnectionError(
            f"no MLflow server answers at {uri} ({reason}); start one with `mlflow server`, or leave out tracking_uri "
            "and MLFLOW_TRACKING_URI to log into ./mlflow.db without a server"
        ) from error


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """While a client is made for a store: no lines about migrations, no waiting for the disk if it makes a SQLite file.

    MLflow builds a new database in hundreds of small transactions, each of which waits for the disk. Nothing is lost if
    the machine stops in between, since nothing is in it yet; afterwards the connections are as safe as ever.
    """
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    path = database_path(uri)
    try:
        if path is None or path.exists():
            yield
        else:
            with _not_synchronous(path):
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _not_synchronous(path: Path) -> Iterator[None]:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    connections: list[sqlite3.Connection] = []

    def connected(connection: Any, record: object) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        files = [row[2] for row in connection.execute("PRAGMA database_list")]
        if any(file and Path(file).resolve() == path.resolve() for file in files):
            connection.execute("PRAGMA synchronous = OFF")
            connections.append(connection)

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in connections:
            with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
                connection.execute("PRAGMA synchronous = FULL")
