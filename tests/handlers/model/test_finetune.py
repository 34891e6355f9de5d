"""A model unfrozen part after part is the loop by hand that adds a group to its optimizer in the epoch of each part."""

import pytest
import torch
from by_hand import batches, loss_fn, train_by_hand
from models import equal_tensors, norms, staged, tensors
from torch import nn
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, ClipGradients, Evaluate, GradientAccumulation, Schedule
from leyden.handlers.model import Finetune, Freeze, Unfreeze
from leyden.handlers.training import ParamSchedule
from leyden.handlers.training.shapes import Linear

KINDS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}
PLAN = {1: "head", 2: ("backbone.layer2", 0.1), 3: Unfreeze("backbone.layer1", lr_ratio=0.01)}


def engine_for(model, optimizer, *handlers):
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(*handlers)
    return trainer


def by_hand(optimizer_of, epochs=3, window=1):
    """The plan as one would write it: freeze, and add a group when its epoch comes."""
    model = staged()
    model.backbone.requires_grad_(False)
    for norm in norms(model):
        norm.eval()
    optimizer = optimizer_of(model.head.parameters())
    rate, done = optimizer.param_groups[0]["lr"], [0]

    def unfreeze_next():
        done[0] += 1
        part, ratio = {1: ("layer2", 0.1), 2: ("layer1", 0.01)}.get(done[0], (None, None))
        if part is not None:
            model.backbone[part].requires_grad_(True)
            model.backbone[part].train()
            optimizer.add_param_group({"params": model.backbone[part].parameters(), "lr": rate * ratio})

    train_by_hand(model, optimizer, batches(10), epochs=epochs, window=window, after_epoch=unfreeze_next)
    return model


@pytest.mark.parametrize("held", ["all parameters", "the head alone"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, 3])
def test_it_is_the_loop_by_hand_to_the_bit(kind, held, window):
    model = staged()
    optimizer = KINDS[kind]((model if held == "all parameters" else model.head).parameters())
    engine_for(model, optimizer, Finetune(PLAN), GradientAccumulation(window)).run(batches(10), max_epochs=3)
    assert equal_tensors(model, by_hand(KINDS[kind], window=window))


@pytest.mark.parametrize("kind", ["SGD with momentum", "AdamW"])
@pytest.mark.parametrize("stop", [3, 10, 14, 20, 27], ids="after iteration {}".format)
def test_it_resumes_in_mid_plan_in_another_engine(kind, stop, tmp_path):
    def make(resume):
        model = staged()
        checkpoint = Checkpoint(tmp_path, resume=resume)
        return model, engine_for(model, KINDS[kind](model.parameters()), checkpoint, Finetune(PLAN))

    _, first = make(None)
    first.add_event_handler(Events.ITERATION_COMPLETED(once=stop), first.interrupt)
    first.run(batches(10), max_epochs=3)
    model, second = make("auto")
    second.run(batches(10), max_epochs=3)
    assert second.state.iteration == 30
    assert equal_tensors(model, by_hand(KINDS[kind]))


def test_a_run_from_the_beginning_follows_the_plan_anew():
    model = staged()
    trainer = engine_for(model, KINDS["SGD"](model.parameters()), Finetune({1: "head", 2: "backbone"}))
    trainer.run(batches(3), max_epochs=2)
    seen = []
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda: seen.append([model.backbone["layer1"][0].weight.requires_grad])
    )
    trainer.state.max_epochs = None
    trainer.run(batches(3), max_epochs=2)
    assert seen == [[False], [True]]


def test_each_epoch_trains_what_the_plan_says():
    model = staged()
    before, seen = tensors(model), []
    trainer = engine_for(model, KINDS["AdamW"](model.parameters()), Finetune(PLAN))

    @trainer.on(Events.EPOCH_COMPLETED)
    def note():
        now = model.state_dict()
        seen.append({".".join(n.split(".")[:2]) for n in now if not torch.equal(now[n], before[n])})
        before.update(tensors(model))

    trainer.run(batches(2), max_epochs=4)
    head, layer1, layer2 = {"head.weight", "head.bias"}, {"backbone.layer1"}, {"backbone.layer2"}
    assert seen == [head, head | layer2, head | layer1 | layer2, head | layer1 | layer2]


