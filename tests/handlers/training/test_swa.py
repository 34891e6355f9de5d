"""The mean of the weights at the ends of the last epochs."""

import copy
import random

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ExponentialLR, SequentialLR
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, Evaluate, MixedPrecision, Schedule
from leyden.handlers.training.ema import EMA
from leyden.handlers.training.param_schedule import ParamSchedule
from leyden.handlers.training.shapes import Constant, Linear
from leyden.handlers.training.swa import SWA

pytestmark = pytest.mark.timeout(60)


def with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def with_dropout():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def trained(*handlers, model=None, data=None, epochs=6, optimizer=None):
    model = net() if model is None else model
    trainer = supervised_trainer(model, sgd(model) if optimizer is None else optimizer, loss_fn)
    trainer.attach(*handlers)
    torch.manual_seed(1)
    trainer.run(batches(10) if data is None else data, max_epochs=epochs)
    return model


def by_hand(model, start, epochs=6, every=1, make_annealing=None, scheduler=None, forward=None):
    """torch's own recipe; gives the average, and the learning rate of each epoch."""
    optimizer = sgd(model)
    average = AveragedModel(model)
    annealing = None if make_annealing is None else make_annealing(optimizer)
    scheduler = None if scheduler is None else scheduler(optimizer)
    rates = []
    torch.manual_seed(1)
    for epoch in range(1, epochs + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        for x, y in batches(10):
            loss_fn(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch >= start:
            if (epoch - start) % every == 0:
                average.update_parameters(model)
            if annealing is not None:
                annealing.step()
        if scheduler is not None:
            scheduler.step()
    update_bn(batches(10), average)
    return average.module, rates


def same(tree, other):
    assert not any(value.isnan().any() for value in tree.values())
    return tree.keys() == other.keys() and all(torch.equal(tree[name], other[name]) for name in tree)


def rates_of(trainer):
    """The learning rate of each epoch, noted as the trainer runs."""
    rates = []
    groups = trainer.updates["default"].optimizer.param_groups
    trainer.add_event_handler(Events.ITERATION_STARTED(every=10), lambda: rates.append(groups[0]["lr"]))
    return rates


# -- the average -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 4, 6])
def test_the_model_ends_with_the_average_by_hand_to_the_bit(start):
    model = trained(SWA(start))
    expected, _ = by_hand(net(), start)
    assert equal(model, expected)


def test_each_nth_epoch():
    expected, _ = by_hand(net(), 2, every=2)
    assert equal(trained(SWA(2, every=2)), expected)


@pytest.mark.parametrize(("fraction", "first"), [(0.75, 4), (0.5, 3), (0.1, 1)])
def test_a_fraction_is_of_the_epochs_of_the_run(fraction, first):
    expected, _ = by_hand(net(), first)
    assert equal(trained(SWA(fraction)), expected)


def test_a_run_that_ends_before_the_start_keeps_its_weights():
    assert equal(trained(SWA(7)), trained())


def test_a_run_that_is_terminated_has_the_average_of_the_epochs_it_had():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=43), trainer.terminate)
    trainer.run(batches(10), max_epochs=6)
    expected, _ = by_hand(net(), 2, epochs=4)
    assert equal(model, expected)


def test_a_run_that_is_interrupted_keeps_its_weights_and_goes_on():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))
    data = batches(10)
    with trainer.add_event_handler(Events.ITERATION_COMPLETED(once=43), trainer.interrupt):
        trainer.run(data, max_epochs=6)
    trainer.run(data, max_epochs=6)
    expected, _ = by_hand(net(), 2)
    assert equal(model, expected)


