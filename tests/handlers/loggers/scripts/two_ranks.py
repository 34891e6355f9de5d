"""Two ranks train with both loggers, stop, and go on; run in an empty folder."""

import torch

import leyden.distributed as dist
from leyden.engine import Engine, Events
from leyden.handlers.loggers import MLflowLogger, TensorBoardLogger


def train() -> None:
    rank = dist.rank()
    engine = Engine(lambda engine, batch: float(rank))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(rank=rank))
    mlflow_logger = MLflowLogger("ranks", every=1)
    engine.attach(mlflow_logger, TensorBoardLogger("events", every=1))
    engine.add_event_handler(Events.STARTED, lambda: mlflow_logger.log_metrics({"by a user": rank}, step=0))
    shade = torch.full((4, 4), rank, dtype=torch.uint8)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: mlflow_logger.log_image("shade", shade, engine.state.iteration)
    )
    with engine.add_event_handler(Events.EPOCH_COMPLETED, engine.interrupt):
        engine.run(range(2), max_epochs=2)
    engine.run()


if __name__ == "__main__":
    dist.launch(train, 2, timeout=60)
