"""The mesh: named dimensions, who asks for them, and collectives over one of them."""

import socket

import mesh_functions
import pytest

from leyden import distributed as dist
from leyden.distributed.mesh_layout import DIMENSIONS, Mesh
from leyden.distributed.mesh_wishes import settled, together, wish_of

pytestmark = pytest.mark.timeout(90)


def launched(function, *arguments, nproc=4):
    return dist.launch(function, nproc, args=arguments, backend="gloo", timeout=50)


# -- the layout --------------------------------------------------------------------------------------------------------


def test_ranks_are_laid_out_with_the_last_dimension_running_first():
    sizes = {"pipeline": 2, "replicate": 2, "shard": 2, "context": 2, "tensor": 2}
    meshes = [Mesh(sizes, rank) for rank in range(32)]
    places = [tuple(mesh.rank(name) for name in DIMENSIONS) for mesh in meshes]
    assert places == [tuple(int(bit) for bit in f"{rank:05b}") for rank in range(32)]
    mesh = meshes[0b10110]
    assert (mesh.size("data"), mesh.rank("data")) == (4, 1)
    assert mesh.ranks("data") == [0b10010, 0b10110, 0b11010, 0b11110]
    assert mesh.ranks("tensor") == [0b10110, 0b10111]
    assert mesh.ranks("world") == list(range(32))
    assert mesh.rank("world") == 0b10110


def test_a_dimension_that_there_is_not_is_told_with_those_that_there_are():
    for call in (lambda: Mesh({}).size("modell"), lambda: dist.all_reduce(1, over="modell")):
        with pytest.raises(ValueError, match="'modell'; it has: pipeline, replicate, shard, context, tensor"):
            call()


@pytest.mark.parametrize(
    ("here", "saved", "counterparts"),
    [
        ({"replicate": 4}, {"replicate": 4}, [0, 1, 2, 3]),
        ({"replicate": 2, "tensor": 2}, {"replicate": 2, "tensor": 2}, [0, 1, 2, 3]),
        ({"replicate": 2, "tensor": 2}, {"replicate": 2}, [0, 0, 1, 1]),
        ({"replicate": 2, "tensor": 2}, {"shard": 2}, [0, 0, 1, 1]),
        ({"replicate": 2}, {"replicate": 2, "tensor": 2}, [0, 2]),
        ({"replicate": 2, "shard": 2}, {"replicate": 4}, [0, 1, 2, 3]),
        ({"replicate": 2, "tensor": 2}, {"replicate": 4}, [None] * 4),
        ({"pipeline": 2, "replicate": 2}, {"pipeline": 2, "replicate": 2, "tensor": 2}, [0, 2, 4, 6]),
    ],
)
def test_the_rank_of_another_mesh_that_had_the_same_share_of_the_data(here, saved, counterparts):
    assert [Mesh(here, rank).counterpart(saved) for rank in range(len(counterparts))] == counterparts


# -- wishes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "ranks", "sizes"),
    [
        ([], 6, {"replicate": 6}),
        ([{"tensor": 2}], 8, {"replicate": 4, "tensor": 2}),
        ([{"shard": -1}, {"tensor": 2}], 8, {"shard": 4, "tensor": 2}),
        ([{"shard": -1}, {"shard": 2}], 8, {"replicate": 4, "shard": 2}),
        ([{"replicate": 2}, {"shard": -1}, {"replicate": 2}], 8, {"replicate": 2, "shard": 4}),
        ([{"tensor": 2, "pipeline": 2, "replicate": -1, "shard": 2, "context": 2}], 32,
         {"pipeline": 2, "replicate": 2, "shard": 2, "context": 2, "tensor": 2}),
        ([{"replicate": 2, "tensor": 1}], 2, {"replicate": 2}),
    ],
)  # fmt: skip
def test_wishes_become_one_mesh(wishes, ranks, sizes):
    found = settled([wish_of(f"owner {i}", each) for i, each in enumerate(wishes)], ranks)
    assert found == dict.fromkeys(DIMENSIONS, 1) | sizes
    assert list(found) == list(DIMENSIONS)


@pytest.mark.parametrize(
    ("wishes", "ranks", "words"),
    [
        ([{"tensor": 2}, {"tensor": 4}], 8, ["one size of tensor", "A asks for tensor=2", "B asks for tensor=4"]),
        ([{"shard": -1}, {"replicate": -1}], 8, ["only one", "A asks for shard=-1", "B asks for replicate=-1"]),
        ([{"tensor": 2}, {"context": 3}], 8,
         ["context 3 x tensor 2 = 6 ranks", "does not divide the 8", "A asks for tensor=2", "B asks for context=3"]),
        ([{"replicate": 2}, {"tensor": 2}], 8,
         ["replicate 2 x tensor 2 = 4 ranks, but there are 8", "A asks for replicate=2", "-1"]),
    ],
)  # fmt: skip
def test_wishes_that_contradict_each_other_are_one_error_that_shows_them(wishes, ranks, words):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        settled([wish_of(owner, each) for owner, each in zip("AB", wishes, strict=True)], ranks)
    for word in words:
        assert word in str(raised.value)


def test_sizes_that_may_be_completed_by_a_later_wish_are_no_error_yet():
    assert together([wish_of("A", {"replicate": 2})], 8) == {"replicate": 2}