# -- batch norms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "trained"),
    [
        (None, [False, True, True]),
        (True, [True, True, True]),
        (False, [False, False, False]),
    ],
)
@pytest.mark.parametrize("given", ["to the entry", "to the handler"])
def test_batch_norms(keep, trained, given):
    model = staged()
    for_entry, for_handler = (keep, None) if given == "to the entry" else (None, keep)
    plan = {1: "head", 2: Unfreeze(["backbone"], 0.1, for_entry)}
    optimizer = KINDS["AdamW"](model.parameters())
    trainer = engine_for(model, optimizer, Finetune(plan, train_batch_norm=for_handler))
    trainer.attach(Evaluate(supervised_evaluator(model), batches(1)))
    norm = model.backbone["layer1"][1]
    seen, state = [], tensors(norm)

    @trainer.on(Events.EPOCH_COMPLETED)
    def note():
        moved = {name: not torch.equal(value, state[name]) for name, value in norm.state_dict().items()}
        assert moved["weight"] == moved["running_mean"] == moved["num_batches_tracked"]
        seen.append(moved["weight"])
        state.update(tensors(norm))

    trainer.run(batches(2), max_epochs=3)
    assert seen == trained
    assert norm.training == trained[-1]


def test_a_step_that_calls_train_does_not_wake_batch_norms_before_their_time():
    model = staged()
    before = tensors(model.backbone)

    def process(engine, batch):
        model.train()
        with update.forward():
            loss = loss_fn(model(batch[0]), batch[1])
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, KINDS["SGD"](model.parameters()))
    engine.attach(Finetune({1: "head", 2: "backbone"}))
    engine.run(batches(3), max_epochs=1)
    assert equal_tensors(model.backbone, before)
    listening = update.tables[UpdateEvents.FORWARD_STARTED].entries
    assert len(listening) == 1
    engine.run(batches(3), max_epochs=2)
    assert not equal_tensors(model.backbone, before)
    assert len(update.tables[UpdateEvents.FORWARD_STARTED].entries) == 0  # nothing left to do in a step


# -- groups ------------------------------------------------------------------------------------------------------------


def groups(optimizer, *keys):
    return [[len(group["params"]), *(group[key] for key in keys)] for group in optimizer.param_groups]


def test_a_group_for_each_part_before_the_first_step():
    model = staged()
    optimizer = KINDS["SGD"](model.parameters())
    trainer = engine_for(model, optimizer, Finetune(PLAN))
    seen = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append(groups(optimizer, "lr")))
    trainer.run(batches(2), max_epochs=3)
    assert seen == [[[2, 0.1], [4, 0.1 * 0.1], [4, 0.1 * 0.01]]] * 3


def test_options_are_those_of_the_group_that_a_parameter_was_in():
    model = staged()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": others, "weight_decay": 0.0, "lr": 0.02}, {"params": decayed}], lr=0.01)
    engine_for(model, optimizer, Finetune({1: "head", 2: "backbone"}, lr_ratio=0.5)).run(batches(1))
    assert groups(optimizer, "weight_decay", "lr") == [[1, 0, 0.02], [1, 0.01, 0.01], [6, 0, 0.01], [2, 0.01, 0.005]]
    assert [id(p) for p in optimizer.param_groups[3]["params"]] == [
        id(model.backbone[f"layer{i}"][0].weight) for i in (1, 2)
    ]


def test_what_the_optimizer_did_not_have_follows_its_first_group():
    model = staged()
    optimizer = torch.optim.SGD([model.head.weight], lr=0.2, momentum=0.5)
    engine_for(model, optimizer, Finetune({1: "head", 2: ("backbone", 0.5)})).run(batches(1))
    assert groups(optimizer, "lr", "momentum") == [[2, 0.2, 0.5], [8, 0.1, 0.5]]


def test_several_ratios_in_one_epoch():
    model = staged()
    optimizer = KINDS["SGD"](model.parameters())
    plan = {1: [("head", 2.0), ("backbone.layer2", 0.5)], 2: ["backbone.layer1.0", "backbone.layer1.1"]}
    engine_for(model, optimizer, Finetune(plan, lr_ratio=0.1)).run(batches(1))
    assert groups(optimizer, "lr") == [[0, 0.1], [2, 0.2], [4, 0.05], [4, 0.1 * 0.1]]


