"""Every scheduler of torch.optim.lr_scheduler, stepped as the loop by hand steps it."""

import inspect
import warnings

import pytest
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, GradientAccumulation, Schedule

MAKE = {
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=3),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=9),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 11]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.97),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=35, power=2),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[5]
    ),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5),
}


def test_no_scheduler_of_torch_is_left_out():
    base = lr_scheduler.LRScheduler
    there = {
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base and not name.startswith("_")
    }
    assert there == {*MAKE, "ReduceLROnPlateau"}


def note_rates(trainer, optimizer, rates):
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda: rates.append([group["lr"] for group in optimizer.param_groups])
    )


def by_hand(make, per="step", every=1, window=1, epochs=3):
    """Trains by hand with a scheduler; gives the model, and the learning rates that each step had."""
    model, rates = net(), []
    optimizer = sgd(model)
    scheduler = make(optimizer)
    done = {"step": 0, "epoch": 0}

    def count(what):
        done[what] += 1
        if what == per and done[what] % every == 0:
            scheduler.step()

    train_by_hand(
        model, optimizer, batches(10), epochs=epochs, window=window,
        clip=lambda parameters: rates.append([group["lr"] for group in optimizer.param_groups]),
        after_step=lambda: count("step"), after_epoch=lambda: count("epoch"),
    )  # fmt: skip
    return model, rates


def by_handler(make, window=1, epochs=3, **arguments):
    model, rates = net(), []
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(Schedule(make(optimizer), **arguments), GradientAccumulation(window))
    note_rates(trainer, optimizer, rates)
    trainer.run(batches(10), max_epochs=epochs)
    return model, rates


