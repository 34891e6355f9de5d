"""Stores and engines that the tests of loggers share."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from leyden.engine import Engine, supervised_trainer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as a first run makes it; making one takes seconds, so tests take copies."""
    from mlflow.tracking import MlflowClient

    from leyden.handlers.loggers.mlflow_store import opening

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with opening(f"sqlite:///{path}"):
        MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, with an empty mlflow.db in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def make_trainer() -> Callable[[], Engine]:
    """Makes trainers of a tiny linear model by SGD with lr=0.5."""

    def make() -> Engine:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)

    return make


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Four batches of (input, target)."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(8, 2, generator=generator) for _ in range(4)]
    return [(x, x.sum(1, keepdim=True)) for x in inputs]