def test_a_part_that_is_unfrozen_later():
    model, theirs = net(), net()
    for each in (model, theirs):
        each[0].requires_grad_(False)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))

    @trainer.on(Events.EPOCH_STARTED(once=4))
    def unfreeze():
        model[0].requires_grad_(True)
        trainer.updates["default"].trainable_changed()

    trainer.run(batches(10), max_epochs=6)
    optimizer, average = sgd(theirs), AveragedModel(theirs)
    for epoch in range(1, 7):
        if epoch == 4:
            theirs[0].requires_grad_(True)
        for x, y in batches(10):
            loss_fn(theirs(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch >= 2:
            average.update_parameters(theirs)
    assert equal(model, average.module)


# -- batch norm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [with_norm, with_dropout])
def test_the_statistics_are_those_of_the_average_to_the_bit(make):
    model = trained(SWA(3), model=make())
    expected, _ = by_hand(make(), 3)
    assert same(model.state_dict(), expected.state_dict())
    assert all(module.training for module in model.modules())
    assert [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)] == [0.1]


def test_random_numbers_are_as_before_the_pass():
    data = DataLoader(TensorDataset(*map(torch.cat, zip(*batches(10), strict=True))), batch_size=4, shuffle=True)
    states = []
    for update_batch_norm in (True, False):
        torch.manual_seed(0)
        random.seed(0)
        trained(SWA(3, update_batch_norm=update_batch_norm), model=with_dropout(), data=data)
        states.append((torch.get_rng_state().tolist(), random.getstate()))
    assert states[0] == states[1]


def test_without_the_pass_the_statistics_are_those_of_the_training():
    model = trained(SWA(3, update_batch_norm=False), model=with_norm())
    assert torch.equal(model[1].running_mean, trained(model=with_norm())[1].running_mean)
    expected, _ = by_hand(with_norm(), 3)
    assert equal(model, expected)


def test_a_frozen_norm_keeps_its_statistics():
    model = with_norm()
    model[1].running_mean.fill_(0.5)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))
    trainer.add_event_handler(Events.STARTED, lambda: model[1].eval())
    trainer.run(batches(10), max_epochs=3)
    assert not model[1].training
    assert torch.equal(model[1].running_mean, torch.full((8,), 0.5))


def test_the_pass_takes_other_batches_and_another_way_through_the_model():
    model, seen = with_norm(), []

    def forward(batch):
        seen.append(batch["x"].shape)
        model(batch["x"])

    x = torch.randn(8, 6)
    trained(SWA(2, data=[{"x": x}], forward=forward), model=model)
    assert seen == [(8, 6)]
    assert torch.allclose(model[1].running_mean, model[0](x).mean(0), atol=1e-6)


def test_the_pass_is_of_one_epochs_batches():
    def endless():
        while True:
            yield from batches(10)

    class Stream:
        def __iter__(self):
            return endless()

    model = with_norm()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))
    trainer.run(Stream(), max_epochs=3, epoch_length=4)
    assert model[1].num_batches_tracked == 4


def test_the_pass_has_the_precision_of_the_training():
    model, seen = with_norm(), []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.requires_grad)))
    trained(SWA(2), MixedPrecision("bf16"), model=model)
    assert set(seen) == {(torch.bfloat16, True), (torch.bfloat16, False)}
    assert seen.count((torch.bfloat16, False)) == 10


# -- learning rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_learning_rates_go_to_those_of_the_average(anneal):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2, lr=0.02, anneal_epochs=3, anneal=anneal))
    rates = rates_of(trainer)
    trainer.run(batches(10), max_epochs=6)
    expected, expected_rates = by_hand(net(), 2, make_annealing=lambda optimizer: SWALR(optimizer, 0.02, 3, anneal))
    assert rates == expected_rates
    assert rates[:2] == [0.1, 0.1]
    assert rates[4:] == pytest.approx([0.02, 0.02])
    assert equal(model, expected)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # torch's own call
@pytest.mark.parametrize(
    "scheduler",
    [
        lambda optimizer: ExponentialLR(optimizer, 0.9),
        lambda optimizer: SequentialLR(
            optimizer, [CosineAnnealingLR(optimizer, 4), SWALR(optimizer, 0.02, 2)], milestones=[3]
        ),
    ],
)
def test_beside_a_schedule(scheduler):
    model = net()
    optimizer = sgd(model)
    trained(SWA(3), Schedule(scheduler(optimizer), per="epoch"), model=model, optimizer=optimizer)
    expected, _ = by_hand(net(), 3, scheduler=scheduler)
    assert equal(model, expected)


