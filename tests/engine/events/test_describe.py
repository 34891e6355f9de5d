"""What `print(engine)` shows: which handler runs on which event, in which order, under which filter."""

import torch
from torch import nn

from leyden.engine import DataStage, Engine, Events, Order, Stage, Update, UpdateEvents


class Saver:
    """A handler object."""

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), self.save, order=Order.SAVERS)

    def save(self, engine):
        raise AssertionError


def train_step(engine, batch):
    return None


def note(engine):
    raise AssertionError


def check(engine):
    raise AssertionError


def test_an_engine_with_nothing():
    assert str(Engine(train_step)) == (
        "Engine of train_step, State(epoch=0, iteration=0, step=0, epoch_length=?)\nattached: nothing"
    )


def test_events_handlers_filters_and_order():
    engine = Engine(train_step)
    engine.attach(Saver())
    engine.add_event_handler(Events.EPOCH_COMPLETED, check, order=Order.METRICS)
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=50, before=1000), note)
    engine.add_event_handler(Events.EPOCH_COMPLETED, note)
    assert str(engine) == (
        "Engine of train_step, State(epoch=0, iteration=0, step=0, epoch_length=?)\n"
        "attached: Saver\n"
        "  Events.ITERATION_COMPLETED\n"
        "      +0  note  [every=50, before=1000]\n"
        "  Events.EPOCH_COMPLETED\n"
        "      -10  check\n"
        "      +0  note\n"
        "      +10  Saver.save  [every=2]"
    )


def test_what_is_done_before_a_run_in_the_order_of_doing_it():
    engine = Engine(train_step)
    engine.data_setup.add(DataStage.LIMIT, list, owner="LimitBatches")
    engine.data_setup.add(DataStage.DEAL, list, owner=Saver())
    engine.data_setup.add(DataStage.SEED, list)  # of nobody
    engine.setup.add(Stage.COMPILE, list, owner="Compile(mode=None)")
    engine.setup.add(Stage.DEVICE, list, owner=Saver())
    engine.setup.add(Stage.DATA, list)
    before = str(engine)
    assert before.splitlines()[2:] == [
        "setup",
        "      DEVICE  Saver",
        "      COMPILE  Compile(mode=None)",
        "data",
        "      DEAL  Saver",
        "      LIMIT  LimitBatches",
    ]
    engine.run([None])
    assert str(engine).splitlines()[2:] == before.splitlines()[2:]  # what is done stays told


def test_an_update_and_who_fills_its_slots():
    model = nn.Linear(1, 1)
    engine = Engine(train_step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1), name="critic")
    update.slots.claim("window", Saver(), lambda: 2)
    engine.add_event_handler(UpdateEvents.STEP_COMPLETED(every=10), note)
    assert str(engine).splitlines()[2:] == [
        "update 'critic': SGD on Linear; window by Saver",
        "  UpdateEvents.STEP_COMPLETED",
        "      +0  note  [every=10]",
    ]


def test_handlers_of_every_kind_have_a_name():
    class Callable:
        def __call__(self):
            raise AssertionError

    engine = Engine(train_step)
    for handler in (lambda: None, Callable(), Saver().save, engine.terminate):
        engine.add_event_handler(Events.STARTED, handler)
    text = str(engine)
    assert "<lambda>" in text
    assert "Callable" in text
    assert "Saver.save" in text
    assert "Engine.terminate" in text
