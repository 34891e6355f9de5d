"""In one process: no group, rank 0 of 1, and every collective the identity."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st

from leyden import distributed as dist


@pytest.fixture
def variables(monkeypatch):
    """Set environment variables as a launcher would; the process looks at them anew."""

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        dist.finalize()

    yield set_all
    monkeypatch.undo()
    dist.finalize()


def test_one_process_is_rank_0_of_1():
    dist.initialize()
    assert (dist.rank(), dist.local_rank(), dist.world_size(), dist.node_rank(), dist.node_count()) == (0, 0, 1, 0, 1)
    assert dist.local_world_size() == 1
    assert dist.backend() is None
    assert not dist.is_initialized()
    assert not torch.distributed.is_initialized()


def test_the_device_is_the_accelerator_or_the_cpu():
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert dist.device().type == ("cpu" if accelerator is None else accelerator.type)


numbers = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False))


@given(numbers)
def test_numbers_keep_value_and_type(number):
    assert dist.all_gather(number) == [number]
    assert type(dist.all_gather(number)[0]) is type(number)
    assert dist.broadcast(number) == number
    for op in ("min", "max"):
        assert dist.all_reduce(number, op) == number
        assert type(dist.all_reduce(number, op)) is type(number)


@given(st.integers(-(2**62), 2**62))
def test_sums_of_whole_numbers_are_whole_and_exact(number):
    assert dist.all_reduce(number) == number
    assert type(dist.all_reduce(number)) is int


def test_the_mean_of_whole_numbers_is_a_float():
    assert dist.all_reduce(3, "mean") == 3.0
    assert type(dist.all_reduce(3, "mean")) is float
    assert dist.all_reduce(torch.tensor([1, 2]), "mean").dtype == torch.float32


def test_truth_values():
    assert dist.all_reduce(True, "and") is True
    assert dist.all_reduce(False, "or") is False
    assert dist.all_reduce(True) == 1
    assert torch.equal(dist.all_reduce(torch.tensor([True, False])), torch.tensor([1, 0]))


def test_numbers_of_numpy_are_numbers():
    assert dist.all_reduce(np.int64(3)) == 3
    assert type(dist.all_reduce(np.float32(0.5))) is float


def test_ops_may_be_written_in_capitals():
    assert dist.all_reduce(2, "SUM") == 2


def test_strings_and_objects():
    assert dist.all_gather("runs/1") == ["runs/1"]
    assert dist.broadcast("runs/1") == "runs/1"
    assert dist.all_gather_object({"a": 1}) == [{"a": 1}]
    assert dist.broadcast_object({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("collective", [dist.all_reduce, dist.all_gather, dist.broadcast])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.int64, torch.complex64])
def test_tensors_come_back_equal_and_apart(collective, dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    result = collective(tensor)
    assert torch.equal(result, tensor)
    assert result.dtype == dtype
    result.zero_()
    assert torch.equal(tensor, torch.arange(6).reshape(2, 3).to(dtype))


def test_a_gathered_scalar_is_a_vector():
    assert torch.equal(dist.all_gather(torch.tensor(2.0)), torch.tensor([2.0]))


def test_an_unknown_op_is_refused():
    with pytest.raises(ValueError, match="no op 'average'; it knows: sum, mean, min, max, product, and, or"):
        dist.all_reduce(1.0, "average")


@pytest.mark.parametrize("collective", [dist.all_reduce, dist.all_gather, dist.broadcast])
def test_an_unsupported_type_is_named(collective):
    with pytest.raises(TypeError, match=r"takes a tensor, a number \(int, float, bool\).*, but got dict"):
        collective({})


@pytest.mark.parametrize("value", [1, 0.5, torch.ones(2)])
def test_and_is_for_truth_values(value):
    with pytest.raises(TypeError, match="truth values"):
        dist.all_reduce(value, "and")


def test_there_is_no_second_rank_to_broadcast_from():
    with pytest.raises(ValueError, match="no rank 1 to broadcast from: ranks go from 0 to 0"):
        dist.broadcast(1, src=1)


def test_a_group_is_known_though_the_variables_are_half_set(variables):
    """Some clusters set WORLD_SIZE for their own sake."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        variables(WORLD_SIZE="2")
        assert (dist.rank(), dist.world_size(), dist.backend()) == (0, 1, "gloo")
        dist.initialize()
        assert dist.all_reduce(2) == 2
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(ValueError, match="sets WORLD_SIZE=2, but not RANK"):
        dist.rank()


def test_a_group_of_some_ranks_is_this_one_alone():
    for group in (dist.new_group([0]), [0], None):
        assert dist.all_reduce(3, group=group) == 3
        assert dist.all_gather("a", group=group) == ["a"]
        assert dist.all_gather_object(None, group=group) == [None]
    for ranks in ([], [1], [0, 0], [-1]):
        with pytest.raises(ValueError, match="ranks from 0 to 0, each once"):
            dist.new_group(ranks)


