"""What a handler is called with: the engine where a required positional parameter is left for it, then its own."""

import functools

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: None)


class Listener:
    """Methods of each kind, which note what they get."""

    def __init__(self):
        self.got = None

    def with_engine(self, engine):
        self.got = engine

    def without(self):
        self.got = "nothing"

    def with_default(self, verbose=False):
        self.got = verbose

    def __call__(self, engine):
        self.got = engine

    @staticmethod
    def static(engine, into):
        into.append(engine)

    @classmethod
    def of_class(cls, engine, into):
        into.append((cls, engine))


def test_a_function_of_the_engine(engine):
    got = []

    def handler(engine):
        got.append(engine)

    engine.add_event_handler(Events.STARTED, handler)
    engine.run([1])
    assert got == [engine]


def test_a_function_of_nothing(engine):
    got = []
    engine.add_event_handler(Events.STARTED, lambda: got.append("ran"))
    engine.run([1])
    assert got == ["ran"]


def test_the_parameter_may_have_any_name(engine):
    got = []
    engine.add_event_handler(Events.STARTED, got.append)
    engine.run([1])
    assert got == [engine]


@pytest.mark.parametrize("method", ["with_engine", "__call__"])
def test_a_method_of_the_engine(engine, method):
    listener = Listener()
    engine.add_event_handler(Events.STARTED, getattr(listener, method))
    engine.run([1])
    assert listener.got is engine


def test_a_callable_object(engine):
    listener = Listener()
    engine.add_event_handler(Events.STARTED, listener)
    engine.run([1])
    assert listener.got is engine


def test_a_method_of_nothing(engine):
    listener = Listener()
    engine.add_event_handler(Events.STARTED, listener.without)
    engine.run([1])
    assert listener.got == "nothing"


def test_a_method_with_a_default(engine):
    listener = Listener()
    engine.add_event_handler(Events.STARTED, listener.with_default)
    engine.run([1])
    assert listener.got is False


def test_static_and_class_methods(engine):
    got = []
    engine.add_event_handler(Events.STARTED, Listener.static, got)
    engine.add_event_handler(Events.STARTED, Listener.of_class, got)
    engine.run([1])
    assert got == [engine, (Listener, engine)]


def test_variable_arguments_take_the_engine(engine):
    got = []
    engine.add_event_handler(Events.STARTED, lambda *arguments: got.append(arguments))
    engine.run([1])
    assert got == [(engine,)]


def test_own_arguments_follow_the_engine(engine):
    got = []
    engine.add_event_handler(
        Events.STARTED, lambda engine, a, b, c=0, d=0: got.append((engine, a, b, c, d)), 1, b=2, d=4
    )
    engine.run([1])
    assert got == [(engine, 1, 2, 0, 4)]


def test_own_arguments_may_fill_all_parameters(engine):
    got = []
    engine.add_event_handler(Events.STARTED, lambda a, b: got.append((a, b)), 1, 2)
    engine.run([1])
    assert got == [(1, 2)]


def test_an_own_argument_may_fill_a_parameter_with_a_default(engine):
    got = []
    engine.add_event_handler(Events.STARTED, lambda engine, verbose=False: got.append((engine, verbose)), True)
    engine.run([1])
    assert got == [(engine, True)]


def test_a_keyword_named_like_the_first_parameter_leaves_no_place_for_the_engine(engine):
    got = []

    def handler(target):
        got.append(target)

    engine.add_event_handler(Events.STARTED, handler, target="mine")
    engine.run([1])
    assert got == ["mine"]


def test_keyword_only_parameters_are_not_the_engines_place(engine):
    got = []

    def handler(*, name):
        got.append(name)

    engine.add_event_handler(Events.STARTED, handler, name="mine")
    engine.run([1])
    assert got == ["mine"]


def test_a_partial_keeps_what_it_holds(engine):
    got = []

    def handler(prefix, engine, suffix="."):
        got.append((prefix, engine, suffix))

    engine.add_event_handler(Events.STARTED, functools.partial(handler, "first"))
    engine.add_event_handler(Events.STARTED, functools.partial(handler, "first", suffix="!"))
    engine.run([1])
    assert got == [("first", engine, "."), ("first", engine, "!")]


def test_the_decorator_takes_arguments_and_gives_the_function_back(engine):
    got = []

    @engine.on(Events.STARTED, 1, b=2)
    def handler(engine, a, b):
        got.append((engine, a, b))

    engine.run([1])
    handler(engine, 3, 4)
    assert got == [(engine, 1, 2), (engine, 3, 4)]


