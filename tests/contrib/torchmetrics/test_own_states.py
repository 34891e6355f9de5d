"""A torchmetrics metric of one's own: truths, small whole numbers, reductions that are functions."""

from pathlib import Path

import pytest

pytest.importorskip("torchmetrics")

SCRIPT = Path(__file__).parent / "scripts" / "own_states.py"


@pytest.fixture(scope="module")
def ranks(found_by):
    return found_by(SCRIPT, 2)


def value(any_negative, all_positive, with_data, hundreds, most, product, seen):
    names = ("any_negative", "all_positive", "ranks_with_data", "hundreds", "most", "product")
    numbers = (any_negative, all_positive, with_data, hundreds, most, product)
    return dict(zip(names, map(float, numbers), strict=True)) | {"seen": seen, "ordered": sorted(seen)}


def test_the_values_of_the_ranks_are_reduced_as_torchmetrics_does(ranks) -> None:
    for found in ranks:
        assert found["uneven"] == value(True, False, 2, 300, 2, -8, [1.0, 2.0, -4.0])


def test_a_rank_without_data_changes_nothing(ranks) -> None:
    for found in ranks:
        assert found["second empty"] == value(False, True, 1, 200, 2, 2, [1.0, 2.0])
        assert found["first empty"] == value(True, False, 1, 100, 0, -4, [-4.0])
