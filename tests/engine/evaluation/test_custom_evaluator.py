"""An evaluator of one's own: eval mode, no gradients, and modes as they were; and what happens without it."""

import functools
import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, custom_evaluator, supervised_evaluator
from leyden.handlers import Evaluate
from leyden.metrics import Mean


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))


def said(engine, data=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.run([torch.ones(3, 2)] * 2 if data is None else data)
    return [str(each.message) for each in caught]


# -- custom_evaluator --------------------------------------------------------------------------------------------------


def test_a_step_of_ones_own_evaluates_in_eval_mode_without_gradients():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluator = custom_evaluator(model, lambda engine, batch: model(batch))
    output = evaluator.run([torch.full((3, 2), 10.0)] * 5).output
    assert not output.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(output, model.eval()(torch.full((3, 2), 10.0)))
    assert not evaluator.training


@pytest.mark.parametrize("end", ["success", "terminate", "error"])
def test_each_module_of_each_model_gets_its_mode_back(end):
    models = [net(), net()]
    models[0][1].eval()
    modes = [[part.training for part in model.modules()] for model in models]
    during = []

    def step(engine, batch):
        during.append([part.training for model in models for part in model.modules()])
        if end == "error":
            raise ArithmeticError
        if end == "terminate":
            engine.terminate()

    evaluator = custom_evaluator(models, step)
    try:
        evaluator.run([0])
    except ArithmeticError:
        assert end == "error"
    assert during == [[False] * 8]
    assert [[part.training for part in model.modules()] for model in models] == modes


def test_metrics_and_the_device():
    model = net()
    evaluator = custom_evaluator(model, lambda engine, batch: batch, {"mean": Mean()}, device="meta")
    assert evaluator.device == torch.device("meta")
    state = evaluator.run([1.0, 3.0])
    assert state.metrics == {"mean": 2.0}
    assert model[0].weight.device.type == "meta"


def test_a_step_that_takes_no_engine_is_refused():
    with pytest.raises(TypeError, match=r"must take \(engine, batch\)"):
        custom_evaluator(net(), lambda batch: batch)


def test_a_model_is_no_process_function():
    for make in (Engine, lambda model: custom_evaluator(model, model)):
        with pytest.raises(TypeError, match=r"got the model Linear itself: supervised_trainer\(linear, optimizer"):
            make(nn.Linear(1, 1))


# -- Engine(step, training=False) --------------------------------------------------------------------------------------

GLOBAL = net()


def step_of_a_global(engine, batch):
    return GLOBAL(batch)


class Holder:
    def __init__(self):
        self.models = {"net": net()}

    def step(self, engine, batch):
        return self.models["net"](batch)

    __call__ = step


def in_closure():
    model = net()
    return lambda engine, batch: model(batch)


def in_parts():
    model = net()
    return lambda engine, batch: model[1](model[0](batch))


def in_list():
    models = [net()]
    return lambda engine, batch: models[0](batch)


FORGOTTEN = {
    "a variable around it": in_closure,
    "a global": lambda: step_of_a_global,
    "an attribute": lambda: Holder().step,
    "an object that is called": Holder,
    "a partial": lambda: functools.partial(lambda model, engine, batch: model(batch), net()),
    "parts of a model": in_parts,
    "a list": in_list,
}


@pytest.mark.parametrize("kind", FORGOTTEN)
def test_a_forgotten_eval_is_told_once(kind):
    engine = Engine(FORGOTTEN[kind](), training=False)
    (words,) = said(engine)
    assert "in train mode" in words
    assert "custom_evaluator(model, step)" in words
    assert said(engine) == []


def test_an_engine_that_a_trainer_evaluates_by_is_looked_at_too():
    """Made as any engine is, without training=False."""
    model = net()
    evaluator, trainer = Engine(lambda engine, batch: model(batch)), Engine(lambda engine, batch: None)
    trainer.attach(Evaluate(evaluator, [torch.ones(3, 2)]))
    (words,) = said(trainer)
    assert "an engine that evaluates calls a Sequential in train mode" in words


def sets_eval_in_its_step():
    model = net()

    def step(engine, batch):
        model.eval()
        try:
            return model(batch)
        finally:
            model.train()

    return Engine(step, training=False)


def sets_eval_at_the_start():
    model = net()
    engine = Engine(lambda engine, batch: model(batch), training=False)
    engine.add_event_handler(Events.STARTED, model.eval)
    return engine


def with_dropout_on_purpose():
    model = net().eval()
    model[2].train()
    return Engine(lambda engine, batch: model(batch), training=False)


def trains():
    model = net()
    return Engine(lambda engine, batch: model(batch))


@pytest.mark.parametrize(
    "make",
    [
        sets_eval_in_its_step,
        sets_eval_at_the_start,
        with_dropout_on_purpose,
        trains,
        lambda: custom_evaluator(GLOBAL, step_of_a_global),
        lambda: supervised_evaluator(GLOBAL, prepare_batch=lambda batch, device, non_blocking: (batch, batch)),
        lambda: Engine(lambda engine, batch: batch, training=False),
    ],
)
def test_nothing_is_said_where_nothing_is_forgotten(make):
    assert said(make()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_looking_leaves_nothing_on_the_model(fails):
    models = [net(), net()]

    def step(engine, batch):
        if fails:
            raise ArithmeticError
        return models[0](batch)  # the other is never called

    try:
        said(Engine(step, training=False))
    except ArithmeticError:
        assert fails
    assert not any(part._forward_pre_hooks for model in models for part in model.modules())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()

    def forward(self, x):
        return self.layers(x)


def test_a_compiled_model_is_not_compiled_anew():
    model, compiled = Net(), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    def step(engine, batch):
        assert not any(part._forward_pre_hooks for part in model.modules())
        return model(batch)

    torch._dynamo.reset()
    model.compile(backend=backend)
    said(Engine(step, training=False), [torch.ones(3, 2)] * 3)
    assert len(compiled) == 1


@pytest.mark.parametrize("model", [None, {"net": nn.Linear(1, 1)}, [nn.Linear(1, 1), "net"]], ids=str)
def test_a_model_that_is_none(model):
    with pytest.raises(TypeError, match="takes the model that the step calls, or a list of them, but got"):
        custom_evaluator(model, lambda engine, batch: batch)
