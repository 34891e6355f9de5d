"""Four ranks of which pairs see the same data do, pair by pair, what two ranks do that all see different data."""

import shutil

import mesh_cases
import pytest

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(120, func_only=True)  # what two and four ranks give is one set-up for all

SQUARE = {"tensor": 2}
PASSES = ("batch norm made anew", "predicted", "batch size", "losses", "own stream", "auto")


def launched(function, nproc, *arguments):
    return dist.launch(function, nproc, args=arguments, backend="gloo", timeout=60)


def in_pairs(ranks):
    return [each for each in ranks for _ in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(folder):
    return launched(mesh_cases.everything, 2, None, folder / "two")


@pytest.fixture(scope="module")
def four(folder):
    return launched(mesh_cases.everything, 4, SQUARE, folder / "four")


def test_two_ranks_see_different_data(two):
    first, second = (each["trained"] for each in two)
    assert first["samples"] != second["samples"]
    assert first["dropped"] != second["dropped"]
    assert first["metrics"][0]["val/seen"] == list(range(15))
    assert first["metrics"][0]["seen"] == sorted([*range(15), first["samples"][0][0]])  # one more evens the shares
    assert [batch for each in two[0]["passes"]["predicted"] for batch in each] == list(range(15))


@pytest.mark.parametrize("case", ["trained", "weighed"])
@pytest.mark.parametrize("told", ["samples", "noise", "dropped", "epochs", "metrics", "steps", "weights"])
def test_a_training_in_a_mesh_is_that_of_the_ranks_that_see_different_data(case, told, two, four):
    assert [each[case][told] for each in four] == in_pairs([each[case][told] for each in two])


@pytest.mark.slow
def test_sharded_data_and_another_dimension_beside_it_make_no_difference(two, folder):
    four = launched(mesh_cases.everything, 4, {"shard": 2, "context": -1}, folder / "sharded")
    assert [each["trained"] for each in four] == in_pairs([each["trained"] for each in two])


@pytest.mark.parametrize("told", PASSES)
def test_what_goes_over_the_data_beside_the_training_goes_by_the_same_ranks(told, two, four):
    assert [each["passes"][told] for each in four] == in_pairs([each["passes"][told] for each in two])


def test_passes_over_data_of_the_ranks_own_end_together(two, four):
    assert two[0]["passes"]["own stream"] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    (words,) = two[0]["passes"]["words"]
    assert "the data of 1 of 2 ranks ended before" in words
    assert [each["passes"]["words"] for each in four] == [[words], [], [], []]


def test_streams_that_deal_themselves_are_told_that_some_ranks_read_the_same(two, four):
    (words,) = four[0]["passes"]["mesh words"]
    assert "Of this mesh 2 ranks each have to read the same" in words
    assert [each["passes"]["mesh words"] for each in (*two, *four[1:])] == [[]] * 5


def test_a_sampler_with_a_rank_has_to_have_that_of_the_data(four):
    for rank, told in enumerate(each["passes"]["dealt by torch's sampler"] for each in four):
        assert told["data"] == 8
        assert f"deals to rank {rank} of 4, but this is rank {rank // 2} of 2" in told["world"]


def test_a_handler_that_asks_for_a_dimension_may_be_attached_last_and_all_ranks_then_see_the_same_data():
    ranks = launched(mesh_cases.tensor_alone, 2)
    assert ranks[0] == ranks[1]
    assert ranks[0][0] == 5


@pytest.mark.parametrize("case", ["stopped", "whole"])
def test_a_run_with_checkpoints_is_that_of_the_ranks_that_see_different_data(case, two, four):
    assert [each[case] for each in four] == in_pairs([each[case] for each in two])


def stopped(folder, by, copy):
    """A copy of the checkpoint of a stopped run, since a run that goes on from it adds others to it."""
    return shutil.copytree(folder / by / "stopped", copy / by)


@pytest.mark.slow
def test_a_run_goes_on_with_the_data_that_its_place_had(two, four, folder, tmp_path):
    """In the mesh it was stopped in, from two ranks in the mesh, and from the mesh in two ranks."""
    in_mesh = [stopped(folder, by, tmp_path / "in the mesh") for by in ("four", "two")]
    rests = launched(mesh_cases.gone_on_from, 4, SQUARE, in_mesh)
    of_two = launched(mesh_cases.gone_on_from, 2, None, [stopped(folder, "four", tmp_path / "in two ranks")])
    for before, after in ((four, rests), (two, of_two)):
        for place, runs in zip(before, after, strict=True):
            for run in runs:
                assert place["stopped"]["batches"] + run["batches"] == place["whole"]["batches"]
                assert run["weights"] == place["whole"]["weights"]
                assert run["drawn"] == place["whole"]["drawn"]


@pytest.mark.slow
@pytest.mark.parametrize(("nproc", "mesh"), [(4, None), (2, {"tensor": 2})])
def test_a_run_from_a_mesh_goes_on_with_the_data_dealt_to_another_number_of_ranks(nproc, mesh, four, folder, tmp_path):
    """What was seen of the epoch, and what waited in the open window, counts once, not once for each rank of a pair."""
    place = stopped(folder, "four", tmp_path)
    ranks = [runs[0]["batches"] for runs in launched(mesh_cases.gone_on_from, nproc, mesh, [place])]
    begun = [four[rank]["stopped"]["batches"] for rank in (0, 2)]
    shares = ranks if mesh is None else ranks[:1]
    first_epochs = [batches[: batches.index(next(each for each in batches if len(each) > 2))] for batches in shares]
    seen = [sample for batches in (*begun, *first_epochs) for batch in batches for sample in batch]
    assert set(seen) == set(range(15))
    measured = [next(each for each in batches if len(each) > 2) for batches in ranks]
    assert measured == [sorted(seen)] * nproc
    if mesh is not None:
        assert ranks[0] == ranks[1]
