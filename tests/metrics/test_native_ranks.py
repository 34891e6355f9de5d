"""What two processes find is what one process finds that sees all samples: uneven shards, and one that is empty."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "native_ranks.py"


@pytest.fixture(scope="module")
def alone(found_alone):
    return found_alone(SCRIPT)


@pytest.fixture(scope="module")
def ranks(found_by):
    return found_by(SCRIPT, 2)


def close(value):
    """Floats up to the rounding of float64, whose sums the shards order otherwise; counts exactly."""
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


@pytest.mark.parametrize("shards", ["uneven", "last empty", "first empty"])
def test_every_rank_has_the_value_of_all_samples(alone, ranks, shards) -> None:
    assert len(ranks) == 2
    for found in ranks:
        assert set(found[shards]) >= set(runpy.run_path(str(SCRIPT))["all_metrics"]())
        assert found[shards] == close(alone[shards])


def test_frequency_is_of_all_ranks(ranks) -> None:
    assert [found["frequency"] for found in ranks] == [True, True]


def test_outputs_of_different_kinds_are_an_error_on_every_rank(ranks) -> None:
    for found in ranks:
        assert "different" in found["differing"]
