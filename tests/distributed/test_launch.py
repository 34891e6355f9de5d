"""Processes that a script starts by itself."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_functions
import torch

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(60)


def test_every_rank_knows_its_place_and_its_value_comes_back():
    before = dict(os.environ)
    results = dist.launch(rank_functions.who_am_i, 2, backend="gloo")
    assert dict(os.environ) == before
    for rank, result in enumerate(results):
        mismatch = result.pop("other backend")
        assert mismatch.startswith("RuntimeError: initialize(backend='nccl')")
        assert "joined a gloo group already" in mismatch
        assert torch.equal(result.pop("tensor"), torch.full((3,), float(rank)))
        assert result.pop("launched") == [rank]  # a launch in one of several processes runs there
        assert result == {
            "rank": rank,
            "local_rank": rank,
            "world_size": 2,
            "local_world_size": 2,
            "node_rank": 0,
            "node_count": 1,
            "backend": "gloo",
            "device": "cpu",
            "initialized": True,
            "model_name": "native-dist",
            "same backend": None,
        }


def test_an_exception_in_one_rank_ends_all():
    started = time.monotonic()
    with pytest.raises(dist.RankError, match=r"(?s)rank 1 raised KeyError:.*in fail_on.*KeyError: 'lost'") as caught:
        dist.launch(rank_functions.fail_on, 2, args=(1,), backend="gloo")
    assert caught.value.rank == 1
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_rank_that_dies_ends_all():
    with pytest.raises(dist.RankError, match="rank 0 ended with SIGKILL before it returned"):
        dist.launch(rank_functions.die_on, 2, kwargs={"rank": 0}, backend="gloo")


@pytest.mark.slow
def test_a_value_that_cannot_travel_is_an_error():
    with pytest.raises(dist.RankError, match=r"(?s)pickle"):
        dist.launch(rank_functions.unpicklable, 2, backend="gloo")


def test_a_script_without_a_main_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from leyden import distributed as dist\ndist.launch(print, 2)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "if __name__ == " in done.stderr
    assert "before it returned" in done.stderr


def test_parallel_starts_processes():
    with dist.Parallel(backend="gloo", nproc_per_node=2, nnodes=None, node_rank=None) as parallel:
        assert parallel.run(rank_functions.take, {"x": 3}, scale=2) == [(0, 0, 2, 6), (1, 1, 2, 6)]


@pytest.mark.parametrize("scheme", ["file", "tcp"])
def test_ranks_meet_where_they_are_told(tmp_path, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"file://{tmp_path / 'meeting'}" if scheme == "file" else f"tcp://127.0.0.1:{port}"
    script = Path(rank_functions.__file__).with_name("meet.py")
    ranks = [
        subprocess.Popen([sys.executable, script, url, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    outputs = [rank.communicate(timeout=50)[0] for rank in ranks]
    assert outputs == ["(0, 0, 2, 2, 'gloo', 3)\n", "(1, 1, 2, 2, 'gloo', 3)\n"]


@pytest.mark.slow
def test_parallel_over_two_machines(tmp_path):
    """Two launchers of one process each stand for two machines."""
    script = Path(rank_functions.__file__).with_name("two_machines.py")
    launchers = [
        subprocess.Popen([sys.executable, script, str(node)], stdout=subprocess.PIPE, text=True) for node in (0, 1)
    ]
    outputs = [launcher.communicate(timeout=50)[0] for launcher in launchers]
    assert outputs == ["[(0, 0, 2, 3)]\n", "[(0, 1, 2, 3)]\n"]


def test_parallel_in_one_process_just_runs():
    with dist.Parallel() as parallel:
        assert parallel.run(rank_functions.take, {"x": 3}) == [(0, 0, 1, 3)]
    with dist.Parallel(backend=None, nproc_per_node=None, nnodes=None, node_rank=None) as parallel:  # of argparse
        assert parallel.run(rank_functions.take, {"x": 3}) == [(0, 0, 1, 3)]
    with pytest.raises(ValueError, match="nproc_per_node=0"):
        dist.Parallel("gloo", nproc_per_node=0)
    with pytest.raises(ValueError, match="together with nproc_per_node"):
        dist.Parallel("gloo", nnodes=2)
    with pytest.raises(ValueError, match="master_addr and master_port"):
        dist.spawn("gloo", rank_functions.take, nnodes=2, node_rank=0)
    with pytest.raises(ValueError, match="node_rank says which machine"):
        dist.spawn("gloo", rank_functions.take, nnodes=2)
    with pytest.raises(ValueError, match="meet at 'tcp://host:port'"):
        dist.spawn("gloo", rank_functions.take, init_method="file:///tmp/x")
