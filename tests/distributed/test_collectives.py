"""Collectives among 2 and 3 real processes: every rank gets the same, and what one process would have computed."""

import math

import pytest
import rank_functions

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request):
    """What each rank got, by rank."""
    return dist.launch(rank_functions.collectives, request.param, backend="gloo", timeout=30)


@pytest.fixture
def result(ranks):
    """What the ranks agree on, with their number."""
    shared = {key: value for key, value in ranks[0].items() if key != "input"}
    for other in ranks[1:]:
        assert {key: value for key, value in other.items() if key != "input"} == shared
    return shared | {"size": len(ranks)}


def test_tensors_are_reduced_by_element(result):
    columns = [[float(i + rank) for rank in range(result["size"])] for i in range(3)]
    assert result["ops"] == {
        "sum": [sum(column) for column in columns],
        "mean": [sum(column) / len(column) for column in columns],
        "min": [min(column) for column in columns],
        "max": [max(column) for column in columns],
        "product": [math.prod(column) for column in columns],
    }


def test_numbers_are_reduced(result):
    size = result["size"]
    values = range(1, size + 1)
    assert result["number ops"] == {
        "sum": sum(values),
        "mean": sum(values) / size,
        "min": 1,
        "max": size,
        "product": math.prod(values),
    }
    assert type(result["number ops"]["sum"]) is int


def test_truth_values_are_joined_and_counted(result):
    assert result["truth"] == [False, True, 1]
    assert result["truth tensor"] == [[True, False], [True, True], [result["size"], 1]]


def test_dtypes_are_kept(result):
    assert result["dtypes"] == ["torch.int16", "torch.int64", "torch.float16", "torch.bfloat16", "torch.float64"]


def test_whole_numbers_are_exact_beyond_64_bits(result):
    assert result["large whole"] == sum(2**62 + rank for rank in range(result["size"]))


def test_ranks_may_mix_whole_numbers_and_floats(result):
    assert result["whole beside float"] == 0.5


def test_infinity_survives(result):
    assert result["infinite"] == math.inf


def test_memory_layout_does_not_matter(result):
    size = result["size"]
    assert result["transposed"] == [[0.0, 3.0 * size], [1.0 * size, 4.0 * size], [2.0 * size, 5.0 * size]]


def test_tensors_are_gathered_along_their_first_dimension(result):
    ranks = range(result["size"])
    assert result["gathered"] == [[rank, rank + 1, rank + 2] for rank in ranks]
    assert result["gathered scalar"] == list(ranks)
    assert result["gathered truth"] == [True] + [False] * (result["size"] - 1)


def test_tensors_of_uneven_length_are_gathered(result):
    assert result["gathered uneven"] == [[float(rank)] * 2 for rank in range(result["size"]) for _ in range(rank + 1)]


def test_known_lengths_are_not_told_again(result):
    numbers = [float(rank) for rank in range(result["size"]) for _ in range(rank + 1)]
    assert result["gathered by known lengths"] == numbers


def test_one_rank_alone_may_gather(result):
    numbers = [rank for rank in range(result["size"]) for _ in range(rank)]
    assert result["gathered to one"] == [numbers if rank == 1 else None for rank in range(result["size"])]
    assert f"there is no rank {result['size']} to gather to" in result["no such rank"]


def test_a_rank_with_nothing_gives_an_empty_vector(result):
    assert result["gathered from one"] == [[1, 2]]
    assert result["gathered nothing"] == [0]


def test_numbers_strings_and_objects_are_gathered_in_a_list(result):
    ranks = range(result["size"])
    assert result["gathered numbers"] == list(ranks)
    assert result["gathered kinds"] == ["bool", "int", "float"][: result["size"]]
    assert result["gathered strings"] == ["é" * rank for rank in ranks]
    assert result["gathered objects"] == [{"rank": rank} for rank in ranks]


def test_broadcast_from_any_rank(result):
    assert result["broadcast tensor"] == [[1.0, 0.0], [0.0, 1.0]]
    assert result["broadcast number"] == 0.5
    assert result["broadcast string"] == "run-1"
    assert result["broadcast object"] == {1}


