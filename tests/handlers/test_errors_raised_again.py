"""A handler of EXCEPTION_RAISED that raises the error again, as Ignite's users do: how the run ended is known in any
order of attaching.
"""

import mlflow
import pytest
import torch

from leyden.engine import Engine, Events, Update
from leyden.handlers import Checkpoint, MLflowLogger


@pytest.mark.parametrize("first", [True, False])
def test_the_run_is_failed_and_its_checkpoint_saved(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(1, 1)

    def step(engine, batch):
        with update.forward():
            loss = model(torch.ones(1, 1)).sum()
        update.backward(loss)

    def batches():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    def raise_again(engine, error):
        raise error

    trainer = Engine(step)
    update = Update(trainer, model, torch.optim.SGD(model.parameters(), lr=0.01))
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logger, checkpoint = MLflowLogger(tracking_uri=store), Checkpoint(tmp_path / "run", on_exception=True)
    if first:
        trainer.add_event_handler(Events.EXCEPTION_RAISED, raise_again)
    trainer.attach(logger, checkpoint)
    if not first:
        trainer.add_event_handler(Events.EXCEPTION_RAISED, raise_again, order=100)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.run(batches(), max_epochs=1)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FAILED"
    assert checkpoint.last_path.name.endswith("2")
