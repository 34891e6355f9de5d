"""A run that was stopped anywhere and resumed by engines made anew equals the one that never stopped, to the bit."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "scripts"))

from exact_cases import CASES, DATA, STOPS, differences, resumed, stopped, told_of, whole

SCRIPT = Path(__file__).parent / "scripts" / "exact_cases.py"

ONE_RANK = [case for case in CASES if case.ranks == 1]
FAST = [case for case in ONE_RANK if case.workers == 0 and random.Random(str(case)).random() < 0.4]


def play(base, phase, cases):
    """What each rank told of each case, from processes of their own."""
    numbers = [str(CASES.index(case)) for case in cases]
    command = [sys.executable, str(SCRIPT), str(cases[0].ranks), str(base), phase, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((base / f"{phase}.json").read_text())


def in_processes(base, cases):
    """The differences of each case, whose resumed run is in other processes than the one that was stopped."""
    first = play(base, "first", cases)
    second = play(base, "second", cases)
    found = {}
    for number, case in enumerate(cases):
        of_ranks = [differences(*first[rank][number], second[rank][number]) for rank in range(case.ranks)]
        found[case] = [f"rank {rank}: {each}" for rank, those in enumerate(of_ranks) for each in those]
    return found


def here(base, cases):
    """The same in this process, with engines made anew."""
    return {
        case: differences(told_of(whole, case), told_of(stopped, case, base), told_of(resumed, case, base))
        for case in cases
    }


def check(found, capsys):
    failed = {str(case): differs for case, differs in found.items() if differs}
    with capsys.disabled():
        print(f"\n  {len(found)} cases stopped and resumed, {len(failed)} failures", end="")
    assert failed == {}


def test_one_rank_in_brief(capsys, tmp_path) -> None:
    assert {case.data for case in FAST} == set(DATA)
    assert {case.stop for case in FAST} == set(STOPS)
    check(here(tmp_path, FAST), capsys)


@pytest.mark.parametrize("data", DATA)
def test_one_rank_with_workers_in_brief(data, capsys, tmp_path) -> None:
    cases = [case for case in ONE_RANK if case.workers == 2 and case.data == data]
    check(here(tmp_path, random.Random(data).sample(cases, 1)), capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", DATA)
def test_one_rank(data, workers, capsys, tmp_path) -> None:
    check(here(tmp_path, [case for case in ONE_RANK if (case.data, case.workers) == (data, workers)]), capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_rank_in_another_process(capsys, tmp_path) -> None:
    check(in_processes(tmp_path, random.Random(1).sample(ONE_RANK, 32)), capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", DATA)
def test_two_ranks(data, workers, capsys, tmp_path) -> None:
    cases = [case for case in CASES if (case.ranks, case.data, case.workers) == (2, data, workers)]
    check(in_processes(tmp_path, cases), capsys)
