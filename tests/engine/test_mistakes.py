"""Bad input, one test each: the error says what was wrong, what was found, and what to do."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events, Update


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: None)


@pytest.mark.parametrize("data", [3, object(), len], ids=["number", "object", "function"])
def test_data_that_is_not_iterable(engine, data):
    kind = type(data).__name__
    with pytest.raises(TypeError, match=rf"the data of a run must be iterable .*, but is {kind}"):
        engine.run(data)


@pytest.mark.parametrize("data", [[], "", {}, DataLoader([])], ids=["list", "text", "mapping", "loader"])
def test_data_that_says_it_is_empty(engine, data):
    with pytest.raises(ValueError, match=rf"the data of the run is empty: len\({type(data).__name__}\) is 0"):
        engine.run(data)


@pytest.mark.parametrize("limits", [{}, {"epoch_length": 3}, {"max_iters": 3}], ids=str)
def test_data_that_turns_out_to_be_empty(engine, limits):
    with pytest.raises(ValueError, match="the data of the run is empty: list_iterator gave no batch"):
        engine.run(iter([]), **limits)


@pytest.mark.parametrize("data", [3, []], ids=["number", "list"])
def test_set_data_takes_no_worse_data_than_run(engine, data):
    with pytest.raises((TypeError, ValueError), match=r"the data of (a|the) run"):
        engine.set_data(data)


def no_parameters():
    raise AssertionError


def one_parameter(engine):
    raise AssertionError


def three_parameters(engine, batch, optimizer):
    raise AssertionError


def keyword_only(engine, *, batch):
    raise AssertionError


@pytest.mark.parametrize("process", [no_parameters, one_parameter, three_parameters, keyword_only])
def test_a_process_function_of_other_parameters(process):
    with pytest.raises(TypeError, match=rf"process function.*\(engine, batch\).*{process.__name__}"):
        Engine(process)


@pytest.mark.parametrize("process", [None, "step", 3], ids=repr)
def test_a_process_function_that_is_none(process):
    with pytest.raises(TypeError, match=rf"process function.*{process!r}"):
        Engine(process)


@pytest.mark.parametrize(
    "process",
    [
        lambda engine, batch: None,
        lambda engine, batch, scale=1: None,
        lambda *arguments: None,
        lambda engine, batch=None: None,
    ],
    ids=["two", "a default more", "variable", "a default"],
)
def test_what_can_be_called_with_engine_and_batch_is_a_process_function(process):
    Engine(process).run([1])


@pytest.mark.parametrize("event", ["started", "ITERATION_COMPLETED", 3, None], ids=repr)
def test_an_unknown_event(engine, event):
    with pytest.raises(ValueError, match=rf"unknown event '{event}'; this engine knows: Events.STARTED, Events.EPOCH_"):
        engine.add_event_handler(event, lambda: None)


@pytest.mark.parametrize("ask", ["has_event_handler", "remove_event_handler"])
def test_asking_for_an_unknown_event(engine, ask):
    with pytest.raises(ValueError, match="unknown event 'nothing'"):
        getattr(engine, ask)(print, "nothing")


def test_both_limits(engine):
    with pytest.raises(ValueError, match=r"one limit, but got max_epochs=2 and max_iters=3"):
        engine.run([1], max_epochs=2, max_iters=3)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["max_epochs", "max_iters", "epoch_length"])
def test_a_limit_below_one(engine, name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, but is {value}"):
        engine.run([1], **{name: value})


@pytest.mark.parametrize("value", [1.5, "3", True], ids=repr)
@pytest.mark.parametrize("name", ["max_epochs", "max_iters", "epoch_length"])
def test_a_limit_that_is_no_whole_number(engine, name, value):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, but is {value!r}"):
        engine.run([1], **{name: value})


def test_negative_every():
    with pytest.raises(ValueError, match="every of an event must be at least 1, but is -5"):
        Events.ITERATION_COMPLETED(every=-5)


class Hook:
    """A handler object."""

    def attach(self, engine):
        self.engine = engine


def test_attaching_a_list_or_a_scheduler_says_what_to_write(engine):
    with pytest.raises(TypeError, match=r"one after the other: engine.attach\(\*handlers\)"):
        engine.attach([Hook(), Hook()])
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 1)
    with pytest.raises(TypeError, match=r"engine.attach\(Schedule\(scheduler\)\)"):
        engine.attach(scheduler)


@pytest.mark.parametrize("handler", [print, 3, Hook], ids=["function", "number", "class"])
def test_attaching_what_is_no_handler(engine, handler):
    with pytest.raises(TypeError, match=r"has no attach\(engine\)"):
        engine.attach(handler)


def test_attaching_twice(engine):
    hook = Hook()
    engine.attach(hook)
    with pytest.raises(ValueError, match="this Hook is attached to this engine already"):
        engine.attach(Hook(), hook)


def test_neither_data_nor_length(engine):
    with pytest.raises(ValueError, match=r"a run without data needs epoch_length \(or max_iters\)"):
        engine.run(max_epochs=3)


def test_bad_arguments_fire_no_event(engine):
    for event in Events:
        engine.add_event_handler(event, no_parameters)
    with pytest.raises(ValueError, match="one limit"):
        engine.run([1], max_epochs=1, max_iters=1)


class Loner:
    """A handler that works beside no other."""

    attached = False

    def attach(self, engine):
        self.attached = True

    def refuses(self, other):
        return f"it has to be alone, without the {type(other).__name__}"


class Sociable:
    """A handler that minds nobody."""

    attached = False

    def attach(self, engine):
        self.attached = True


@pytest.mark.parametrize("order", [(Loner, Sociable), (Sociable, Loner)], ids=["first", "last"])
def test_a_handler_beside_one_that_refuses_it(engine, order):
    first, second = (kind() for kind in order)
    engine.attach(first)
    words = "Loner and Sociable can't both be attached to one engine: it has to be alone, without the Sociable"
    with pytest.raises(ValueError, match=words):
        engine.attach(second)
    assert not second.attached
    assert list(engine.handlers.values()) == [first]


class Counts:
    """A handler of updates, of all where it is not told of which."""

    def __init__(self, update=None):
        self.update = update

    def attach(self, engine):
        engine.targets(self.update, self)


def updated(engine, name):
    model = nn.Linear(1, 1)
    return Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1), name=name)


def test_an_update_made_after_a_handler_of_all_updates_was_attached(engine):
    updated(engine, "critic")
    engine.attach(Counts())
    message = (
        r"Counts works on all updates of the engine \(critic\) and was attached before the update 'generator' was "
        r"made, which it would miss; make each Update before attaching Counts, or tell it by update="
    )
    with pytest.raises(ValueError, match=message):
        updated(engine, "generator")
    assert list(engine.updates) == ["critic"]


def test_an_update_may_be_made_after_a_handler_of_another(engine):
    updated(engine, "critic")
    engine.attach(Counts("critic"))
    updated(engine, "generator")
    assert list(engine.updates) == ["critic", "generator"]


def test_a_metric_that_is_a_function(engine):
    def kappa(y_pred, y):
        return 0.0

    with pytest.raises(TypeError, match=r'got the function kappa for "kappa", .* EpochMetric\(kappa\) calls it'):
        engine.attach_metric("kappa", kappa)


def test_metrics_and_events_of_ignite_say_what_to_import(engine):
    ignite = pytest.importorskip("ignite.engine")
    from ignite.metrics import Accuracy

    with pytest.raises(
        TypeError, match=r"got Accuracy of Ignite .*import Accuracy from leyden\.contrib\.ignite\.metrics"
    ):
        engine.attach_metric("accuracy", Accuracy())
    with pytest.raises(ValueError, match=r"is one of Ignite's own; import Events from leyden\.engine"):
        engine.add_event_handler(ignite.Events.EPOCH_COMPLETED, print)
    with pytest.raises(ValueError, match=r"is one of Ignite's own; import Events from leyden\.engine"):
        engine.add_event_handler(ignite.Events.EPOCH_COMPLETED(every=2), print)
