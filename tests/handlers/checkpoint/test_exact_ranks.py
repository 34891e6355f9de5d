"""What four ranks wrote, replicas or shards of a model, two ranks and one load with equal weights and optimizers."""

import functools

import pytest
import scenarios

from leyden.handlers.checkpoint import read, verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


play = functools.partial(scenarios.play, "ranks_run.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("four")


@pytest.fixture(scope="module")
def four(base):
    return play(4, base, "first", "sharded_first")


@pytest.mark.parametrize("count", [4, 2, 1])
@pytest.mark.parametrize(
    ("written", "loaded", "files"), [("first", "stands", 1), ("sharded_first", "sharded_stands", 4)]
)
def test_they_load_on_fewer_ranks(written, loaded, files, count, four, base) -> None:
    folder = base / {"first": "first", "sharded_first": "sharded"}[written]
    manifest = verify(folder)
    assert manifest.world_size == 4
    assert len(list(read(folder).path.glob("*.safetensors"))) == files
    there = play(count, base, loaded)[loaded]
    assert len(there) == count
    for rank in there:
        assert rank["losses"] == []
        assert rank["weights"] == four[written][0]["weights"]
        assert rank["optimizer"] == four[written][0]["optimizer"]


@pytest.mark.parametrize(("count", "batches"), [(2, 3), (1, 6)])
def test_fewer_ranks_train_on(count, batches, four, base) -> None:
    """Two more epochs, each over all 24 samples."""
    assert [len(rank["losses"]) for rank in four["first"]] == [2 * 2] * 4
    after = play(count, base, "second")["second"]
    assert [len(rank["losses"]) for rank in after] == [2 * batches] * count
    assert {tuple(rank["weights"].values()) for rank in after} == {tuple(after[0]["weights"].values())}
