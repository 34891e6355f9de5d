"""A saved state finds its handler by class and what tells it apart, in any order of attaching; else it is told."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from leyden.engine import Events, supervised_trainer
from leyden.handlers import EMA, Checkpoint, ClipGradients, EarlyStopping, Schedule
from leyden.handlers.checkpoint import read


def make(directory, *handlers, names=(), values=None, **options):
    """A run of 4 batches an epoch with two metrics; gives trainer, optimizer and a function that runs it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    trainer.declare_metrics("a/loss", "b/loss")

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure():
        trainer.state.metrics["a/loss"] = 1.0 + trainer.state.epoch
        trainer.state.metrics["b/loss"] = 9.0 - trainer.state.epoch

    built = [each(optimizer) if callable(each) and not hasattr(each, "attach") else each for each in handlers]
    for handler in built:
        trainer.attach(handler, name=dict(names).get(id(handler)))
    trainer.attach(Checkpoint(directory, resume="auto", **options))
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6,), generator=generator)) for _ in range(4)]
    return trainer, optimizer, lambda epochs: trainer.run(data, max_epochs=epochs)


def told(run, epochs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(epochs)
    return [str(each.message) for each in caught if "the script is not that of" in str(each.message)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_early_stoppings_in_any_order(order, tmp_path) -> None:
    first = EarlyStopping("a/loss", patience=50), EarlyStopping("b/loss", patience=50)
    make(tmp_path, *first)[2](2)
    second = EarlyStopping("a/loss", patience=50), EarlyStopping("b/loss", patience=50)
    _, _, run = make(tmp_path, *(second[place] for place in order))
    assert told(run, 3) == []
    assert [(each.best, each.waited) for each in second] == [(2.0, 2), (6.0, 0)]


def test_two_averages_the_other_way_round(tmp_path) -> None:
    slow, fast = EMA(0.99), EMA(0.1, evaluate=False)
    make(tmp_path, slow, fast)[2](2)
    kept = [each.averaged()["weight"] for each in (slow, fast)]
    assert not torch.equal(*kept)
    slow, fast = EMA(0.99), EMA(0.1, evaluate=False)
    trainer, _, run = make(tmp_path, fast, slow)
    seen = []
    trainer.add_event_handler(Events.STARTED, lambda: seen.extend(each.averaged()["weight"] for each in (slow, fast)))
    assert told(run, 3) == []
    assert all(map(torch.equal, seen, kept))


def test_the_labels_say_what_tells_states_apart(tmp_path) -> None:
    make(tmp_path, EMA(0.99), EMA(0.1, evaluate=False), EarlyStopping("a/loss", patience=50))[2](1)
    handlers = read(tmp_path).outline["engine"]["handlers"]
    assert sorted(handlers) == ["EMA(decay=0.1, evaluate=False)", "EMA(decay=0.99, evaluate=True)", "EarlyStopping"]


def test_a_schedule_that_is_gone_leaves_its_state_to_no_other(tmp_path) -> None:
    step, exponential = (
        (lambda o: Schedule(lr_scheduler.StepLR(o, 1, 0.9))),
        lambda o: Schedule(lr_scheduler.ExponentialLR(o, 0.5), per="epoch"),
    )
    make(tmp_path, step, exponential)[2](1)
    trainer, _, run = make(tmp_path, exponential)
    (said,) = told(run, 2)
    assert "Schedule(StepLR) is no longer attached; its state is left out" in said
    (schedule,) = trainer.find_handlers(Schedule)
    assert (schedule.scheduler.gamma, schedule.scheduler.last_epoch) == (0.5, 2)


def test_another_class_of_scheduler_takes_no_state_and_is_told(tmp_path) -> None:
    make(tmp_path, lambda o: Schedule(lr_scheduler.StepLR(o, 1, 0.9)))[2](1)
    trainer, _, run = make(tmp_path, lambda o: Schedule(lr_scheduler.ExponentialLR(o, 0.5)))
    (said,) = told(run, 2)
    assert "Schedule is no longer attached" in said
    assert "Schedule was not attached before, and begins anew" in said
    assert trainer.find_handlers(Schedule)[0].scheduler.gamma == 0.5


def test_another_gamma_is_told_at_each_resume_since_the_checkpoint_holds(tmp_path) -> None:
    make(tmp_path, lambda o: Schedule(lr_scheduler.StepLR(o, 1, 0.9)))[2](1)
    for epochs in (2, 3):
        trainer, _, run = make(tmp_path, lambda o: Schedule(lr_scheduler.StepLR(o, 1, 0.5)))
        (said,) = told(run, epochs)
        assert "gamma is 0.5, and was 0.9" in said
        assert trainer.find_handlers(Schedule)[0].scheduler.gamma == 0.9


def test_handlers_that_came_and_went_are_told_by_name_once(tmp_path) -> None:
    make(tmp_path, EarlyStopping("a/loss", patience=50), ClipGradients(norm=1.0))[2](1)
    make_again = lambda: make(tmp_path, EMA(0.9), ClipGradients(norm=2.0))  # noqa: E731
    (said,) = told(make_again()[2], 2)
    assert "EarlyStopping is no longer attached; its state is left out" in said
    assert "EMA was not attached before, and begins anew" in said
    assert "ClipGradients: norm is 2.0, and was 1.0" in said
    assert told(make_again()[2], 3) == []


class Counting:
    def __init__(self):
        self.count = 0

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.increase)

    def increase(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_twins_are_an_error_where_a_run_is_to_be_saved_and_only_there(tmp_path) -> None:
    _, _, run = make(tmp_path, Counting(), Counting())
    with pytest.raises(ValueError, match=r"two handlers Counting are .*\.attach\(Counting\(\.\.\.\), name="):
        run(1)
    model = nn.Linear(2, 1)
    unsaved = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    unsaved.attach(Counting(), Counting())
    unsaved.run([(torch.ones(1, 2), torch.ones(1, 1))])


def test_a_name_tells_twins_apart(tmp_path) -> None:
    one, other = Counting(), Counting()
    other.count = 100
    make(tmp_path, one, other, names=[(id(one), "one"), (id(other), "other")])[2](1)
    again, another = Counting(), Counting()
    make(tmp_path, another, again, names=[(id(again), "one"), (id(another), "other")])[2](2)
    assert (again.count, another.count) == (8, 108)


def test_a_name_is_one_handlers_alone(tmp_path) -> None:
    trainer, _, _ = make(tmp_path)
    trainer.attach(Counting(), name="one")
    with pytest.raises(ValueError, match="a handler 'one' is attached to this engine already"):
        trainer.attach(Counting(), name="one")
    with pytest.raises(ValueError, match="is for one handler, but 2"):
        trainer.attach(Counting(), Counting(), name="two")
    with pytest.raises(ValueError, match="a name without slashes"):
        trainer.attach(Counting(), name="a/b")


@pytest.mark.parametrize("resuming_first", [True, False])
def test_the_resuming_checkpoint_may_be_attached_first_or_second(resuming_first, make_run, tmp_path) -> None:
    def run(epochs):
        both = [Checkpoint(tmp_path / "last", keep=1, resume="auto"), Checkpoint(tmp_path / "other", keep=1)]
        made = make_run(*(both if resuming_first else both[::-1]))
        made.trainer.run(made.data, max_epochs=epochs)
        return made.losses

    whole = make_run()
    whole.trainer.run(whole.data, max_epochs=4)
    assert run(2) + run(4) == whole.losses
    assert [len(list((tmp_path / name).iterdir())) for name in ("last", "other")] == [1, 1]
