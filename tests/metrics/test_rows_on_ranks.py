"""What docs/from-ignite-metrics.md writes for Ignite's metrics has on each of two ranks the value of all batches."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "rows_on_ranks.py"


@pytest.mark.slow  # some thirty engines on two ranks
@pytest.mark.filterwarnings("ignore")
def test_every_row_on_two_ranks(found_alone, found_by) -> None:
    pytest.importorskip("ignite")
    alone = found_alone(SCRIPT)
    ranks = found_by(SCRIPT, 2)
    assert len(alone) > 150
    assert len(ranks) == 2
    for found in ranks:
        assert found == {name: pytest.approx(value, rel=1e-6, abs=1e-6) for name, value in alone.items()}
