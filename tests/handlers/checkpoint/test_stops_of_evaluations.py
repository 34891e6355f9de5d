"""Ranks that agree to stop while they evaluate may do so only when a pass has met its end: it is not begun anew."""

import pytest
from stops_of_evaluations import stopped_at_each

from leyden import distributed as dist


@pytest.mark.parametrize("kind", ["iterable with state", "shuffle"])
def test_no_sample_is_evaluated_twice_wherever_the_run_is_asked_to_stop(kind, tmp_path):
    for whole, *stopped in dist.launch(stopped_at_each, 2, args=(str(tmp_path), kind, 5)):
        assert len(whole[0]) == 2
        assert stopped == [whole] * 5
