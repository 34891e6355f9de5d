"""auto_model, auto_optim and auto_dataloader, alone and among two processes."""

import pytest
import rank_functions
import torch
from torch import nn
from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler, TensorDataset

from leyden import distributed as dist

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def two_ranks():
    return dist.launch(rank_functions.adapt, 2, backend="gloo", timeout=30)


def test_alone_nothing_is_wrapped():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert dist.auto_model(model) is model
    assert dist.auto_optim(optimizer) is optimizer
    loader = dist.auto_dataloader(TensorDataset(torch.arange(4)), batch_size=3)
    assert [batch[0].tolist() for batch in loader] == [[0, 1, 2], [3]]


def test_device_ids_are_not_for_the_caller():
    with pytest.raises(ValueError, match="device_ids"):
        dist.auto_model(nn.Linear(1, 1), device_ids=[0])


def test_models_become_replicas(two_ranks):
    for result in two_ranks:
        assert result["wrapped"]
        assert not result["wrapped twice"]
        assert not result["frozen wrapped"]
        assert result["same optimizer"]
        assert result["grad"] == [[0.5, 0.5]]  # the mean of 0 and 1
    assert two_ranks[0]["weight"] == two_ranks[1]["weight"]


def test_batches_and_workers_are_those_of_the_job(two_ranks):
    assert [result["batches"] for result in two_ranks] == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]
    assert [result["proxied"] for result in two_ranks] == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]
    assert [result["workers"] for result in two_ranks] == [2, 2]


def test_a_sampler_for_other_ranks_is_refused(two_ranks):
    assert two_ranks[1]["wrong sampler"] == (
        "ValueError: the DistributedSampler deals to rank 0 of 5, but this is rank 1 of 2: make it with rank=1 and 2 "
        "replicas on this rank"
    )


def test_a_sampler_that_has_a_rank_deals_by_itself(two_ranks):
    assert [result["own share"] for result in two_ranks] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_a_proxy_deals_every_sample_once_and_differs_by_epoch():
    random = RandomSampler(range(8))
    ranks = [dist.DistributedProxySampler(random, num_replicas=2, rank=rank) for rank in range(2)]
    state = torch.random.get_rng_state()
    first = [list(rank) for rank in ranks]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sorted(first[0] + first[1]) == list(range(8))
    assert [list(rank) for rank in ranks] == first
    for rank in ranks:
        rank.set_epoch(1)
    assert [list(rank) for rank in ranks] != first


def test_a_proxy_fills_up_to_equal_shares():
    ranks = [dist.DistributedProxySampler(SequentialSampler(range(2)), num_replicas=5, rank=rank) for rank in range(5)]
    assert [list(rank) for rank in ranks] == [[0], [1], [0], [1], [0]]


def test_a_proxy_deals_from_samplers_only():
    for sampler in ([1, 2], DistributedSampler(range(2), num_replicas=1, rank=0)):
        with pytest.raises(TypeError, match=f"but got {type(sampler).__name__}"):
            dist.DistributedProxySampler(sampler)
