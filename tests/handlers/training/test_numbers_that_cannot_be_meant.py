"""Arguments that no one can mean are errors when a handler is made; plans beyond the run are told when it starts."""

import math
import warnings

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd

from leyden.engine import Engine, supervised_trainer
from leyden.handlers import (
    EMA,
    SWA,
    BatchSizeSchedule,
    ClipGradients,
    Finetune,
    GradientAccumulation,
    LimitBatches,
    MixedPrecision,
    ParamSchedule,
    Schedule,
    TerminateOnNan,
)
from leyden.handlers.training import Constant, Cosine, Cyclic, Linear, Piecewise

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: ClipGradients(norm=True), TypeError, "takes numbers as bounds, but got True"),
        (lambda: ClipGradients(norm="1"), TypeError, "takes numbers as bounds, but got '1'"),
        (lambda: ClipGradients(norm=[1.0, True]), TypeError, "takes numbers as bounds, but got True"),
        (lambda: ClipGradients(norm=NAN), ValueError, "needs a positive bound, but got nan"),
        (lambda: ClipGradients(1.0, norm_type=0), ValueError, "needs a norm_type above 0, but got 0"),
        (lambda: ClipGradients(1.0, norm_type=-2.0), ValueError, "needs a norm_type above 0, but got -2"),
        (lambda: ClipGradients(1.0, norm_type=NAN), ValueError, "needs a norm_type above 0, but got nan"),
        (lambda: ClipGradients(1.0, norm_type="inf"), TypeError, "takes a norm_type as a number, but got 'inf'"),
        (lambda: ClipGradients(1.0, per_group=2), TypeError, "takes per_group as True or False, but got 2"),
        (lambda: EMA(1), ValueError, "needs a decay from 0 to 1, but got 1, with which the average would stay"),
        (lambda: EMA(1.0), ValueError, "with which the average would stay what it was at first"),
        (lambda: EMA(NAN), ValueError, "needs a decay from 0 to 1, but got nan"),
        (lambda: EMA(True), TypeError, "takes a decay as a number, but got True"),
        (lambda: SWA(2, lr=-0.1), ValueError, r"needs a learning rate \(lr\) of at least 0, but got -0.1"),
        (lambda: SWA(2, lr=[0.1, NAN]), ValueError, r"needs a learning rate \(lr\) of at least 0, but got nan"),
        (lambda: SWA(2, lr="0.1"), TypeError, r"takes a learning rate \(lr\) as a number, but got '0.1'"),
        (lambda: SWA(2, data=3), TypeError, "passes over data= for the statistics of batch norm, but got 3"),
        (lambda: SWA(2, forward=3), TypeError, "takes forward as a function of the batch, but got 3"),
        (lambda: MixedPrecision("fp16", growth_interval=0), ValueError, "needs a growth_interval of at least 1"),
        (lambda: MixedPrecision("fp16", init_scale=-2.0), ValueError, "needs an init_scale above 0, but got -2"),
        (
            lambda: ParamSchedule("lr", Linear(0.1, -0.1, 10)),
            ValueError,
            r"lr is at least 0, but Linear takes it to -0",
        ),
        (
            lambda: ParamSchedule("lr", [Constant(0.1), Constant(-1.0)]),
            ValueError,
            "Constant takes it to -1 at count 0",
        ),
        (lambda: ParamSchedule("weight_decay", Cosine(0.1, -1e-3, 4)), ValueError, "takes it to -0.001 at count 4"),
        (lambda: ParamSchedule("lr", Cyclic(Piecewise({0: 0.1, 3: -0.1, 9: 0.1}))), ValueError, "at count"),
        (lambda: ParamSchedule("betas.0", Linear(0.9, 1.0, 4)), ValueError, "from 0 to 1, 1 not included, but Linear"),
    ],
)
def test_an_argument_that_cannot_be_meant(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_what_can_be_meant():
    ClipGradients(norm=INF)  # to know the norm
    ClipGradients(norm=1, norm_type=INF)
    EMA(0)
    SWA(2, lr=[0.1, 0], data=[1])
    ParamSchedule("state.temperature", Linear(1.0, -1.0, 10))
    ParamSchedule("lr", Linear(0.1, 0.0, 10**9))
    ParamSchedule("betas.1", Linear(0.0, 0.999, 10))


def trainer_of(*handlers):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(*handlers)
    return trainer


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (SWA(4), "SWA starts in epoch 4, and the run ends after epoch 3: no weights are averaged"),
        (
            Finetune({1: "0", 9: "2"}),
            "Finetune unfreezes in epoch 9, and the run ends after epoch 3: 2 is never trained",
        ),
        (GradientAccumulation({1: 2, 4: 4}), "plan of GradientAccumulation changes in epoch 4, and the run ends"),
        (GradientAccumulation(11), "makes a step of 11 batches, and an epoch has only 10: no window is ever full"),
        (GradientAccumulation(31, tail="carry"), "makes a step of 31 batches, and the run has only 30"),
    ],
)
def test_a_plan_beyond_the_run_is_warned_of(handler, said):
    with pytest.warns(UserWarning, match=said) as told:
        trainer_of(handler).run(batches(10), max_epochs=3)
    assert len(told) == 1


