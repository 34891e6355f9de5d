"""What counts as the best are the weights that were evaluated, whenever evaluations and saves fall."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, Evaluate, GradientAccumulation
from leyden.handlers.checkpoint import load_weights, verify
from leyden.metrics import Mean


def batches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)) for _ in range(count)]


class Run:
    """7 batches an epoch, and an evaluation whose value differs for any two weights."""

    def __init__(self, directory, *handlers, evaluate=None, **options):
        torch.manual_seed(0)
        self.model, self.seen = nn.Linear(4, 1), []
        optimizer = torch.optim.SGD(self.model.parameters(), 0.3)
        self.trainer = supervised_trainer(self.model, optimizer, nn.MSELoss())
        self.evaluator = self.evaluator_of(self.model)
        self.checkpoint = Checkpoint(directory, best="val/loss", mode="min", **options)
        self.trainer.attach(Evaluate(self.evaluator, batches(3, 2), prefix="val/", **(evaluate or {})))
        self.trainer.attach(self.checkpoint, *handlers)
        self.evaluator.add_event_handler(Events.COMPLETED, self.note)

    @staticmethod
    def evaluator_of(model):
        evaluator = supervised_evaluator(model)
        Mean(lambda output: (output[0] - output[1]).square().mean()).attach(evaluator, "loss")
        return evaluator

    def note(self):
        self.seen.append(self.evaluator.state.metrics["loss"])

    def go(self, epochs=4, **options):
        self.trainer.run(batches(7, 1), max_epochs=epochs, **options)
        return self


def scored(directory):
    """Of each checkpoint with the metric: what its manifest says, and what its weights evaluate to."""
    found = []
    for path in sorted(directory.glob("epoch=*")):
        manifest = verify(path)
        if "val/loss" in manifest.scored:
            model = nn.Linear(4, 1)
            load_weights(path, model)
            loss = Run.evaluator_of(model).run(batches(3, 2)).metrics["loss"]
            found.append((manifest.metrics["val/loss"], loss))
    return found


def assert_best_are(directory, values, count):
    """All that are scored are right, and the best of the values that were seen are there."""
    found = scored(directory)
    assert all(said == measured for said, measured in found), found
    assert sorted(said for said, _ in found)[:count] == sorted(values)[:count]


STEPS = Events.ITERATION_COMPLETED
WAYS = {
    "saves by iterations": ({"event": STEPS(every=5)}, {}),
    "saves by steps": ({"event": UpdateEvents.STEP_COMPLETED(every=5)}, {}),
    "saves each 3rd epoch, of 2nd evaluations": ({"every": 3}, {"every": 2}),
    "by the clock": ({"every_minutes": 1000}, {}),
    "by a clock that is always due": ({"every_minutes": 1e-9}, {}),
    "evaluated by iterations": ({}, {"on": STEPS(every=4)}),
    "evaluated at each iteration": ({"event": STEPS(every=3)}, {"on": STEPS}),
    "evaluated by steps": ({"event": STEPS(every=6)}, {"on": UpdateEvents.STEP_COMPLETED(every=5)}),
    "both by iterations": ({"event": STEPS(every=6)}, {"on": STEPS(every=4)}),
    "at the last iteration": ({}, {"on": STEPS(every=7)}),
    "side by side": ({}, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_best_are_weights_that_were_evaluated(way, tmp_path) -> None:
    options, evaluate = WAYS[way]
    run = Run(tmp_path, evaluate=evaluate, keep_best=2, keep=2, **options).go()
    assert_best_are(tmp_path, run.seen, 2)
    assert verify(run.checkpoint.best_path).metrics["val/loss"] == min(run.seen)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stop", [7, 12])
def test_so_they_are_after_an_interrupt_and_a_resume(way, stop, tmp_path) -> None:
    options, evaluate = WAYS[way]
    whole = Run(tmp_path / "whole", evaluate=evaluate, keep_best=2, keep=1, **options).go()
    seen = []
    for epochs in (4, 4):
        run = Run(tmp_path / "stopped", evaluate=evaluate, keep_best=2, keep=1, resume="auto", **options)
        if not seen:
            run.trainer.add_event_handler(STEPS(once=stop), run.trainer.interrupt)
        run.go(epochs)
        assert all(said == measured for said, measured in scored(tmp_path / "stopped"))
        seen += run.seen or [math.inf]
    assert_best_are(tmp_path / "stopped", whole.seen, 2)
    assert all(map(torch.equal, run.model.parameters(), whole.model.parameters()))


def test_an_evaluation_that_was_interrupted_counts_once_it_is_finished(tmp_path) -> None:
    for resume, again in ((None, False), ("auto", True)):
        run = Run(tmp_path, event=STEPS(every=5), evaluate={"on": STEPS(every=4)}, keep_best=9, resume=resume)
        if not again:
            run.evaluator.add_event_handler(STEPS(once=5), run.trainer.interrupt)
        run.go()
    assert len(scored(tmp_path)) >= 2
    assert all(said == measured for said, measured in scored(tmp_path))


def moments(run):
    """The iterations at which saves begin."""
    begun = []
    begin = run.checkpoint._saver.begin

    def counted(*arguments, **options):
        begun.append(run.trainer.state.iteration)
        return begin(*arguments, **options)

    run.checkpoint._saver.begin = counted
    return begun


@pytest.mark.parametrize("way", WAYS)
def test_no_iteration_is_saved_twice(way, tmp_path) -> None:
    options, evaluate = WAYS[way]
    run = Run(tmp_path, evaluate=evaluate, keep_best=2, **options)
    begun = moments(run)
    run.go()
    doubled = [one for one, other in itertools.pairwise(begun) if one == other]
    assert not doubled or way == "by a clock that is always due", begun  # asked for at the last iteration, too


def test_only_what_is_among_the_best_is_saved_besides(tmp_path) -> None:
    run = Run(tmp_path, every=100, keep_best=2, keep=1)
    begun = moments(run)
    values = [3.0, 4.0, 5.0, 2.5, math.nan, 2.5, 9.0]
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: run.trainer.state.metrics.update({"val/loss": values[len(run.seen) - 1]})
    )
    run.go(7)
    assert begun == [7, 14, 28, 42, 49]


def test_a_window_that_the_end_of_an_epoch_closes_gives_other_weights(tmp_path) -> None:
    """The last save of the iteration is of weights that were evaluated, and that of the epoch is not."""
    run = Run(tmp_path, GradientAccumulation(4), event=STEPS | Events.EPOCH_COMPLETED, evaluate={"on": STEPS}, keep=9)
    run.trainer.add_event_handler(STEPS(once=6), run.trainer.terminate_epoch)
    run.go(1)
    found = scored(tmp_path)
    assert found
    assert all(said == measured for said, measured in found)


def test_without_an_update_iterations_count(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no model
        trainer = Engine(lambda engine, batch: batch)
        trainer.declare_metrics("score")
        trainer.attach(Checkpoint(tmp_path, best="score", mode="max", event=STEPS(every=2), keep=None))
        trainer.add_event_handler(STEPS(every=3), lambda: trainer.state.metrics.update({"score": 1.0}))
        trainer.run(range(9), max_epochs=1)
    assert [m.iteration for m in map(verify, sorted(tmp_path.iterdir())) if "score" in m.scored] == [6, 9]


def test_a_save_of_the_best_that_fails_is_told_and_training_goes_on(tmp_path, monkeypatch) -> None:
    run = Run(tmp_path, event=STEPS(every=5), keep_best=1, keep=1)
    storage = run.checkpoint._checkpoints.storage
    begin, tries = type(storage).begin, []

    def full(self, name):
        tries.append(name)
        if "00000007" in name:
            raise OSError(28, "No space left on device")
        return begin(self, name)

    monkeypatch.setattr(type(storage), "begin", full)
    with pytest.warns(UserWarning, match="No space left"):
        run.go()
    assert all(said == measured for said, measured in scored(tmp_path))
    assert scored(tmp_path)
