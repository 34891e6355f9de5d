"""MLflow's stores: where runs are kept by default, and whether a server is there."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from leyden.handlers.loggers.mlflow_database import make_database

SQLITE = "sqlite:///"
DATABASES = (".db", ".sqlite", ".sqlite3")
NOISY = ("alembic", "mlflow.store.db.utils")  # a line for each of sixty migrations


def resolve_uri(tracking_uri: str | os.PathLike[str] | None) -> str:
    """The store to use: as given, else MLFLOW_TRACKING_URI, else mlflow.db in the working directory.

    A path is that of a SQLite database, or of a folder with mlflow.db in it, or with a store of files as older MLflows
    made it. Paths are made absolute, so that the store stays the same if the working directory changes.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if not isinstance(uri, str) or (":" not in uri and Path(uri).suffix in DATABASES):
        return _uri_of_path(Path(uri).expanduser().absolute())
    path = database_path(uri)
    return uri if path is None else f"{SQLITE}{path}"


def _uri_of_path(path: Path) -> str:
    if path.is_file() or (path.suffix in DATABASES and not path.is_dir()):
        return f"{SQLITE}{path}"
    return path.as_uri() if any(path.glob("*/meta.yaml")) else f"{SQLITE}{path / 'mlflow.db'}"


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
    """While a client is made for a store: its SQLite database is there, and no lines tell about migrations."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    path = database_path(uri)
    try:
        if path is not None and not path.exists():
            make_database(path)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
