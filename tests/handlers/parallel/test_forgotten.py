"""A trainer under torchrun without DataParallel: told before anything is trained."""

import subprocess
import sys

import forgotten_cases as cases
import pytest

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks((cases.forgotten,), (cases.seen_to,), (cases.an_engine_without_an_update,))


def test_a_forgotten_data_parallel_is_named_before_the_run_starts(outcomes):
    for *errors, started in outcomes["forgotten"]:
        for error in errors:
            assert "'default' would train 2 models, one on each of 2 ranks" in error
            assert "Attach DataParallel()" in error
            assert ".independent = True" in error
        assert started == []


def test_what_exchanges_gradients_is_known_and_so_is_who_wants_none(outcomes):
    for errors in outcomes["seen_to"]:
        assert errors == dict.fromkeys(errors)


def test_an_engine_that_trains_nothing_runs(outcomes):
    assert outcomes["an_engine_without_an_update"] == [None, None]


SCRIPT = """
import torch
from leyden.engine import supervised_trainer, supervised_evaluator
from leyden.metrics import Mean
model = torch.nn.Linear(1, 1)
def run(engine):
    try:
        engine.run([(torch.ones(1, 1), torch.ones(1, 1))])
    except RuntimeError as error:
        print(error)
run(supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.functional.mse_loss))
run(supervised_evaluator(model, {"mean": Mean(lambda output: output[0].mean())}))
"""


def test_the_message_names_the_handler_also_before_the_group_is_joined(tmp_path):
    """As torchrun describes a process that never called initialize()."""
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29513"}
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=variables, timeout=60, check=True)
    trainer, evaluator = done.stdout.splitlines()
    assert "Attach DataParallel() to the engine" in trainer
    assert "attach DataParallel() to the engine" in evaluator
