"""A run that is killed at any moment, also inside a save, goes on from its newest checkpoint as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from fault_chain import NO_FAULTS
from fault_processes import SCRIPT, Process, until

KILLED = -signal.SIGKILL


def many(few, lots, limit=900):
    """A few in every test run, lots among the slow ones."""
    return pytest.mark.parametrize(
        "kills", [few, pytest.param(lots, marks=[pytest.mark.slow, pytest.mark.timeout(limit)])]
    )


@many(8, 200)
def test_at_random_moments(kills, chain) -> None:
    dice = random.Random(kills)
    run = chain()
    while run.counts.resumes < kills:
        run.start()
        if dice.random() < 0.9:
            run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.15))
        assert run.end_by(signal.SIGKILL) == [KILLED]
    assert run.compare() == NO_FAULTS


@many(3, 100)
def test_inside_a_save(kills, chain) -> None:
    """Each flush to disk takes 20 ms more, so a save is under way most of the time."""
    dice = random.Random(kills)
    run = chain(slow_fsync=0.02)
    run.start()
    until(lambda: run.newest() is not None, 60, "no checkpoint came")
    while True:
        time.sleep(dice.uniform(0, 0.2))
        until(lambda: any(run.kept.glob(".tmp-epoch=*")), 60, "no save is begun")
        run.end_by(signal.SIGKILL)
        if run.counts.resumes >= kills:
            break
        run.start()
        run.wait_for_begin()
    assert run.counts.inside_saves > 0.8 * run.counts.ended  # the rest had just ended their save
    assert run.compare() == NO_FAULTS


@pytest.mark.slow
def test_processes_begun_from_nothing(chain) -> None:
    dice = random.Random(1)
    run = chain()
    for _ in range(10):
        run.start(cold=True, environment={"SLOW_FSYNC": str(dice.choice([0, 0.01]))})
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.3))
        assert run.end_by(signal.SIGKILL) == [KILLED]
    assert run.counts.resumes == 9
    assert run.compare() == NO_FAULTS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks(chain) -> None:
    dice = random.Random(2)
    run = chain(ranks=2)
    while run.counts.resumes < 40:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.3))
        assert run.end_by(signal.SIGKILL) == [KILLED, KILLED]
    assert run.compare() == NO_FAULTS


@many(1, 30)
def test_one_of_two_ranks(kills, chain) -> None:
    """The other ends by itself, with an error, and both go on together."""
    dice = random.Random(kills)
    run = chain(ranks=2, quiet=True)
    while run.counts.resumes < kills:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0, 0.3))
        victim = dice.randrange(2)
        assert run.life[victim].kill() == KILLED
        assert run.life[1 - victim].wait(30) == 1
        run.after_end()
    assert run.compare() == NO_FAULTS


@pytest.mark.parametrize("looks", [50, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_at_no_moment_is_there_less_than_one_whole_checkpoint(looks, chain) -> None:
    """One life, stopped again and again; while it stands the disk is looked at."""
    dice = random.Random(looks)
    run = chain(checkpoint={"keep": 1})
    run.start()
    until(lambda: run.newest() is not None, 60, "no checkpoint came")
    run.watch(looks, lambda: dice.uniform(0, 0.03))
    assert run.counts.looks >= looks
    run.end_by(signal.SIGKILL)
    assert run.compare() == NO_FAULTS


@pytest.mark.slow
def test_torchrun_starts_the_ranks_again(chain) -> None:
    dice = random.Random(3)
    run = chain(ranks=2)
    kills = 3
    elastic = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*elastic, "--max-restarts", str(kills), str(SCRIPT), run.as_text(max_epochs=20, step_seconds=0.01)]
    agent = Process(subprocess.Popen(command, start_new_session=True))
    try:
        for number in range(kills):
            until(
                lambda number=number: min(len(log.begun) for log in run.logs()) > number, 60, "the ranks do not begin"
            )
            time.sleep(dice.uniform(0, 0.5))
            os.kill(dice.choice([log.pids[number] for log in run.logs()]), signal.SIGKILL)
        assert agent.wait(100) == 0
    finally:
        if agent.alive():
            os.killpg(agent.pid, signal.SIGKILL)
    run.counts.ended = kills
    run.counts.resumes = sum(begun > 0 for begun in run.logs()[0].begun)
    assert run.counts.resumes >= kills - 1
    assert run.compare() == NO_FAULTS