def test_an_optimizer_with_names():
    model = staged()
    optimizer = torch.optim.SGD(model.head.named_parameters(prefix="head"), lr=0.1)
    engine_for(model, optimizer, Finetune({1: "head", 2: "backbone.layer1.0"})).run(batches(1))
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["head.weight", "head.bias"],
        ["backbone.layer1.0.weight", "backbone.layer1.0.bias"],
    ]


def test_the_same_optimizer_in_a_second_engine_keeps_its_groups():
    model = staged()
    optimizer = KINDS["SGD"](model.parameters())
    for _ in range(2):
        engine_for(model, optimizer, Finetune(PLAN)).run(batches(2))
        assert groups(optimizer, "lr") == [[2, 0.1], [4, 0.1 * 0.1], [4, 0.1 * 0.01]]


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.97),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=35, power=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(
        o, rates(o, 0.01), rates(o, 0.1), step_size_up=4, base_momentum=0.7, max_momentum=0.9
    ),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, rates(o, 0.1), total_steps=40),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[5]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


def rates(optimizer, rate):
    return [rate * group.get("ratio", 1.0) for group in optimizer.param_groups]


@pytest.mark.parametrize("resumed", [False, True], ids=["in one go", "resumed"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_scales_the_new_groups_as_one_made_for_them_all(name, resumed, tmp_path):
    """Beside an optimizer that had the three groups before the scheduler was made."""
    theirs = staged()
    parts = [theirs.head, theirs.backbone["layer2"], theirs.backbone["layer1"]]
    whole = torch.optim.SGD(
        [
            {"params": list(part.parameters()), "lr": 0.1 * ratio, "ratio": ratio}
            for part, ratio in zip(parts, (1.0, 0.1, 0.01), strict=True)
        ],
        momentum=0.9,
    )
    scheduler, expected = SCHEDULERS[name](whole), []
    for _ in range(30):
        expected.append([group["lr"] for group in whole.param_groups])
        whole.step()
        scheduler.step()

    seen = []

    def run(stop):
        ours = staged()
        optimizer = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
        checkpoint = Checkpoint(tmp_path, resume="auto")
        trainer = engine_for(ours, optimizer, Schedule(SCHEDULERS[name](optimizer)), Finetune(PLAN), checkpoint)
        trainer.add_event_handler(
            UpdateEvents.GRADIENTS_READY, lambda: seen.append([group["lr"] for group in optimizer.param_groups])
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.interrupt)
        trainer.run(batches(10), max_epochs=3)

    if resumed:
        run(14)
    run(100)
    assert len(seen) == 30
    for ours, by_one_made_for_all in zip(seen, expected, strict=True):
        assert ours == pytest.approx(by_one_made_for_all, rel=1e-12, abs=1e-15)


def test_a_scheduler_on_a_metric_has_a_least_rate_for_each_group():
    model = staged()
    optimizer = KINDS["SGD"](model.parameters())
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.01, patience=0, min_lr=0.02)
    trainer = engine_for(
        model, optimizer, Finetune({1: "head", 2: ("backbone", 0.1)}), Schedule(scheduler, metric="loss")
    )
    trainer.declare_metrics("loss")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: trainer.state.metrics.update(loss=1.0), order=-10)
    trainer.run(batches(2), max_epochs=4)
    assert groups(optimizer, "lr") == [[2, 0.02], [8, pytest.approx(0.002)]]


def test_clipping_sees_what_is_trained():
    model = staged()
    trainer = engine_for(model, KINDS["SGD"](model.parameters()), Finetune(PLAN), ClipGradients(norm=0.1))
    seen = []
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda engine, update: seen.append(len(update.gradients())), order=1
    )
    trainer.run(batches(1), max_epochs=3)
    assert seen == [2, 6, 10]


def test_one_update_of_two():
    models = {"one": staged(), "two": staged()}
    engine = Engine(lambda engine, batch: None)
    for name, model in models.items():
        Update(engine, model, KINDS["SGD"](model.parameters()), name=name)
    engine.attach(Finetune({1: "head", 4: "backbone"}, update="two"))
    engine.run([None])
    assert [model.backbone["layer1"][0].weight.requires_grad for model in models.values()] == [True, False]
    assert [len(update.optimizer.param_groups) for update in engine.updates.values()] == [1, 2]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def attach(plan, *others, model=None, optimizer=None, **options):
    model = staged() if model is None else model
    optimizer = KINDS["SGD"](model.parameters()) if optimizer is None else optimizer(model)
    return engine_for(model, optimizer, Finetune(plan, **options), *others)


