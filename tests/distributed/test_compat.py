"""What leyden relies on of torch's private parts is there; a release without it is told in words, with who needs it."""

import importlib
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules import batchnorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from leyden.distributed import compat


class Stream(IterableDataset):
    def __init__(self, samples=4):
        self.samples = samples

    def __iter__(self):
        return iter(range(self.samples))


class Positions(torch.utils.data.Sampler):
    def __iter__(self):
        return iter([2, 0])

    def __len__(self):
        return 2


def optimizer(**options):
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, **options)


def constant(made_for):
    return lr_scheduler.ConstantLR(made_for)


def sequence():
    made_for = optimizer()
    return lr_scheduler.SequentialLR(made_for, [constant(made_for), constant(made_for)], milestones=[3])


def chained():
    made_for = optimizer()
    return lr_scheduler.ChainedScheduler([constant(made_for), constant(made_for)], optimizer=made_for)


def stateful_loader(**options):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    return torchdata.StatefulDataLoader(Stream(), **options)


def state_within_a_pass(**options):
    loader = stateful_loader(**options)
    batches = iter(loader)
    next(batches)
    return loader.state_dict()


def sparse():
    return torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.tensor([2.0, 3.0]), (4,))


def checkpointed():
    room = importlib.import_module("torch.distributed.algorithms._checkpoint.checkpoint_wrapper")
    return room.checkpoint_wrapper(nn.Linear(2, 2))


OWNERS = {
    "torch": lambda: torch,
    "torch.compile": lambda: torch.compile(nn.Linear(2, 2), backend="eager")._modules,
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": checkpointed,
    "torch.amp.GradScaler": lambda: torch.amp.GradScaler("cpu"),
    "torch.distributed": lambda: torch.distributed,
    "torch.distributed.distributed_c10d": lambda: torch.distributed.distributed_c10d,
    "torch.distributed.ProcessGroup": lambda: torch.distributed.ProcessGroup,
    "torch.distributed.ProcessGroup.Options": lambda: torch.distributed.ProcessGroupGloo._Options(),
    "torch.distributed.tensor.DTensor": lambda: importlib.import_module("torch.distributed.tensor").DTensor,
    "torch.nn.Module": lambda: nn.Linear(2, 2),
    "torch.nn.Module.state_dict": lambda: nn.Linear(2, 2).state_dict(),
    "torch.nn.modules.batchnorm": lambda: batchnorm,
    "torch.nn.parallel.DistributedDataParallel": lambda: DistributedDataParallel,
    "torch.optim.SGD(fused=True)": lambda: optimizer(fused=True),
    "torch.optim.lr_scheduler.ChainedScheduler": chained,
    "torch.optim.lr_scheduler.LRScheduler": lambda: constant(optimizer()),
    "torch.optim.lr_scheduler.SequentialLR": sequence,
    "torch.sparse_coo_tensor": sparse,
    "torch.utils.data.DataLoader": lambda: DataLoader([1, 2]),
    "torch.utils.data.dataloader._BaseDataLoaderIter": lambda: iter(DataLoader([1, 2])),
    "torch.utils.data.dataloader._MultiProcessingDataLoaderIter": (
        lambda: torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    ),
    "torchdata.stateful_dataloader.StatefulDataLoader": stateful_loader,
    "torchdata.stateful_dataloader.StatefulDataLoader.state_dict": (
        lambda: state_within_a_pass() | state_within_a_pass(num_workers=1)
    ),
    "torchdata.stateful_dataloader.StatefulDataLoader.state_dict of workers": (
        lambda: state_within_a_pass(num_workers=1)["_snapshot"]
    ),
}


