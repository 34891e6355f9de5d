"""best= of a metric whose values are mappings: told before the first step where its keys are known."""

import pytest

from leyden.engine import Engine
from leyden.handlers import Checkpoint, Evaluate
from leyden.metrics import Metric


class Both(Metric):
    result_keys = ("low", "high")

    def __init__(self):
        super().__init__()
        self.add_state("sum", 0, "sum")

    def update(self, output):
        self.sum = self.sum + 1

    def compute(self):
        return {"low": float(self.sum), "high": float(self.sum) + 1}


def test_of_an_evaluator(make_run, tmp_path):
    evaluator = Engine(lambda engine, batch: 1.0, training=False)
    Both().attach(evaluator, "both")
    checkpoint = Checkpoint(tmp_path, best="val/both", mode="max")
    run = make_run(Evaluate(evaluator, [0], prefix="val/"), checkpoint)
    said = 'Checkpoint ranks by "val/both", which is no number, but a mapping; take one of its own: "val/low", "val/hi'
    with pytest.raises(TypeError, match=said):
        run.trainer.run(run.data, max_epochs=1)
    assert run.losses == []


def test_of_the_trainer(make_run, tmp_path):
    run = make_run(Checkpoint(tmp_path, best="both", mode="max"))
    Both().attach(run.trainer, "both")
    with pytest.raises(TypeError, match='take one of its own: "low", "high"'):
        run.trainer.run(run.data, max_epochs=1)
    assert run.losses == []


def test_one_of_its_numbers_is_taken(make_run, tmp_path):
    checkpoint = Checkpoint(tmp_path, best="low", mode="max")
    run = make_run(checkpoint)
    Both().attach(run.trainer, "both")
    run.trainer.run(run.data, max_epochs=1)
    assert checkpoint.best_path is not None