def test_sizes_beyond_the_run_are_warned_of():
    engine = Engine(lambda engine, batch: None)
    engine.attach(BatchSizeSchedule({1: 2, 7: 4}))
    loader = torch.utils.data.DataLoader(range(8))
    with pytest.warns(UserWarning, match="BatchSizeSchedule has a size for epoch 7, and the run ends after epoch 3"):
        engine.run(loader, max_epochs=3)


@pytest.mark.parametrize(
    "handler",
    [
        SWA(3),
        Finetune({1: "0", 3: "2"}),
        GradientAccumulation({1: 2, 3: 4}),
        GradientAccumulation(10),
        GradientAccumulation(30, tail="carry"),
        GradientAccumulation(10, tail="drop"),
    ],
)
def test_a_plan_within_the_run_is_not(handler):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_of(handler).run(batches(10), max_epochs=3)


def test_windows_that_would_all_be_dropped():
    trainer = trainer_of(GradientAccumulation(11, tail="drop"))
    with pytest.raises(ValueError, match='has only 10: with tail="drop" nothing would be trained'):
        trainer.run(batches(10), max_epochs=3)
    assert trainer.state.iteration == 0


def test_a_limit_and_a_larger_length():
    engine = Engine(lambda engine, batch: None)
    engine.attach(LimitBatches(3))
    with pytest.warns(UserWarning, match="epoch_length=5 asks for more batches an epoch than the 3 of LimitBatches"):
        engine.run(range(10), epoch_length=5)
    assert engine.state.iteration == 5


def test_a_weight_below_zero():
    """It would turn the gradient round."""
    trainer = trainer_of(GradientAccumulation(2, weight=lambda batch: -1.0))
    with pytest.raises(ValueError, match=r"weighs a batch by -1\.0; a weight is a number of things that a batch has"):
        trainer.run(batches(4))
    assert trainer.state.step == 0


def test_weights_that_are_tensors_and_sum_to_less_than_zero_are_seen_at_once():
    """Nobody waits for the device, so there is no error of ours; NaN is what TerminateOnNan finds."""
    trainer = trainer_of(GradientAccumulation(2, weight=lambda batch: torch.tensor(-2.0)), TerminateOnNan())
    with pytest.warns(UserWarning, match=r"the output of iteration 3 .* is not finite"):
        trainer.run(batches(6))


def test_a_scheduler_is_asked_for_what_it_is():
    with pytest.raises(TypeError, match=r"takes a scheduler of torch.optim.lr_scheduler, but got 3"):
        Schedule(3)
