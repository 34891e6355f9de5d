"""DataParallel where there is one process, and the whole of it in processes that torchrun starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import DataParallel, Evaluate


def trained(*handlers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    loader = DataLoader([(torch.rand(3), torch.rand(1)) for _ in range(12)], batch_size=3, shuffle=True)
    trainer.attach(*handlers, Evaluate(supervised_evaluator(model), loader))
    seen = []
    trainer.add_event_handler(Events.STARTED, lambda engine: seen.append(engine.state.dataloader is loader))
    trainer.run(loader, max_epochs=2)
    assert seen == [True]
    return list(model.state_dict().values())


def test_in_one_process_it_changes_nothing():
    assert all(map(torch.equal, trained(), trained(DataParallel())))


def test_in_one_process_it_fills_no_slot_and_prepares_nothing():
    model = nn.Linear(3, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    before = str(trainer).splitlines()
    trainer.attach(DataParallel())
    after = str(trainer).splitlines()
    assert [line for line in after if not line.startswith("attached:")] == [
        line for line in before if not line.startswith("attached:")
    ]
    assert trainer.updates["default"].slots.owners == {}
    assert len(trainer.data_setup) == 0
    assert not torch.distributed.is_initialized()


def test_in_one_process_any_engine_will_do():
    engine = Engine(lambda engine, batch: batch)
    engine.attach(DataParallel(sync_batch_norm=True, find_unused_parameters=True))
    assert engine.run([1, 2]).output == 2


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_under_torchrun():
    """The same script in one process and in two: the same global batches give the same parameters."""
    script = Path(__file__).parent / "scripts" / "train_linear.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launchers = {
        1: [sys.executable],
        2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    results = {}
    for world_size, launcher in launchers.items():
        process = subprocess.Popen(
            [*launcher, str(script), str(12 // world_size)],
            stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert process.returncode == 0
        results[world_size] = [json.loads(line) for line in output.splitlines()]
    (alone,) = results[1]
    ours, theirs = sorted(results[2], key=lambda result: result["rank"])
    assert ours["parameters"] == theirs["parameters"]
    assert ours["parameters"] == pytest.approx(alone["parameters"], abs=1e-6)
    assert sorted(ours["evaluated"] + theirs["evaluated"]) == alone["evaluated"] == list(range(7))
    assert alone["steps"] == ours["steps"] == theirs["steps"] == 4