def test_the_configuration_is_shown(capsys):
    dist.show_config()
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert lines["backend"] == "None"
    assert (lines["world size"], lines["rank"], lines["num nodes"]) == ("1", "0", "1")
    assert lines["hostname"] == dist.hostname()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"init_method": "udp://host:1"}, "'tcp://host:port' or 'file:///path', but got 'udp://host:1'"),
        ({"init_method": "tcp://127.0.0.1:1", "rank": 0}, "together, but got 0 and None"),
        ({"init_method": "tcp://127.0.0.1:1"}, "not who they are: give rank= and world_size="),
        ({"rank": 2, "world_size": 2}, "contradicts itself: rank 2"),
    ],
)
def test_a_meeting_that_is_described_badly(arguments, words):
    with pytest.raises(ValueError, match=words):
        dist.initialize("gloo", **arguments)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"unknown backend 'glue'; available here: .*gloo"):
        dist.initialize("glue")


def test_before_initialize_the_environment_answers(variables):
    variables(RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2", GROUP_RANK="1", GROUP_WORLD_SIZE="2")
    assert (dist.rank(), dist.local_rank(), dist.world_size(), dist.node_rank(), dist.node_count()) == (3, 1, 4, 1, 2)
    assert not dist.is_initialized()
    assert dist.backend() is None


def test_a_collective_before_initialize_says_what_is_missing(variables):
    variables(RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    for collective in (dist.all_reduce, dist.all_gather, dist.broadcast, dist.all_gather_object):
        with pytest.raises(RuntimeError, match=r"2 processes .*call leyden.distributed.initialize\(\) first"):
            collective(1)
    for needs_a_group in (dist.barrier, lambda: dist.Agreement(1), lambda: dist.auto_model(torch.nn.Linear(1, 1))):
        with pytest.raises(RuntimeError, match=r"call leyden.distributed.initialize\(\) first"):
            needs_a_group()


def test_initialize_without_a_meeting_point_says_so(variables):
    variables(RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost")
    with pytest.raises(ValueError, match="set MASTER_PORT"):
        dist.initialize("gloo")


def test_a_group_made_by_hand_is_adopted_and_left_alone():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert dist.is_initialized()
        assert dist.backend() == "gloo"
        assert dist.model_name() == "native-dist"
        dist.initialize()
        with pytest.raises(RuntimeError, match="joined a gloo group"):
            dist.initialize("nccl")
        assert dist.all_reduce(2) == 2
        dist.finalize()
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
    assert not dist.is_initialized()
    assert dist.backend() is None


def test_one_rank_only_passes_on_value_and_name():
    @dist.one_rank_only()
    def save(path):
        """Save."""
        return path

    @dist.one_rank_only(rank=1, with_barrier=True)
    def never():
        raise AssertionError

    assert save("a") == "a"
    assert (save.__name__, save.__doc__) == ("save", "Save.")
    assert never() is None


def test_one_rank_first():
    with dist.one_rank_first():
        pass
    with pytest.raises(ValueError, match="no local rank 1 to go first"), dist.one_rank_first(1, local=True):
        pass


def test_an_agreement_with_oneself():
    agreement = dist.Agreement(2)
    agreement.post([1, 2])
    agreement.post((3, 4))
    assert agreement.pending == 2
    assert agreement.result() == [1, 2]
    assert agreement.result() == [3, 4]
    assert agreement.pending == 0
    with pytest.raises(RuntimeError, match="nothing pending"):
        agreement.result()
    with pytest.raises(ValueError, match="about 2 numbers, but got 1"):
        agreement.post([1])
    agreement.close()
    with pytest.raises(ValueError, match="size=0"):
        dist.Agreement(0)


def test_launch_of_one_process_runs_here():
    seen = []
    assert dist.launch(seen.append, 1, args=("here",)) == [None]
    assert seen == ["here"]
    with pytest.raises(ValueError, match="nproc=0"):
        dist.launch(seen.append, 0)


def test_importing_is_cheap_and_starts_nothing():
    code = (
        "import sys, torch; before = set(sys.modules); import leyden.distributed;"
        "print([m for m in set(sys.modules) - before if not m.startswith('leyden')])"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {name.split(".")[0] for name in eval(imported)} & {"torch_xla", "numpy", "ignite", "psutil"}


def test_ignites_names_answer_the_same():
    assert (dist.get_rank(), dist.get_local_rank(), dist.get_world_size()) == (0, 0, 1)
    assert (dist.get_node_rank(), dist.get_nnodes(), dist.get_nproc_per_node()) == (0, 1, 1)
    assert dist.model_name() == "serial"
    assert "gloo" in dist.available_backends()
    assert dist.hostname()
    assert dist.has_native_dist_support


@pytest.mark.parametrize(
    "call",
    [
        lambda over: dist.all_reduce(1.0, over=over),
        lambda over: dist.all_gather(1.0, over=over),
        lambda over: dist.all_gather_object(1.0, over=over),
        lambda over: dist.broadcast(1.0, over=over),
        lambda over: dist.broadcast_object(1.0, over=over),
        lambda over: dist.barrier(over=over),
        lambda over: dist.mesh().size(over),
        lambda over: dist.mesh().rank(over),
    ],
)
def test_a_dimension_is_given_by_its_name(call):
    for strange in (["data"], {}, 3, ("replicate", "shard")):
        with pytest.raises(
            TypeError, match=r"a dimension of a mesh is given by its name, one of: pipeline, .* but got"
        ):
            call(strange)
    with pytest.raises(ValueError, match="a mesh has no dimension 'nonsense'; it has: pipeline, replicate"):
        call("nonsense")
