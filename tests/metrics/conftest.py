"""What the tests of metrics share: an engine whose outputs are given."""

import pytest

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
