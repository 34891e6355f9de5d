"""A run that is asked to end: at once, or by Preemption after its step, inside a save too."""

import random
import signal
import subprocess
import sys
import time

import pytest
from fault_chain import NO_FAULTS
from fault_processes import SCRIPT, Process, until

SAVED_AND_ENDED = 128 + signal.SIGTERM


def many(few, lots):
    """A few in every test run, lots among the slow ones."""
    slow = [pytest.mark.slow, pytest.mark.timeout(600)]
    return pytest.mark.parametrize("times", [few, pytest.param(lots, marks=slow)])


@pytest.mark.slow
def test_without_preemption_it_ends_at_once(chain) -> None:
    dice = random.Random(1)
    run = chain()
    while run.counts.resumes < 20:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.15))
        assert run.end_by(signal.SIGTERM) == [-signal.SIGTERM]
    assert run.compare() == NO_FAULTS


@many(2, 60)
def test_with_preemption_no_step_is_done_twice(times, chain) -> None:
    dice = random.Random(times)
    run = chain(preemption=True, slow_fsync=0.005)
    while run.counts.resumes < times:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.2))
        assert run.end_by(signal.SIGTERM) == [SAVED_AND_ENDED]
        assert run.newest() == run.logs()[0].losses[-1][0]
    assert run.compare() == NO_FAULTS
    assert run.counts.repeated == 0


@many(1, 20)
def test_with_preemption_and_little_patience(times, chain) -> None:
    """SIGKILL follows, mostly while it still saves."""
    dice = random.Random(times)
    run = chain(preemption=True, slow_fsync=0.02)
    while run.counts.resumes < times:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.2))
        run.life[0].send(signal.SIGTERM)
        time.sleep(dice.uniform(0, 0.1))
        run.end_by(signal.SIGKILL)
    assert run.compare() == NO_FAULTS


@many(1, 15)
def test_one_of_two_ranks_is_asked_and_both_end(times, chain) -> None:
    dice = random.Random(times)
    run = chain(preemption=True, ranks=2)
    while run.counts.resumes < times:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.2))
        dice.choice(run.life).send(signal.SIGTERM)
        assert run.finish(30) == [SAVED_AND_ENDED, SAVED_AND_ENDED]
        run.after_end()
    assert run.compare() == NO_FAULTS
    assert run.counts.repeated == 0


@pytest.mark.slow
def test_torchrun_is_asked_and_its_ranks_end(chain) -> None:
    run = chain(preemption=True, ranks=2)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    for number in range(2):
        command = [*launcher, run.as_text(max_epochs=10_000, step_seconds=0.01)]
        agent = Process(subprocess.Popen(command, start_new_session=True))
        try:
            until(
                lambda number=number: min(len(log.begun) for log in run.logs()) > number, 60, "the ranks do not begin"
            )
            time.sleep(0.3)
            agent.send(signal.SIGTERM)
            assert agent.wait(30) != 0
        finally:
            agent.kill()
        run.look()
    assert run.logs()[0].begun[1] > 0
    assert run.compare() == NO_FAULTS
    assert run.counts.repeated == 0