def missing(owner, name, reason):
    """What is wrong, in words, if this release of torch has no such name; None if it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thing = OWNERS[owner]()
    if hasattr(thing, name) or (isinstance(thing, dict) and name in thing):
        return None
    return f"torch {torch.__version__} has no {owner}.{name}: {reason}. Mend it in distributed/compat"


@pytest.mark.parametrize(("owner", "name", "reason"), compat.RELIED_ON, ids=lambda part: part if "." in part else None)
def test_torch_has_what_is_relied_on(owner, name, reason):
    if told := missing(owner, name, reason):
        pytest.fail(told)


def test_what_is_gone_would_be_told_in_words(monkeypatch):
    monkeypatch.delattr(DistributedDataParallel, "_pre_forward")
    ((_, _, reason),) = [each for each in compat.RELIED_ON if each[1] == "_pre_forward"]
    assert missing("torch.nn.parallel.DistributedDataParallel", "_pre_forward", reason) == (
        f"torch {torch.__version__} has no torch.nn.parallel.DistributedDataParallel._pre_forward: DataParallel begins "
        "a pass of a module that the user calls. Mend it in distributed/compat"
    )


# What the names do, where that is more than to be there.


def test_a_pass_of_a_loader_draws_from_another_sampler():
    batches = iter(DataLoader([10, 20, 30], batch_size=None))
    compat.take_indices_from(batches, Positions())
    batches._sampler_iter = iter(batches._index_sampler)
    assert [int(each) for each in batches] == [30, 10]


def test_workers_that_stay_are_ended_and_started_anew():
    loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
    assert compat.begun_pass(loader) is None
    assert len(list(loader)) == 2
    first = compat.begun_pass(loader)
    assert first is not None
    compat.end_workers(loader)
    assert compat.begun_pass(loader) is None
    assert not any(worker.is_alive() for worker in first._workers)
    assert len(list(loader)) == 2
    compat.end_workers(loader)


def test_a_stream_that_is_at_its_end_is_told():
    batches = iter(DataLoader(Stream(2), batch_size=1))
    assert compat.stream_at_its_end(batches) is None
    assert len(list(batches)) == 2
    assert list(compat.stream_at_its_end(batches)) == []
    assert compat.stream_at_its_end(iter(DataLoader([1, 2]))) is None


def test_loaders_with_an_iteration_of_their_own_are_told_from_torchs():
    class Own(DataLoader):
        def __iter__(self):
            return iter([1])

    assert not compat.iterates_itself(DataLoader([1]))
    assert compat.iterates_itself(Own([1]))


def test_states_of_a_stateful_loader_are_understood():
    state = state_within_a_pass(num_workers=2)
    assert compat.is_within_a_pass(state_within_a_pass())
    told = compat.states_of_workers(state, 2)
    assert [set(each) >= {"fetcher_state", "dataset_state"} for each in told] == [True, True]
    assert "fetcher_ended" in told[0]["fetcher_state"]
    assert compat.states_of_workers(None, 2) == [{}, {}]


def test_compiled_modules_are_told_and_unwrapped():
    model = nn.Linear(2, 2)
    assert not compat.is_compiled(model)
    wrapped = torch.compile(model, backend="eager")
    assert compat.is_wrapped_by_compile(wrapped)
    assert compat.is_compiled(wrapped)
    assert compat.unwrapped_of_compile(wrapped) is model
    model.compile(backend="eager")
    assert compat.is_compiled(model)
    assert not compat.is_wrapped_by_compile(model)
    assert compat.recompile_limit() >= 1


def test_a_sparse_tensor_is_taken_apart_as_it_is():
    indices, values = compat.indices_and_values(sparse())
    assert (indices.tolist(), values.tolist()) == ([[1, 1]], [2.0, 3.0])


def test_schedulers_tell_what_they_are_made_of():
    assert [type(part) for part in compat.parts_of_scheduler(sequence())] == [lr_scheduler.ConstantLR] * 2
    assert [type(part) for part in compat.parts_of_scheduler(chained())] == [lr_scheduler.ConstantLR] * 2
    assert compat.parts_of_scheduler(constant(optimizer())) == []
    assert compat.milestones_of(sequence()) == [3]
    assert compat.MILESTONES in sequence().state_dict()


def test_the_rate_that_a_scheduler_shows_can_be_set():
    scheduler = constant(optimizer())
    compat.last_rates(scheduler)[0] = 0.7
    assert scheduler.get_last_lr() == [0.7]


def test_versions_of_modules_go_with_a_state():
    state = nn.BatchNorm1d(2).state_dict()
    assert compat.module_versions(state)[""] == {"version": 2}
    compat.set_module_versions(state, {"": {"version": 1}})
    assert compat.module_versions(state)[""] == {"version": 1}
    assert compat.module_versions({}) == {}


def test_only_a_fused_optimizer_skips_by_itself():
    assert compat.skips_by_itself(optimizer(fused=True))
    assert not compat.skips_by_itself(optimizer())


def test_a_group_tells_how_long_it_waits_and_where_it_met(tmp_path):
    script = torch.distributed
    script.init_process_group("gloo", store=script.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        group = script.group.WORLD
        assert compat.timeout_of(group, torch.device("cpu")).total_seconds() == 1800
        compat.default_store().set("word", "left")
        assert compat.default_store().get("word") == b"left"
    finally:
        script.destroy_process_group()


def test_parameters_are_left_out_of_replicas():
    model = nn.Linear(2, 2)
    compat.leave_out_of_replicas(model, {"bias"})
    assert model._ddp_params_and_buffers_to_ignore == ["bias"]


@pytest.mark.parametrize("others", [None, ["weight"]])
def test_parameters_are_left_out_of_one_of_the_replicas(others):
    model = nn.Linear(2, 2)
    if others is not None:
        compat.leave_out_of_replicas(model, others)
    before = dict(vars(model))
    with compat.leaving_out(model, {"bias"}):
        assert {*(others or []), "bias"} <= set(model._ddp_params_and_buffers_to_ignore)
    assert vars(model) == before
    assert not hasattr(model.bias, "_ddp_ignored")  # who compiles the others' replicas would believe it
