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


# -- a batch that nobody closes ----------------------------------------------------------------------------------------


def never_closed(model, optimizer, update, batch):
    with update.forward():
        loss = model(batch).square().sum()
    update.accumulate(loss)


@pytest.mark.parametrize("handlers", [list, lambda: [GradientAccumulation(2, tail="carry")]])
def test_a_step_that_closes_no_batch_is_told_at_the_end_of_its_first_epoch(handlers):
    trainer, at = trainer_of(never_closed, names=("critic",)), []
    trainer.attach(*handlers())
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: at.append(len(caught)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.run(batches(4), max_epochs=3)
    (warning,) = caught
    assert str(warning.message).startswith('update "critic" went backward, and in the 4 iterations of this run so far')
    assert "Call update.close() after the last update.accumulate(loss)" in str(warning.message)
    assert at == [1, 1, 1]


def test_in_a_long_epoch_it_is_told_after_its_first_iterations():
    trainer, at = trainer_of(never_closed), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=101), lambda engine: at.append(len(caught)))
        trainer.run(batches(150))
    assert at == [1]
    assert "in the 100 iterations of this run so far no batch of it was closed" in str(caught[0].message)
    assert len(caught) == 1


def closed_every(number):
    def step(model, optimizer, update, batch):
        never_closed(model, optimizer, update, batch)
        if update.engine.state.iteration % number == 0:
            update.close()

    return step


@pytest.mark.parametrize("step", [closed_every(1), closed_every(3), right])
def test_batches_that_are_closed_at_some_time_are_right(step):
    trainer = trainer_of(step)
    assert told(lambda: trainer.run(batches(8), max_epochs=2)) == []
    trainer = trainer_of(step)
    trainer.attach(GradientAccumulation(8, tail="carry"))
    assert told(lambda: trainer.run(batches(7), max_epochs=5)) == []


def test_one_iteration_that_is_left_open_is_closed_by_its_epoch():
    assert told(lambda: trainer_of(never_closed).run(batches(1))) == []


def test_nothing_is_left_at_the_engine_after_a_run():
    trainer = trainer_of(right)
    before = str(trainer).splitlines()[1:]
    trainer.run(batches(2))
    assert str(trainer).splitlines()[1:] == before


# -- parameters that no optimizer has ----------------------------------------------------------------------------------


def partly_trained(late):
    """A trainer whose optimizer takes the first parameter alone, and the model."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))

    def make(parameters):
        return torch.optim.SGD(list(parameters)[:1], 0.01)

    return supervised_trainer(model, make if late else make(model.parameters()), nn.MSELoss()), model


PAIRS = [(torch.ones(2, 2), torch.ones(2, 1))] * 2


@pytest.mark.parametrize("late", [True, False], ids=["late", "ready-made"])
def test_parameters_that_the_optimizer_leaves_out_are_told_once_as_the_run_starts(late):
    trainer, _ = partly_trained(late)
    (warning,) = told(lambda: (trainer.run(PAIRS, max_epochs=1), trainer.run(PAIRS, max_epochs=2)))
    message = str(warning.message)
    assert message.startswith('the optimizer of update "default" leaves out 5 of the 6 parameters of its model')
    assert "(model/0.bias, model/1.weight, model/1.bias, ...): they will not be trained" in message
    assert "Freeze what is to stay as it is" in message
    assert warning.filename == __file__


@pytest.mark.parametrize("late", [True, False], ids=["late", "ready-made"])
def test_frozen_ones_may_be_left_out(late):
    trainer, model = partly_trained(late)
    for parameter in list(model.parameters())[1:]:
        parameter.requires_grad_(False)
    assert told(lambda: trainer.run(PAIRS)) == []


def test_those_of_another_update_of_the_engine_are_trained_by_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))

    def step(engine, batch):
        for update in updates:
            with update.forward():
                loss = model(batch).square().sum()
            update.backward(loss)

    trainer = Engine(step)
    updates = [Update(trainer, model, torch.optim.SGD(part.parameters(), 0.1), str(i)) for i, part in enumerate(model)]
    assert told(lambda: trainer.run(batches(2))) == []


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


def test_what_is_no_model_and_what_is_no_optimizer_is_named():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    wrong = r"takes its model, or a list of models, before the optimizer: .* but got a SGD as the model"
    with pytest.raises(TypeError, match=wrong):
        Update(Engine(print), optimizer, model)
    with pytest.raises(TypeError, match="but got a list as the model"):
        Update(Engine(print), [model, optimizer], optimizer)
    with pytest.raises(TypeError, match="takes the optimizer after its model, but got a second Linear"):
        Update(Engine(print), model, model)
    with pytest.raises(TypeError, match=r"an Update takes an optimizer or a list of them, .* but got a NoneType"):
        Update(Engine(print), model, None)
