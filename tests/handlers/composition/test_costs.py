"""What each handler costs in a step: calls beyond those of the loop by hand that does the same; copies to the host."""

import dataclasses

import pytest
import torch
from hand_loop import train_by_hand
from refusals import REFUSED
from step_counts import Calls, HostCopies, ScalarCopies
from table import CASES, together
from test_matrix import Trainer

from leyden.engine import Events, supervised_evaluator
from leyden.handlers import Evaluate
from leyden.metrics import Loss, RunningAverage

LIMIT = 25
EPOCHS = 5  # by then nothing is new: what is unfrozen is, what is averaged has begun
IDLE = {
    "BatchSizeFinder",
    "BatchSizeSchedule",
    "Compile",
    "DeviceTransfer",
    "LearningRateFinder",
    "Schedule per epoch",
    "SWA",
}
"""Handlers with nothing to do in a step."""
ELSEWHERE = {"DryRun", "TruncatedBPTT", "CombinedLoader"}
"""One ends after an epoch, one is counted beside a process function that cuts batches itself, one is data."""


def calls_by_engine(*names):
    trainer = Trainer(*names)
    with Calls() as calls:
        mark = lambda engine: calls.mark(engine.state.epoch)  # noqa: E731
        trainer.engine.add_event_handler(Events.GET_BATCH_COMPLETED, mark)
        trainer.engine.run(trainer.data, max_epochs=EPOCHS)
    return calls.a_batch()


def calls_by_hand(*names):
    options = dataclasses.replace(together(*names), epochs=EPOCHS, isolated=False)  # loaded batch by batch
    with Calls() as calls:
        train_by_hand(options, calls.mark)
    return calls.a_batch()


@pytest.mark.parametrize("name", [name for name in CASES if name not in ELSEWHERE])
def test_a_handler_adds_few_calls_to_those_of_the_loop_by_hand(name, record_property):
    calls_by_engine(name)  # what is imported and made once is so here
    added, by_hand = calls_by_engine(name) - calls_by_engine(), calls_by_hand(name) - calls_by_hand()
    record_property("calls", added - by_hand)
    print(f"{name}: {added:.1f} calls a batch, by hand {by_hand:.1f}")
    assert added - by_hand <= (0 if name in IDLE else LIMIT)


# -- copies to the host ------------------------------------------------------------------------------------------------

TOGETHER = {
    "in full": [
        "MixedPrecision bf16", "GradientAccumulation", "ClipGradients norm", "ClipGradients value", "Schedule per step",
        "ParamSchedule", "BatchSizeSchedule", "EMA", "SWA", "ActivationCheckpointing", "Freeze", "Finetune",
        "Quantize in training", "ChannelsLast", "DeviceTransfer", "LimitBatches", "Reproducible", "LearningRateFinder",
    ],
    "adapters": [
        "MixedPrecision bf16-true", "GradientAccumulation by weight", "ClipGradients norm", "Schedule per epoch", "EMA",
        "LoRA", "Quantize weights", "ChannelsLast", "DeviceTransfer", "Overfit", "Reproducible", "BatchSizeFinder",
    ],
    "float8": ["MixedPrecision fp8", "TruncatedBPTT", "EMA", "ClipGradients norm", "Finetune"],
    "fp64": ["MixedPrecision fp64-true", "TruncatedBPTT", "SWA", "Freeze", "CombinedLoader", "ClipGradients value"],
}  # fmt: skip
"""All of them that may meet, but fp16, whose scaler asks once a step, and Compile, which is tried by itself."""


def test_all_are_in_one_of_the_sets():
    there = {name for names in TOGETHER.values() for name in names}
    assert CASES.keys() - there == {"MixedPrecision fp16", "Compile", "DryRun"}
    for names in TOGETHER.values():
        assert not [pair for pair in REFUSED if set(pair) <= set(names) and pair[0] != pair[1]]


@pytest.mark.parametrize("kind", TOGETHER)
def test_a_step_copies_nothing_to_the_host(kind):
    """With all of them attached, metrics and an evaluator too, in four steps of an epoch, where windows close."""
    trainer = Trainer(*TOGETHER[kind])
    engine = trainer.engine
    RunningAverage().attach(engine, "loss")
    evaluator = supervised_evaluator(
        trainer.model,
        metrics={"loss": Loss(torch.nn.functional.mse_loss)},
        model_fn=lambda model, x: model(x)[0].float(),
        prepare_batch=lambda batch, device, non_blocking: (batch[0], batch[1].mean(dim=2)),
    )
    validation = [tuple(torch.randn(4, *shape) for shape in ((2, 4, 4), (2, 4)))]
    engine.attach(Evaluate(evaluator, validation, prefix="val/"))
    copies, scalars = HostCopies(), ScalarCopies()
    steps = []

    def among_the_first(engine, iteration):
        return engine.state.epoch == 4 and iteration - engine.cursor.epoch_start <= 4

    @engine.on(Events.ITERATION_STARTED(among_the_first), order=-100)
    def begin(engine):
        steps.append(engine.state.iteration)
        copies.__enter__()
        scalars.__enter__()

    @engine.on(Events.ITERATION_COMPLETED(among_the_first), order=100)
    def end():
        scalars.__exit__(None, None, None)
        copies.__exit__(None, None, None)

    engine.run(trainer.data, max_epochs=5)
    assert len(steps) >= 3
    assert (copies.seen, scalars.seen) == ([], [])


def test_copies_are_seen():
    with HostCopies() as copies, ScalarCopies() as scalars:
        value = torch.ones(3)
        assert value.sum() == 3
        value.sum().item()
        value.tolist()
    assert copies.seen == ["__bool__", "item", "tolist"]
    assert scalars.seen == ["_local_scalar_dense"] * 2


def test_fp16_asks_once_a_step_whether_it_overflowed():
    trainer = Trainer("MixedPrecision fp16")
    scalars = ScalarCopies()
    trainer.engine.run(trainer.data, max_epochs=1)
    with scalars:
        trainer.engine.run(trainer.data, max_epochs=2)
    loading = 1  # torch's loader draws a seed for its workers
    assert len(scalars.seen) - loading == 10
