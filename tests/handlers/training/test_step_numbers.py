"""The number of steps of a run: told before it, given to who makes a scheduler, compared with a scheduler's total."""

import copy
import re
import shutil
import warnings

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd
from step_number_ranks import told_and_done
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Engine, Update, UpdateEvents, supervised_trainer
from leyden.handlers import (
    BatchSizeSchedule,
    GradientAccumulation,
    LearningRateFinder,
    LimitBatches,
    ParamSchedule,
    Schedule,
    TruncatedBPTT,
)
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.training import Linear


def trainer_of(*handlers, **options):
    model = net()
    optimizer = sgd(model, **options)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(*handlers)
    return trainer, optimizer


def loader_of(samples=40, size=4):
    return DataLoader(TensorDataset(torch.randn(samples, 6), torch.randn(samples, 2)), batch_size=size)


# -- told before the run -----------------------------------------------------------------------------------------------


WINDOWS = {
    "none": (),
    "3, stepped": (GradientAccumulation(3),),
    "3, carried": (GradientAccumulation(3, tail="carry"),),
    "3, dropped": (GradientAccumulation(3, tail="drop"),),
    "17, carried": (GradientAccumulation(17, tail="carry"),),
    "7, dropped": (GradientAccumulation(7, tail="drop"),),
    "by epoch": (GradientAccumulation({1: 1, 3: 4}),),
    "by epoch, carried": (GradientAccumulation({1: 3, 2: 4}, tail="carry"),),
    "limited": (LimitBatches(7), GradientAccumulation(3)),
    "sizes": (BatchSizeSchedule({1: 2, 2: 5, 3: 40}), GradientAccumulation(3)),
}


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_epochs": 1}, {"max_iters": 17}, {}], ids=str)
@pytest.mark.parametrize("kind", WINDOWS)
def test_what_is_told_before_a_run_is_what_it_does(kind, limit):
    trainer, _ = trainer_of(*copy.deepcopy(WINDOWS[kind]))
    loader = loader_of()
    told = trainer.total_steps(loader, **limit)
    assert trainer.state.epoch == 0
    assert trainer.run(loader, **limit).step == told


@pytest.mark.parametrize("limit", [{"max_epochs": 4, "epoch_length": 7}, {"max_iters": 9, "epoch_length": 4}], ids=str)
def test_epochs_of_a_given_length(limit):
    trainer, _ = trainer_of(GradientAccumulation(3))
    assert trainer.total_steps(loader_of(), **limit) == trainer.run(loader_of(), **limit).step


def test_what_nobody_knows_before_is_an_error():
    trainer, _ = trainer_of()
    with pytest.raises(ValueError, match=r"not known before the run: the data \(generator\) does not say how many"):
        trainer.total_steps((batch for batch in batches()), max_epochs=2)
    assert trainer.total_steps((batch for batch in batches()), max_iters=7) == 7
    trainer.attach(TruncatedBPTT(2))
    with pytest.raises(ValueError, match="its batches have several optimizer steps each"):
        trainer.total_steps(batches(), max_epochs=2)
    with pytest.raises(ValueError, match="this engine has no Update"):
        Engine(lambda engine, batch: None).total_steps([1], 2)
    with pytest.raises(ValueError, match=r"has no update 'critic'; it has: default"):
        trainer.total_steps(batches(), 2, update="critic")


def test_two_ranks_and_a_window():
    for told, given, done, lr in dist.launch(told_and_done, 2):
        assert (told, given, done) == (9, [9], 9)  # 40 samples, 20 a rank, 5 batches, 3 steps an epoch
        assert lr == pytest.approx(0, abs=1e-12)


# -- made by a function ------------------------------------------------------------------------------------------------


def one_cycle(optimizer, steps):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)


