"""The same where worker processes load the data, also such that stay from pass to pass."""

import random

import pytest
from passes import LOADERS, differs, stops

pytestmark = [
    pytest.mark.filterwarnings("ignore:to go on where the run was", "ignore:'set_vital' is deprecated"),
    pytest.mark.timeout(120),
]

WORKERS = {"workers": {"num_workers": 2}, "workers that stay": {"num_workers": 2, "persistent_workers": True}}


def check(kind, workers, epoch_length, moments):
    def make():
        return LOADERS[kind](**WORKERS[workers])

    wrong = {stop: differs(make, stop, epoch_length=epoch_length) for stop in moments}
    assert {stop: found for stop, found in wrong.items() if found is not None} == {}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", ["shuffle by a generator", "a batch sampler that draws all along"])
def test_a_run_with_workers_goes_on_as_if_it_had_not_stopped(kind, workers):
    check(kind, workers, None, random.Random(kind + workers).sample(stops(None), 2))


@pytest.mark.slow
@pytest.mark.parametrize("epoch_length", [None, 5, 19])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_of_loader_stopped_anywhere(kind, workers, epoch_length):
    check(kind, workers, epoch_length, stops(epoch_length))
