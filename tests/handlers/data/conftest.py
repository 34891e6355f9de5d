"""Datasets that worker processes are given lie beside the tests, where those processes can import them."""

import gc
import sys
from pathlib import Path

import pytest
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def workers_end_with_their_test():
    """torch waits 5 seconds for each worker that stayed, if it is a collection of garbage that ends them."""
    yield
    for thing in gc.get_objects():
        if type(thing) is _MultiProcessingDataLoaderIter:
            thing._shutdown_workers()
