"""The benchmark of many ranks runs at its smallest, and what one rank of them pays does not grow with their number."""

import warnings
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FILES_OF_A_RESUME = 6
"""The manifest, the state, the index, the rank's own, its shard, and the one with what is not sharded."""


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    return scale


@pytest.fixture
def rows(scale: ModuleType) -> dict[int, dict[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {size: dict(scale.of_size(size)) for size in (8, 32)}


def test_a_rank_pays_the_same_among_more(rows, scale: ModuleType) -> None:
    few, many = rows[8], rows[32]
    assert few["resume, rank 7"].opened == many["resume, rank 31"].opened == FILES_OF_A_RESUME
    assert many["resume, rank 31"].json <= 1.1 * few["resume, rank 7"].json
    assert many["save, rank 31"].arrived <= 2 * few["save, rank 7"].arrived
    assert many["save, rank 31"].messages <= 2 * few["save, rank 7"].messages
    assert many["start-up, rank 31"].messages <= 2 * few["start-up, rank 7"].messages
    metrics = f"epoch's end, {scale.METRICS} metrics"
    assert many[metrics].arrived == few[metrics].arrived
    # With half as many ranks, of half as many shards: two of what was written for each, and one of the ranks' own.
    for rank in (0, 15):
        assert many[f"resume by W/2, rank {rank}"].opened <= FILES_OF_A_RESUME + 1
