import torch
import torch.nn.functional as F
from digits import Net, loaders
from torch.optim import SGD

from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import ProgressBar
from ignite.metrics import Accuracy, Loss, RunningAverage


def run(epochs=2):
    train_loader, val_loader = loaders()
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, F.nll_loss, device="cpu")
    evaluator = create_supervised_evaluator(
        model, metrics={"accuracy": Accuracy(), "nll": Loss(F.nll_loss)}, device="cpu"
    )
    RunningAverage(output_transform=lambda x: x).attach(trainer, "loss")

    pbar = ProgressBar(persist=True)
    pbar.attach(trainer, metric_names="all")

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_training_results(engine):
        evaluator.run(train_loader)
        metrics = evaluator.state.metrics
        pbar.log_message(
            f"Training Results - Epoch: {engine.state.epoch} Avg accuracy: {metrics['accuracy']:.2f} "
            f"Avg loss: {metrics['nll']:.2f}"
        )
        print(f"{engine.state.metrics['loss']:.4f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_validation_results(engine):
        evaluator.run(val_loader)
        metrics = evaluator.state.metrics
        pbar.log_message(
            f"Validation Results - Epoch: {engine.state.epoch} Avg accuracy: {metrics['accuracy']:.2f} "
            f"Avg loss: {metrics['nll']:.2f}"
        )
        pbar.n = pbar.last_print_n = 0

    trainer.run(train_loader, max_epochs=epochs)


torch.manual_seed(2)
run()
