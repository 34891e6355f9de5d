"""One checkpoint for all ranks, from which one rank, or two, can go on."""

import functools

import pytest
import scenarios

from leyden.handlers.checkpoint import read, verify

SHARDED = ["sharded_whole", "sharded_first", "sharded_second", "sharded_stands"]


play = functools.partial(scenarios.play, "ranks_run.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(base):
    """What two ranks told."""
    return play(2, base, "whole", "first", "second", *SHARDED, "fails_on_one_rank", "fails_to_write")


@pytest.fixture(scope="module")
def one(base, two):
    """What one process told that went on from two ranks."""
    return play(1, base, "stands", "second", "sharded_stands")


def test_two_ranks_write_one_checkpoint(two, base) -> None:
    assert sorted(path.name for path in (base / "first").iterdir()) == [
        "epoch=0001-iteration=00000003",
        "epoch=0002-iteration=00000006",
    ]
    assert verify(base / "first").world_size == 2
    contents = read(base / "first")
    assert set(contents.manifest.files) == {"index.json", "state.json"}
    assert {path.name for path in contents.path.iterdir()} == {
        "index.json",
        "manifest.json",
        "rank-00000.state",
        "rank-00001.state",
        "shard-00001-model-00001-of-00001.safetensors",
        "state.json",
    }
    assert all(contents.rank_outline(rank)["rng"] for rank in range(2))


def test_two_ranks_go_on_as_if_they_had_not_stopped(two) -> None:
    for whole, first, second in zip(two["whole"], two["first"], two["second"], strict=True):
        assert first["losses"] + second["losses"] == whole["losses"]
        assert second["weights"] == whole["weights"]
        assert second["optimizer"] == whole["optimizer"]


def test_one_process_goes_on_from_two_ranks(two, one) -> None:
    (stands,), (second,) = one["stands"], one["second"]
    assert stands["losses"] == []
    assert stands["weights"] == two["first"][0]["weights"]
    assert stands["optimizer"] == two["first"][0]["optimizer"]
    assert len(second["losses"]) == 12


def test_a_sharded_model_is_written_by_all_ranks_in_the_same_format(two, base) -> None:
    contents = read(base / "sharded")
    assert {path.name for path in contents.path.glob("*.safetensors")} == {
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    }
    assert contents.tensors["optimizers/default/state/model/0.weight/exp_avg"].shape == (7, 4)


def test_a_sharded_model_goes_on_as_if_it_had_not_stopped(two) -> None:
    for rank in range(2):
        whole, first, second, stands = (two[name][rank] for name in SHARDED)
        assert stands["weights"] == first["weights"]
        assert stands["optimizer"] == first["optimizer"]
        assert first["losses"] + second["losses"] == whole["losses"]
        assert second["weights"] == whole["weights"]
        assert second["optimizer"] == whole["optimizer"]


def test_one_process_goes_on_whole_from_a_sharded_model(two, one) -> None:
    (alone,) = one["sharded_stands"]
    assert alone["weights"] == two["sharded_first"][0]["weights"]
    assert alone["optimizer"] == two["sharded_first"][0]["optimizer"]


def test_a_rank_that_can_not_save_ends_the_run_on_all(two) -> None:
    assert two["fails_on_one_rank"] == [
        "RuntimeError: rank 1 failed: OSError: no state on this rank",
        "OSError: no state on this rank",
    ]


def test_a_disk_that_fails_rank_zero_ends_the_run_on_all(two) -> None:
    zero, other = two["fails_to_write"]
    assert zero.startswith("NotADirectoryError")
    assert other.startswith("RuntimeError: rank 0 failed: NotADirectoryError")