def test_what_cannot_be_done_fails_on_every_rank(result):
    assert "rank 0: [2, 1] torch.float32; rank 1: [2, 2] torch.float32" in result["gather error"]
    assert result["broadcast error"].startswith("TypeError: broadcast takes")


def test_the_input_is_left_alone(ranks):
    for rank, results in enumerate(ranks):
        assert results["input"] == [[rank, rank + 1, rank + 2], [1.0, 1.0]]
        assert not results["grad"]


@pytest.fixture(scope="module")
def coordinated():
    return dist.launch(rank_functions.coordinate, 2, backend="gloo", timeout=30)


def test_an_agreement_waits_only_when_its_result_is_due(coordinated):
    first, late = (result["agreement"] for result in coordinated)
    for rank in (first, late):
        assert rank["pending"] == 6
        assert rank["sums"] == [[2, step] for step in range(6)]
        assert rank["others"] == [[2 * step] for step in range(6)]
        assert rank["left"] == 0
    # Rank 1 comes a second late: rank 0 posts six times at once, and waits for the first result.
    assert first["posting"] < 0.3
    assert first["waiting"] > 0.5


def test_agreements_of_a_process_share_one_group():
    for result in dist.launch(rank_functions.agreements_of_one_group, 2, backend="gloo", timeout=30):
        assert result["groups"] == 3  # one that is shared, one of the agreement that is too large, one of the thread
        assert result["sums"] == [(2 * step + 1, 2 * step) for step in range(50)]
        assert result["in a thread"] == [20] * 50


def test_ranks_that_post_to_different_agreements_are_told_so():
    told = dist.launch(rank_functions.agreements_in_another_order, 2, backend="gloo", timeout=30)
    assert "rank 0 wanted to agree about number 1" in told[0]
    assert "rank 1 wanted to agree about number 2" in told[1]
    assert all("run the same engines in the same order" in each for each in told)


def test_finalize_ends_the_group_of_the_agreements(tmp_path):
    file = str(tmp_path / "met")
    for result in dist.launch(rank_functions.agreements_on_a_users_group, 2, args=(file,), backend="gloo", timeout=30):
        assert result == {"groups": 2, "sums": [2, 2], "left": True}


@pytest.mark.slow
def test_an_agreement_waits_as_long_as_initialize_said():
    (waited, told), _ = dist.launch(rank_functions.late_for_an_agreement, 2, backend="gloo", timeout=8)
    assert 7 < waited < 12
    assert "Timed out waiting 8000ms" in told
    assert "one of which is gone, or stands still" in told


def test_one_rank_only_and_first(coordinated):
    first, second = (result["one rank"] for result in coordinated)
    assert (first["log"], first["returned"]) == ([], None)
    assert (second["log"], second["returned"]) == (["wrote"], "value")
    assert first["went"] <= second["went"]


def test_an_error_in_the_first_rank_does_not_hold_up_the_others(coordinated):
    assert [result["error"] for result in coordinated] == ["no network", "went on"]


@pytest.mark.timeout(60)
def test_collectives_among_some_ranks():
    first, outside, last = dist.launch(rank_functions.groups, 3, backend="gloo")
    within = {"sum": [4.0], "mean": [2.0], "number": 3, "gathered": [1.0, 3.0], "strings": ["0", "2"]}
    alone = {"sum": [2.0], "mean": [2.0], "number": 2, "gathered": [2.0], "strings": ["1"]}
    together = {"sum": [6.0], "mean": [2.0], "number": 3, "gathered": [1.0, 2.0, 3.0], "strings": ["0", "1", "2"]}
    for how in ("made", "ranks"):
        assert first[how] == last[how] == within | {"objects": [{0}, {2}]}
        assert outside[how] == alone | {"objects": [{1}]}
    assert first["all"] == outside["all"] == last["all"] == together | {"objects": [{0}, {1}, {2}]}
