"""A run that is stopped in the midst of an evaluation goes on in the midst of it."""

import functools
import os
import random
import signal
from types import SimpleNamespace

import pytest
import scenarios
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from leyden.engine import Engine, Events, Order, UpdateEvents, supervised_trainer
from leyden.handlers import EMA, SWA, EarlyStopping, Evaluate, GradientAccumulation
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Mean, RunningAverage

EVALUATED = 5  # batches


def batches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6,), generator=generator)) for _ in range(count)
    ]


def make(*handlers, on=Events.EPOCH_COMPLETED, second=None, data=None):
    """A run whose handlers draw random numbers and write down when they were called."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    calls = []

    def write(who):
        calls.append((who, trainer.state.epoch, trainer.state.iteration, torch.rand(()).item()))

    def evaluate(engine, batch):
        calls.append(("evaluated", trainer.state.iteration, engine.state.iteration))
        with torch.no_grad():
            return model(batch[0]).mean() + torch.rand(())  # a random number, as of augmentation

    evaluator = Engine(evaluate, training=False)
    Mean().attach(evaluator, "mean")
    RunningAverage(epoch_bound=False).attach(evaluator, "smooth")
    for event in (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        evaluator.add_event_handler(event, lambda event=event: calls.append(f"evaluator {event.name}"))
    RunningAverage().attach(trainer, "loss")
    for event in (
        Events.EPOCH_STARTED,
        Events.ITERATION_COMPLETED,
        Events.TERMINATE_SINGLE_EPOCH,
        Events.EPOCH_COMPLETED,
        Events.COMPLETED,
    ):
        trainer.add_event_handler(event, write, f"first at {event.name}", order=Order.METRICS - 5)
        trainer.add_event_handler(event, write, f"last at {event.name}", order=Order.SAVERS + 5)
        trainer.add_event_handler(
            event,
            lambda: calls.append(("output", None if trainer.state.output is None else trainer.state.output.item())),
        )
    trainer.attach(
        Evaluate(evaluator, batches(EVALUATED, seed=2) if data is None else data, prefix="val/", on=on),
        *([] if second is None else [Evaluate(evaluator, batches(3, seed=3), prefix="test/", on=second)]),
        *handlers,
    )
    return SimpleNamespace(model=model, trainer=trainer, evaluator=evaluator, calls=calls)


def stop_at(run, evaluation, batch, how=None):
    """Interrupts the trainer while the `evaluation`-th evaluation works on its `batch`-th batch."""
    seen = []

    @run.evaluator.on(Events.ITERATION_COMPLETED)
    def count(engine):
        if engine.state.iteration == 1:
            seen.append(1)
        if len(seen) == evaluation and engine.state.iteration == batch:
            (how or run.trainer.interrupt)()


def assert_same(run, reference):
    for name, value in reference.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
    assert dict(run.trainer.state.metrics) == dict(reference.trainer.state.metrics)
    assert run.trainer.state.iteration == reference.trainer.state.iteration


DATA = batches(4, seed=1)
LIMITS = {"max_epochs": 3}
WHEN = {
    "epoch completed": Events.EPOCH_COMPLETED,
    "epoch started": Events.EPOCH_STARTED,
    "iteration completed": Events.ITERATION_COMPLETED(every=3),
    "completed": Events.COMPLETED,
    "several": Events.EPOCH_STARTED | Events.ITERATION_COMPLETED(every=2) | Events.COMPLETED,
}
PLACES = {
    "epoch completed": [(1, 1), (2, 3), (3, 5)],
    "epoch started": [(2, 1), (3, 5)],
    "iteration completed": [(1, 2), (3, 5), (4, 1)],
    "completed": [(1, 1), (1, 5)],
    "several": [(2, 2), (5, 1), (9, 3), (10, 4)],
}


def handlers():
    return GradientAccumulation(3, tail="carry"), EMA(0.9), EarlyStopping("val/mean", mode="max", patience=5)


@pytest.mark.parametrize("in_process", [False, True], ids=["in another process", "in the same process"])
@pytest.mark.parametrize(("when", "place"), [(when, place) for when in WHEN for place in PLACES[when]])
def test_it_goes_on_at_the_next_batch_of_the_evaluation(when, place, in_process, tmp_path) -> None:
    reference = make(*handlers(), on=WHEN[when])
    reference.trainer.run(DATA, **LIMITS)

    run = make(*handlers(), Checkpoint(tmp_path, resume="auto"), on=WHEN[when])
    stop_at(run, *place)
    run.trainer.run(DATA, **LIMITS)
    calls = list(run.calls)
    assert calls[-1] == ("evaluated", calls[-1][1], place[1])  # both stopped after that batch, and nothing else ran
    assert len(calls) < len(reference.calls)

    if not in_process:
        run = make(*handlers(), Checkpoint(tmp_path, resume="auto"), on=WHEN[when])
    run.calls.clear()
    run.trainer.run(DATA, **LIMITS)
    assert calls + run.calls == reference.calls
    assert_same(run, reference)


def test_before_the_first_batch_of_the_run_there_is_nothing_to_keep(tmp_path) -> None:
    run = make(Checkpoint(tmp_path, resume="auto"), on=Events.EPOCH_STARTED)
    stop_at(run, 1, 2)
    run.trainer.run(DATA, **LIMITS)
    assert run.trainer.state.iteration == 0
    assert list(tmp_path.iterdir()) == []
    run.trainer.run(DATA, **LIMITS)  # but in this process it goes on
    assert [call[2] for call in run.calls if call[0] == "evaluated"] == [1, 2, 3, 4, 5] * 3


def test_it_may_be_stopped_again_and_again(tmp_path) -> None:
    reference = make(SWA(1, lr=0.05))
    reference.trainer.run(DATA, **LIMITS)
    calls = []
    for place in [(1, 1), (1, 3), (1, 5), (1, 2), (2, 4)]:
        run = make(SWA(1, lr=0.05), Checkpoint(tmp_path, resume="auto"))
        stop_at(run, *place) if place[1] == 1 or place == (1, 2) else stop_after(run, place)
        run.trainer.run(DATA, **LIMITS)
        calls += run.calls
    run = make(SWA(1, lr=0.05), Checkpoint(tmp_path, resume="auto"))
    run.trainer.run(DATA, **LIMITS)
    assert calls + run.calls == reference.calls
    assert_same(run, reference)


def stop_after(run, place):
    """Interrupts at that batch, of whichever evaluation comes to it first."""

    @run.evaluator.on(Events.ITERATION_COMPLETED)
    def stop(engine):
        if engine.state.iteration == place[1]:
            run.trainer.interrupt()


@pytest.mark.parametrize("place", [(1, 2), (2, 2), (3, 4), (4, 1)])
def test_of_two_evaluations_by_one_evaluator_the_second_goes_on_where_it_was(place, tmp_path) -> None:
    kinds = {"on": Events.EPOCH_COMPLETED, "second": Events.EPOCH_COMPLETED}
    # A metric of the first evaluation is still new for who watches it when the second one was stopped.
    reference = make(EarlyStopping("val/mean", mode="min", patience=2), **kinds)
    reference.trainer.run(DATA, **LIMITS)
    run = make(EarlyStopping("val/mean", mode="min", patience=2), Checkpoint(tmp_path, resume="auto"), **kinds)
    stop_at(run, *place)
    run.trainer.run(DATA, **LIMITS)
    assert run.calls[-1][0] == "evaluated"
    calls = list(run.calls)
    run = make(EarlyStopping("val/mean", mode="min", patience=2), Checkpoint(tmp_path, resume="auto"), **kinds)
    run.trainer.run(DATA, **LIMITS)
    assert calls + run.calls == reference.calls
    assert_same(run, reference)


def test_in_the_last_evaluation_of_a_run_that_was_terminated(tmp_path) -> None:
    def runs(*handlers):
        run = make(*handlers, on=Events.COMPLETED)
        run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), run.trainer.terminate)
        return run

    reference = runs()
    reference.trainer.run(DATA, **LIMITS)
    run = runs(Checkpoint(tmp_path, resume="auto"))
    stop_at(run, 1, 3)
    run.trainer.run(DATA, **LIMITS)
    calls = list(run.calls)
    run = runs(Checkpoint(tmp_path, resume="auto"))
    run.trainer.run(DATA, **LIMITS)
    assert calls + run.calls == reference.calls
    assert_same(run, reference)


def test_after_the_last_evaluation_a_larger_limit_goes_on_with_training(tmp_path) -> None:
    run = make(Checkpoint(tmp_path, resume="auto"), on=Events.COMPLETED)
    stop_at(run, 1, 3)
    run.trainer.run(DATA, max_epochs=1)
    run = make(Checkpoint(tmp_path, resume="auto"), on=Events.COMPLETED)
    run.trainer.run(DATA, max_epochs=2)
    assert run.trainer.state.iteration == 8
    assert [call[2] for call in run.calls if call[0] == "evaluated"] == [1, 2, 3, 4, 5]  # of the model of then


def test_a_signal_stops_both(tmp_path) -> None:
    run = make(Checkpoint(tmp_path, resume="auto"))
    before = signal.signal(signal.SIGUSR1, lambda *_: run.trainer.interrupt())
    try:
        stop_at(run, 2, 3, how=lambda: os.kill(os.getpid(), signal.SIGUSR1))
        run.trainer.run(DATA, **LIMITS)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert run.calls[-1] == ("evaluated", 8, 3)
    assert run.evaluator.interrupted
    assert run.trainer.interrupted


def test_terminate_lets_the_evaluation_finish() -> None:
    run = make()
    stop_at(run, 2, 3, how=run.trainer.terminate)
    run.trainer.run(DATA, **LIMITS)
    assert run.trainer.state.epoch == 2
    assert [call[2] for call in run.calls if call[0] == "evaluated"] == [1, 2, 3, 4, 5] * 2
    assert ("last at EPOCH_COMPLETED", 2, 8) in [call[:3] for call in run.calls]
    assert ("last at COMPLETED", 2, 8) in [call[:3] for call in run.calls]


def test_a_wish_to_terminate_outlives_the_interrupt(tmp_path) -> None:
    for _ in range(2):
        run = make(Checkpoint(tmp_path, resume="auto"))
        run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), run.trainer.terminate, order=Order.METRICS)
        stop_at(run, 2, 3)
        run.trainer.run(DATA, **LIMITS)
    assert run.trainer.state.epoch == 2
    assert ("last at COMPLETED", 2, 8) in [call[:3] for call in run.calls]


def test_an_interrupt_that_came_before_stops_the_evaluation_before_its_first_batch(tmp_path) -> None:
    reference = make()
    reference.trainer.run(DATA, **LIMITS)
    run = make(Checkpoint(tmp_path, resume="auto"))
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), run.trainer.interrupt, order=Order.METRICS)
    run.trainer.run(DATA, **LIMITS)
    assert [call for call in run.calls if call[0] == "evaluated" and call[1] == 8] == []
    calls = list(run.calls)
    run = make(Checkpoint(tmp_path, resume="auto"))
    run.trainer.run(DATA, **LIMITS)
    assert calls + run.calls == reference.calls


def test_within_a_step_the_evaluation_is_finished_first() -> None:
    run = make(on=UpdateEvents.STEP_COMPLETED(every=2))
    stop_at(run, 2, 3)
    run.trainer.run(DATA, **LIMITS)
    assert run.trainer.state.iteration == 4
    assert [call[2] for call in run.calls if call[0] == "evaluated"] == [1, 2, 3, 4, 5] * 2
    run.trainer.run(DATA, **LIMITS)
    assert run.trainer.state.iteration == 12


def test_the_state_dict_of_the_engine_has_it_too() -> None:
    reference = make()
    reference.trainer.run(DATA, **LIMITS)
    run = make()
    stop_at(run, 2, 3)
    run.trainer.run(DATA, **LIMITS)
    engine, model = run.trainer.state_dict(), run.model.state_dict()
    optimizer = run.trainer.updates["default"].optimizer.state_dict()
    random = torch.get_rng_state()
    calls = list(run.calls)
    fresh = make()
    fresh.trainer.load_state_dict(engine)
    fresh.model.load_state_dict(model)
    fresh.trainer.updates["default"].optimizer.load_state_dict(optimizer)
    torch.set_rng_state(random)
    fresh.trainer.run(DATA, **LIMITS)
    assert calls + fresh.calls == reference.calls


def test_a_run_from_the_beginning_begins_its_evaluations_anew() -> None:
    run = make()
    stop_at(run, 1, 3)
    run.trainer.run(DATA, **LIMITS)
    run.trainer.state.max_epochs = None
    run.calls.clear()
    run.trainer.run(DATA, max_epochs=1)
    assert [call[2] for call in run.calls if call[0] == "evaluated"] == [1, 2, 3, 4, 5]


def test_a_run_without_the_handler_in_which_it_stopped_is_told(tmp_path) -> None:
    run = make(Checkpoint(tmp_path, resume="auto"))
    stop_at(run, 1, 3)
    run.trainer.run(DATA, **LIMITS)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters()), nn.CrossEntropyLoss())
    trainer.attach(Checkpoint(tmp_path, resume="auto"))
    with pytest.raises(ValueError, match=r"stopped within Evaluate.evaluate_at, at Events.EPOCH_COMPLETED"):
        trainer.run(DATA, **LIMITS)


def test_an_output_that_is_no_data_is_left_out_and_told() -> None:
    trainer, evaluator = Engine(lambda engine, batch: object()), Engine(lambda engine, batch: batch, training=False)
    trainer.attach(Evaluate(evaluator, [1, 2], on=Events.ITERATION_COMPLETED))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, trainer.interrupt)
    trainer.run([1, 2])
    with pytest.warns(UserWarning, match=r"state.output is not saved: it has a object"):
        state = trainer.state_dict()
    assert state["own"]["state"]["suspended"]["batch"]["value"] == 1


class Augmented(Dataset):
    """Samples with random numbers in them, drawn where they are loaded."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 4, generator=generator)
        self.y = torch.randint(0, 2, (count,), generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(4) + random.random(), self.y[index]


def loaders(own_generator):
    """A loader for training and one for evaluations, both shuffled, both with random numbers in their samples."""
    generator = torch.Generator().manual_seed(5) if own_generator else None
    return (
        DataLoader(Augmented(24, 1), batch_size=6, shuffle=True),
        DataLoader(Augmented(30, 2), batch_size=6, shuffle=True, generator=generator),
    )


@pytest.mark.parametrize("own_generator", [False, True], ids=["global generator", "generator of its own"])
@pytest.mark.parametrize("place", [None, (1, 2), (2, 5), (3, 1)])
def test_shuffled_loaders_with_random_samples(place, own_generator, tmp_path) -> None:
    def run(*handlers, stop=False):
        random.seed(0)
        train, evaluated = loaders(own_generator)
        made = make(*handlers, data=evaluated)
        if stop and place is None:  # in training, between two evaluations
            made.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), made.trainer.interrupt)
        elif stop:
            stop_at(made, *place)
        made.trainer.run(train, **LIMITS)
        return made

    reference = run()
    calls = run(Checkpoint(tmp_path, resume="auto"), stop=True).calls
    resumed = run(Checkpoint(tmp_path, resume="auto"))
    assert calls + resumed.calls == reference.calls
    assert_same(resumed, reference)