def test_a_group_that_is_added_later_goes_to_the_same_rate():
    model = net()
    trainer = supervised_trainer(model, sgd(model[2]), loss_fn)
    optimizer = trainer.updates["default"].optimizer
    trainer.attach(SWA(1, lr=0.02, anneal_epochs=1))

    @trainer.on(Events.EPOCH_STARTED(once=3))
    def add():
        optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.5})
        trainer.updates["default"].trainable_changed()

    trainer.run(batches(10), max_epochs=4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.02])


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluate", [False, True])
def test_evaluations_are_of_the_average_if_that_is_wanted(evaluate):
    model, seen, own, averages = with_norm(), [], [], []
    evaluator = supervised_evaluator(model)
    swa = SWA(2, evaluate=evaluate)
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(Evaluate(evaluator, batches(2)), swa)
    evaluator.add_event_handler(Events.COMPLETED, lambda: seen.append(copy.deepcopy(model.state_dict())))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: own.append(copy.deepcopy(model.state_dict())))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: averages.append(swa.averaged()))
    trainer.run(batches(10), max_epochs=4)
    assert all(map(same, seen, averages if evaluate else own))
    expected, _ = by_hand(with_norm(), 2, epochs=4)
    assert same(model.state_dict(), expected.state_dict())


def test_an_evaluation_at_the_end_is_of_the_average():
    model, seen = with_norm(), []
    evaluator = supervised_evaluator(model)
    evaluator.add_event_handler(Events.COMPLETED, lambda: seen.append(copy.deepcopy(model.state_dict())))
    trained(Evaluate(evaluator, batches(2), on=Events.COMPLETED), SWA(2), model=model)
    expected, _ = by_hand(with_norm(), 2)
    assert same(seen[0], expected.state_dict())


def test_it_works_beside_an_ema():
    ema = EMA(0.9)
    model = trained(SWA(2), ema)
    alone = EMA(0.9)
    trained(alone)
    assert same(ema.averaged(), alone.averaged())
    expected, _ = by_hand(net(), 2)
    assert equal(model, expected)


# -- going on ----------------------------------------------------------------------------------------------------------


def run_of(*handlers):
    model = with_dropout()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2, lr=0.02, anneal_epochs=4), *handlers)
    torch.manual_seed(1)
    return trainer, model


@pytest.mark.parametrize("after", [10, 14, 20, 34])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, after):
    whole, model = run_of()
    data = batches(10)
    whole.run(data, max_epochs=5)
    first, _ = run_of(Checkpoint(tmp_path))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=after), first.interrupt)
    first.run(data, max_epochs=5)
    second, resumed = run_of(Checkpoint(tmp_path, resume="auto"))
    second.run(data, max_epochs=5)
    assert same(resumed.state_dict(), model.state_dict())


def test_a_checkpoint_of_the_last_epoch_ends_in_the_same_average(tmp_path):
    """It has the weights of the training: the run that is complete puts the average in again, one that is longer goes
    on training."""
    first, model = run_of(Checkpoint(tmp_path))
    data = batches(10)
    first.run(data, max_epochs=3)
    again, ended = run_of(Checkpoint(tmp_path / "again", resume=tmp_path))
    again.run(data, max_epochs=3)
    assert same(ended.state_dict(), model.state_dict())
    longer, gone_on = run_of(Checkpoint(tmp_path / "longer", resume=tmp_path))
    longer.run(data, max_epochs=5)
    whole, expected = run_of()
    whole.run(data, max_epochs=5)
    assert same(gone_on.state_dict(), expected.state_dict())


def test_a_run_that_goes_on_after_its_end_begins_a_new_average():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    swa = SWA(2)
    trainer.attach(swa)
    trainer.run(batches(10), max_epochs=3)
    ends = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: ends.append(copy.deepcopy(model)))
    trainer.run(batches(10), max_epochs=5)
    average = AveragedModel(model)
    for end in ends:
        average.update_parameters(end)
    assert len(ends) == 2
    assert equal(model, average.module)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, -1, 1.5, 0.0, 1.0, True, "3"])
