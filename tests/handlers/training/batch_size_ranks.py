"""What a rank sees under a schedule of batch sizes; each rank of a launch runs this."""

from torch.utils.data import DataLoader

from leyden.engine import Engine, Events
from leyden.handlers import DataParallel
from leyden.handlers.training.batch_size_schedule import BatchSizeSchedule


def batches_of_rank():
    """{epoch: its batches}, and the lengths of epochs that EPOCH_STARTED found."""
    seen, lengths = {}, []

    def process(engine, batch):
        seen.setdefault(engine.state.epoch, []).append(batch.tolist())

    engine = Engine(process, training=False)
    engine.attach(DataParallel(), BatchSizeSchedule({1: 2, 3: 3}))
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: lengths.append(engine.state.epoch_length))
    engine.run(DataLoader(range(24), batch_size=1, shuffle=True), max_epochs=3)
    return seen, lengths
