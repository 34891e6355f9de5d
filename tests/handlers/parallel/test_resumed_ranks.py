"""A run that goes on with another number of ranks: each sample of an epoch once, in the order that was drawn for it."""

from collections import Counter

import pytest
from resume_cases import DATA, TOTAL, trained

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(180)

DEALT_ANEW = [kind for kind in DATA if kind not in ("a half", "two loaders", "long epochs")]


def launch(ranks, *arguments):
    return dist.launch(trained, ranks, args=arguments, backend="gloo", timeout=60)


def run(directory, kinds, *legs):
    """{kind: [(ranks of a leg, what each of them tells)]}; a leg is a number of ranks, and where it is stopped."""
    told = {kind: [] for kind in kinds}
    for ranks, stop in legs:
        of_ranks = launch(ranks, str(directory), kinds, stop)
        for kind in kinds:
            told[kind].append((ranks, [of_rank[kind] for of_rank in of_ranks]))
    return told


def samples(legs, epoch):
    """All samples of an epoch, of all legs and ranks, as they were dealt: a round of ranks takes turns."""
    found = []
    for _, of_ranks in legs:
        shares = [seen.get(epoch, []) for seen, _ in of_ranks]
        for batches in zip(*shares, strict=True):
            found += [sample for turn in zip(*batches, strict=True) for sample in turn]
    return found


def lengths(legs):
    """Those of the last leg, equal on its ranks."""
    _, of_ranks = legs[-1]
    assert len({str(told) for _, told in of_ranks}) == 1
    return of_ranks[0][1]


@pytest.mark.timeout(60)
def test_two_ranks_and_then_one_see_each_sample_once(tmp_path):
    told = run(tmp_path, ["shuffle"], (2, 5), (1, None))["shuffle"]
    for epoch in (1, 2):
        assert sorted(samples(told, epoch)) == list(range(TOTAL))
    assert lengths(told) == {1: (5 + 14, 5 + 14), 2: (24, 24)}


LEGS = {
    "2, 1": [(2, 5), (1, None)],
    "1, 2, 4": [(1, 4), (2, 8), (4, None)],
    "4, 1, 2": [(4, 3), (1, 11), (2, None)],
    "2, 2, 1": [(2, 3), (2, 14), (1, None)],
    "1, 2, 2, the last of them in the same epoch": [(1, 4), (2, 8), (2, 9), (2, None)],
}


@pytest.mark.slow
@pytest.mark.parametrize("legs", LEGS)
def test_each_sample_once_in_an_epoch(legs, tmp_path):
    told = run(tmp_path, DEALT_ANEW, *LEGS[legs])
    wrong = {}
    for kind in DEALT_ANEW:
        for epoch in (1, 2):
            counts = Counter(samples(told[kind], epoch))
            if counts != Counter(range(TOTAL)):
                wrong[kind, epoch] = sorted((Counter(range(TOTAL)) - counts).elements()), counts - Counter(range(TOTAL))
    assert wrong == {}


@pytest.mark.slow
def test_what_is_left_comes_in_the_order_that_was_drawn(tmp_path):
    kinds = [kind for kind in DEALT_ANEW if kind not in ("a batch sampler", "a stream with state", "a list")]
    whole = run(tmp_path / "whole", kinds, (1, None))
    told = run(tmp_path / "stopped", kinds, (1, 4), (2, 8), (4, None))
    for kind in kinds:
        assert samples(told[kind], 1) == samples(whole[kind], 1), kind


@pytest.mark.slow
def test_the_same_number_of_ranks_goes_on_as_if_it_had_not_stopped(tmp_path):
    kinds = list(DATA)
    whole = run(tmp_path / "whole", kinds, (2, None))
    for stops in ([5], [12], [17, 19], [12, 13]):
        told = run(tmp_path / str(stops), kinds, *((2, stop) for stop in [*stops, None]))
        for kind in kinds:
            for rank in (0, 1):
                for epoch in (1, 2):
                    got = [batch for _, of_ranks in told[kind] for batch in of_ranks[rank][0].get(epoch, [])]
                    assert got == whole[kind][0][1][rank][0][epoch], (kind, stops, epoch)


@pytest.mark.slow
def test_a_part_of_the_data_stays_the_same_part(tmp_path):
    told = run(tmp_path, ["a half", "two loaders"], (2, 3), (1, None))
    for epoch in (1, 2):
        assert len(set(samples(told["a half"], epoch))) == TOTAL // 2
    assert len(samples(told["a half"], 1)) == TOTAL // 2
    assert lengths(told["a half"]) == {1: (3 + 6, 3 + 6), 2: (12, 12)}
    both = samples(told["two loaders"], 1)
    assert Counter(both) == Counter((key, i) for key in "ab" for i in range(TOTAL))
