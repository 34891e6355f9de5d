"""An average of the weights that follows the training."""

import copy

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from leyden.engine import Engine, Events, Stage, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, Evaluate, GradientAccumulation, MixedPrecision
from leyden.handlers.training.ema import EMA

pytestmark = pytest.mark.timeout(60)


def with_norm():
    """Batch norm has buffers of floats and of integers; dropout draws random numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


def trained(*handlers, model=None, data=None, epochs=3, optimizer=None):
    model = net() if model is None else model
    trainer = supervised_trainer(model, sgd(model) if optimizer is None else optimizer, loss_fn)
    trainer.attach(*handlers)
    torch.manual_seed(1)
    trainer.run(batches(10) if data is None else data, max_epochs=epochs)
    return model


def average_of(ema, model):
    """The model as it is averaged."""
    average = copy.deepcopy(model)
    ema.copy_to(average)
    return average


def averaged_by_hand(model, decay=0.9, epochs=3, **options):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    train_by_hand(
        model, sgd(model), batches(10), epochs, after_step=lambda: average.update_parameters(model), **options
    )
    return average.module


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(tree, other):
    assert not any(value.isnan().any() for value in tree.values())
    return tree.keys() == other.keys() and all(torch.equal(tree[name], other[name]) for name in tree)


def memory(values):
    return {value.untyped_storage().data_ptr() for value in values}


# -- the average -------------------------------------------------------------------------------------------------------


def test_it_is_the_average_by_hand_to_the_bit():
    ema = EMA(0.9)
    model = trained(ema)
    theirs = net()
    expected = averaged_by_hand(theirs)
    assert equal(model, theirs)
    assert equal(average_of(ema, model), expected)
    assert not equal(model, expected)


def test_accumulation_averages_once_a_step():
    ema = EMA(0.9)
    model = trained(GradientAccumulation(4), ema)
    assert equal(average_of(ema, model), averaged_by_hand(net(), window=4))


def test_a_skipped_step_is_skipped():
    model = net()
    seen = []

    def process(engine, batch):
        x, y = batch
        with update.forward():
            loss = loss_fn(model(x), y) * (float("inf") if engine.state.iteration == 3 else 1.0)
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    ema = EMA(0.9)
    engine.attach(MixedPrecision("fp16", init_scale=4.0), ema)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(ema.averaged()))
    engine.run(batches(5))
    assert update.steps == 4
    assert same(seen[2], seen[1])
    assert not same(seen[3], seen[2])


def test_warm_up_forgets_the_first_weights_sooner():
    ema = EMA(0.9, warmup=True)
    model, theirs = trained(ema), net()
    average, number = [], 0

    def after_step():
        nonlocal number
        if not average:
            average.extend(parameter.detach().clone() for parameter in theirs.parameters())
        else:
            decay = min(0.9, (1 + number) / (10 + number))
            for mean, parameter in zip(average, theirs.parameters(), strict=True):
                mean.lerp_(parameter.detach(), 1 - decay)
        number += 1

    train_by_hand(theirs, sgd(theirs), batches(10), after_step=after_step)
    assert all(map(torch.equal, average_of(ema, model).parameters(), average))


def test_it_begins_after_start_step_and_averages_each_nth():
    ema = EMA(0.9, every=3, start_step=10)
    model, theirs = trained(ema), net()
    average = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    number = 0

    def after_step():
        nonlocal number
        number += 1
        if number > 10 and number % 3 == 0:
            average.update_parameters(theirs)

    train_by_hand(theirs, sgd(theirs), batches(10), after_step=after_step)
    assert equal(average_of(ema, model), average.module)


def test_before_the_first_average_the_model_has_its_own_weights():
    ema = EMA(0.9, start_step=1000)
    model = trained(ema)
    assert equal(average_of(ema, model), model)


def test_16_bit_weights_are_averaged_in_32():
    model = net().bfloat16()
    data = [(x.bfloat16(), y.bfloat16()) for x, y in batches(10)]
    ema = EMA(0.99)
    trained(ema, model=model, data=data)
    theirs = net().bfloat16()
    average = []

    def after_step():
        if not average:
            average.extend(parameter.detach().float() for parameter in theirs.parameters())
        else:
            for mean, parameter in zip(average, theirs.parameters(), strict=True):
                mean.mul_(0.99).add_(parameter.detach(), alpha=1 - 0.99)

    train_by_hand(theirs, sgd(theirs), data, after_step=after_step)
    kept = ema.state_dict()["updates"]["default"]["averages"]
    assert all(map(torch.equal, kept.values(), average))
    assert {value.dtype for value in ema.averaged().values()} == {torch.bfloat16}
    assert all(map(torch.equal, ema.averaged().values(), (mean.bfloat16() for mean in average)))


def test_closures_are_one_step():
    ema = EMA(0.9)
    model, theirs = net(), net()
    trained(ema, model=model, optimizer=torch.optim.LBFGS(model.parameters(), max_iter=3))
    average = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.LBFGS(theirs.parameters(), max_iter=3)
    for x, y in batches(10) * 3:

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = loss_fn(theirs(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
        average.update_parameters(theirs)
    assert equal(average_of(ema, model), average.module)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(x).tanh()).tanh())


def test_a_shared_parameter_is_averaged_once():
    ema = EMA(0.9)
    model = trained(ema, model=Tied())
    averages = ema.state_dict()["updates"]["default"]["averages"]
    assert list(averages) == ["model/a.weight", "model/a.bias", "model/b.bias", "model/head.weight", "model/head.bias"]
    assert equal(average_of(ema, model), averaged_by_hand(Tied()))
    assert torch.equal(ema.averaged()["b.weight"], averages["model/a.weight"])


def test_two_updates_have_averages_of_their_own_weights():
    """Two optimizers on one model, and an average of both."""
    model, theirs = net(), net()

    def process(engine, batch):
        x, y = batch
        for update in (first, second):
            with update.forward():
                loss = loss_fn(model(x), y)
            update.backward(loss)

    engine = Engine(process)
    first = Update(engine, model, sgd(model[0]), name="first")
    second = Update(engine, model, sgd(model[2]), name="second")
    ema = EMA(0.9)
    engine.attach(ema)
    engine.run(batches(10), max_epochs=3)
    averages = {name: list(each["averages"]) for name, each in ema.state_dict()["updates"].items()}
    assert averages == {"first": ["model/0.weight", "model/0.bias"], "second": ["model/2.weight", "model/2.bias"]}
    parts = [AveragedModel(part, multi_avg_fn=get_ema_multi_avg_fn(0.9)) for part in (theirs[0], theirs[2])]
    optimizers = [sgd(theirs[0]), sgd(theirs[2])]
    for x, y in batches(10) * 3:
        for part, optimizer, average in zip((theirs[0], theirs[2]), optimizers, parts, strict=True):
            loss_fn(theirs(x), y).backward()
            optimizer.step()
            theirs.zero_grad()
            average.update_parameters(part)
    with ema.swapped():
        assert equal(model[0], parts[0].module)
        assert equal(model[2], parts[1].module)


# -- frozen parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [Events.EPOCH_STARTED(once=2), Events.ITERATION_STARTED(once=13)])
def test_a_parameter_that_is_unfrozen_is_averaged_from_there_on(event):
    model, theirs = net(), net()
    for each in (model, theirs):
        each[0].requires_grad_(False)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    ema = EMA(0.9)
    trainer.attach(ema)

    @trainer.on(event)
    def unfreeze():
        assert list(ema.state_dict()["updates"]["default"]["averages"]) == ["model/2.weight", "model/2.bias"]
        model[0].requires_grad_(True)
        trainer.updates["default"].trainable_changed()

    trainer.run(batches(10), max_epochs=3)
    average = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = sgd(theirs)
    frozen_for = 10 if event.event is Events.EPOCH_STARTED else 12
    for number, (x, y) in enumerate(batches(10) * 3):
        if number == frozen_for:
            theirs[0].requires_grad_(True)
        loss_fn(theirs(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(theirs)
    assert equal(model, theirs)
    assert equal(average_of(ema, model), average.module)


def test_a_frozen_parameter_is_in_the_export_and_takes_no_memory():
    model = net()
    model[0].requires_grad_(False)
    ema = EMA(0.9)
    trained(ema, model=model)
    assert list(ema.state_dict()["updates"]["default"]["averages"]) == ["model/2.weight", "model/2.bias"]
    assert list(ema.averaged()) == list(model.state_dict())
    assert torch.equal(ema.averaged()["0.weight"], model[0].weight)


# -- swapped in --------------------------------------------------------------------------------------------------------


def test_buffers_are_those_of_the_model_in_memory_of_their_own():
    ema = EMA(0.9)
    model = trained(ema, model=with_norm())
    averaged = ema.averaged()
    assert averaged["1.num_batches_tracked"] == 30
    assert all(torch.equal(averaged[name], buffer) for name, buffer in model.named_buffers())
    assert not memory(averaged.values()) & memory(model.state_dict().values())
    kept = ema.state_dict()["updates"]["default"]["averages"]
    assert not memory(kept.values()) & memory(model.state_dict().values())
    with ema.swapped():
        assert same(model.state_dict(), averaged)
        assert not memory(kept.values()) & memory(model.state_dict().values())


def evaluation(model, seen):
    evaluator = supervised_evaluator(model)
    evaluator.add_event_handler(Events.COMPLETED, lambda: seen.append(tensors(model)))
    return evaluator


def test_an_evaluation_is_of_the_averages_and_training_goes_on_as_if_there_were_none():
    model, seen, averages = with_norm(), [], []
    ema = EMA(0.9)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(Evaluate(evaluation(model, seen), batches(2)), ema)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: averages.append(ema.averaged()))
    torch.manual_seed(1)
    trainer.run(batches(10), max_epochs=3)
    plain = trained(model=with_norm())
    assert same(model.state_dict(), plain.state_dict())
    assert len(seen) == 3
    assert all(map(same, seen, averages))
    assert not same(seen[-1], plain.state_dict())


def test_an_evaluation_of_the_plain_weights():
    model, seen = net(), []
    trained(Evaluate(evaluation(model, seen), batches(2)), EMA(0.9, evaluate=False), model=model)
    assert same(seen[-1], model.state_dict())


@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED, Events.COMPLETED])
def test_the_weights_come_back_after_an_evaluation_that_fails(event):
    model = net()
    ema = EMA(0.9)
    evaluator = supervised_evaluator(model)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ema, Evaluate(evaluator, batches(2)))
    before = []

    @evaluator.on(event)
    def fail():
        raise OSError("no data")

    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: before.append(tensors(model)), order=-20)
    with pytest.raises(OSError, match="no data"):
        trainer.run(batches(10))
    assert same(model.state_dict(), before[0])


def test_an_evaluator_that_fails_before_it_begins_leaves_all_as_it_is():
    model = net()
    ema = EMA(0.9)
    evaluator = supervised_evaluator(model)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ema, Evaluate(evaluator, batches(2)))

    def fail():
        raise OSError("no device")

    evaluator.setup.add(Stage.DEVICE, fail, each_run=True)
    with pytest.raises(OSError, match="no device"):
        trainer.run(batches(10))
    theirs = net()
    train_by_hand(theirs, sgd(theirs), batches(10), epochs=1)
    assert equal(model, theirs)


def test_what_happens_to_buffers_while_swapped_is_undone():
    """Batch norm statistics may be made anew for the averages, say."""
    ema = EMA(0.9)
    model = trained(ema, model=with_norm())
    before = tensors(model)
    with ema.swapped():
        torch.optim.swa_utils.update_bn([x for x, _ in batches(3)], model)
        exported = tensors(model)
    assert exported["1.num_batches_tracked"] == 3
    assert same(model.state_dict(), before)


def test_a_buffer_that_overlaps_itself_is_left_alone():
    model = net()
    model.register_buffer("spread", torch.ones(1).expand(5))
    ema = EMA(0.9)
    trained(ema, model=model)
    with ema.swapped():
        pass
    assert torch.equal(model.spread, torch.ones(5))


def test_swaps_within_swaps_mean_the_same():
    model, seen = net(), []
    ema = EMA(0.9)
    evaluator = evaluation(model, seen)
    trained(ema, Evaluate(evaluator, batches(2)), model=model)
    own, averaged = tensors(model), ema.averaged()
    with ema.swapped():
        evaluator.run(batches(2))
        assert same(model.state_dict(), averaged)
        with ema.swapped():
            assert same(model.state_dict(), averaged)
        assert same(ema.averaged(), averaged)
        assert same(model.state_dict(), averaged)
    assert same(seen[-1], averaged)
    assert same(model.state_dict(), own)
    evaluator.run(batches(2))  # by hand, after the training
    assert same(seen[-1], averaged)
    assert same(model.state_dict(), own)


def test_training_while_the_averages_are_in_is_an_error():
    model = net()
    ema = EMA(0.9)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ema)
    trainer.run(batches(2))
    with pytest.raises(RuntimeError, match="trained while its averaged weights were swapped in"), ema.swapped():
        trainer.run(batches(2), max_epochs=2)


# -- going on ----------------------------------------------------------------------------------------------------------


def run_of(*handlers, unfreezes=False):
    model = with_norm()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    ema = EMA(0.9, warmup=True)
    trainer.attach(ema, *handlers)
    if unfreezes:
        # As a plan does, in a run that is resumed too.
        trainer.add_event_handler(
            Events.STARTED | Events.EPOCH_STARTED, lambda: model[0].requires_grad_(trainer.state.epoch > 1)
        )
    torch.manual_seed(1)
    return trainer, model, ema


@pytest.mark.parametrize("unfreezes", [False, True])
@pytest.mark.parametrize("after", [10, 14])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, after, unfreezes):
    whole, model, ema = run_of(unfreezes=unfreezes)
    data = batches(10)
    whole.run(data, max_epochs=3)
    first, *_ = run_of(Checkpoint(tmp_path), unfreezes=unfreezes)
    first.add_event_handler(Events.ITERATION_COMPLETED(once=after), first.interrupt)
    first.run(data, max_epochs=3)
    second, resumed, resumed_ema = run_of(Checkpoint(tmp_path, resume="auto"), unfreezes=unfreezes)
    second.run(data, max_epochs=3)
    assert same(resumed.state_dict(), model.state_dict())
    assert same(resumed_ema.averaged(), ema.averaged())
    assert resumed_ema.state_dict()["updates"]["default"]["count"] == 30


def test_a_state_that_is_loaded_before_the_run_waits_for_the_model():
    first, model, ema = run_of()
    first.run(batches(10), max_epochs=1)
    saved = copy.deepcopy(first.state_dict())
    weights = copy.deepcopy(model.state_dict())
    optimizer = copy.deepcopy(first.updates["default"].optimizer.state_dict())
    random = torch.get_rng_state()
    first.run(batches(10), max_epochs=2)
    second, resumed, resumed_ema = run_of()
    second.load_state_dict(saved)
    resumed.load_state_dict(weights)
    second.updates["default"].optimizer.load_state_dict(optimizer)
    assert resumed_ema.state_dict()["updates"]["default"]["count"] == 10
    torch.set_rng_state(random)
    second.run(batches(10), max_epochs=2)
    assert same(resumed_ema.averaged(), ema.averaged())


def test_a_run_from_the_beginning_begins_a_new_average():
    trainer, model, ema = run_of()
    trainer.run(batches(10), max_epochs=1)
    theirs = with_norm()
    model.load_state_dict(theirs.state_dict())
    trainer.updates["default"].optimizer.state.clear()
    torch.manual_seed(1)
    trainer.run(batches(10), max_epochs=1)
    again, _, once = run_of()
    again.run(batches(10), max_epochs=1)
    assert same(ema.averaged(), once.averaged())


def test_an_average_that_is_loaded_by_hand_is_where_a_run_begins():
    trainer, _, ema = run_of()
    trainer.run(batches(10), max_epochs=1)
    saved = copy.deepcopy(ema.state_dict())
    ema.load_state_dict(saved)
    trainer.run(batches(10), max_epochs=1)  # from the beginning
    assert ema.state_dict()["updates"]["default"]["count"] == 20


def test_a_run_that_goes_on_goes_on_averaging():
    ema, model = EMA(0.9), net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(ema)
    for epochs in (1, 2, 3):
        trainer.run(batches(10), max_epochs=epochs)
    assert equal(average_of(ema, model), averaged_by_hand(net()))


def test_the_averages_are_told_in_the_setup():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(EMA())
    assert "AVERAGE  EMA" in str(trainer)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.5}, "EMA needs a decay from 0 to 1, but got 1.5"),
        ({"decay": -0.1}, "EMA needs a decay from 0 to 1, but got -0.1"),
        ({"every": 0}, "EMA takes every as a number of steps, at least 1, but got 0"),
        ({"every": 1.5}, "EMA takes every as a number of steps, at least 1, but got 1.5"),
        ({"start_step": -1}, "EMA takes start_step as a number of steps, at least 0, but got -1"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        EMA(**arguments)


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="EMA works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(EMA())


def test_two_that_evaluate():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(EMA(0.9))
    with pytest.raises(ValueError, match=r"EMA and EMA can't both be attached .* give evaluate=False to one of them"):
        trainer.attach(EMA(0.99))
    trainer.attach(EMA(0.99, evaluate=False))


def test_a_model_of_another_form():
    ema = EMA(0.9)
    trained(ema)
    with pytest.raises(ValueError, match=r"another form: 0.weight is \(8, 6\) there and \(9, 6\) here"):
        ema.copy_to(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2)))


def test_which_of_several_modules_has_to_be_said():
    model, scale = net(), nn.Linear(2, 2)
    engine = Engine(lambda engine, batch: update.backward(loss_fn(scale(model(batch[0])), batch[1])))
    update = Update(engine, [model, scale], torch.optim.SGD([*model.parameters(), *scale.parameters()], lr=0.1))
    ema = EMA(0.9)
    engine.attach(ema)
    engine.run(batches(2))
    with pytest.raises(ValueError, match="averages are: Sequential, Linear; which of them is meant is not said"):
        ema.averaged()
    assert list(ema.averaged(scale)) == ["weight", "bias"]
    with pytest.raises(ValueError, match="not this Tanh, give module="):
        ema.averaged(nn.Tanh())


def test_averages_of_another_model():
    first, _, _ = run_of()
    first.run(batches(2))
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(EMA())
    trainer.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=r"have model/1.weight of shape \(8,\), but the model .* has no such"):
        trainer.run(batches(2), max_epochs=2)


def test_only_steps_are_averaged():
    """What runs at other events of a step is nothing of it."""
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(EMA())
    trainer.run(batches(2))
    tables = trainer.updates["default"].tables
    assert [event for event, table in tables.items() if table.entries] == [UpdateEvents.STEP_COMPLETED]
