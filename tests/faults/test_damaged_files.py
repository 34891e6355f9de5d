"""Checkpoints that are damaged between two lives of a run: told, passed over, and nothing of them is used."""

import json
import random
import shutil
import signal
import time

import pytest
from fault_chain import NO_FAULTS
from fault_processes import until

from leyden.handlers.checkpoint import CheckpointDamagedError, verify


def cut(dice, folder):
    path = some_file(dice, folder)
    with path.open("r+b") as file:
        file.truncate(dice.randrange(path.stat().st_size))


def flip(dice, folder):
    path = some_file(dice, folder)
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def lose_a_file(dice, folder):
    some_file(dice, folder).unlink()


def zero_a_block(dice, folder):
    """As a file system may leave a file whose length reached the disk before its bytes did."""
    path = some_file(dice, folder)
    start = dice.randrange(path.stat().st_size)
    data = path.read_bytes()
    end = min(len(data), start + 512)
    path.write_bytes(data[:start] + bytes(b ^ 0xFF if b == 0 else 0 for b in data[start:end]) + data[end:])


def half_copied(dice, folder):
    """The final name, and only a part of the files: moved by something that does not rename as one."""
    for path in sorted(folder.iterdir())[dice.randrange(len(list(folder.iterdir()))) :]:
        path.unlink()


def of_another(dice, folder):
    """A file of another checkpoint in its place."""
    other = sorted(path for path in folder.parent.glob("epoch=*") if path != folder)[-1]
    path = some_file(dice, folder)
    shutil.copy(other / path.name, path)


DAMAGES = [cut, flip, lose_a_file, zero_a_block, half_copied, of_another]


def some_file(dice, folder):
    return dice.choice(sorted(path for path in folder.iterdir() if path.stat().st_size))


def newest_two(run):
    """The folders of the two newest checkpoints, newest first."""
    there = [path for path in run.kept.glob("epoch=*") if path.name not in run.passed_over]
    return sorted(there, key=lambda path: -verify(path).serial)[:2]


@pytest.mark.parametrize("rounds", [3, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.filterwarnings("ignore:.*epoch=.*:UserWarning")  # what the damage is
def test_the_one_before_is_used(rounds, chain) -> None:
    dice = random.Random(rounds)
    run = chain(every=3, checkpoint={"keep": 3}, quiet=True)
    passed_over = 0
    for number in range(rounds):
        run.start()
        run.wait_for_begin()
        until(lambda: run.progress() > 12, 60, "the run does not come on")
        time.sleep(dice.uniform(0, 0.05))
        run.end_by(signal.SIGKILL)
        newest, before = newest_two(run)
        kept_of_before = verify(before).iteration
        DAMAGES[number % len(DAMAGES)](dice, newest)
        with pytest.raises(ValueError, match=newest.name):
            verify(newest)
        run.forget(newest)
        assert run.newest() == kept_of_before
        passed_over += 1
    assert run.compare() == NO_FAULTS
    assert passed_over == run.counts.resumes == rounds


@pytest.mark.slow
def test_500_random_damages_are_found(chain, capsys) -> None:
    dice = random.Random(500)
    run = chain(every=3)
    run.start(3)
    assert run.finish() == [0]
    newest, _ = newest_two(run)
    whole = {path: path.read_bytes() for path in newest.iterdir()}
    found = 0
    for number in range(500):
        (cut, flip)[number % 2](dice, newest)
        try:
            verify(newest)
        except CheckpointDamagedError:
            found += 1
        for path, data in whole.items():
            path.write_bytes(data)
    verify(newest)
    with capsys.disabled():
        print(f"\n  500 cuts and flipped bits, {found} found", end="")
    assert found == 500


def test_where_none_is_whole_the_run_does_not_begin_anew(chain) -> None:
    run = chain(every=3, quiet=True)
    run.start(2)
    assert run.finish() == [0]
    for folder in run.kept.glob("epoch=*"):
        flip(random.Random(1), folder)
    there = sorted(path.name for path in run.kept.iterdir())
    run.start(3)
    assert run.finish() == [1]
    assert "CheckpointDamagedError: no checkpoint in" in run.error()
    assert sorted(path.name for path in run.kept.iterdir()) == there


def test_a_directory_that_vanishes_comes_again(chain) -> None:
    """Each save makes what it needs; the run goes on, or ends with an error that names the directory."""
    dice = random.Random(1)
    run = chain(quiet=True)
    run.start(20, step_seconds=0.001)
    until(lambda: run.newest() is not None, 60, "no checkpoint came")
    for number in range(3):
        until(lambda: run.kept.exists() or not run.life[0].alive(), 60, "it does not come again")
        time.sleep(dice.uniform(0, 0.1))
        if run.kept.exists():
            run.kept.rename(run.base / f"taken{number}")
    run.forget_all()
    (code,) = run.finish()
    assert code == 0 or str(run.kept) in run.error()
    assert run.compare() == NO_FAULTS


def test_leftovers_of_the_dead_are_removed_and_tell_nothing(chain) -> None:
    run = chain()
    run.start(1)
    assert run.finish() == [0]
    newest, _ = newest_two(run)
    dead = run.kept / f".tmp-epoch=0009-iteration=00000900@{run.host}@4194303"
    shutil.copytree(newest, dead)
    (dead / "manifest.json").write_text(json.dumps({"content": {}}))
    assert run.compare() == NO_FAULTS
    assert not dead.exists()