# -- events that bring something -------------------------------------------------------------------------


class Boom(Exception):
    """What the step of these tests raises."""


def failing():
    error = Boom()

    def step(engine, batch):
        raise error

    return Engine(step), error


@pytest.mark.parametrize(
    ("handler_of", "expected"),
    [
        (lambda got: lambda engine, error: got.append((engine, error)), "engine, error"),
        (lambda got: lambda engine: got.append((engine,)), "engine"),
        (lambda got: lambda: got.append(()), ""),
        (lambda got: lambda *arguments: got.append(arguments), "engine, error"),
        (lambda got: lambda engine, error=None: got.append((engine,)), "engine"),
    ],
    ids=["both", "engine", "nothing", "variable", "default"],
)
def test_an_exception_comes_after_the_engine(handler_of, expected):
    engine, error = failing()
    got = []
    engine.add_event_handler(Events.EXCEPTION_RAISED, handler_of(got))
    with pytest.raises(Boom):
        engine.run([1])
    named = {"engine": engine, "error": error}
    assert got == [tuple(named[name] for name in expected.split(", ") if name)]


def test_own_arguments_follow_the_exception():
    engine, error = failing()
    got = []
    engine.add_event_handler(
        Events.EXCEPTION_RAISED, lambda engine, error, a, b: got.append((engine, error, a, b)), 1, b=2
    )
    with pytest.raises(Boom):
        engine.run([1])
    assert got == [(engine, error, 1, 2)]


def test_an_update_comes_after_the_engine():
    model = nn.Linear(1, 1)

    def step(engine, batch):
        with update.forward():
            loss = model(batch).sum()
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    got = []
    event = UpdateEvents.STEP_COMPLETED
    engine.add_event_handler(event, lambda engine, update: got.append((engine, update)))
    engine.add_event_handler(event, lambda engine: got.append((engine,)))
    engine.add_event_handler(event, lambda: got.append(()))
    engine.add_event_handler(event, lambda engine, a: got.append((engine, a)), 1)
    engine.add_event_handler(event, lambda engine, update, a: got.append((engine, update, a)), 1)
    engine.run([torch.ones(1, 1)])
    assert got == [(engine, update), (engine,), (), (engine, 1), (engine, update, 1)]


# -- mistakes --------------------------------------------------------------------------------------------


def test_what_is_not_callable_is_told(engine):
    with pytest.raises(TypeError, match=r"a handler must be callable, but 'print' is not.*engine.attach"):
        engine.add_event_handler(Events.STARTED, "print")


def test_too_many_required_parameters_are_told(engine):
    def handler(engine, one, two):
        raise AssertionError

    with pytest.raises(TypeError, match=r"handler\(engine, one, two\) can't be called .*1 was given with it"):
        engine.add_event_handler(Events.STARTED, handler, 1)


def test_too_many_arguments_are_told(engine):
    with pytest.raises(TypeError, match="can't be called"):
        engine.add_event_handler(Events.STARTED, lambda engine: None, 1, 2)


def test_an_unknown_keyword_is_told(engine):
    with pytest.raises(TypeError, match=r"can't be called.*b="):
        engine.add_event_handler(Events.STARTED, lambda engine: None, b=2)


def test_a_required_keyword_that_is_missing_is_told(engine):
    def handler(engine, *, name):
        raise AssertionError

    with pytest.raises(TypeError, match="can't be called"):
        engine.add_event_handler(Events.STARTED, handler)


class Unreadable:
    """A callable that does not say what it takes, like some functions of C extensions."""

    @property
    def __signature__(self):
        raise ValueError("no signature")

    def __call__(self):
        raise AssertionError


@pytest.mark.parametrize("handler", [Unreadable(), max], ids=["object", "builtin"])
def test_a_handler_whose_parameters_cannot_be_read_is_told(engine, handler):
    with pytest.raises(TypeError, match="can't be read; wrap it: lambda"):
        engine.add_event_handler(Events.STARTED, handler)


def test_a_refused_handler_is_not_added_to_any_of_its_events(engine):
    with pytest.raises(ValueError, match="unknown event"):
        engine.add_event_handler(Events.STARTED | "no_such_event", fail_if_called)
    assert not engine.has_event_handler(fail_if_called)
    engine.run([1])


def fail_if_called():
    raise AssertionError
