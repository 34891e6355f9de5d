"""Which metrics an evaluation brings into the trainer's state, and which it leaves as they are."""

import re

import pytest

from leyden.engine import Engine, Events
from leyden.handlers import Checkpoint, Evaluate
from leyden.metrics import Mean

pytestmark = pytest.mark.timeout(30)

SCORES = {2: 0.9, 4: 0.1, 6: 0.2, 8: 0.3, 10: 0.4, 12: 0.5}
"""By the trainer's iteration."""


def scored_run(tmp_path, event=Events.EPOCH_COMPLETED, **options):
    """A trainer that is evaluated every second iteration, and its evaluator, which gives the scores of that moment."""
    trainer = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: SCORES.get(trainer.state.iteration, 0.0), training=False)
    Mean().attach(evaluator, "score")
    trainer.attach(Evaluate(evaluator, range(3), prefix="val/", on=Events.ITERATION_COMPLETED(every=2)))
    checkpoint = Checkpoint(
        tmp_path, event=event, best="val/score", mode="max", keep=1, keep_best=1, extra={"none": Nothing()}, **options
    )
    trainer.attach(checkpoint)
    return trainer, evaluator, checkpoint


class Nothing:
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def iteration_of(path):
    return int(re.search(r"iteration=(\d+)", path.name)[1])


def interrupt_in_evaluation(trainer, evaluator, iteration):
    """Interrupts the trainer at the second batch of the evaluation of that iteration."""

    @evaluator.on(Events.ITERATION_COMPLETED(once=2))
    def stop():
        if trainer.state.iteration == iteration:
            trainer.interrupt()


def test_an_interrupted_evaluation_publishes_nothing():
    trainer = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: float(trainer.state.iteration), training=False)
    Mean().attach(evaluator, "mean")
    trainer.attach(Evaluate(evaluator, range(3), on=Events.ITERATION_COMPLETED(every=2)))
    interrupt_in_evaluation(trainer, evaluator, 4)
    trainer.run(range(6))
    assert (trainer.state.metrics["mean"], trainer.state.metrics.times_set["mean"]) == (2.0, 1)
    trainer.run()
    assert (trainer.state.metrics["mean"], trainer.state.metrics.times_set["mean"]) == (6.0, 3)


@pytest.mark.parametrize("in_process", [False, True], ids=["in another process", "in the same process"])
@pytest.mark.parametrize("stopped", [4, 6, 12])
@pytest.mark.parametrize(
    ("event", "best"),
    [(Events.EPOCH_COMPLETED, 2), (Events.ITERATION_COMPLETED(every=2), 2)],
    ids=["saved at the epoch's end", "saved at each evaluation"],
)
def test_the_best_checkpoint_is_that_of_a_run_that_was_not_interrupted(tmp_path, in_process, stopped, event, best):
    trainer, _, checkpoint = scored_run(tmp_path / "straight", event)
    trainer.run(range(12))
    assert iteration_of(checkpoint.best_path) == best

    trainer, evaluator, checkpoint = scored_run(tmp_path / "stopped", event)
    interrupt_in_evaluation(trainer, evaluator, stopped)
    trainer.run(range(12))
    assert trainer.state.iteration == stopped
    if in_process:
        trainer.run()
    else:
        trainer, _, checkpoint = scored_run(tmp_path / "stopped", event, resume="auto")
        trainer.run(range(12))
    assert trainer.state.iteration == 12
    assert iteration_of(checkpoint.best_path) == best


def test_an_evaluation_that_failed_or_ended_early_leaves_the_old_values_old():
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: 1.0, training=False)
    Mean().attach(evaluator, "mean")
    trainer.attach(Evaluate(evaluator, range(3), prefix="val/"))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: trainer.state.epoch == 2 and evaluator.terminate())
    trainer.run(range(2), max_epochs=3)
    assert trainer.state.metrics.times_set == {"val/mean": 2}


def test_what_was_measured_before_the_evaluation_was_stopped_is_brought_when_it_is_done():
    """The evaluator is itself stopped in an evaluation, after its metrics were computed."""

    def make():
        trainer, evaluator, inner = (Engine(lambda engine, batch: 1.0, training=False) for _ in range(3))
        Mean().attach(evaluator, "mean")
        evaluator.attach(Evaluate(inner, range(3), on=Events.COMPLETED))
        trainer.attach(Evaluate(evaluator, range(2), prefix="val/"))
        return trainer, inner

    trainer, inner = make()
    handle = inner.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.interrupt)
    trainer.run(range(2))
    handle.remove()
    assert dict(trainer.state.metrics) == {}
    saved = trainer.state_dict()
    trainer.run()
    assert dict(trainer.state.metrics) == {"val/mean": 1.0}

    other, _ = make()
    other.load_state_dict(saved)
    other.run(range(2))
    assert dict(other.state.metrics) == {"val/mean": 1.0}


def test_one_evaluator_of_two_evaluations_brings_each_its_own():
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: batch, training=False)
    Mean().attach(evaluator, "mean")
    trainer.attach(Evaluate(evaluator, [1.0], prefix="a/"), Evaluate(evaluator, [2.0], prefix="b/", every=2))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: trainer.state.epoch == 3 and evaluator.terminate())
    trainer.run(range(2), max_epochs=3)
    assert dict(trainer.state.metrics) == {"a/mean": 1.0, "b/mean": 2.0}
