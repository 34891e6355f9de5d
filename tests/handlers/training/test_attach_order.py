"""Whatever the order in which handlers of the step are attached, the result is the same to the bit."""

import itertools

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine import supervised_trainer
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision, Schedule

KINDS = ("precision", "accumulation", "clipping", "schedule")


def trained(order, precision="bf16", window=3, norm=0.7, one_by_one=False):
    model = net()
    optimizer = sgd(model)
    options = {"init_scale": 2.0**20} if precision == "fp16" else {}  # the first steps overflow
    handlers = {
        "precision": MixedPrecision(precision, **options),
        "accumulation": GradientAccumulation(window),
        "clipping": ClipGradients(norm=norm),
        "schedule": Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
    }
    trainer = supervised_trainer(model, optimizer, loss_fn)
    if one_by_one:
        for kind in order:
            trainer.attach(handlers[kind])
    else:
        trainer.attach(*(handlers[kind] for kind in order))
    trainer.run(batches(10), max_epochs=2)
    return model


@pytest.fixture(scope="module")
def expected():
    return {precision: trained(KINDS, precision) for precision in ("bf16", "fp16")}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("order", list(itertools.permutations(KINDS)), ids="-".join)
def test_every_order_gives_the_same(order, precision, expected):
    assert equal(trained(order, precision), expected[precision])


@settings(max_examples=15, deadline=None)
@given(
    st.permutations(KINDS).flatmap(lambda order: st.tuples(st.just(order), st.integers(0, 4))),
    st.sampled_from(["fp32", "bf16", "fp16"]),
    st.integers(1, 12),
    st.sampled_from([0.01, 0.5, 100.0]),
)
def test_a_part_of_them_in_any_order(order_and_number, precision, window, norm):
    order, number = order_and_number
    some = order[:number]
    in_our_order = [kind for kind in KINDS if kind in some]
    assert equal(
        trained(some, precision, window, norm, one_by_one=True), trained(in_our_order, precision, window, norm)
    )
