"""MixedPrecision() alone computes in what the device computes fast, and says so."""

import warnings

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd

from leyden.engine import supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, MixedPrecision
from leyden.handlers.training.fast_precision import fast_precision, has_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("processor", "precision"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx2": True, "avx512_f": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"architecture": "aarch64", "bf16": True}, "bf16"),
        ({"architecture": "aarch64"}, "fp32"),
        ({}, "fp32"),
    ],
    ids=str,
)
def test_what_a_processor_computes_fast(processor, precision):
    assert fast_precision(CPU, processor)[0] == precision


def test_torch_tells_what_this_processor_can():
    """What is read is public in torch, and names bf16's instructions on x86."""
    found = torch.cpu.get_capabilities()
    if found["architecture"] in ("x86_64", "AMD64"):
        assert {"avx512_bf16", "amx_bf16"} <= found.keys()
        assert has_bf16() == bool(found["avx512_bf16"] or found["amx_bf16"] or found["avx10_2"])


def without_bf16(monkeypatch):
    """As on a processor that has AVX2 alone."""
    found = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found | dict.fromkeys(found.keys() & SLOW, False))


SLOW = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16"}


def trained(*handlers):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(*handlers)
    trainer.run(batches(5))
    return model, trainer


def test_on_this_processor_it_is_as_if_it_had_been_said():
    precision = "bf16" if has_bf16() else "fp32"
    ours, trainer = trained(MixedPrecision())
    theirs, _ = trained(MixedPrecision(precision))
    assert equal(ours, theirs)
    assert f"MATERIALISE  MixedPrecision in {precision}, " in str(trainer)


def test_on_one_without_instructions_for_bf16_it_is_fp32(monkeypatch):
    without_bf16(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, trainer = trained(MixedPrecision())
    assert equal(ours, trained()[0])
    assert "MixedPrecision in fp32, since this processor has no instructions for bf16" in str(trainer)


def test_its_evaluators_compute_in_the_same(monkeypatch):
    for slow in (False, True):
        if slow:
            without_bf16(monkeypatch)
        model = net()
        evaluator = supervised_evaluator(model)
        trainer = supervised_trainer(model, sgd(model), loss_fn)
        trainer.attach(MixedPrecision(), Evaluate(evaluator, batches(2)))
        trainer.run(batches(2))
        expected = torch.bfloat16 if has_bf16() else torch.float32
        assert evaluator.state.output[0].dtype is expected


@pytest.mark.parametrize("precision", ["bf16", "fp16", "bf16-true"])
def test_what_is_slow_and_asked_for_is_warned_of_once(precision, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if has_bf16():
            trained(MixedPrecision(precision))
    without_bf16(monkeypatch)
    message = rf'MixedPrecision\("{precision}"\) on this processor, which has no instructions .* slower than "fp32"'
    with pytest.warns(UserWarning, match=message) as told:
        trained(MixedPrecision(precision))
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(MixedPrecision("fp32"))


def test_options_need_a_precision():
    with pytest.raises(ValueError, match="only fp16 and fp8 have options; one that the device chooses has no use for"):
        MixedPrecision(init_scale=2.0)


@pytest.mark.parametrize("scale", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_meant(scale):
    with pytest.raises(ValueError, match="MixedPrecision needs an init_scale above 0, but got"):
        MixedPrecision("fp16", init_scale=scale)