@pytest.mark.parametrize(
    ("plan", "kind", "said"),
    [
        ("head", TypeError, "takes a plan {epoch: what}"),
        ({}, ValueError, "needs a plan of at least one epoch"),
        ({-1: "head"}, ValueError, "has the epoch -1; epochs are counted from 1"),
        (
            {0: "head", 2: "backbone"},
            ValueError,
            "has the epoch 0; epochs are counted from 1, as state.epoch .* add 1 to each",
        ),
        ({"1": "head"}, TypeError, "has the epoch '1'; epochs are whole numbers"),
        ({True: "head"}, TypeError, "has the epoch True"),
        ({1: 3}, TypeError, "has 3 for epoch 1; it takes a name"),
        ({1: []}, TypeError, r"has \[\] for epoch 1"),
        ({1: ("head", 0.0)}, ValueError, "needs learning-rate ratios above 0, but got 0.0 for .*head"),
        ({1: ("head", -1)}, ValueError, "ratios above 0, but got -1"),
        ({1: Unfreeze("head", lr_ratio="0.1")}, TypeError, "takes a number for a learning-rate ratio, but got '0.1'"),
        ({1: "head", 3: "backbone.layer3"}, ValueError, "names 'backbone.layer3', but the model has: backbone.layer1"),
        (
            {1: "head", 3: "backbone.layer1", 5: "backbone"},
            ValueError,
            r"unfreezes backbone.layer1.0.weight twice: with backbone.layer1 in epoch 3 and with backbone in epoch 5",
        ),
        (
            {2: "head", 3: "backbone"},
            ValueError,
            "leaves update 'default' nothing to train in epoch 1: it unfreezes first in epoch 2",
        ),
    ],
    ids=str,
)
def test_a_plan_that_can_not_be(plan, kind, said):
    with pytest.raises(kind, match=said):
        attach(plan)


def test_a_parameter_shared_by_two_parts():
    model = nn.ModuleDict({"embedding": nn.Linear(3, 3, bias=False), "head": nn.Linear(3, 3, bias=False)})
    model["head"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match=r"unfreezes embedding.weight \(it is head.weight too\) twice"):
        attach({1: "head", 2: "embedding"}, model=model)


def test_frozen_and_unfrozen():
    with pytest.raises(ValueError, match=r"Freeze and Finetune both say whether backbone.layer1.0.weight is trained"):
        attach({1: "head", 2: "backbone"}, Freeze("backbone.layer1")).run(batches(1))


def test_two_plans():
    with pytest.raises(ValueError, match="both would say what one model trains; put all into one plan"):
        attach({1: "head", 2: "backbone"}, Finetune({1: "head"}))


def test_beside_a_param_schedule():
    """One that would set the ratios aside, or that counts the groups, is refused; others drive all groups."""
    with pytest.raises(ValueError, match="it sets learning rates whatever their ratio; a torch scheduler in Schedule"):
        attach(PLAN, ParamSchedule("lr", Linear(0.1, 0.0, 10)))
    model = staged()
    optimizer = KINDS["SGD with momentum"](
        [{"params": model.head.parameters()}, {"params": model.backbone.parameters()}]
    )
    trainer = engine_for(model, optimizer, ParamSchedule("momentum", [Linear(0.9, 0.0, 10)] * 2))
    with pytest.raises(ValueError, match="it has a shape for each group of the optimizer, and the plan makes more"):
        trainer.attach(Finetune({1: "head", 2: "backbone"}))

    model = staged()
    optimizer = KINDS["SGD with momentum"](model.parameters())
    shape = Linear(0.1, 0.0, 10)
    engine_for(model, optimizer, ParamSchedule("lr", shape), Finetune({1: "head", 2: "backbone"})).run(batches(5))
    assert groups(optimizer, "lr") == [[2, shape(5)], [8, shape(5)]]


def test_a_part_without_a_shape():
    trainer = attach({1: "1", 2: "0"}, model=nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2)))
    with pytest.raises(ValueError, match=r"has no shape yet .*send one batch through the model"):
        trainer.run(batches(1))


def test_an_optimizer_with_one_group_by_nature():
    with pytest.raises(ValueError, match="LBFGS has one"):
        attach({1: "head", 2: "backbone"}, optimizer=lambda model: torch.optim.LBFGS(model.parameters()))
