"""Schedulers of torch as handlers: what they count, whom they stand beside, and on which metric they step."""

import itertools
import warnings

import pytest
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with
from plateau_ranks import rate_and_weights
from torch.optim import lr_scheduler
from torch_schedulers import MAKE, METRIC, by_hand, by_handler, trainer_with

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, GradientAccumulation, Schedule
from leyden.handlers.checkpoint import Checkpoint


def note_rates(trainer, optimizer, rates):
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda: rates.append([group["lr"] for group in optimizer.param_groups])
    )


def test_torch_sees_the_right_order():
    """torch warns where a scheduler steps before its optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "OneCycleLR is made for 40 optimizer steps, but the run has 30")
        by_handler(MAKE["OneCycleLR"])
        by_handler(MAKE["StepLR"], warmup=3)


@pytest.mark.parametrize(
    ("kind", "per"),
    [(kind, per) for kind in MAKE for per in ("step", "epoch") if per == "epoch" or kind not in METRIC],
)
def test_a_run_from_the_beginning_begins_anew(kind, per):
    trainer, _, values = trainer_with(MAKE[kind], per=per)
    trainer.run(batches(10), max_epochs=3)
    first = list(values)
    values.clear()
    trainer.run(batches(10), max_epochs=3)
    assert values == first
    assert len({str(value) for value in values}) > 1


def test_a_warm_up_begins_anew_too():
    for arguments in ({"kind": "ReduceLROnPlateau", "per": "epoch"}, {"kind": "ExponentialLR", "per": "step"}):
        kind, per = arguments.values()
        trainer, _, values = trainer_with(MAKE[kind], per=per, warmup=2)
        trainer.run(batches(10), max_epochs=4)
        first = list(values)
        values.clear()
        trainer.state.max_epochs = None
        trainer.run(batches(10), max_epochs=4)
        assert values == first


def test_a_larger_limit_goes_on_with_it():
    trainer, _, values = trainer_with(MAKE["LinearLR"])
    trainer.run(batches(5), max_epochs=1)
    trainer.run(batches(5), max_epochs=2)
    assert values == by_hand(MAKE["LinearLR"], epochs=1)[1]


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


# -- several of them ---------------------------------------------------------------------------------------------------


def two_updates(*make):
    """An engine with an update for each of two models, whose optimizers have a scheduler each."""
    models = {"one": net(), "two": net()}

    def process(engine, batch):
        x, y = batch
        for update in updates:
            with update.forward():
                loss = loss_fn(models[update.name](x), y)
            update.backward(loss)

    engine = Engine(process)
    updates = [Update(engine, model, sgd(model), name=name) for name, model in models.items()]
    schedulers = [each(update.optimizer) for each, update in zip(make, updates, strict=True)]
    return engine, models, schedulers


def test_each_optimizer_has_its_own():
    engine, models, (first, second) = two_updates(MAKE["OneCycleLR"], MAKE["StepLR"])
    engine.attach(Schedule(first, every=2), Schedule(second, per="epoch"), GradientAccumulation(3, update="two"))
    engine.run(batches(10), max_epochs=3)
    for name, make, arguments in (
        ("one", MAKE["OneCycleLR"], {"every": 2}),
        ("two", MAKE["StepLR"], {"per": "epoch", "window": 3}),
    ):
        expected = net()
        optimizer = sgd(expected)
        scheduler, steps = make(optimizer), itertools.count(1)
        if "per" in arguments:
            after = {"after_epoch": scheduler.step}
        else:
            after = {"after_step": lambda scheduler=scheduler, steps=steps: next(steps) % 2 or scheduler.step()}
        train_by_hand(expected, optimizer, batches(10), window=arguments.get("window", 1), **after)
        assert equal(models[name], expected)


def chained(optimizer):
    return [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=15), lr_scheduler.ExponentialLR(optimizer, 0.9)]


def test_those_of_one_optimizer_are_chained():
    """A warm-up per step and a decay per epoch, as a loop by hand chains them."""
    ours, theirs = net(), net()
    optimizer = sgd(ours)
    rise, decay = chained(optimizer)
    train_with(Schedule(rise), Schedule(decay, per="epoch"), model=ours, optimizer=optimizer, data=batches(10))
    optimizer = sgd(theirs)
    rise, decay = chained(optimizer)
    train_by_hand(theirs, optimizer, batches(10), after_step=rise.step, after_epoch=decay.step)
    assert equal(ours, theirs)


@pytest.mark.parametrize("reverse", [False, True])
def test_those_of_one_event_step_in_the_order_of_attaching(reverse):
    def order(schedulers):
        return schedulers[::-1] if reverse else schedulers

    ours, theirs = net(), net()
    optimizer = sgd(ours)
    train_with(*map(Schedule, order(chained(optimizer))), model=ours, optimizer=optimizer, data=batches(10))
    optimizer = sgd(theirs)
    schedulers = order(chained(optimizer))
    train_by_hand(theirs, optimizer, batches(10), after_step=lambda: [each.step() for each in schedulers])
    assert equal(ours, theirs)


@pytest.mark.parametrize("name", ["CyclicLR", "CosineAnnealingWarmRestarts", "LambdaLR", "OneCycleLR", "SequentialLR"])
@pytest.mark.parametrize("order", [1, -1])
def test_one_that_heeds_no_other_refuses_company(name, order):
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    first, second = [Schedule(MAKE["ExponentialLR"](optimizer)), Schedule(MAKE[name](optimizer))][::order]
    trainer.attach(first)
    said = f"Schedule and Schedule can't both .*: {name} sets the learning rate of their optimizer whatever the other"
    with pytest.raises(ValueError, match=said):
        trainer.attach(second)


def test_one_with_a_warm_up_refuses_company():
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(Schedule(MAKE["ExponentialLR"](optimizer)))
    with pytest.raises(ValueError, match="ChainedScheduler with a LinearLR as the warm-up"):
        trainer.attach(Schedule(MAKE["StepLR"](optimizer), warmup=3))


def test_one_that_heeds_no_other_may_schedule_another_optimizer():
    engine, _, schedulers = two_updates(MAKE["OneCycleLR"], MAKE["LambdaLR"])
    engine.attach(*map(Schedule, schedulers))
    engine.run(batches(2))
    assert [scheduler.last_epoch for scheduler in schedulers] == [2, 2]


# -- its state ---------------------------------------------------------------------------------------------------------


def test_the_states_of_two_schedules_are_kept_apart():
    model = net()
    optimizer = sgd(model)
    schedules = [Schedule(MAKE["ExponentialLR"](optimizer)), Schedule(MAKE["StepLR"](optimizer), per="epoch")]
    trainer = train_with(*schedules, model=model, optimizer=optimizer, data=batches(10), epochs=2)
    handlers = trainer.state_dict()["handlers"]
    assert {name: state["last_epoch"] for name, state in handlers.items()} == {
        "Schedule(ExponentialLR)": 20,
        "Schedule(StepLR)": 2,
    }


def test_several_go_on_from_their_checkpoint(tmp_path):
    def run(*more, max_epochs):
        engine, models, schedulers = two_updates(MAKE["OneCycleLR"], lambda o: chained(o)[0])
        other = MAKE["ExponentialLR"](schedulers[1].optimizer)
        engine.attach(Schedule(schedulers[0]), Schedule(schedulers[1]), Schedule(other, per="epoch"), *more)
        engine.run(batches(10), max_epochs=max_epochs)
        return models

    expected = run(max_epochs=3)
    run(Checkpoint(tmp_path), max_epochs=2)
    again = run(Checkpoint(tmp_path, resume="auto"), max_epochs=3)
    assert all(equal(again[name], expected[name]) for name in expected)


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


@pytest.mark.parametrize("make", [MAKE["StepLR"], lambda optimizer: lambda each, steps: MAKE["StepLR"](each)])
def test_every_none_of_its_steps(make):
    with pytest.raises(ValueError, match=r"Schedule\(every=\) must be at least 1, but is 0"):
        Schedule(make(sgd(net())), every=0)


def test_a_plateau_per_step():
    with pytest.raises(ValueError, match='on a metric: "epoch"'):
        Schedule(plateau(sgd(net())), per="step", metric="loss")


@pytest.mark.parametrize("name", ["ChainedScheduler", "SequentialLR"])
def test_a_warm_up_of_schedulers_in_one(name):
    with pytest.raises(ValueError, match=f"{name} is made of other schedulers, before which torch can't put a warm-up"):
        Schedule(MAKE[name](sgd(net())), warmup=3)


def test_a_warm_up_that_comes_too_late():
    optimizer = sgd(net())
    scheduler = MAKE["StepLR"](optimizer)
    optimizer.step()
    scheduler.step()
    with pytest.raises(ValueError, match="a warm-up comes first, but this StepLR has stepped already"):
        Schedule(scheduler, warmup=3)


def test_a_warm_up_of_no_number_of_steps():
    scheduler = MAKE["StepLR"](sgd(net()))
    with pytest.raises(TypeError, match=r"a whole number of steps, but got warmup=0\.1"):
        Schedule(scheduler, warmup=0.1)
    with pytest.raises(ValueError, match="0 steps or more, but got warmup=-1"):
        Schedule(scheduler, warmup=-1)
    for start in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"a factor above 0 and at most 1, but is {start}"):
            Schedule(scheduler, warmup=3, warmup_start=start)


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


def test_ranks_with_values_of_their_own_go_by_that_of_rank_0():
    """Else each would step with a learning rate of its own, and the replicas drift apart."""
    ours, theirs = dist.launch(rate_and_weights, 2)
    assert ours == theirs
    assert ours[0] == 0.1  # it never got worse there
