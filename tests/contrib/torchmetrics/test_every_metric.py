"""Every class of torchmetrics that needs no further package, all of them attached to one engine.

1, 2 and 4 ranks find what torchmetrics itself finds in one process; a killed run goes on with what it had seen.
"""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torchmetrics = pytest.importorskip("torchmetrics")

SCRIPTS = Path(__file__).parent / "scripts"
WINDOWS = {"RunningMean": "MeanMetric", "RunningSum": "SumMetric", "Running": "MeanSquaredError"}
"""What looks at the last three batches of each rank, and what measures these."""
BY_CHANCE = ["KernelInceptionDistance"]
"""Those that draw which samples they compare; the same ones where there are as few as it draws."""


@pytest.fixture(scope="module")
def every_metric():
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("every_metric")
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs a script, and gives its process and what each rank found."""

    def run(script, ranks, *arguments):
        file = tmp_path_factory.mktemp("found") / "found.json"
        at = [file] if script == "every_metric.py" else [arguments[0], file]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", SCRIPTS / script, str(ranks), *at, *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return done, json.loads(file.read_text()) if done.returncode == 0 else None

    return run


def flat(value):
    return [number for each in value for number in flat(each)] if isinstance(value, list) else [float(value)]


def differing(found, expected, *, ordered=True):
    """The names whose values are not those expected; unordered where ranks are dealt their samples."""
    arrange = flat if ordered else lambda value: sorted(flat(value))
    pairs = {name: (arrange(found[name]), arrange(value)) for name, value in json.loads(json.dumps(expected)).items()}
    return {
        name: pair
        for name, pair in pairs.items()
        if len(pair[0]) != len(pair[1]) or not np.allclose(*pair, rtol=1e-5, atol=1e-6, equal_nan=True)
    }


def test_one_process_finds_what_torchmetrics_finds(every_metric) -> None:
    metrics = every_metric.measuring().run(list(every_metric.BATCHES)).metrics
    found = {name: every_metric.plain(metrics[name]) for name in every_metric.CASES}
    assert differing(found, every_metric.alone()) == {}
    print(f"1 rank: {len(found)} metrics equal")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.timeout(300)
def test_the_ranks_find_what_one_process_finds_that_sees_all_batches(every_metric, run, ranks) -> None:
    done, found = run("every_metric.py", ranks)
    assert done.returncode == 0, done.stderr
    whole = every_metric.alone()
    for layout, shards in every_metric.SHARDS[ranks].items():
        last = [index for shard in shards for index in shard[-3:]]
        measured = every_metric.alone(last, WINDOWS.values())
        expected = whole | {name: measured[by] for name, by in WINDOWS.items()}
        for name in every_metric.left_out(shards):
            del expected[name]
        for of_rank in found:
            assert [bool(said) for said in of_rank["refused"].values()] == [ranks > 2]
            assert of_rank[layout].keys() == expected.keys()
            assert differing(of_rank[layout], expected) == {}
        print(f"{ranks} ranks, {layout}: {len(expected)} metrics equal, {len(whole) - len(expected)} left out")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_with_what_all_had_seen(every_metric, run, tmp_path) -> None:
    killed, _ = run("goes_on.py", 2, tmp_path, "5")
    assert "rank 0 ended with SIGKILL" in killed.stderr, killed.stderr
    (checkpoint,) = [folder for folder in tmp_path.iterdir() if "00000004" in folder.name]
    whole = every_metric.alone(range(12))
    for name in (*WINDOWS, *BY_CHANCE, *every_metric.ON_TWO_RANKS):
        del whole[name]
    for ranks in (1, 2, 4):
        into = tmp_path / f"on {ranks}"
        into.mkdir()
        subprocess.run(["cp", "-r", checkpoint, into], check=True)
        done, found = run("goes_on.py", ranks, into, "0", *every_metric.ON_TWO_RANKS)
        assert done.returncode == 0, done.stderr
        assert "epoch 1, iteration 4" in done.stdout + done.stderr
        for (of_rank,) in found:
            assert differing(of_rank, whole, ordered=False) == {}
        print(f"{len(whole)} metrics equal after a kill on 2 ranks and a start on {ranks}")


def test_every_class_is_tried_or_named_with_the_reason(every_metric) -> None:
    cases = importlib.import_module("cases")
    classes = set()
    for room in pkgutil.iter_modules(torchmetrics.__path__, "torchmetrics."):
        if room.name.startswith(("torchmetrics.functional", "torchmetrics.utilities")):
            continue
        module = importlib.import_module(room.name)
        modules = [module]
        if room.ispkg:
            modules += [
                importlib.import_module(each.name) for each in pkgutil.iter_modules(module.__path__, room.name + ".")
            ]
        for each in modules:
            classes |= {
                name
                for name, value in vars(each).items()
                if inspect.isclass(value) and issubclass(value, torchmetrics.Metric) and not name.startswith("_")
            }
    tried = {name.rstrip("'") for name in cases.CASES}
    named = {name for names in cases.NOT_TRIED.values() for name in names}
    assert classes - tried - named == set()
    print(f"{len(classes & tried)} classes of torchmetrics tried, {len(classes & named)} named with the reason")