def test_a_start_out_of_range(start):
    with pytest.raises(ValueError, match="SWA starts at an epoch, counted from 1, or at a fraction of them"):
        SWA(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anneal": "exp"}, """SWA anneals by "cos" or "linear", but got anneal='exp'"""),
        ({"anneal_epochs": -1}, "SWA takes anneal_epochs as a number of epochs, at least 0, but got -1"),
        ({"every": 0}, "SWA takes every as a number of epochs, at least 1, but got 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        SWA(2, **arguments)


@pytest.mark.parametrize("schedule_first", [False, True])
@pytest.mark.parametrize(
    "make",
    [lambda optimizer: Schedule(ConstantLR(optimizer)), lambda optimizer: ParamSchedule("lr", Linear(0.1, 0, 9))],
)
def test_a_schedule_of_the_same_learning_rates(schedule_first, make):
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    handlers = [SWA(2, lr=0.02), make(optimizer)]

    def run():
        trainer.attach(*(reversed(handlers) if schedule_first else handlers))
        trainer.run(batches(1))

    with pytest.raises(ValueError, match=r"can't both be attached to one engine: .* give Schedule a SequentialLR"):
        run()


def test_a_schedule_of_another_number():
    expected, _ = by_hand(net(), 2, make_annealing=lambda optimizer: SWALR(optimizer, 0.02))
    model = trained(SWA(2, lr=0.02), ParamSchedule("momentum", Constant(0.9)))
    assert equal(model, expected)


def test_a_schedule_of_other_learning_rates():
    models = {"a": net(), "b": net()}
    engine = Engine(lambda engine, batch: None)
    updates = {name: Update(engine, model, sgd(model), name=name) for name, model in models.items()}
    engine.attach(Schedule(ConstantLR(updates["b"].optimizer)), SWA(2, lr=0.02, update="a"))
    engine.attach(Schedule(ExponentialLR(updates["b"].optimizer, 0.9), per="epoch"))
    with pytest.raises(ValueError, match="can't both be attached"):
        engine.attach(Schedule(ConstantLR(updates["a"].optimizer)))


def test_a_run_from_the_beginning_anneals_anew():
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(SWA(2, lr=0.01, anneal_epochs=2))
    rates = rates_of(trainer)
    trainer.run(batches(10), max_epochs=5)
    first = list(rates)
    rates.clear()
    trainer.run(batches(10), max_epochs=5)
    assert rates == first
    assert (rates[0], rates[-1]) == (0.1, pytest.approx(0.01))


def test_batches_that_the_model_does_not_take_as_they_are():
    model = with_norm()

    def process(engine, batch):
        with update.forward():
            loss = loss_fn(model(batch["x"]), batch["y"])
        update.backward(loss)

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    engine.attach(SWA(1))
    with pytest.raises(TypeError) as raised:
        engine.run([{"x": x, "y": y} for x, y in batches(3)])
    assert "forward=, a function of the batch, says how that is done" in raised.value.__notes__[0]


def test_a_fraction_of_a_run_without_max_epochs():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(0.5))
    with pytest.raises(ValueError, match=r"fraction 0\.5 of max_epochs, but the run ends by max_iters=20; give start"):
        trainer.run(batches(10), max_iters=20)


def test_data_that_comes_only_once():
    model = with_norm()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(SWA(2))
    with pytest.raises(ValueError, match=r"that of the run \(list_iterator\) comes only once: give data="):
        trainer.run(iter(batches(10)))
    model = net()
    trained(SWA(1), model=model, data=iter(batches(10)), epochs=1)  # without a norm nothing is passed again


def test_two_models_with_norms():
    models = [with_norm(), with_norm()]
    engine = Engine(lambda engine, batch: None)
    Update(engine, models, torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.1))
    engine.attach(SWA(2))
    with pytest.raises(ValueError, match=r"of Sequential, Sequential anew .* does not know which of them takes"):
        engine.run(batches(10))


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="SWA works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(SWA(2))
