"""What messages say of who asked for which mesh."""

import pytest

from leyden.distributed.mesh_wishes import settled, wish_of


def test_an_empty_wish_is_told_as_one() -> None:
    with pytest.raises(
        ValueError, match=r"divide the 4 ranks there are; initialize\(\) asks for no dimension; TP asks for"
    ):
        settled([wish_of("initialize()", {}), wish_of("TP", {"tensor": 3})], 4)
