import sys
from pathlib import Path

import torch
from digits import Net, loaders
from torch import nn
from torch.optim import SGD

from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import ModelCheckpoint
from ignite.handlers.tensorboard_logger import (
    GradsHistHandler,
    GradsScalarHandler,
    TensorboardLogger,
    WeightsHistHandler,
    WeightsScalarHandler,
    global_step_from_engine,
)
from ignite.metrics import Accuracy, Loss
from ignite.utils import setup_logger


def run(log_dir, epochs=2):
    train_loader, val_loader = loaders()
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.5)
    criterion = nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion, device="cpu")
    trainer.logger = setup_logger("Trainer")

    metrics = {"accuracy": Accuracy(), "loss": Loss(criterion)}
    train_evaluator = create_supervised_evaluator(model, metrics=metrics, device="cpu")
    train_evaluator.logger = setup_logger("Train Evaluator")
    validation_evaluator = create_supervised_evaluator(model, metrics=metrics, device="cpu")
    validation_evaluator.logger = setup_logger("Val Evaluator")

    @trainer.on(Events.EPOCH_COMPLETED)
    def compute_metrics(engine):
        train_evaluator.run(train_loader)
        validation_evaluator.run(val_loader)

    tb_logger = TensorboardLogger(log_dir=log_dir)
    tb_logger.attach_output_handler(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=10),
        tag="training",
        output_transform=lambda loss: {"batchloss": loss},
        metric_names="all",
    )
    for tag, evaluator in [("training", train_evaluator), ("validation", validation_evaluator)]:
        tb_logger.attach_output_handler(
            evaluator,
            event_name=Events.EPOCH_COMPLETED,
            tag=tag,
            metric_names=["loss", "accuracy"],
            global_step_transform=global_step_from_engine(trainer),
        )
    every = Events.ITERATION_COMPLETED(every=10)
    tb_logger.attach_opt_params_handler(trainer, event_name=every, optimizer=optimizer)
    tb_logger.attach(trainer, log_handler=WeightsScalarHandler(model, whitelist=["fc1"]), event_name=every)
    tb_logger.attach(
        trainer, log_handler=WeightsHistHandler(model, whitelist=lambda n, _: "conv" in n), event_name=every
    )
    tb_logger.attach(trainer, log_handler=GradsScalarHandler(model), event_name=every)
    tb_logger.attach(trainer, log_handler=GradsHistHandler(model, whitelist=["fc2.weight"]), event_name=every)

    def score_function(engine):
        return engine.state.metrics["accuracy"]

    model_checkpoint = ModelCheckpoint(
        log_dir,
        n_saved=2,
        filename_prefix="best",
        score_function=score_function,
        score_name="validation_accuracy",
        global_step_transform=global_step_from_engine(trainer),
    )
    validation_evaluator.add_event_handler(Events.COMPLETED, model_checkpoint, {"model": model})

    trainer.run(train_loader, max_epochs=epochs)
    tb_logger.close()
    for name, value in sorted(validation_evaluator.state.metrics.items()):
        print(name, f"{value:.4f}")
    print(sorted(path.name for path in Path(log_dir).glob("*.pt")))


torch.manual_seed(3)
run(sys.argv[1])
