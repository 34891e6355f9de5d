"""Scripts under torchrun, under SLURM's variables, and started by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rank_functions

SCRIPTS = Path(rank_functions.__file__).parent

pytestmark = pytest.mark.timeout(100)


def run_by_hand(script, *arguments, variables):
    """Start one process for each mapping of variables; return exit codes and outputs."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | own,
        )
        for own in variables
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_a_script_under_torchrun_ends_well(torchrun):
    code, output = torchrun("train_replicas.py", "well")
    assert code == 0, output
    assert "rank 0: 3" in output
    assert "rank 1: 3" in output


def test_an_error_under_torchrun_is_the_one_that_is_told(torchrun):
    code, output = torchrun("train_replicas.py", "error")
    assert code != 0
    assert "LookupError: lost on rank 1" in output


def test_tasks_of_slurm_find_each_other():
    shared = {
        "SLURM_NTASKS": "2",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    codes, outputs = run_by_hand(
        "train_replicas.py",
        "well",
        variables=[shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)],
    )
    assert codes == [0, 0], outputs
    assert "rank 1: 3" in outputs[1]


def test_a_rank_whose_neighbour_failed_still_leaves(tmp_path):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 10000)}
    codes, outputs = run_by_hand(
        "train_replicas.py", "error-alone", variables=[shared | {"RANK": str(i)} for i in range(2)]
    )
    assert codes[0] == 0, outputs[0]
    assert codes[1] == 1, outputs[1]
    assert "LookupError: lost on rank 1" in outputs[1]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("nproc", [2, 3])
def test_workers_that_torchrun_restarts_find_each_other_again(torchrun, tmp_path, nproc):
    log = tmp_path / "attempts"
    code, output = torchrun(
        "survive_a_kill.py",
        log,
        2,
        nproc=nproc,
        options=["--max-restarts", "2", "--monitor-interval", "0.2"],
        limit=180,
    )
    assert code == 0, output
    total = nproc * (nproc + 1) // 2
    assert log.read_text().splitlines() == [f"attempt {attempt}: {total}" for attempt in range(3)]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_of_two_agents_find_each_other_again(tmp_path):
    """Two agents here stand for two nodes; only one of them counts the failure, both restart their workers."""
    log = tmp_path / "attempts"
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{20000 + os.getpid() % 10000}"]
    options = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--max-restarts",
        "2",
        "--monitor-interval",
        "0.2",
        *rendezvous,
    ]
    agents = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                *options,
                str(SCRIPTS / "survive_a_kill.py"),
                str(log),
                "1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    try:
        outputs = [agent.communicate(timeout=150)[0] for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0], outputs
        assert [line.split(": ")[1] for line in log.read_text().splitlines()] == ["3", "3"]
    finally:
        for agent in agents:
            agent.terminate()  # torchrun then ends its workers
            agent.wait()
