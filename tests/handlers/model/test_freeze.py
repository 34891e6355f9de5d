"""What is frozen stands still, in each bit; the rest trains as by hand."""

import pytest
import torch
from by_hand import batches, loss_fn, sgd, train_by_hand
from models import deep, equal_tensors, norms, pretrained, staged, tensors
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, GradientAccumulation
from leyden.handlers.model import Freeze


def train(model, optimizer, *handlers, data=None, epochs=3, always_train=False):
    trainer = supervised_trainer(model, optimizer, loss_fn)
    if always_train:
        trainer.process = calls_train_first(trainer.process, model)
    trainer.attach(*handlers)
    trainer.run(batches(10) if data is None else data, max_epochs=epochs)
    return trainer


def calls_train_first(process, model):
    def step(engine, batch):
        model.train()
        return process(engine, batch)

    return step


def changed(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


HEAD = {"head.weight", "head.bias"}
LAYER2 = {f"backbone.layer2.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
LAYER2_STATISTICS = {
    f"backbone.layer2.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        (["backbone"], HEAD),
        (["backbone.layer1"], HEAD | LAYER2 | LAYER2_STATISTICS),
        (["backbone.layer1", "head", "backbone.layer2.1"], {"backbone.layer2.0.weight", "backbone.layer2.0.bias"}),
        (["backbone", "head.bias"], {"head.weight"}),
        ([nn.Linear, "backbone.layer1.1"], LAYER2_STATISTICS | {"backbone.layer2.1.weight", "backbone.layer2.1.bias"}),
        ([lambda name, module: name.endswith("layer1")], HEAD | LAYER2 | LAYER2_STATISTICS),
    ],
    ids=["a module", "one below", "several", "a parameter", "a class", "a condition"],
)
@pytest.mark.parametrize("always_train", [False, True])
def test_only_the_rest_is_trained(parts, trained, always_train):
    model = staged()
    before = tensors(model)
    train(model, torch.optim.AdamW(model.parameters(), weight_decay=0.1), Freeze(*parts), always_train=always_train)
    assert changed(model, before) == trained


@pytest.mark.parametrize(
    "optimizer_of",
    [sgd, lambda model: torch.optim.AdamW(model.parameters(), weight_decay=0.5)],
    ids=["SGD with momentum", "AdamW"],
)
def test_it_is_the_loop_by_hand_to_the_bit(optimizer_of):
    ours, theirs = pretrained(), pretrained()
    train(ours, optimizer_of(ours), Freeze("0", "1"))
    theirs[:2].requires_grad_(False)
    for norm in norms(theirs):
        norm.eval()
    train_by_hand(theirs, optimizer_of(theirs), batches(10))
    assert equal_tensors(ours, theirs)


def test_what_is_frozen_is_not_stepped():
    model = staged()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, Freeze("backbone"))
    assert set(optimizer.state) == set(model.head.parameters())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_what_is_frozen_in_mid_window_is_not_stepped_with_the_gradients_it_has():
    model = deep()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(GradientAccumulation(4))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.interrupt)
    data = batches(4)
    trainer.run(data)
    before = tensors(model)
    trainer.attach(Freeze("blocks", "stem"))
    trainer.run(data)
    assert changed(model, before) == HEAD


def test_a_name_that_begins_alike_is_another():
    model = nn.ModuleDict({"layer1": nn.Linear(6, 2), "layer10": nn.Linear(6, 2)})
    engine = Engine(lambda engine, batch: None)
    Update(engine, model, sgd(model))
    engine.attach(Freeze("layer1"))
    engine.run([None])
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]


def test_batch_norms_are_trained_if_asked_for():
    model = staged()
    before = tensors(model)
    train(model, sgd(model), Freeze("backbone", train_batch_norm=True))
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    of_norms = {f"backbone.layer{i}.1.{name}" for i in (1, 2) for name in names}
    assert changed(model, before) == HEAD | of_norms


def test_statistics_stand_still_with_an_evaluator_beside():
    model = staged()
    before = tensors(model)
    evaluator = supervised_evaluator(model)
    train(model, sgd(model), Freeze("backbone"), Evaluate(evaluator, batches(2)))
    assert changed(model, before) == HEAD
    assert model.training
    assert [norm.training for norm in norms(model)] == [False, False]


def test_each_update_or_one():
    def trained(freeze):
        models = {"one": staged(), "two": staged()}
        engine = Engine(lambda engine, batch: None)
        for name, model in models.items():
            Update(engine, model, sgd(model), name=name)
        engine.attach(freeze)
        engine.run([None])
        return [model.backbone["layer1"][0].weight.requires_grad for model in models.values()]

    assert trained(Freeze("backbone")) == [False, False]
    assert trained(Freeze("backbone", update="two")) == [True, False]


def test_several_models_of_one_update():
    models = [staged(), staged()]
    engine = Engine(lambda engine, batch: None)
    Update(engine, models, torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.1))
    engine.attach(Freeze("1/backbone", "head"))
    engine.run([None])
    assert [model.backbone["layer1"][0].weight.requires_grad for model in models] == [True, False]
    assert [model.head.weight.requires_grad for model in models] == [False, False]


def test_without_batch_norms_a_step_has_nothing_to_do():
    def listeners(model):
        trainer = train(model, sgd(model), Freeze("head"), epochs=1)
        return len(trainer.updates["default"].tables[UpdateEvents.FORWARD_STARTED].entries)

    assert listeners(deep()) == 0
    assert listeners(staged()) == 0  # there are some, but elsewhere


# -- mistakes ----------------------------------------------------------------------------------------------------------


def attach(*handlers, model=None):
    model = staged() if model is None else model
    supervised_trainer(model, sgd(model), loss_fn).attach(*handlers)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("bakcbone", "backbone, head$"),
        ("backbone.layer3", r"backbone\.layer1, backbone\.layer2$"),
        ("backbone.layer1.0.wieght", r"backbone\.layer1\.0\.weight, backbone\.layer1\.0\.bias$"),
        ("head.weight.data", r"head\.weight, which has no parts$"),
    ],
)
def test_a_misspelt_name_is_told_with_what_is_there(name, there):
    with pytest.raises(ValueError, match=f"Freeze names '{name}', but the model has: {there}"):
        attach(Freeze(name))


def test_a_class_that_is_not_there():
    with pytest.raises(ValueError, match=r"Freeze looks for a Conv2d, but .* of the classes: Staged, ModuleDict, Seq"):
        attach(Freeze(nn.Conv2d))


def test_a_condition_that_nothing_satisfies():
    with pytest.raises(ValueError, match=r"Freeze looks for a module that satisfies .*lambda.*, but"):
        attach(Freeze(lambda name, module: False))


def test_nothing_named():
    with pytest.raises(ValueError, match="Freeze takes what to freeze"):
        Freeze()
    with pytest.raises(TypeError, match="Freeze takes names, classes of modules and conditions, but got 3"):
        Freeze(3)


def test_nothing_left_to_train():
    model = staged()
    with pytest.raises(ValueError, match=r"update 'default' has nothing left to train: .* Freeze less"):
        train(model, sgd(model), Freeze("backbone", "head"))


def test_a_part_without_a_shape():
    model = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"has no shape yet .*send one batch through the model"):
        train(model, sgd(model), Freeze("0"))


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="Freeze works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(Freeze("head"))
