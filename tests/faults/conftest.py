"""Real processes for the tests of faults, and the means to end them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "scripts"))

from fault_chain import Chain
from fault_processes import Processes


@pytest.fixture
def processes():
    """Starts processes that train; what is left of them is killed with the test."""
    started = Processes()
    yield started
    started.kill_all()


@pytest.fixture
def chain(processes, tmp_path, capsys):
    """A function that makes a run that is ended and begun again; its counts are printed when the test ends."""
    made = []

    def make(**options):
        made.append(Chain(processes, tmp_path / f"run{len(made)}", options))
        return made[-1]

    yield make
    with capsys.disabled():
        for each in made:
            print(f"\n  {each.counts}", end="")
