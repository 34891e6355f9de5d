"""Evaluate with an evaluator over another model than the one that is trained: told once, unless that is meant."""

import copy
import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents, custom_evaluator, supervised_evaluator
from leyden.engine import supervised_trainer as trainer_of
from leyden.handlers import EMA, Compile, DataParallel, Evaluate, MixedPrecision

pytestmark = pytest.mark.timeout(60)

DATA = [(torch.ones(4, 2), torch.ones(4, 1))] * 2


class Student(nn.Linear):
    pass


class Teacher(nn.Linear):
    pass


def train(model):
    return trainer_of(model, torch.optim.SGD(model.parameters(), 0.01), nn.MSELoss())


def told(trainer, epochs=2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.run(DATA, max_epochs=epochs)
    return [str(each.message) for each in caught if "share no module" in str(each.message)]


def test_both_classes_are_named_once():
    trainer = train(Student(2, 1))
    trainer.attach(Evaluate(supervised_evaluator(Teacher(2, 1)), DATA, prefix="val/"))
    (message,) = told(trainer)
    assert message.startswith("Evaluate(prefix='val/') evaluates a Teacher, and the trainer trains a Student, which")
    assert "Make the evaluator with the model that is trained" in message
    assert told(trainer, epochs=4) == []


def test_it_is_told_before_the_first_step():
    trainer = train(Student(2, 1))
    trainer.attach(Evaluate(supervised_evaluator(Student(2, 1)), DATA))
    trainer.add_event_handler(Events.STARTED, trainer.terminate)
    assert len(told(trainer)) == 1
    assert trainer.state.iteration == 0


def test_a_second_model_of_the_same_class_and_an_evaluator_of_ones_own_step():
    trainer, other = train(Student(2, 1)), Student(2, 1)
    trainer.attach(Evaluate(custom_evaluator(other, lambda engine, batch: other(batch[0])), DATA))
    assert "evaluates a Student, and the trainer trains a Student" in told(trainer)[0]


def wrapped(model):
    return supervised_evaluator(nn.Sequential(model, nn.Identity()))


def a_part(model):
    part = model[0]
    return custom_evaluator(part, lambda engine, batch: part(batch[0]))


def averaged(model):
    return supervised_evaluator(torch.optim.swa_utils.AveragedModel(model))


def nothing_to_train(model):
    return supervised_evaluator(nn.Identity())


def unknown(model):
    other = nn.Linear(2, 1).eval()
    return Engine(lambda engine, batch: other(batch[0]), training=False)


def compiled(model):
    return supervised_evaluator(torch.compile(model, backend="eager"))


def tied(model):
    other = nn.Linear(2, 1)
    other.weight = model[0].weight
    return supervised_evaluator(other)


@pytest.mark.parametrize("make", [supervised_evaluator, wrapped, a_part, averaged, nothing_to_train, unknown, tied])
def test_what_shares_a_module_or_is_an_average_or_not_known_is_not_told(make):
    model = nn.Sequential(nn.Linear(2, 1))
    trainer = train(model)
    trainer.attach(Evaluate(make(model), DATA))
    assert told(trainer) == []


def test_a_compiled_view_of_the_model_is_the_model():
    model = nn.Sequential(nn.Linear(2, 1))
    trainer = train(model)
    evaluator = compiled(model)
    evaluator.add_event_handler(Events.STARTED, evaluator.terminate)
    trainer.attach(Evaluate(evaluator, DATA))
    assert told(trainer) == []


def test_handlers_that_alter_the_model_leave_it_the_model():
    model = nn.Sequential(nn.Linear(2, 1))
    trainer = train(model)
    trainer.attach(
        Evaluate(supervised_evaluator(model), DATA),
        EMA(0.9),
        DataParallel(),
        MixedPrecision("bf16"),
        Compile(backend="eager"),
    )
    assert told(trainer) == []


def test_a_teacher_beside_the_evaluation_of_the_model():
    model = Student(2, 1)
    trainer = train(model)
    trainer.attach(Evaluate(supervised_evaluator(Teacher(2, 1)), DATA, prefix="teacher/"))
    trainer.attach(Evaluate(supervised_evaluator(model), DATA, prefix="val/"))
    assert told(trainer) == []


def test_a_teacher_of_which_the_process_function_learns():
    student, teacher = Student(2, 1), Teacher(2, 1)

    def distil(engine, batch):
        update.backward((student(batch[0]) - teacher(batch[0]).detach()).square().mean())

    trainer = Engine(distil)
    update = Update(trainer, student, torch.optim.SGD(student.parameters(), 0.01))
    trainer.attach(Evaluate(supervised_evaluator(teacher), DATA))
    assert told(trainer) == []


@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, UpdateEvents.STEP_COMPLETED])
def test_an_average_that_a_handler_of_the_trainer_keeps(event):
    model = Student(2, 1)
    average = copy.deepcopy(model)
    trainer = train(model)

    @trainer.on(event)
    def follow(engine):
        for mine, its in zip(average.parameters(), model.parameters(), strict=True):
            mine.data.lerp_(its.data, 0.1)

    trainer.attach(Evaluate(supervised_evaluator(average), DATA))
    assert told(trainer) == []


def test_a_copy_that_a_handler_of_the_evaluator_fills():
    model = Student(2, 1)
    other = copy.deepcopy(model)
    trainer, evaluator = train(model), supervised_evaluator(other)
    evaluator.add_event_handler(Events.STARTED, lambda engine: other.load_state_dict(model.state_dict()))
    trainer.attach(Evaluate(evaluator, DATA))
    assert told(trainer) == []


def test_a_copy_that_an_object_of_the_users_keeps():
    class Keeper:
        def __init__(self, model):
            self.copy = copy.deepcopy(model)

        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.follow)

        def follow(self, engine):
            pass

    model = Student(2, 1)
    trainer, keeper = train(model), Keeper(model)
    trainer.attach(keeper, Evaluate(supervised_evaluator(keeper.copy), DATA))
    assert told(trainer) == []
