"""Updates that train nothing, and optimizers that are stepped beside their update: told once, by name."""

import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, supervised_trainer
from leyden.handlers import DryRun, GradientAccumulation, LearningRateFinder, MixedPrecision, Schedule

pytestmark = pytest.mark.timeout(60)


def batches(number):
    return [torch.ones(2, 2)] * number


def trainer_of(step, names=("default",), optimizer=torch.optim.SGD):
    """A trainer of `step(model, optimizer, update)`, the first of the updates that have these names."""
    models = [nn.Linear(2, 1) for _ in names]
    trainer = Engine(lambda engine, batch: step(models[0], optimizers[0], updates[0], batch))
    optimizers = [optimizer(model.parameters(), 0.01) for model in models]
    updates = [Update(trainer, *each) for each in zip(models, optimizers, names, strict=True)]
    return trainer


def told(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [each for each in caught if "update " in str(each.message)]


def right(model, optimizer, update, batch):
    with update.forward():
        loss = model(batch).square().sum()
    update.backward(loss)
    return loss.detach()


def nothing(model, optimizer, update, batch):
    return model(batch).sum()


def forward_alone(model, optimizer, update, batch):
    with update.forward():
        return model(batch).sum()


def own_step_after(model, optimizer, update, batch):
    right(model, optimizer, update, batch)
    optimizer.step()


def own_step_before(model, optimizer, update, batch):
    model(batch).sum().backward()
    optimizer.step()
    right(model, optimizer, update, batch)


def own_step_alone(model, optimizer, update, batch):
    model(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def by_closure(model, optimizer, update, batch):
    update.step(lambda: model(batch).square().sum())


# -- an update that never goes backward --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [nothing, forward_alone])
def test_an_update_that_never_goes_backward_is_named_at_the_end_of_the_run(step):
    trainer = trainer_of(step, names=("critic",))
    (warning,) = told(lambda: trainer.run(batches(2), max_epochs=2))
    assert str(warning.message).startswith('update "critic" never went backward in the 4 iterations of this run')
    assert "update.backward(loss)" in str(warning.message)
    assert told(lambda: trainer.run(batches(2), max_epochs=2)) == []


def test_of_two_updates_the_unused_one():
    trainer = trainer_of(right, names=("generator", "critic"))
    (warning,) = told(lambda: trainer.run(batches(1)))
    assert '"critic" never went backward in the 1 iteration of' in str(warning.message)


def test_it_is_told_where_a_stopper_ends_the_run_after_an_epoch():
    trainer = trainer_of(nothing)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, trainer.terminate)
    assert len(told(lambda: trainer.run(batches(2), max_epochs=5))) == 1


def ended_early(trainer):
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)


def interrupted(trainer):
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.interrupt)


def dry(trainer):
    trainer.attach(DryRun(1))


def nothing_to_do(trainer):
    trainer.add_event_handler(Events.STARTED, trainer.terminate)


@pytest.mark.parametrize("prepare", [ended_early, interrupted, dry, nothing_to_do])
def test_runs_that_are_not_whole_say_nothing(prepare):
    trainer = trainer_of(nothing)
    prepare(trainer)
    assert told(lambda: trainer.run(batches(4), max_epochs=2)) == []


def test_steps_that_all_overflow_and_a_window_that_never_closes_have_messages_of_their_own():
    def overflow(model, optimizer, update, batch):
        with update.forward():
            loss = model(batch).sum() * float("inf")
        update.backward(loss)

    trainer = trainer_of(overflow)
    trainer.attach(MixedPrecision("fp16"))
    assert [each for each in told(lambda: trainer.run(batches(3))) if "never went" in str(each.message)] == []
    assert trainer.state.step == 0
    trainer = trainer_of(right)
    trainer.attach(GradientAccumulation(4))
    assert [each for each in told(lambda: trainer.run(batches(2))) if "never went" in str(each.message)] == []


def test_an_update_of_which_an_earlier_part_of_the_run_made_steps():
    def first_alone(model, optimizer, update, batch):
        if update.engine.state.epoch == 1:
            right(model, optimizer, update, batch)

    trainer = trainer_of(first_alone)
    assert told(lambda: (trainer.run(batches(2), max_epochs=1), trainer.run(batches(2), max_epochs=2))) == []


# -- the optimizer's step beside the update ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", [own_step_after, own_step_before, own_step_alone])
def test_a_step_of_ones_own_is_told_once_where_it_is_made(step):
    trainer = trainer_of(step, names=("critic",))
    (warning,) = told(lambda: trainer.run(batches(5), max_epochs=2))
    assert str(warning.message).startswith('a step of SGD, the optimizer of update "critic", was made outside of')
    assert "Let update.backward(loss) do it alone" in str(warning.message)
    assert warning.filename == __file__
    assert told(lambda: trainer.run(batches(5), max_epochs=4)) == []


def test_one_in_a_handler_in_the_first_iteration_of_a_short_run():
    trainer = trainer_of(right)
    (optimizer,) = (update.optimizer for update in trainer.updates.values())
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: optimizer.step())
    assert len(told(lambda: trainer.run(batches(1)))) == 1


def scheduled(trainer):
    (update,) = trainer.updates.values()
    trainer.attach(Schedule(torch.optim.lr_scheduler.ExponentialLR(update.optimizer, 0.99)))


def scaled(trainer):
    trainer.attach(MixedPrecision("fp16"))


def accumulated(trainer):
    trainer.attach(GradientAccumulation(2))


def searched(trainer):
    trainer.attach(LearningRateFinder(steps=5))


@pytest.mark.parametrize("prepare", [scheduled, scaled, accumulated, searched, lambda trainer: None])
def test_the_updates_own_steps_are_right(prepare):
    trainer = trainer_of(right)
    prepare(trainer)
    assert told(lambda: trainer.run(batches(8))) == []


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.LBFGS])
def test_steps_by_closure_are_right(optimizer):
    trainer = trainer_of(by_closure, optimizer=optimizer)
    assert told(lambda: trainer.run(batches(4))) == []


def test_an_optimizer_of_which_there_is_no_update():
    own = nn.Linear(2, 1)
    of_its_own = torch.optim.SGD(own.parameters(), 0.01)

    def both(model, optimizer, update, batch):
        right(model, optimizer, update, batch)
        own(batch).sum().backward()
        of_its_own.step()

    trainer = trainer_of(both)
    assert told(lambda: trainer.run(batches(4))) == []


def hooks(optimizer):
    return len(optimizer._optimizer_step_post_hooks)


def test_nothing_is_left_at_the_optimizer_after_the_first_steps():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    trainer = supervised_trainer(model, optimizer, nn.MSELoss())
    counts = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: counts.append(hooks(optimizer)))
    pair = (torch.ones(2, 2), torch.ones(2, 1))
    trainer.run([pair] * 5)
    assert counts == [1, 1, 0, 0, 0]
    trainer.run([pair] * 2, max_epochs=2)
    assert counts[5:] == [0, 0]


def test_nothing_is_left_after_a_short_run_or_an_error():
    trainer = trainer_of(right)
    (update,) = trainer.updates.values()
    trainer.run(batches(1))
    assert hooks(update.optimizer) == 0
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run(batches(1), max_epochs=2)
    assert hooks(update.optimizer) == 0
