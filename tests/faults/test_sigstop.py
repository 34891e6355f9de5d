"""A rank that stands still for longer than the others wait: they end, and nothing that it does later harms."""

import random
import time

import pytest
from fault_chain import NO_FAULTS

WAIT = 1.5


@pytest.mark.parametrize("stops", [1, pytest.param(8, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_past_the_timeout_of_the_others(stops, chain) -> None:
    dice = random.Random(stops)
    run = chain(ranks=2, timeout=WAIT, quiet=True)
    while run.counts.resumes < stops:
        run.start()
        run.wait_for_begin()
        time.sleep(dice.uniform(0.1, 0.4))
        victim = dice.randrange(2)
        with run.life[victim].stopped():
            assert run.life[1 - victim].wait(10 * WAIT) == 1
            run.look()
        assert run.life[victim].wait(10 * WAIT) == 1  # it goes on to find that it is alone
        run.after_end()
    assert run.compare() == NO_FAULTS


@pytest.mark.slow
def test_a_short_stop_is_not_noticed(chain) -> None:
    run = chain(ranks=2)
    run.start(8, step_seconds=0.002)
    run.wait_for_begin()
    for rank in (0, 1):
        with run.life[rank].stopped():
            time.sleep(0.1)
    assert run.finish() == [0, 0]
    assert run.compare() == NO_FAULTS
