"""What may be given as a store."""

from pathlib import Path

import pytest

from leyden.engine import Engine
from leyden.handlers.loggers import MLflowLogger
from leyden.handlers.loggers.mlflow_store import resolve_uri


def test_paths_name_databases_or_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "files" / "0").mkdir(parents=True)
    (tmp_path / "files" / "0" / "meta.yaml").write_text("")
    (tmp_path / "old").write_text("")
    (tmp_path / "folder.db").mkdir()
    assert {
        str(given): resolve_uri(given) for given in [Path("runs/a.db"), "runs/b.sqlite", Path("runs"), Path("old")]
    } == {
        "runs/a.db": f"sqlite:///{tmp_path}/runs/a.db",
        "runs/b.sqlite": f"sqlite:///{tmp_path}/runs/b.sqlite",
        "runs": f"sqlite:///{tmp_path}/runs/mlflow.db",
        "old": f"sqlite:///{tmp_path}/old",
    }
    assert resolve_uri(Path("~/x.db")) == f"sqlite:///{tmp_path}/home/x.db"
    assert resolve_uri(Path("folder.db")) == f"sqlite:///{tmp_path}/folder.db/mlflow.db"
    assert resolve_uri(Path("files")) == f"file://{tmp_path}/files"
    for other in ("databricks", "databricks://profile", "http://host:5000", "postgresql://host/db.db", "file:///x.db"):
        assert resolve_uri(other) == other


def test_a_run_goes_into_the_database_at_a_path(workspace: Path) -> None:
    (workspace / "store").mkdir()
    (workspace / "mlflow.db").rename(workspace / "store" / "mlflow.db")
    engine, logger = Engine(lambda engine, batch: 1.0), MLflowLogger(tracking_uri=Path("store"), every=1)
    engine.attach(logger)
    engine.run(range(2))
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=f"sqlite:///{workspace}/store/mlflow.db").get_run(logger.run_id)
    assert found.data.metrics["train/loss"] == 1.0
    assert sorted(path.name for path in workspace.iterdir() if path.suffix == ".db") == []