@pytest.mark.parametrize("arguments", [{}, {"every": 3}, {"per": "epoch"}, {"per": "epoch", "every": 2}], ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_it_is_the_loop_by_hand_to_the_bit(name, arguments):
    epochs = 8 if "per" in arguments else 3
    ours, our_rates = by_handler(MAKE[name], epochs=epochs, **arguments)
    theirs, their_rates = by_hand(MAKE[name], epochs=epochs, **arguments)
    assert our_rates == their_rates
    assert len({rate for (rate,) in our_rates}) > 1  # it did something
    assert equal(ours, theirs)


@pytest.mark.parametrize("every", [1, 2])
def test_under_accumulation_it_counts_steps_not_batches(every):
    ours, our_rates = by_handler(MAKE["StepLR"], window=4, every=every, epochs=4)
    theirs, their_rates = by_hand(MAKE["StepLR"], window=4, every=every, epochs=4)
    assert len(our_rates) == 12
    assert our_rates == their_rates
    assert equal(ours, theirs)


def test_torch_sees_the_right_order():
    """torch warns where a scheduler steps before its optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_handler(MAKE["OneCycleLR"])


# -- on a metric -------------------------------------------------------------------------------------------------------

LOSSES = [5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0]


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)


def evaluator_of(losses):
    """An evaluator whose metric "loss" takes these values, one an evaluation."""
    evaluator = Engine(lambda engine, batch: None, training=False)
    evaluator.declare_metrics("loss")
    values = iter(losses)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def measure(engine):
        engine.state.metrics["loss"] = next(values)

    return evaluator


@pytest.mark.parametrize("first", ["Schedule", "Evaluate"])
def test_a_plateau_of_a_metric(first):
    model, rates, expected = net(), [], []
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    handlers = [
        Schedule(plateau(optimizer), metric="val/loss"),
        Evaluate(evaluator_of(LOSSES), [None], prefix="val/"),
    ]
    trainer.attach(*(handlers if first == "Schedule" else handlers[::-1]))
    note_rates(trainer, optimizer, rates)
    trainer.run(batches(2), max_epochs=8)

    theirs = net()
    optimizer = sgd(theirs)
    scheduler, losses = plateau(optimizer), iter(LOSSES)
    train_by_hand(
        theirs, optimizer, batches(2), epochs=8,
        clip=lambda parameters: expected.append([optimizer.param_groups[0]["lr"]]),
        after_epoch=lambda: scheduler.step(next(losses)),
    )  # fmt: skip
    assert rates == expected
    assert rates[-1] == [0.025]
    assert equal(model, theirs)


def test_an_epoch_without_a_new_value_steps_nothing():
    """Evaluation each second epoch: epochs 1 and 3 bring no value, and none is counted twice."""
    model = net()
    optimizer = sgd(model)
    scheduler = plateau(optimizer)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(
        Schedule(scheduler, metric="val/loss"), Evaluate(evaluator_of([5.0, 4.0]), [None], prefix="val/", every=2)
    )
    trainer.run(batches(1), max_epochs=4)
    assert scheduler.last_epoch == 2


def test_a_metric_that_will_not_come_up():
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    evaluator = evaluator_of(LOSSES)
    evaluator.declare_metrics("accuracy")
    trainer.attach(Schedule(plateau(optimizer), metric="val/los"), Evaluate(evaluator, [None], prefix="val/"))
    with pytest.raises(ValueError, match=r'^Schedule watches "val/los", but the engine has: val/accuracy, val/loss'):
        trainer.run(batches(1))
    assert trainer.state.iteration == 0


# -- its state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKE)
def test_a_run_goes_on_from_its_state(name):
    """Two epochs, then a third in a trainer made anew, have the learning rates of three epochs."""
    _, expected = by_hand(MAKE[name])

    model, rates = net(), []
    optimizer = sgd(model)
    trainer = train_with(Schedule(MAKE[name](optimizer)), model=model, optimizer=optimizer, data=batches(10), epochs=2)
    state = trainer.state_dict(), model.state_dict(), optimizer.state_dict()

    again = net()
    optimizer = sgd(again)
    trainer = supervised_trainer(again, optimizer, loss_fn)
    trainer.attach(Schedule(MAKE[name](optimizer)))
    trainer.load_state_dict(state[0])
    again.load_state_dict(state[1])
    optimizer.load_state_dict(state[2])
    note_rates(trainer, optimizer, rates)
    trainer.run(batches(10), max_epochs=3)
    assert rates == expected[20:]


def test_the_states_of_two_schedules_are_kept_apart():
    model = net()
    optimizer = sgd(model)
    schedules = [Schedule(MAKE["ExponentialLR"](optimizer)), Schedule(MAKE["StepLR"](optimizer), per="epoch")]
    trainer = train_with(*schedules, model=model, optimizer=optimizer, data=batches(10), epochs=2)
    handlers = trainer.state_dict()["handlers"]
    assert {name: state["last_epoch"] for name, state in handlers.items()} == {"Schedule": 20, "Schedule-2": 2}


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_a_scheduler_of_another_optimizer(per):
    model, other = net(), net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    with pytest.raises(ValueError, match=r"the ExponentialLR schedules an optimizer that no update of the engine has"):
        trainer.attach(Schedule(MAKE["ExponentialLR"](sgd(other)), per=per))


def test_a_plateau_of_another_optimizer():
    model, other = net(), net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.declare_metrics("loss")
    with pytest.raises(ValueError, match=r"schedules an optimizer that no update of the engine has"):
        trainer.attach(Schedule(plateau(sgd(other)), metric="loss"))


def test_steps_of_an_engine_without_an_update():
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(ValueError, match="Schedule works on an Update, and this engine has none"):
        engine.attach(Schedule(MAKE["StepLR"](sgd(net()))))


def test_epochs_of_an_engine_without_an_update():
    """A user's own step has no Update; its epochs can be counted all the same."""
    optimizer = sgd(net())

    def process(engine, batch):
        optimizer.step()

    engine = Engine(process)
    engine.attach(Schedule(lr_scheduler.ExponentialLR(optimizer, 0.5), per="epoch"))
    engine.run([0, 1], max_epochs=2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


def test_what_is_no_scheduler():
    with pytest.raises(TypeError, match=r"takes a scheduler of torch.optim.lr_scheduler, but got "):
        Schedule(lambda step: 0.1)


def test_a_plateau_without_its_metric_and_a_metric_that_nobody_watches():
    optimizer = sgd(net())
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs metric=, the name of what it watches"):
        Schedule(plateau(optimizer))
    with pytest.raises(ValueError, match="ExponentialLR watches no metric; leave metric= out"):
        Schedule(MAKE["ExponentialLR"](optimizer), metric="loss")


@pytest.mark.parametrize("per", ["iteration", "Epoch", ""])
def test_an_unknown_pace(per):
    with pytest.raises(ValueError, match=f'Schedule steps per "step" or "epoch" .*, but got per={per!r}'):
        Schedule(MAKE["StepLR"](sgd(net())), per=per)


def test_a_plateau_per_step():
    with pytest.raises(ValueError, match='on a metric: "epoch"'):
        Schedule(plateau(sgd(net())), per="step", metric="loss")


@pytest.mark.parametrize("every", [0, -2])
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_an_every_that_is_not_positive(per, every):
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    with pytest.raises(ValueError, match=f"must be at least 1, but is {every}"):
        trainer.attach(Schedule(MAKE["StepLR"](optimizer), per=per, every=every))


def test_the_evaluators_of_a_trainer_are_left_alone():
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    scheduler = MAKE["ExponentialLR"](optimizer)
    trainer.attach(Schedule(scheduler), Evaluate(supervised_evaluator(model), batches(3)))
    trainer.run(batches(5), max_epochs=2)
    assert scheduler.last_epoch == 10
