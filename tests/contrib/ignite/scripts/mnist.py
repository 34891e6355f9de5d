import torch
import torch.nn.functional as F
from digits import Net, loaders
from torch.optim import SGD
from tqdm import tqdm

from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from ignite.utils import setup_logger


def run(epochs=3, log_interval=5):
    train_loader, val_loader = loaders()
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, F.nll_loss, device="cpu")
    trainer.logger = setup_logger("trainer")
    val_metrics = {"accuracy": Accuracy(), "nll": Loss(F.nll_loss)}
    evaluator = create_supervised_evaluator(model, metrics=val_metrics, device="cpu")
    evaluator.logger = setup_logger("evaluator")

    pbar = tqdm(initial=0, leave=False, total=len(train_loader), desc=f"ITERATION - loss: {0:.2f}")

    @trainer.on(Events.ITERATION_COMPLETED(every=log_interval))
    def log_training_loss(engine):
        pbar.desc = f"ITERATION - loss: {engine.state.output:.2f}"
        pbar.update(log_interval)
        print(f"{engine.state.iteration} {engine.state.output:.4f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_training_results(engine):
        pbar.refresh()
        evaluator.run(train_loader)
        metrics = evaluator.state.metrics
        print(f"Training - epoch {engine.state.epoch}: {metrics['accuracy']:.4f} {metrics['nll']:.4f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_validation_results(engine):
        evaluator.run(val_loader)
        metrics = evaluator.state.metrics
        print(f"Validation - epoch {engine.state.epoch}: {metrics['accuracy']:.4f} {metrics['nll']:.4f}")
        pbar.n = pbar.last_print_n = 0

    @trainer.on(Events.EPOCH_COMPLETED | Events.COMPLETED)
    def log_time(engine):
        name = engine.last_event_name.name
        print(name, "took time:", engine.state.times[name] > 0)

    trainer.run(train_loader, max_epochs=epochs)
    pbar.close()


torch.manual_seed(1)
run()
