"""The mesh of this run: its ranks along named dimensions, and which of them see different data."""

from __future__ import annotations

from collections.abc import Mapping

from leyden.distributed.backends import Backend, SerialBackend
from leyden.distributed.mesh_layout import Mesh, names_of
from leyden.distributed.session import session


def mesh() -> Mesh:
    """The mesh of this run: one for all of it. In one process each dimension has size 1.

    Once several ranks have asked for it, it stays as it is, and further wishes have to fit it. Without any wish
    it is one dimension of replicas.

    Raises:
        ValueError: what is asked of it contradicts itself, or does not fit the number of ranks.
    """
    return session.mesh()


def request_mesh(owner: object, sizes: Mapping[str, int]) -> None:
    """Asks for dimensions of the run's mesh, before it is used first: `request_mesh(self, {"tensor": 2})` in the
    `attach` of a handler. All ranks ask for the same. In one process the wish is looked at, and means nothing.

    Args:
        owner: who asks, for messages: a handler, or words.
        sizes: of the dimensions pipeline, replicate, shard, context and tensor. -1 takes what is left of the ranks,
            unless somebody else has a number for it; what nobody asks for are replicas.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a dimension is unknown; or the wish contradicts an earlier one, or does not fit the ranks.
        RuntimeError: the mesh is in use already, and has other sizes.
    """
    session.request_mesh(owner, sizes)


def data_rank() -> int:
    """This process among those that see different data, from 0: the ranks of one number read the same samples."""
    return session.mesh().rank("data")


def data_size() -> int:
    """How many shares the data are dealt into: the sizes of replicate and shard, multiplied."""
    return session.mesh().size("data")


def backend_over(dimension: str | None) -> Backend:
    """The backend whose collectives go over a dimension of the mesh; None is the world."""
    backend = session.current()
    if dimension is None or dimension == "world":
        return backend
    names_of(dimension)  # raises for what is none
    if backend.group is None:  # alone, where all is the identity; or not joined yet, which it tells
        return backend
    size = session.mesh().size(dimension)
    if size == backend.size:
        return backend
    if size == 1:
        return SerialBackend()
    return backend.among(session.mesh().group(dimension)) or SerialBackend()
