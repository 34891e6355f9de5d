"""What a process learns about itself from environment variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.distributed.environment import Environment, RankLayout
from leyden.distributed.slurm import first_host, port_of_job, tasks_on_node

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "job",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "node[003-004]",
    "SLURM_TASKS_PER_NODE": "4,3",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "4123456",
}


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


def test_nothing_set_is_one_process():
    assert Environment.read({}) == Environment()
    assert Environment.read({}).place == RankLayout(
        rank=0, local_rank=0, world_size=1, local_world_size=1, node_rank=0, node_count=1
    )


def test_empty_variables_count_as_absent():
    assert Environment.read({"RANK": "", "WORLD_SIZE": ""}) == Environment()


def test_torchrun():
    environment = Environment.read(TORCHRUN)
    assert environment.launcher == "torchrun"
    assert environment.place == RankLayout(5, 1, 8, 4, 1, 2)
    assert environment.layout_known
    assert environment.meeting_point() == ("node1", 29400)
    assert environment.agent_hosts_store


def test_rank_and_world_size_on_a_loopback_address_share_a_machine():
    environment = Environment.read({"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
    assert environment.launcher == "variables"
    assert environment.place == RankLayout(1, 1, 3, 3, 0, 1)
    assert environment.layout_known


def test_rank_and_world_size_alone_leave_the_layout_open():
    environment = Environment.read({"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "pod-0", "MASTER_PORT": "29500"})
    assert environment.place == RankLayout(1, 0, 3, 1, 1, 3)
    assert not environment.layout_known


def test_world_size_of_one_needs_no_rank():
    assert Environment.read({"WORLD_SIZE": "1"}).place == RankLayout()


def test_slurm():
    environment = Environment.read(SLURM)
    assert environment.launcher == "slurm"
    assert environment.place == RankLayout(5, 1, 7, 3, 1, 2)
    assert environment.meeting_point() == ("node003", port_of_job(4123456))
    assert not environment.agent_hosts_store


def test_slurm_with_a_master_of_ones_own():
    environment = Environment.read(SLURM | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert environment.meeting_point() == ("head", 1234)


def test_slurm_with_the_five_variables_that_every_version_sets():
    environment = Environment.read(without(SLURM, "SLURM_TASKS_PER_NODE", "SLURM_JOB_NUM_NODES"))
    place = environment.place
    assert (place.rank, place.local_rank, place.world_size, place.node_rank) == (5, 1, 7, 1)
    assert not environment.layout_known


def test_slurm_with_torch_variables_exported_beside_it():
    exported = {"WORLD_SIZE": "7", "MASTER_ADDR": "head", "MASTER_PORT": "1234"}
    assert Environment.read(SLURM | exported) == Environment.read(
        SLURM | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}
    )


def test_one_slurm_task_is_one_process():
    assert Environment.read(SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).place == RankLayout()


@pytest.mark.parametrize("shell", [{"SLURM_JOB_NAME": "interactive"}, {"ENVIRONMENT": "BATCH"}])
def test_the_shell_of_an_allocation_is_one_process(shell):
    assert Environment.read(SLURM | {"SLURM_PROCID": "0"} | shell).place == RankLayout()


def test_a_task_that_a_batch_script_starts_with_srun_is_one_of_many():
    assert Environment.read(SLURM | {"ENVIRONMENT": "BATCH", "SLURM_STEP_ID": "0"}).place.world_size == 7


def test_torchrun_started_by_srun_on_each_node_is_torchruns():
    slurm = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_ID": "0"}
    assert Environment.read(slurm | TORCHRUN) == Environment.read(TORCHRUN)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "sets RANK=0, but not WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "sets WORLD_SIZE=2, but not RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 with world size 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "rank -1 with world size 2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK should be a whole number, but is 'one'"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "local rank 4 with local world size 4"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, "local rank 1 with local world size 0"),
        (TORCHRUN | {"GROUP_RANK": "2"}, "node rank 2 with node count 2"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "9"}, "9 processes on this node, 8 in all"),
        (without(SLURM, "SLURM_LOCALID"), "SLURM_LOCALID is not set"),
        (without(SLURM, "SLURM_NTASKS"), "SLURM_NTASKS is not set"),
        (SLURM | {"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but SLURM_NTASKS is 7"),
        (SLURM | {"WORLD_SIZE": "7", "RANK": "0"}, "RANK is 0, but SLURM_PROCID is 5"),
    ],
)
def test_contradictions_are_named(variables, message):
    with pytest.raises(ValueError, match=message):
        Environment.read(variables)


def test_a_missing_meeting_point_is_told_when_it_is_needed():
    environment = Environment.read({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
    with pytest.raises(ValueError, match="2 processes, but not where they meet: set MASTER_PORT"):
        environment.meeting_point()


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[003-007,9]", "node003"),
        ("node[9,003-007],login1", "node9"),
        ("gpu-a[12]", "gpu-a12"),
        ("rack[1-2]n[01-04]", "rack1n01"),
        ("c[1-3].cluster.local,d4", "c1.cluster.local"),
        (" n1 , n2", "n1"),
    ],
)
def test_first_host(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize("nodes", ["", "node[", "[]", "node[]"])
def test_a_list_without_a_host_is_refused(nodes):
    with pytest.raises(ValueError, match="names no first host"):
        first_host(nodes)


def compact(counts):
    """Write tasks per node as SLURM does, with (xN) for repeats."""
    runs = []
    for count in counts:
        if runs and runs[-1][0] == count:
            runs[-1][1] += 1
        else:
            runs.append([count, 1])
    return ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_tasks_on_node(counts):
    assert [tasks_on_node(compact(counts), node) for node in range(len(counts))] == counts


@pytest.mark.parametrize(("tasks", "message"), [("4(x2)", "cover 2 nodes, but this is node 2"), ("4x2", "look like")])
def test_tasks_that_do_not_fit_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        tasks_on_node(tasks, 2)


@given(st.integers(1, 10**9))
def test_the_port_of_a_job_is_a_free_range_port(job):
    assert 1024 < port_of_job(job) < 32768
