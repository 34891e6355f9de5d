"""Whole numbers of other libraries, wherever an engine takes one."""

import json

import numpy
import pytest
import torch

from leyden.engine import Engine, Events

KINDS = pytest.mark.parametrize("number", [numpy.int64, numpy.uint8, torch.tensor], ids=["int64", "uint8", "tensor"])


@KINDS
def test_as_limits(number):
    engine = Engine(lambda engine, batch: None)
    state = engine.run(range(10), max_epochs=number(2), epoch_length=number(3))
    assert (state.epoch, state.iteration) == (2, 6)
    assert json.loads(json.dumps([state.max_epochs, state.epoch_length])) == [2, 3]
    state.max_epochs = None
    state = engine.run(range(10), max_iters=number(5))
    assert (state.iteration, type(state.max_iters)) == (5, int)


@KINDS
@pytest.mark.parametrize(
    ("rule", "counts"),
    [("every", [3, 6, 9]), ("once", [3]), ("before", [1, 2]), ("after", [4, 5, 6, 7, 8, 9])],
)
def test_in_filters(number, rule, counts):
    engine, seen = Engine(lambda engine, batch: None), []
    event = Events.ITERATION_COMPLETED(**{rule: number(3)})
    engine.add_event_handler(event, lambda engine: seen.append(engine.state.iteration))
    engine.run(range(9))
    assert seen == counts


@pytest.mark.parametrize("several", [numpy.array([2, 4]), torch.tensor([2, 4]), range(2, 5, 2), {2, 4}], ids=repr)
def test_several_counts(several):
    engine, seen = Engine(lambda engine, batch: None), []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(once=several), lambda engine: seen.append(engine.state.iteration)
    )
    engine.run(range(5))
    assert seen == [2, 4]


@pytest.mark.parametrize("value", [True, numpy.bool_(True), torch.tensor(True), 2.0, numpy.float32(2), "2"], ids=repr)
def test_what_is_no_whole_number_is_told(value):
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match="max_epochs must be a whole number"):
        engine.run([1], max_epochs=value)
    with pytest.raises(TypeError, match="every of an event must be a whole number"):
        Events.ITERATION_COMPLETED(every=value)
