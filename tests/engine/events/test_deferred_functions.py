"""Functions of which a call would run nothing, as handlers and as process functions."""

import functools

import pytest
import torch

from leyden.engine import Engine, Events, Update, UpdateEvents


async def by_async(engine, batch=None):
    raise AssertionError("nobody awaits it")


def by_yield(engine, batch=None):
    yield batch


async def by_both(engine, batch=None):
    yield batch


class Handlers:
    async def method(self, engine, batch=None): ...

    @staticmethod
    def static(engine, batch=None):
        yield

    @classmethod
    def of_class(cls, engine, batch=None):
        yield


class Callable:
    def __call__(self, engine, batch=None):
        yield


DEFERRED = {
    "async": (by_async, "an async function"),
    "generator": (by_yield, "a generator function"),
    "async generator": (by_both, "a generator function"),
    "method": (Handlers().method, "an async function"),
    "static method": (Handlers.static, "a generator function"),
    "class method": (Handlers.of_class, "a generator function"),
    "callable object": (Callable(), "a generator function"),
    "partial": (functools.partial(by_async), "an async function"),
    "partial of a partial": (functools.partial(functools.partial(Callable())), "a generator function"),
    "under no_grad": (torch.no_grad()(by_yield), "a generator function"),
}
each_kind = pytest.mark.parametrize(("function", "kind"), DEFERRED.values(), ids=DEFERRED.keys())


@each_kind
def test_as_a_process_function_it_is_told(function, kind):
    with pytest.raises(TypeError, match=f"the process function .* is {kind}: a call of it would run nothing"):
        Engine(function)


@each_kind
def test_as_a_handler_it_is_told(function, kind):
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match=f"the handler .* is {kind}: a call of it would run nothing"):
        engine.add_event_handler(Events.STARTED, function)
    with pytest.raises(TypeError, match=kind):
        engine.on(Events.EXCEPTION_RAISED)(function)
    model = torch.nn.Linear(1, 1)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match=kind):
        update.add_event_handler(UpdateEvents.STEP_COMPLETED, function)


@pytest.mark.parametrize(
    "make",
    [Handlers, functools.partial(print), lambda engine: None, Callable],
    ids=("class", "partial", "lambda", "alias"),
)
def test_plain_ones_and_classes_are_taken(make):
    Engine(lambda engine, batch: None).add_event_handler(Events.STARTED, lambda: make)
