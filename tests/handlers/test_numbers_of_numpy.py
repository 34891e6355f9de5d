"""Numpy's integers are whole numbers to every handler, which keeps plain ones; 2.0 and True are none."""

import numpy as np
import pytest
import torch
from torch import nn

from leyden.engine import Engine
from leyden.handlers import (
    EMA,
    SWA,
    ActivationCheckpointing,
    BatchSizeFinder,
    BatchSizeSchedule,
    Checkpoint,
    DeviceTransfer,
    DryRun,
    EarlyStopping,
    GradientAccumulation,
    LearningRateFinder,
    LimitBatches,
    Overfit,
    Reproducible,
    Schedule,
    TensorBoardLogger,
    TruncatedBPTT,
    seed_everything,
)
from leyden.metrics import ConfusionMatrix

pytestmark = pytest.mark.timeout(30)


def scheduled(number):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    return Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), warmup=number)


TAKEN = {
    "ActivationCheckpointing(every=)": (lambda n: ActivationCheckpointing(every=n), "every"),
    "EMA(every=)": (lambda n: EMA(0.9, every=n), "every"),
    "EMA(start_step=)": (lambda n: EMA(0.9, start_step=n), "start_step"),
    "TruncatedBPTT(length)": (TruncatedBPTT, "length"),
    "TruncatedBPTT(dim=)": (lambda n: TruncatedBPTT(4, dim=n), "dim"),
    "SWA(start=)": (lambda n: SWA(start=n), "start"),
    "SWA(every=)": (lambda n: SWA(1, every=n), "every"),
    "SWA(anneal_epochs=)": (lambda n: SWA(1, anneal_epochs=n), "anneal_epochs"),
    "GradientAccumulation(steps)": (GradientAccumulation, "steps"),
    "LearningRateFinder(steps=)": (lambda n: LearningRateFinder(steps=n), "steps"),
    "BatchSizeFinder(start=)": (lambda n: BatchSizeFinder(start=n), "start"),
    "BatchSizeFinder(steps=)": (lambda n: BatchSizeFinder(steps=n), "steps"),
    "BatchSizeFinder(max_size=)": (lambda n: BatchSizeFinder(start=2, max_size=n), "max_size"),
    "LimitBatches(limit)": (LimitBatches, "limit"),
    "Overfit(batches)": (Overfit, "batches"),
    "DryRun(batches)": (DryRun, "batches"),
    "DeviceTransfer(prefetch=)": (lambda n: DeviceTransfer(prefetch=n), "prefetch"),
    "Reproducible(seed)": (Reproducible, "seed"),
    "EarlyStopping(patience=)": (lambda n: EarlyStopping("loss", patience=n), "patience"),
    "TensorBoardLogger(every=)": (lambda n: TensorBoardLogger("/tmp/never", every=n), "every"),
    "ConfusionMatrix(num_classes)": (ConfusionMatrix, "num_classes"),
}


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), torch.tensor(3)], ids=["int64", "uint8", "tensor"])
@pytest.mark.parametrize("what", TAKEN)
def test_it_is_taken_and_kept_as_a_plain_number(what, number):
    make, name = TAKEN[what]
    kept = getattr(make(number), name)
    assert kept == 3
    assert type(kept) is int


REFUSED = {"LimitBatches(limit)", "Overfit(batches)", "SWA(start=)"}  # fractions of theirs are told of by value


@pytest.mark.parametrize("number", [True, np.bool_(True), 3.0, "3"], ids=repr)
@pytest.mark.parametrize("what", sorted(TAKEN.keys() - REFUSED))
def test_what_is_no_whole_number_is_refused(what, number):
    make, _ = TAKEN[what]
    with pytest.raises((TypeError, ValueError), match=r"3|True|got"):
        make(number)


def test_plans_and_functions(tmp_path):
    assert GradientAccumulation({np.int64(1): np.int64(4)}).steps == {1: 4}
    sizes = BatchSizeSchedule({np.int64(1): np.int64(8)}).sizes
    assert [type(each) for each in (*sizes, *sizes.values())] == [int, int]
    assert type(seed_everything(np.int64(3))) is int
    scheduled(np.int64(3))
    Engine(lambda engine, batch: None).attach(Checkpoint(tmp_path, every=np.int64(2), keep=np.int64(3)))