def test_a_scheduler_of_the_runs_own_number_comes_to_its_end():
    trainer, optimizer = trainer_of(GradientAccumulation(3), Schedule(one_cycle))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(batches(10), max_epochs=3)
    assert trainer.state.step == 12
    by_hand = sgd(net())
    scheduler = one_cycle(by_hand, 12)
    for _ in range(12):
        by_hand.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == by_hand.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("arguments", "number"), [({}, 30), ({"every": 3}, 10), ({"per": "epoch"}, 3), ({"warmup": 4}, 26)]
)
def test_the_function_gets_the_number_of_times_it_will_step(arguments, number):
    given = []

    def make(optimizer, steps):
        given.append(steps)
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)

    trainer, optimizer = trainer_of(Schedule(make, **arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(batches(10), max_epochs=3)
    assert given == [number]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_run_from_the_beginning_has_it_made_for_its_own_number():
    given = []

    def make(optimizer, steps):
        given.append((steps, optimizer.param_groups[0]["lr"]))
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)

    trainer, optimizer = trainer_of(Schedule(make))
    for epochs, number in ((2, 20), (2, 20), (3, 30)):
        trainer.state.max_epochs = None
        trainer.run(batches(10), max_epochs=epochs)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
        assert given[-1] == (number, 0.1)
    assert len(given) == 2


@pytest.mark.parametrize("saved_at", [1, 2])
def test_it_goes_on_from_a_checkpoint(saved_at, tmp_path):
    """To the bit as the run that was not stopped, though the resuming process makes it before it restores."""

    def make():
        trainer, optimizer = trainer_of(Schedule(one_cycle), Checkpoint(tmp_path, resume="auto", keep=None))
        rates = []
        trainer.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
        return trainer, rates

    whole, expected = make()
    whole.run(batches(10), max_epochs=3)
    for folder in list(tmp_path.iterdir()):
        if folder.is_dir() and int(re.findall(r"\d+", folder.name)[0]) > saved_at:
            shutil.rmtree(folder)
    resumed, rates = make()
    resumed.run(batches(10), max_epochs=3)
    assert rates == expected[len(expected) - len(rates) :]
    assert len(rates) == 10 * (3 - saved_at)


def test_it_goes_on_from_states_loaded_by_hand():
    trainer, optimizer = trainer_of(Schedule(one_cycle))
    rates = []
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.run(batches(10), max_epochs=3)

    first, first_optimizer = trainer_of(Schedule(one_cycle))
    first.add_event_handler(UpdateEvents.STEP_COMPLETED(once=13), first.interrupt)
    first.run(batches(10), max_epochs=3)
    second, second_optimizer = trainer_of(Schedule(one_cycle))
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    resumed = []
    second.add_event_handler(
        UpdateEvents.STEP_COMPLETED, lambda: resumed.append(second_optimizer.param_groups[0]["lr"])
    )
    second.run(batches(10), max_epochs=3)
    assert resumed == rates[13:]


def test_a_number_that_is_not_known_is_asked_for_before_the_first_step():
    trainer, _ = trainer_of(Schedule(one_cycle))
    with pytest.raises(ValueError, match="the number of optimizer steps in the run, which is not known in advance"):
        trainer.run((batch for batch in batches()), max_epochs=1)
    assert trainer.state.iteration == 0


def test_a_function_that_makes_no_scheduler_of_this_optimizer():
    for make in (lambda optimizer, steps: 0.1, lambda optimizer, steps: one_cycle(sgd(net()), steps)):
        trainer, _ = trainer_of(Schedule(make))
        with pytest.raises(TypeError, match="is to make a scheduler of the optimizer it is given, but gave"):
            trainer.run(batches())
    for wrong in (lambda optimizer: None, lr_scheduler.OneCycleLR, 3):
        with pytest.raises(TypeError, match="a function that makes one takes"):
            Schedule(wrong)


def test_the_optimizer_of_one_of_several_updates():
    models = [net(), net()]
    optimizers = [sgd(model) for model in models]

    def step(engine, batch):
        for model, update in zip(models, engine.updates.values(), strict=True):
            with update.forward():
                loss = loss_fn(model(batch[0]), batch[1])
            update.backward(loss)

    trainer = Engine(step)
    for name, model, optimizer in zip("ab", models, optimizers, strict=True):
        Update(trainer, model, optimizer, name=name)
    with pytest.raises(ValueError, match=r"several updates \(a, b\); name the one whose optimizer"):
        trainer.attach(Schedule(lambda optimizer, steps: None))
    trainer.attach(Schedule(lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps), update="b"))
    trainer.run(batches(10), max_epochs=2)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [0.1, pytest.approx(0, abs=1e-12)]


def test_company_is_checked_also_once_it_is_made():
    trainer, optimizer = trainer_of(Schedule(one_cycle))
    trainer.attach(Schedule(lr_scheduler.ExponentialLR(optimizer, 0.9)))
    with pytest.raises(ValueError, match="OneCycleLR sets the learning rate of their optimizer whatever the other"):
        trainer.run(batches())
    trainer, _ = trainer_of(Schedule(one_cycle), LearningRateFinder(steps=5))
    with pytest.raises(ValueError, match="OneCycleLR takes its learning rates from its own arguments"):
        trainer.run(batches())
    trainer, _ = trainer_of(Schedule(lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps)))
    with pytest.raises(ValueError, match='both set the same "lr"'):
        trainer.attach(ParamSchedule("lr", Linear(0.1, 0.0, 30)))


# -- a total that is not the run's -------------------------------------------------------------------------------------


