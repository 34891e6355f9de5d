"""With several ranks, rank 0 alone logs: one run, one event file, values of rank 0 only."""

import os
import subprocess
import sys
from pathlib import Path

from .stored_images import images_of_mlflow

SCRIPT = Path(__file__).parent / "scripts" / "two_ranks.py"


def test_two_ranks_write_one_run_and_one_file(workspace: Path) -> None:
    from mlflow.tracking import MlflowClient

    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=workspace,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ranks")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.tags["world_size"]) == ("FINISHED", "2")
    assert run.data.params["world_size"] == "2"
    steps = {
        name: [metric.step for metric in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    assert steps == {
        "train/loss": [1, 2, 3, 4],
        "train/epoch": [1, 2, 3, 4],
        "train/rank": [2, 4],
        "by a user": [0, 0],
    }
    assert {name: value for name, value in run.data.metrics.items() if value} == {"train/epoch": 2.0}
    shades = images_of_mlflow(client, run.info.run_id)["shade"]
    assert [(step, pixels.max()) for step, pixels in shades] == [(2, 0), (4, 0)], "of rank 0 alone"
    assert len(list((workspace / "events").iterdir())) == 2, "one file for each of the two calls of run"
