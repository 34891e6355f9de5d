import sys
from pathlib import Path

import torch
from digits import Net, loaders
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Accuracy, Loss
from ignite.utils import manual_seed


def run(log_dir, epochs=3, checkpoint_every=25, crash_iteration=None, resume_from=None):
    train_loader, val_loader = loaders()
    model = Net(dropout=0.0)
    criterion = nn.NLLLoss()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    lr_scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    trainer = create_supervised_trainer(model, optimizer, criterion, device="cpu")
    evaluator = create_supervised_evaluator(
        model, metrics={"accuracy": Accuracy(), "nll": Loss(criterion)}, device="cpu"
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def lr_step(engine):
        lr_scheduler.step()

    @trainer.on(Events.ITERATION_COMPLETED(every=10))
    def log_training_loss(engine):
        lr = optimizer.param_groups[0]["lr"]
        print(f"{engine.state.iteration} {lr:.4f} {engine.state.output:.4f}")

    if crash_iteration is not None:

        @trainer.on(Events.ITERATION_COMPLETED(once=crash_iteration))
        def _(engine):
            raise Exception(f"STOP at {engine.state.iteration}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def log_validation_results(engine):
        evaluator.run(val_loader)
        metrics = evaluator.state.metrics
        print(f"Validation - epoch {engine.state.epoch}: {metrics['accuracy']:.4f} {metrics['nll']:.4f}")

    objects_to_checkpoint = {"trainer": trainer, "model": model, "optimizer": optimizer, "lr_scheduler": lr_scheduler}
    training_checkpoint = Checkpoint(
        to_save=objects_to_checkpoint, save_handler=DiskSaver(log_dir, require_empty=False), n_saved=None
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=checkpoint_every), training_checkpoint)

    if resume_from is not None:
        print(f"Resume from a checkpoint: {Path(resume_from).name}")
        checkpoint = torch.load(resume_from, map_location="cpu")
        Checkpoint.load_objects(to_load=objects_to_checkpoint, checkpoint=checkpoint)

    try:
        trainer.run(train_loader, max_epochs=epochs)
    except Exception as e:
        print(e)
    print(sorted(path.name for path in Path(log_dir).iterdir()))


log_dir, crash_iteration, resume_from = sys.argv[1:]
manual_seed(12)
run(log_dir, crash_iteration=int(crash_iteration) or None, resume_from=resume_from or None)
