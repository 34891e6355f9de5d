"""A run logged to a real MLflow server, which is killed and started again while the run goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from leyden.engine import Engine, Events
from leyden.handlers.loggers import MLflowLogger

from .stored_images import images_of_mlflow

START_UP = 120  # seconds


class Server:
    """`mlflow server` on a free port of the loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=output, env=dict(os.environ), start_new_session=True
            )
        deadline = time.monotonic() + START_UP
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urlopen(f"{self.uri}/health", timeout=1).close()
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
            else:
                return
        raise TimeoutError(f"the server did not start:\n{log.read_text()}")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers too
            self._process.wait()
            self._process = None


@pytest.fixture
def server(workspace: Path) -> Iterator[Server]:
    server = Server(workspace)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def points(server: Server, run_id: str | None) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    history = MlflowClient(tracking_uri=server.uri).get_metric_history(run_id, "train/loss")
    return [(metric.step, metric.value) for metric in history]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_outlives_its_server(server: Server) -> None:
    from mlflow.tracking import MlflowClient

    engine = Engine(lambda engine, batch: float(engine.state.iteration))
    logger = MLflowLogger("server", tracking_uri=server.uri, every=1, params={"seed": 3})
    engine.attach(logger)
    slowest = 0.0

    @engine.on(Events.ITERATION_COMPLETED(every=15))
    def log_image() -> None:
        shade = torch.full((4, 4), engine.state.iteration, dtype=torch.uint8)
        logger.log_image("val/shade", shade, engine.state.iteration)

    @engine.on(Events.ITERATION_COMPLETED(once=20), order=99)
    def kill() -> None:
        wait_until(lambda: len(points(server, logger.run_id)) == 20)
        server.kill()

    @engine.on(Events.ITERATION_COMPLETED(after=20, before=50), order=99)
    def train_without_a_server() -> None:
        nonlocal slowest
        slowest = max(slowest, time.monotonic() - engine.state.left_at)
        time.sleep(0.1)

    @engine.on(Events.ITERATION_STARTED)
    def clock() -> None:
        engine.state.left_at = time.monotonic()

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=50), server.start)
    with pytest.warns(UserWarning, match="accepts no (values|images) at present .*no MLflow server answers") as told:
        engine.run(range(60))
    assert len(told) == 2, "each once"
    assert slowest < 1.0, "no step waited for the server"
    assert points(server, logger.run_id) == [(step, float(step)) for step in range(1, 61)]
    run = MlflowClient(tracking_uri=server.uri).get_run(logger.run_id)
    shades = images_of_mlflow(MlflowClient(tracking_uri=server.uri), logger.run_id)["val/shade"]
    assert [(step, pixels.max()) for step, pixels in shades] == [(step, step) for step in (15, 30, 45, 60)]
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "3")

    lost = Engine(lambda engine, batch: 1.0)
    lost.attach(MLflowLogger("server", tracking_uri=server.uri, every=1, patience=1.0))
    lost.add_event_handler(Events.STARTED, server.kill)
    with pytest.warns(UserWarning, match=r"MLflowLogger: 10 values and the end of the run .* within 1 s and are lost"):
        lost.run(range(5))