@pytest.mark.parametrize(
    ("sizes", "error", "words"),
    [
        ({"model": 2}, ValueError, "'model'; the dimensions are: pipeline, replicate, shard, context, tensor"),
        ({"tensor": 0}, ValueError, "tensor=0; a size is at least 1, or -1"),
        ({"tensor": -2}, ValueError, "tensor=-2"),
        ({"tensor": 2.0}, TypeError, "tensor=2.0, which is no whole number"),
        ({"tensor": True}, TypeError, "tensor=True"),
        ({"tensor": -1, "shard": -1}, ValueError, "only one dimension can be -1"),
        (2, TypeError, "by its dimensions"),
    ],
)
def test_what_is_no_wish_is_told_in_one_process_too(sizes, error, words):
    for ask in (lambda: dist.request_mesh("me", sizes), lambda: dist.initialize(mesh=sizes)):
        with pytest.raises(error) as raised:
            ask()
        assert words in str(raised.value)


def test_one_process_is_alone_in_every_dimension_whatever_is_wished():
    dist.initialize(mesh={"tensor": 2, "replicate": -1})
    dist.request_mesh("another script in this process", {"tensor": 4})
    assert set(dist.mesh().sizes.values()) == {1}
    assert (dist.data_rank(), dist.data_size()) == (0, 1)
    for over in (*DIMENSIONS, "data", "world", None):
        assert dist.all_reduce(3, over=over) == 3
        assert dist.all_gather("a", over=over) == ["a"]
        assert dist.all_gather_object({1}, over=over) == [{1}]
        assert dist.broadcast(2.5, over=over) == 2.5
        assert dist.broadcast_object({1}, over=over) == {1}
        dist.barrier(over=over)
    with pytest.raises(RuntimeError, match="joined"):
        dist.mesh().group("tensor")


def test_before_the_ranks_are_joined_the_place_is_known_and_the_wishes_wait(monkeypatch):
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))
    try:
        dist.finalize()
        assert (dist.data_rank(), dist.data_size()) == (5, 8)
        dist.request_mesh("TensorParallel", {"tensor": 4})
        assert (dist.data_rank(), dist.data_size()) == (1, 2)
        with pytest.raises(RuntimeError, match="not joined yet"):
            dist.all_reduce(1, over="tensor")
    finally:
        monkeypatch.undo()
        dist.finalize()


# -- real ranks --------------------------------------------------------------------------------------------------------


def test_collectives_of_four_ranks_go_over_the_dimension_they_name():
    ranks = launched(mesh_functions.square)
    assert [told["mesh"] for told in ranks] == ["Mesh(replicate 2 x tensor 2)"] * 4
    assert [told["place"] for told in ranks] == [(0, 2, 0, 2), (0, 2, 1, 2), (1, 2, 0, 2), (1, 2, 1, 2)]
    assert [told["sums"]["data"] for told in ranks] == [101, 1010, 101, 1010]
    assert [told["sums"]["tensor"] for told in ranks] == [11, 11, 1100, 1100]
    assert [told["sums"]["shard"] for told in ranks] == [1, 10, 100, 1000]
    assert [told["sums"]["world"] for told in ranks] == [told["sums"][None] for told in ranks] == [1111] * 4
    assert [told["mean"] for told in ranks] == [[1.0], [2.0], [1.0], [2.0]]
    assert [told["gathered"] for told in ranks] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [told["strings"] for told in ranks] == [["rank 0", "rank 2"], ["rank 1", "rank 3"]] * 2
    assert [told["objects"] for told in ranks] == [[{rank}] for rank in range(4)]
    assert [told["broadcast"] for told in ranks] == [1, 1, 3, 3]
    assert [told["object"] for told in ranks] == [{2}, {3}, {2}, {3}]
    for told in ranks:
        assert "from 0 to 1" in told["no such rank"]
        assert "got both" in told["both"]
        assert told["groups"] == [0, 0, 2]  # nothing before the first use, then one for each dimension that was used
        assert told["same group"]
        assert told["timeouts"] == (50.0,)
    assert ranks[2]["device mesh"] == (("replicate", "tensor"), [[0, 1], [2, 3]], (1, 0))


def test_handlers_ask_for_dimensions_and_contradictions_are_told_at_once():
    for told in launched(mesh_functions.wishes):
        assert told["sizes"] == {"pipeline": 1, "replicate": 1, "shard": 2, "context": 1, "tensor": 2}
        three, four, two_open, late = told["errors"]
        assert "= 6 ranks, which does not divide the 4" in three
        assert "TensorParallel asks for tensor=2, and another asks for tensor=4" in four
        assert "FullyShard asks for shard=-1, and HSDP asks for replicate=-1" in two_open
        assert "late asks for context=2, but the mesh of this run is in use already, as shard 2 x tensor 2" in late


@pytest.mark.parametrize("wished", [None, {"replicate": 2, "shard": -1}])
def test_ranks_that_all_see_different_data_need_no_group_beside_the_world_s(wished):
    ranks = launched(mesh_functions.whole_world, wished, nproc=2)
    assert ranks == [(3, True, (rank, 2), 1) for rank in range(2)]


def test_a_group_is_made_by_those_that_are_in_it_alone():
    assert launched(mesh_functions.some_ranks_alone) == [None, None, 5, 5]


def test_a_group_that_is_left_takes_its_mesh_with_it(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SECOND_PORT", str(free.getsockname()[1]))
    assert launched(mesh_functions.survives_a_new_group) == [(1, 2)] * 4


@pytest.mark.parametrize("others", [None, {"context": 2}])
def test_ranks_that_ask_for_different_meshes_are_told_so_before_they_wait_for_each_other(others):
    """Of sizes that all divide the ranks: each would else deal its own share, and reduce over other ranks."""
    first, told = launched(mesh_functions.other_wishes, [{"tensor": 2}, others], nproc=2)
    assert first is None
    here = "replicate 2" if others is None else "context 2"
    assert f"another rank has tensor 2, and this one {here}" in told
