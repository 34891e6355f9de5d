"""Over several processes the values are those of one process that sees all samples, with few collectives."""

import runpy
from collections import Counter
from pathlib import Path

import pytest
import sklearn.metrics

SCRIPT = Path(__file__).parent / "scripts" / "measuring.py"


@pytest.fixture(scope="module")
def alone(found_alone):
    """What one process finds."""
    return found_alone(SCRIPT)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, found_by):
    """What each of two and of three processes finds."""
    return found_by(SCRIPT, request.param)


def close(value):
    """Floats up to the rounding of float32, since other batches have other means; counts exactly."""
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    if isinstance(value, list):
        return [close(item) for item in value]
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def test_one_process_agrees_with_scikit_learn(alone) -> None:
    scores, y = runpy.run_path(str(SCRIPT))["data"]()
    y_pred = scores.argmax(1)
    values = alone["uneven"]
    assert values["accuracy"] == sklearn.metrics.accuracy_score(y, y_pred)
    assert values["recall"] == pytest.approx(sklearn.metrics.recall_score(y, y_pred, average="weighted"))
    assert list(values["precision"].values()) == pytest.approx(sklearn.metrics.precision_score(y, y_pred, average=None))
    assert values["matrix"] == sklearn.metrics.confusion_matrix(y, y_pred).tolist()


@pytest.mark.parametrize("shards", ["uneven", "one empty", "uneven values", "values, one empty"])
def test_every_rank_has_the_value_of_all_samples(alone, ranks, shards) -> None:
    for found in ranks:
        assert found[shards] == close(alone[shards])
        if "accuracy" in found[shards]:
            assert found[shards]["accuracy"] == alone[shards]["accuracy"]


def test_all_metrics_together_need_three_collectives(ranks) -> None:
    """The shapes that one rank may not know, the counts, the sums."""
    for found in ranks:
        assert found["collectives"] == ["all_reduce"] * 3


def test_metrics_of_counts_need_one_collective(ranks) -> None:
    for found in ranks:
        assert found["collectives of counts"] == ["all_reduce"]


def test_two_metrics_of_values_need_no_more_than_one(ranks) -> None:
    """What is compared, with it the minima; counts; maxima whose shape the data tell; one gathering for all dtypes."""
    for found in ranks:
        assert Counter(found["collectives of values"]) == {"all_reduce": 3, "all_gather": 1}


def test_means_weigh_each_rank_by_its_updates(alone, ranks) -> None:
    for shards in ("parts", "parts, one empty"):
        for found in ranks:
            assert found[shards] == ranks[0][shards]
    if len(ranks) == 2:
        # Rank 1 alone saw data, so it is as if there were one process.
        assert ranks[0]["parts, one empty"] == close(alone["parts"])
    expected = alone["parts"]
    found = ranks[0]["parts"]
    assert (found["least"], found["most"]) == (expected["least"], expected["most"])
    assert found["own"] == [len(ranks), 2]
    assert found["products"] == 2.0 ** sum(each["batches"] for each in ranks)


def test_one_rank_may_compute_for_all(alone, ranks) -> None:
    assert alone["on rank zero"] == alone["on every rank"]
    for found in ranks:
        assert found["on rank zero"] == found["on every rank"] == close(alone["on rank zero"])
        assert found["nobody on rank zero"] == {}
        assert found["collectives on rank zero"].count("gather") == 1
        assert found["collectives on rank zero"].count("broadcast_object_list") == 1
        assert len(found["collectives on rank zero"]) == 4  # sizes, counts, what is gathered, the value


def test_what_fails_on_the_one_rank_fails_on_all(alone, ranks) -> None:
    assert alone["fails on rank zero"] == ranks[0]["fails on rank zero"] == "ValueError: no such score"
    for found in ranks[1:]:
        assert found["fails on rank zero"] == (
            "RuntimeError: a metric that rank 0 computes for all failed there: ValueError: no such score"
        )


def test_one_process_needs_no_collective(alone) -> None:
    assert alone["collectives"] == alone["collectives of values"] == []


def test_no_sample_anywhere_leaves_no_value_on_any_rank(alone, ranks) -> None:
    for found in [alone, *ranks]:
        assert found["nobody"] == {}


def test_different_numbers_of_classes_are_an_error_on_every_rank(ranks) -> None:
    for found in ranks:
        assert found["mixed classes"].startswith(
            "ValueError: the state Precision.counts has different shapes on the ranks, so it can't be reduced: "
            "rank 0: [3, 3]; rank 1: [3, 4]"
        )


def test_the_metric_itself_keeps_the_value_of_its_rank(ranks) -> None:
    for found in ranks:
        assert found["own value"] == found["own shard"]


def test_a_running_average_is_each_ranks_own_and_the_mean_at_the_end_of_an_epoch(ranks) -> None:
    mean = sum(10 * (rank + 1) for rank in range(len(ranks))) / len(ranks)
    for rank, found in enumerate(ranks):
        own = 10.0 * (rank + 1)
        assert found["smoothing"]["seen"] == [own, own, mean, own, own, mean]
        assert found["smoothing"]["collectives"] == ["all_reduce"] * 4  # counts and values, in each of two epochs
