"""The pieces of a tensor in an index have each of its places once: otherwise memory that nobody wrote would be read."""

import json

import pytest

from leyden.handlers.checkpoint.files.index import Index

SUM = "0" * 64


def index(shape, pieces):
    """The index of a tensor of which pieces (offsets, shape) lie one after the other in a file."""
    start, listed = 8, []
    for offsets, sizes in pieces:
        count = 1
        for size in sizes:
            count *= size
        listed.append([0, start, *offsets, *sizes, *([SUM] if count else [])])
        start += count * 4
    tensors = {"w": {"dtype": "float32", "shape": list(shape), "pieces": listed}}
    return json.dumps({"token": "t", "files": [["a.safetensors", start, 8, SUM]], "tensors": tensors}).encode()


TILINGS = {
    "whole": ((4,), [((0,), (4,))]),
    "rows": ((5, 3), [((3, 0), (2, 3)), ((0, 0), (3, 3))]),
    "an empty one": ((2,), [((0,), (1,)), ((1,), (1,)), ((2,), (0,))]),
    "a pinwheel": ((3, 3), [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]),
    "cubes": (
        (2, 2, 4),
        [((row, column, depth), (1, 1, 2)) for row in (0, 1) for column in (0, 1) for depth in (0, 2)],
    ),
    "a number": ((), [((), ())]),
    "nothing": ((0, 3), [((0, 0), (0, 3)), ((0, 0), (0, 3))]),
}
OTHERS = {
    "half twice": ((4,), [((0,), (2,)), ((0,), (2,))]),
    "a row over another": ((4, 3), [((0, 0), (2, 3)), ((1, 0), (2, 3))]),
    "columns over rows": ((2, 2), [((0, 0), (1, 2)), ((0, 0), (2, 1))]),
    "the diagonal twice": ((2, 2), [((0, 0), (1, 1)), ((1, 1), (1, 1)), ((0, 0), (1, 1)), ((1, 1), (1, 1))]),
}


@pytest.mark.parametrize("name", TILINGS)
def test_pieces_that_tile(name) -> None:
    shape, pieces = TILINGS[name]
    assert [(piece.offsets, piece.shape) for piece in Index.from_bytes(index(shape, pieces)).tensors["w"].pieces] == (
        pieces
    )


@pytest.mark.parametrize("name", OTHERS)
def test_pieces_of_the_right_size_that_do_not(name) -> None:
    with pytest.raises(ValueError, match="the pieces of w lie over each other"):
        Index.from_bytes(index(*OTHERS[name]))
