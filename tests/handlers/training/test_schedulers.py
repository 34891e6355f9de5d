"""Every scheduler of torch, stepped as the loop by hand steps it, and gone on with after a restart."""

import copy

import pytest
from by_hand import batches, equal
from torch.optim import lr_scheduler
from torch_schedulers import MAKE, METRIC, by_hand, by_handler, schedulers_of_torch, trainer_with

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint

PACES = {
    "each step": {},
    "each second step": {"every": 2},
    "each step of two batches": {"window": 2},
    "each step of three batches": {"window": 3},
    "each second step of two batches": {"window": 2, "every": 2},
    "each second step of three batches": {"window": 3, "every": 2},
    "each epoch": {"per": "epoch"},
    "each epoch of steps of three batches": {"per": "epoch", "window": 3},
    "each second epoch": {"per": "epoch", "every": 2},
}

CASES = [
    pytest.param(name, arguments, id=f"{name} {pace}")
    for name in MAKE
    for pace, arguments in PACES.items()
    if name not in METRIC or arguments.get("per") == "epoch"
]


def test_no_scheduler_of_torch_is_left_out():
    assert schedulers_of_torch() == set(MAKE)


def epochs_for(arguments):
    return 3 * arguments.get("every", 1) if arguments.get("per") == "epoch" else 3


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_it_is_the_loop_by_hand_to_the_bit(name, arguments):
    epochs = epochs_for(arguments)
    ours, our_values = by_handler(MAKE[name], epochs=epochs, **arguments)
    theirs, their_values = by_hand(MAKE[name], epochs=epochs, **arguments)
    assert our_values == their_values
    assert len({str(values) for values in our_values}) > 1  # it did something
    assert equal(ours, theirs)


@pytest.mark.parametrize(("window", "steps_an_epoch"), [(2, 5), (3, 4)])
def test_every_second_step_is_every_second_step_of_the_optimizer(window, steps_an_epoch):
    _, values = by_handler(MAKE["MultiplicativeLR"], window=window, every=2)
    rates = [first[0] for first, _ in values]
    assert len(rates) == 3 * steps_an_epoch
    assert rates == pytest.approx([0.1 * 0.97 ** (step // 2) for step in range(len(rates))])


# -- warm-up -----------------------------------------------------------------------------------------------------------

MADE_OF_OTHERS = {"ChainedScheduler", "SequentialLR"}
WARMED_UP = [name for name in MAKE if name not in MADE_OF_OTHERS | METRIC]


def warmed_up(name, steps, start=1 / 3):
    def make(optimizer):
        # Of its own: CyclicLR sets the learning rate that the warm-up leads to, so it has to come first.
        scheduler = MAKE[name](optimizer)
        rise = lr_scheduler.LinearLR(optimizer, start, total_iters=steps)
        return lr_scheduler.SequentialLR(optimizer, [rise, scheduler], milestones=[steps])

    return make


@pytest.mark.parametrize("arguments", [{}, {"window": 3, "every": 2}, {"per": "epoch"}], ids=str)
@pytest.mark.parametrize("name", WARMED_UP)
def test_a_warm_up_is_that_of_torch_to_the_bit(name, arguments):
    steps = 2 if "per" in arguments else 4
    ours, our_values = by_handler(MAKE[name], warmup=steps, **arguments)
    theirs, their_values = by_hand(warmed_up(name, steps), **arguments)
    assert our_values == their_values
    assert equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name in WARMED_UP if name != "CyclicLR"])
def test_it_is_so_too_where_the_warm_up_was_made_first(name):
    def make(optimizer):
        parts = [lr_scheduler.LinearLR(optimizer, 0.25, total_iters=5), MAKE[name](optimizer)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[5])

    ours, our_values = by_handler(MAKE[name], warmup=5, warmup_start=0.25)
    theirs, their_values = by_hand(make)
    assert our_values == their_values
    assert equal(ours, theirs)


def test_a_warm_up_rises_from_a_third_as_torch_has_it():
    _, values = by_handler(MAKE["StepLR"], warmup=4)
    assert [first[0] for first, _ in values[:5]] == pytest.approx([0.1 / 3, 0.05, 0.2 / 3, 0.25 / 3, 0.1])


def test_a_metric_is_watched_after_the_warm_up():
    def make(optimizer):
        plateau = MAKE["ReduceLROnPlateau"](optimizer)
        rise = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3)
        epochs = iter(range(8))
        return lambda loss: rise.step() if next(epochs) < 3 else plateau.step(loss)

    ours, our_values = by_handler(MAKE["ReduceLROnPlateau"], epochs=8, warmup=3, warmup_start=0.5)
    theirs, their_values = by_hand(make, per="epoch", epochs=8)
    assert our_values == their_values
    assert len({str(values) for values in our_values}) > 4
    assert equal(ours, theirs)


# -- its state ---------------------------------------------------------------------------------------------------------

RESUMED = [pytest.param(name, {"per": "epoch"} if name in METRIC else {}, id=name) for name in MAKE]
RESUMED += [
    pytest.param(name, {"warmup": 2, "per": "epoch"} if name in METRIC else {"warmup": 18}, id=f"{name} warmed up")
    for name in MAKE
    if name not in MADE_OF_OTHERS
]
RESUMED.append(pytest.param("StepLR", {"window": 3, "every": 2}, id="StepLR each second step of three batches"))


@pytest.mark.parametrize(("name", "arguments"), RESUMED)
def test_a_run_killed_in_mid_epoch_goes_on_from_its_checkpoint(name, arguments, tmp_path):
    """Three epochs of ten batches, stopped in the second epoch after a step, and continued by another process's
    objects, have the values and the weights of three epochs."""
    expected, expected_values = by_handler(MAKE[name], **arguments)

    keeps = Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(every=16))
    trainer, _, first_values = trainer_with(MAKE[name], keeps, **arguments)

    @trainer.on(Events.ITERATION_COMPLETED(once=18))
    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(batches(10), max_epochs=3)

    trainer, again, values = trainer_with(MAKE[name], Checkpoint(tmp_path, resume="auto"), **arguments)
    trainer.run(batches(10), max_epochs=3)
    kept = len(expected_values) - len(values)
    assert 0 < kept < len(expected_values)
    assert first_values[:kept] + values == expected_values
    assert equal(again, expected)


@pytest.mark.parametrize("name", MAKE)
def test_a_state_may_be_loaded_twice_and_stays_as_it_was_saved(name):
    arguments = {"per": "epoch"}
    trainer, _, _ = trainer_with(MAKE[name], **arguments)
    trainer.run(batches(2), max_epochs=2)
    schedule = trainer.handlers["Schedule"]
    state = schedule.state_dict()
    before = copy.deepcopy(state)
    trainer.run(batches(2), max_epochs=3)
    for _ in range(2):
        schedule.load_state_dict(state)
        assert state == before
    assert schedule.state_dict() == before
