"""The averages of a model that is sharded over two ranks, or replicated."""

import pytest
import sharded_averages

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    base = str(tmp_path_factory.mktemp("sharded"))
    return dist.launch(sharded_averages.cases, 2, args=(base,), backend="gloo", timeout=30)


@pytest.mark.parametrize(
    "claim",
    [
        "training goes on as if there were none",
        "the average is that by hand",
        "an average is a shard",
        "no memory is shared",
        "evaluations are of the averages",
        "it can be copied to a whole model",
        "steps make collectives",
        "averages make none",
        "the rest is run",
        "the weights are the same",
        "the averages are the same",
        "swa: the model has the average",
        "swa: replicas are equal",
        "swa: statistics are of all ranks",
    ],
)
def test_on_each_rank(ranks, claim):
    assert [rank[claim] for rank in ranks] == [True, True]