# -- several ranks -------------------------------------------------------------------------------------------------


play = functools.partial(scenarios.play, "evaluation_ranks.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def two(base):
    return play(2, base, "whole", "stopped", "resumed")


def test_what_one_rank_was_told_stops_all_at_the_same_batch(two) -> None:
    first, second = two["stopped"]
    assert first["iteration"] == second["iteration"] == 8
    assert first["evaluated"] == second["evaluated"]
    assert 4 <= first["evaluated"] < 30
    assert len(first["orders"]) == 3  # METRICS and SAVERS of the first epoch, METRICS of the second


def test_all_ranks_go_on_in_the_midst_of_the_evaluation(two) -> None:
    for whole, stopped, resumed in zip(two["whole"], two["stopped"], two["resumed"], strict=True):
        for what in ("losses", "seen", "orders"):
            assert stopped[what] + resumed[what] == whole[what]
        assert resumed["weights"] == whole["weights"]
        assert resumed["mean"] == whole["mean"]


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_another_number_of_ranks_evaluates_anew(count, two, base) -> None:
    ranks = play(count, base, "resumed")["resumed"]
    # Of the epoch in which it was stopped each batch is seen once, and those handlers that had run do not run again.
    assert sum(1 for rank in ranks for epoch, *_ in rank["seen"] if epoch == 2) == 61
    assert [name for name, _ in ranks[0]["orders"]] == ["SAVERS", "METRICS", "SAVERS"]
