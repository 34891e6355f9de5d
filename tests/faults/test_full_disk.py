"""A disk that fills, by others or by the checkpoints themselves, in a file system of its own in memory."""

import random
import signal
import subprocess
import time

import pytest
from fault_chain import NO_FAULTS
from fault_processes import until


@pytest.fixture
def small_disk(tmp_path):
    """A function that makes a file system of so many bytes."""
    mounted = []

    def make(size):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no `mount` command, which makes the small file system")
        if done.returncode != 0:
            pytest.skip(f"a small file system can't be mounted here (it takes root): {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path):
    """Takes what is left of the disk."""
    try:
        with path.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        pass


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_disk_that_others_fill(rounds, chain, small_disk) -> None:
    """It ends with an error that names the cause; when there is room again, the run goes on as if nothing had been."""
    dice = random.Random(rounds)
    disk = small_disk("1m")
    run = chain(quiet=True, width=500, kept=disk / "kept", checkpoint={"on_error": "raise"})
    filler = disk / "filler"
    while run.counts.resumes < rounds:
        run.start(step_seconds=0.001)
        run.wait_for_begin()
        until(lambda: run.newest() is not None, 60, "no checkpoint came")
        time.sleep(dice.uniform(0, 0.2))

        def filled_until_it_ends():
            fill(filler)  # again and again: an old checkpoint that goes makes room
            return not run.life[0].alive()

        until(filled_until_it_ends, 60, "it does not end")
        assert run.finish() == [1]
        assert "No space left on device" in run.error()
        run.after_end()
        filler.unlink()
    assert run.compare() == NO_FAULTS


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_disk_that_is_full_for_a_while(rounds, chain, small_disk) -> None:
    """Saves fail, which is told, and training goes on; when there is room again it is saved again."""
    dice = random.Random(rounds)
    disk = small_disk("1m")
    run = chain(quiet=True, width=500, kept=disk / "kept", saves_may_fail=True)
    filler = disk / "filler"
    run.start(step_seconds=0.001)
    until(lambda: run.newest() is not None, 60, "no checkpoint came")
    for number in range(rounds):
        time.sleep(dice.uniform(0, 0.1))

        def filled_until_it_is_told(number=number):
            fill(filler)
            return run.error().count("No space left on device") > number

        until(filled_until_it_is_told, 60, "it is not told")
        failed_at = run.logs()[0].losses[-1][0]
        time.sleep(dice.uniform(0, 0.1))
        filler.unlink()
        until(lambda failed_at=failed_at: (run.newest() or 0) > failed_at, 60, "nothing is saved again")
        with run.life[0].stopped():
            run.look()
    run.end_by(signal.SIGKILL)
    assert run.compare() == NO_FAULTS


def test_a_disk_that_is_too_small_for_what_is_to_be_kept(chain, small_disk) -> None:
    disk = small_disk("256k")
    run = chain(quiet=True, width=500, kept=disk / "kept", checkpoint={"keep": 20, "on_error": "raise"})
    run.start(20)
    assert run.finish() == [1]
    assert "No space left on device" in run.error()
    run.after_end()
    assert run.newest() >= 5
    run.options["checkpoint"] = {"keep": 1}
    subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
    assert run.compare() == NO_FAULTS


def test_killed_on_a_full_disk(chain, small_disk) -> None:
    disk = small_disk("512k")
    run = chain(quiet=True, width=500, slow_fsync=0.02, kept=disk / "kept")
    for _ in range(3):
        run.start()
        run.wait_for_begin()
        until(lambda: any(run.kept.glob(".tmp-epoch=*")), 60, "no save is begun")
        fill(disk / "filler")
        run.end_by(signal.SIGKILL)
        (disk / "filler").unlink()
    assert run.compare() == NO_FAULTS
