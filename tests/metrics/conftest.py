"""What the tests of metrics share: an engine whose outputs are given, batches of data, comparisons that are counted."""

import json
import random
import runpy

import numpy as np
import pytest
import torch

from leyden.engine import Engine


@pytest.fixture
def measured():
    """A function that runs an engine over outputs, with metrics attached by name, and gives `state.metrics`."""

    def measure(outputs, max_epochs=1, **metrics):
        engine = Engine(lambda engine, output: output, training=False)
        for name, metric in metrics.items():
            metric.attach(engine, name)
        return engine.run(outputs, max_epochs=max_epochs).metrics

    return measure


@pytest.fixture(scope="session")
def seen():
    """A function that gives a metric's value after batches of uneven sizes, one of them empty."""

    def see(metric, *tensors, seed=0):
        left, sizes = len(tensors[0]), []
        draw = random.Random(seed)
        while left:
            sizes.append(draw.randint(1, min(left, 9)))
            left -= sizes[-1]
        sizes.insert(draw.randint(0, len(sizes)), 0)
        for batch in zip(*(each.split(sizes) for each in tensors), strict=True):
            metric.update(batch if len(batch) > 1 else batch[0])
        return metric.compute()

    return see


@pytest.fixture(scope="session")
def found_alone():
    """A function that gives what one process finds by a script's `scenarios`; through JSON, as ranks tell it."""
    return lambda script: json.loads(json.dumps(runpy.run_path(str(script))["scenarios"]()))


@pytest.fixture(scope="session")
def agree():
    """A function that holds a value against that of another library; says at the end how often it did (pytest -s)."""
    compared = 0

    def compare(found, expected, dtype=torch.float64):
        nonlocal compared
        compared += 1
        close = 1e-12 if dtype == torch.float64 else 1e-6
        np.testing.assert_allclose(np.asarray(found), expected, rtol=close, atol=close)

    yield compare
    print(f"\n{compared} values compared with those of other libraries")


@pytest.fixture(scope="session")
def drawn():
    """A generator of random numbers for a seed."""
    return lambda seed: torch.Generator().manual_seed(seed)
