"""What ranks have for themselves is dealt to another number of them: each reads its part, and none of it is lost."""

import functools

import pytest
import scenarios

play = functools.partial(scenarios.play, "dealt_ranks.py")
CHANGES = [
    (2, 1, [[0, 1]]),
    pytest.param(2, 3, [[0], [0, 1], [0]], marks=pytest.mark.slow),
    pytest.param(4, 2, [[0, 2], [0, 1, 3]], marks=pytest.mark.slow),
    pytest.param(4, 3, [[0, 3], [0, 1], [0, 2]], marks=pytest.mark.slow),
]
"""Ranks before, ranks now, and whose own files each of these opens where something is open."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("dealt")


@pytest.fixture(scope="module")
def saved(base):
    """What so many ranks tell that save."""

    @functools.cache
    def by(count):
        (base / f"of {count}").mkdir()
        return play(count, base / f"of {count}", "stopped", "ended")

    return by


@pytest.fixture(scope="module")
def resumed(base, saved):
    """What so many ranks tell that go on from these."""

    @functools.cache
    def by(before, now):
        saved(before)
        return play(now, base / f"of {before}", "from_open", "from_end")

    return by


@pytest.mark.parametrize(("before", "now", "opened"), CHANGES)
def test_an_open_window_and_metrics_in_mid_epoch_are_dealt(before, now, opened, saved, resumed) -> None:
    old, new = saved(before)["stopped"], resumed(before, now)["from_open"]
    assert [rank["opened"] for rank in new] == opened
    # Rank r has seen 10 r + 1 and 10 r + 2, of which a window of four takes the mean.
    gradients = [(20 * rank + 3) / 4 for rank in range(before)]
    assert [rank["gradient"] for rank in old] == gradients
    dealt = [sum(gradients[rank::now]) * now / before for rank in range(now)]
    assert [rank["gradient"] or 0 for rank in new] == pytest.approx(dealt)
    assert sum(dealt) / now == pytest.approx(sum(gradients) / before)
    assert {rank["done"] for rank in new} == {2}
    # With what each of those that go on sees of the epoch, 3 and 4.
    seen = sorted([10 * rank + number for rank in range(before) for number in (1, 2)] + [3, 4] * now)
    for rank in new:
        assert sorted(rank["values"]) == seen
        assert rank["mean"] == pytest.approx(sum(seen) / len(seen))
        # An average can't be divided: each goes on from that of all.
        assert rank["smooth"] == pytest.approx(sum(each["smooth"] for each in old) / before)


@pytest.mark.parametrize(("before", "now", "opened"), CHANGES)
def test_where_nothing_is_open_one_file_is_read(before, now, opened, resumed) -> None:
    new = resumed(before, now)["from_end"]
    assert [rank["opened"] for rank in new] == [[0]] * now
    assert [(rank["gradient"], rank["done"], rank["smooth"]) for rank in new] == [(None, None, None)] * now


def test_batches_as_large_over_all_ranks_are_no_others(base) -> None:
    there = base / "batches"
    there.mkdir()
    two = play(2, there, "batches_of_4")["batches_of_4"]
    assert sorted(sample for rank in two for sample in rank["seen"]) == list(range(16))
    told = play(1, there, "batches_of_8", "batches_of_4_alone")
    assert told["batches_of_8"] == [{"seen": list(range(16, 32)), "said": []}]
    (alone,) = told["batches_of_4_alone"]
    assert alone["seen"] == list(range(16, 32))
    (said,) = alone["said"]
    assert said.endswith("batch size of the data over all ranks: 4 now (1 x 4), 8 when it was saved (2 x 4)")
