"""Outputs over all ranks; run by every rank."""

import warnings

import torch
from data_cases import Stream, plain
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from leyden import distributed as dist
from leyden.engine import Engine, custom_evaluator, supervised_evaluator
from leyden.handlers import DataParallel, Evaluate, predict

TOTAL = 13
DATA = {
    "a loader": lambda: DataLoader(range(TOTAL), batch_size=2),
    "without batches": lambda: DataLoader(range(TOTAL), batch_size=None),
    "a batch sampler": lambda: DataLoader(
        range(TOTAL), batch_sampler=BatchSampler(SequentialSampler(range(TOTAL)), 3, False)
    ),
    "a stream": lambda: DataLoader(Stream(), batch_size=2),
    "a list": lambda: [torch.tensor([i]) for i in range(TOTAL)],
    "a generator": lambda: (torch.tensor([i]) for i in range(TOTAL)),
    "one batch": lambda: DataLoader(range(TOTAL), batch_size=20),
}


def identity():
    return custom_evaluator(nn.Linear(1, 1), lambda engine, batch: batch * 10)


def predicted(kind):
    return [plain(output) for output in predict(identity(), DATA[kind]())]


def predicted_twice_by_an_evaluator_of_a_trainer():
    """Its data is dealt by samples where the trainer runs it; predict deals it by batches."""
    trainer, evaluator = Engine(lambda engine, batch: None), identity()
    trainer.attach(Evaluate(evaluator, DATA["a loader"]()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.attach(DataParallel(deal="samples"))
        trainer.run([0])
    return [[plain(output) for output in predict(evaluator, DATA["a loader"]())] for _ in range(2)]


def predicted_by_a_supervised_evaluator():
    model = nn.Linear(2, 3)
    data = [(torch.randn(2, generator=torch.Generator().manual_seed(i)), i) for i in range(TOTAL)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    evaluator = supervised_evaluator(model, output_transform=lambda x, y, y_pred: {"y": y, "y_pred": y_pred})
    outputs = predict(evaluator, DataLoader(data, batch_size=4))
    by_hand = model(torch.stack([x for x, _ in data])).detach()
    return {
        "y": torch.cat([output["y"] for output in outputs]).tolist(),
        "equal": torch.equal(torch.cat([output["y_pred"] for output in outputs]), by_hand),
    }


def predicted_from_one_buffer():
    buffer = torch.zeros(2)

    def step(engine, batch):
        return buffer.copy_(batch) if len(batch) == 2 else batch

    evaluator = custom_evaluator(nn.Linear(1, 1), step)
    return torch.cat(predict(evaluator, DATA["a loader"]())).tolist()


def told_of_a_share():
    """Of data that may be a rank's share already."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for kind in ("a loader", "a stream"):
            predicted(kind)
    return [str(each.message) for each in told if "predict" in str(each.message)]


class OwnShare(IterableDataset):
    """What a rank takes of the whole by itself."""

    def __iter__(self):
        return iter(range(dist.rank(), TOTAL, dist.world_size()))


def predicted_from_own_shares():
    return torch.cat(predict(identity(), DataLoader(OwnShare(), batch_size=2), deal="nothing")).div(10).long().tolist()


def dealt_already():
    try:
        predict(identity(), DataLoader(range(TOTAL), sampler=DistributedSampler(range(TOTAL), 2, 0)))
    except ValueError as error:
        return str(error)
    return None
