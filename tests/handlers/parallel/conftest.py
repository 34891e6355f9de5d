"""Functions that the started ranks run live in scripts/, where those processes can import them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "scripts"))


class Outcomes:
    """What cases, (a function of scripts/, its arguments), gave on two ranks, all run in one launch."""

    def __init__(self, by_rank):
        self.by_rank = by_rank

    def __getitem__(self, key):
        """[rank 0's, rank 1's] of a function by name, or of (name, argument); fails where the case raised."""
        case = key if isinstance(key, tuple) else (key,)
        for rank, outcomes in enumerate(self.by_rank):
            if (trace := outcomes[case][1]) is not None:
                pytest.fail(f"on rank {rank} the case {case} raised\n{trace}", pytrace=False)
        return [outcomes[case][0] for outcomes in self.by_rank]


@pytest.fixture(scope="module")
def on_two_ranks():
    from leyden import distributed as dist

    def launch(*cases):
        from running_cases import run_cases

        names = [(function.__module__, function.__name__, *arguments) for function, *arguments in cases]
        return Outcomes(dist.launch(run_cases, 2, args=(names,), backend="gloo", timeout=60))

    return launch
