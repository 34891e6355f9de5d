"""Linear layers that multiply in float8, held against the loop in which a user calls torchao himself."""

import dataclasses

import pytest
import torch
from by_hand import equal, sgd, train_by_hand, train_with
from torch import nn

from leyden.handlers import GradientAccumulation, MixedPrecision
from leyden.handlers.model.quantize import Quantize
from leyden.handlers.training.float8 import convert_to_float8

pytest.importorskip("torchao")


def net():
    """Two layers that float8 can take, and a head that it can't."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 2))


def batches(number=10, size=16):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 32, generator=generator), 2 * torch.randn(size, 2, generator=generator))
        for _ in range(number)
    ]


def by_torchao(model, recipe="tensorwise", emulate=True):
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=emulate)
    return convert_to_float8_training(model, config=config, module_filter_fn=lambda layer, name: name != "4")


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_it_is_the_loop_with_torchaos_conversion_to_the_bit(recipe):
    ours, theirs, in_fp32 = net(), net(), net()
    train_with(Quantize("float8", recipe=recipe, emulate=True), model=ours, optimizer=sgd(ours), data=batches())
    train_by_hand(by_torchao(theirs, recipe), sgd(theirs), batches())
    train_by_hand(in_fp32, sgd(in_fp32), batches())
    assert equal(ours, theirs)
    assert not equal(ours, in_fp32)


def test_mixed_precision_in_fp8_is_the_same_conversion_under_autocast():
    ours, theirs = net(), net()
    train_with(MixedPrecision("fp8", emulate=True), model=ours, optimizer=sgd(ours), data=batches())
    train_by_hand(by_torchao(theirs), sgd(theirs), batches(), dtype=torch.bfloat16)
    assert equal(ours, theirs)


def test_it_goes_with_accumulation_in_any_order_of_attaching():
    one, other, theirs = net(), net(), net()
    handlers = [Quantize("float8", emulate=True), GradientAccumulation(4)]
    train_with(*handlers, model=one, optimizer=sgd(one), data=batches())
    handlers = [GradientAccumulation(4), Quantize("float8", emulate=True)]
    train_with(*handlers, model=other, optimizer=sgd(other), data=batches())
    train_by_hand(by_torchao(theirs), sgd(theirs), batches(), window=4)
    assert equal(one, theirs)
    assert equal(other, theirs)


def test_a_device_that_multiplies_in_float8_needs_no_emulation():
    try:
        by_torchao(probe := nn.Sequential(nn.Linear(16, 16)), emulate=False)
        probe(torch.randn(16, 16)).sum().backward()
    except RuntimeError as error:
        pytest.skip(f"this CPU does not: {error}")
    ours, theirs = net(), net()
    train_with(Quantize("float8"), model=ours, optimizer=sgd(ours), data=batches())
    train_by_hand(by_torchao(theirs, emulate=False), sgd(theirs), batches())
    assert equal(ours, theirs)


def test_layers_are_exchanged_in_place_and_parameters_stay():
    model = net().eval()
    parameters, names = list(model.parameters()), list(model.state_dict())
    random = torch.get_rng_state()
    convert_to_float8({"model": model}, emulate=True)
    assert [type(layer).__name__ for layer in model] == ["Float8Linear", "Tanh", "Float8Linear", "Tanh", "Linear"]
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == names
    assert not model[0].training
    assert torch.equal(random, torch.get_rng_state())


def test_hooks_go_over_and_their_handles_stay_good():
    model = net()
    seen = []
    handle = model[0].register_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    convert_to_float8({"model": model}, emulate=True)
    model(batches(1)[0][0])
    handle.remove()
    model(batches(1)[0][0])
    assert seen == ["Float8Linear"]


@pytest.mark.parametrize("layers", [["2"], lambda name, layer: name == "2"], ids=["names", "a function"])
def test_layers_by_choice(layers):
    model = net()
    convert_to_float8({"model": model}, layers=layers, emulate=True)
    assert [type(layer).__name__ for layer in model if isinstance(layer, nn.Linear)] == [
        "Linear",
        "Float8Linear",
        "Linear",
    ]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_device_that_does_not_multiply_in_float8(monkeypatch):
    def scaled_mm(*args, **kwargs):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9")

    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm)
    model = net()
    with pytest.raises(ValueError, match=r"Quantize\(\"float8\"\) needs a device .* cpu does not: .* say emulate=True"):
        train_with(Quantize("float8"), model=model, optimizer=sgd(model), data=batches(1))
    assert type(model[0]) is nn.Linear
    train_with(Quantize("float8", emulate=True), model=model, optimizer=sgd(model), data=batches(1))


def test_a_model_without_a_layer_that_fits():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"can't change 0: float8 needs .* multiples of 16, and it has 6 → 8"):
        convert_to_float8({"model": model}, emulate=True)
    with pytest.raises(ValueError, match="finds none to change in Conv1d"):
        convert_to_float8({"model": nn.Conv1d(16, 16, 3)}, emulate=True)


def test_a_model_that_is_itself_the_layer():
    with pytest.raises(ValueError, match=r"can't change model: the model is itself the layer.* nn\.Sequential"):
        convert_to_float8({"model": nn.Linear(16, 16)}, emulate=True)


def test_a_layer_that_is_asked_for_by_name():
    with pytest.raises(ValueError, match="names head, but the linear layers are: 0, 2, 4"):
        convert_to_float8({"model": net()}, layers=["0", "head"], emulate=True)
    with pytest.raises(ValueError, match="can't change 4: float8 needs sizes that are multiples of 16"):
        convert_to_float8({"model": net()}, layers=["0", "4"], emulate=True)
    with pytest.raises(TypeError, match="takes a list of names of layers, but got '0'; write"):
        convert_to_float8({"model": net()}, layers="0", emulate=True)


def test_a_model_that_is_converted_already():
    model = net()
    convert_to_float8({"model": model}, emulate=True)
    with pytest.raises(ValueError, match="0: torchao has changed it already"):
        convert_to_float8({"model": model}, emulate=True)


def test_layers_that_torchao_can_not_work_on():
    attention = nn.MultiheadAttention(16, 2)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
    lazy = nn.LazyLinear(16)
    for layer, reason in ((attention, "attention reads"), (normed, "is parametrized"), (lazy, "has no shape yet")):
        with pytest.raises(ValueError, match=reason):
            convert_to_float8({"model": nn.Sequential(layer)}, emulate=True)


def test_an_unknown_recipe_or_option():
    with pytest.raises(ValueError, match=r"knows the float8 recipes tensorwise, rowwise, .*, but got 'fast'"):
        Quantize("float8", recipe="fast")
    with pytest.raises(ValueError, match=r"got scale, but torchao's Float8LinearConfig has: .*emulate"):
        Quantize("float8", scale=2)


def test_a_torchao_that_is_missing_or_too_old(monkeypatch):
    monkeypatch.setattr("leyden.handlers.training.float8.version", lambda package: "0.9.0+cpu")
    with pytest.raises(
        ImportError, match=r'needs torchao 0\.18, but found 0\.9\.0\+cpu: pip install -U "torchao>=0\.18"'
    ):
        MixedPrecision("fp8")
    monkeypatch.setattr("leyden.handlers.common.packages.find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r'Quantize\("float8"\) needs .* pip install "leyden\[quantize\]"'):
        Quantize("float8")