DIFFER = {
    "OneCycleLR, longer": (lambda o: one_cycle(o, 60), "OneCycleLR is made for 60 optimizer steps, but the run has 30"),
    "OneCycleLR, shorter": (lambda o: one_cycle(o, 300), "it does not come to its end"),
    "CosineAnnealingLR": (lambda o: lr_scheduler.CosineAnnealingLR(o, 60), "CosineAnnealingLR is made for 60"),
    "CosineAnnealingLR, longer": (lambda o: lr_scheduler.CosineAnnealingLR(o, 20), "the learning rate rises again"),
    "PolynomialLR": (lambda o: lr_scheduler.PolynomialLR(o, 20), "PolynomialLR .* learning rate is 0 from its end on"),
    "LinearLR": (lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=60), "LinearLR is made for at least 60"),
    "LinearLR to 0": (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=20), "LinearLR is made for 20"),
    "ConstantLR": (lambda o: lr_scheduler.ConstantLR(o, 0.1, total_iters=60), "ConstantLR is made for at least 60"),
    "MultiStepLR": (lambda o: lr_scheduler.MultiStepLR(o, [5, 90]), "MultiStepLR is made for at least 90"),
    "SWALR": (lambda o: SWALR(o, 0.1, anneal_epochs=60), "SWALR is made for at least 60"),
    "CosineAnnealingWarmRestarts": (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 60), "at least 60"),
    "CyclicLR": (lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=40), "CyclicLR is made for at least 80"),
    "the last of SequentialLR": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 30)], milestones=[5]
        ),
        r"CosineAnnealingLR \(after 5 of SequentialLR\) is made for 35",
    ),
    "SequentialLR": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, total_iters=9), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[99]
        ),
        "its last part never begins",
    ),
    "one of ChainedScheduler": (
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.CosineAnnealingLR(o, 99), lr_scheduler.LinearLR(o)]),
        "CosineAnnealingLR is made for 99",
    ),
}
FIT = {
    "OneCycleLR": lambda o: one_cycle(o, 30),
    "OneCycleLR and one": lambda o: one_cycle(o, 31),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 30),
    "CosineAnnealingLR to the last": lambda o: lr_scheduler.CosineAnnealingLR(o, 29),
    "LinearLR as a warm-up": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=10),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [10, 20]),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 25)], milestones=[5]
    ),
}  # fmt: skip


def run_with(make, *handlers, epochs=3, **arguments):
    trainer, optimizer = trainer_of(*handlers)
    trainer.attach(Schedule(make(optimizer), **arguments))
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED(once=1), trainer.terminate)  # the warning is there before
    trainer.run(batches(10), max_epochs=epochs)


@pytest.mark.parametrize("kind", DIFFER)
def test_a_total_that_differs_is_warned_of_by_name(kind):
    make, message = DIFFER[kind]
    with pytest.warns(UserWarning, match=message) as told:
        run_with(make)
    assert len([each for each in told if "is made for" in str(each.message)]) == 1


@pytest.mark.parametrize("kind", FIT)
def test_a_total_that_fits_is_not(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_with(FIT[kind])


def test_under_accumulation_the_steps_are_fewer():
    with pytest.warns(UserWarning, match="OneCycleLR is made for 30 optimizer steps, but the run has 15"):
        run_with(lambda o: one_cycle(o, 30), GradientAccumulation(2))


def test_a_schedule_per_epoch_of_one_that_is_made_for_steps():
    with pytest.warns(UserWarning, match=r'for 30 epochs, but the run has 3: .*; per="step" would step it 30 times'):
        run_with(lambda o: one_cycle(o, 30), per="epoch")
    with pytest.warns(UserWarning, match=r'for 5 optimizer steps, but the run has 50: .*; per="epoch" would step it 5'):
        run_with(lambda o: lr_scheduler.CosineAnnealingLR(o, 5), epochs=5)


def test_training_on_warns_where_the_end_is_another():
    """The run that goes on to the same end was warned of, or was right, when it began."""
    trainer, optimizer = trainer_of()
    trainer.attach(Schedule(lr_scheduler.CosineAnnealingLR(optimizer, 20)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with trainer.add_event_handler(UpdateEvents.STEP_COMPLETED(once=14), trainer.interrupt):
            trainer.run(batches(10), max_epochs=2)
        assert trainer.run(batches(10), max_epochs=2).step == 20
    with pytest.warns(UserWarning, match="is made for 20 optimizer steps, but the run has 30: the learning rate rises"):
        assert trainer.run(batches(10), max_epochs=3).step == 30


# -- one scheduler, two handlers ---------------------------------------------------------------------------------------


def test_one_scheduler_in_two_schedules_is_refused():
    trainer, optimizer = trainer_of()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    trainer.attach(Schedule(scheduler))
    with pytest.raises(ValueError, match="both step the same ExponentialLR, which would go twice as fast; attach one"):
        trainer.attach(Schedule(scheduler, per="epoch"))
    chained = lr_scheduler.ChainedScheduler([scheduler])
    with pytest.raises(ValueError, match="both step the same"):
        trainer.attach(Schedule(chained))
    trainer.attach(Schedule(lr_scheduler.ExponentialLR(optimizer, 0.9)))
