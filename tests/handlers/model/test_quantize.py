"""Linear layers in few bits, held against the loop in which a user calls torchao himself."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from by_hand import equal, loss_fn, sgd, train_by_hand, train_with
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, ClipGradients, Evaluate, GradientAccumulation, MixedPrecision, Schedule
from leyden.handlers.model.finetune import Finetune
from leyden.handlers.model.quantize import Quantize

pytest.importorskip("torchao")

WEIGHTS = {
    "int8": ("int8-weights", {}),
    "int8 by groups": ("int8-weights", {"group_size": 16}),
    "int4": ("int4-weights", {}),
    "int4 by groups": ("int4-weights", {"group_size": 8}),
}
QAT = {"int8": ("qat-int8", {}), "int4": ("qat-int4", {}), "int4 by groups": ("qat-int4", {"group_size": 16})}


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 2))


def batches(number=10, size=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 32, generator=generator), 2 * torch.randn(size, 2, generator=generator))
        for _ in range(number)
    ]


def torchaos_config(kind, group_size=None):
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow

    if kind == "int8-weights":
        granularity = PerRow() if group_size is None else PerGroup(group_size)
        return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)
    if kind == "qat-int8":
        return IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group_size or 32))


def quantized(model, kind, **options):
    from torchao.quantization import quantize_

    quantize_(model, torchaos_config(kind, **options))
    return model


def rehearsing(model, kind, step="prepare", **options):
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    quantize_(model, QATConfig(torchaos_config(kind, **options), step=step))
    return model


def trained_part(model, **options):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9, **options)


def values(model):
    """The numbers of all parameters; those of integers as they are multiplied with."""
    return [p.dequantize() if hasattr(p, "qdata") else p.detach() for p in model.parameters()]


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(values(model), values(other), strict=True))


def kind_of(weight):
    return type(weight).__name__


# -- integers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_is_left_to_train_is_trained_as_by_hand(name):
    kind, options = WEIGHTS[name]
    ours, theirs = net(), quantized(net(), kind, **options)
    train_with(Quantize(kind, **options), model=ours, optimizer=sgd(ours), data=batches())
    train_by_hand(theirs, trained_part(theirs), batches())
    assert same(ours, theirs)
    assert not torch.equal(values(ours)[0], net()[0].weight)
    assert not equal(ours[1], net()[1])


@pytest.mark.parametrize("first", ["Quantize", "the others"])
def test_it_goes_with_the_handlers_of_the_step(first):
    ours, theirs = net(), quantized(net(), "int8-weights")
    optimizer = sgd(ours)
    others = [
        MixedPrecision("bf16"),
        GradientAccumulation(4),
        ClipGradients(norm=0.5),
        Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
    ]
    handlers = [Quantize("int8-weights"), *others] if first == "Quantize" else [*others, Quantize("int8-weights")]
    train_with(*handlers, model=ours, optimizer=optimizer, data=batches())
    by_hand = trained_part(theirs)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(by_hand, 0.9)
    train_by_hand(
        theirs,
        by_hand,
        batches(),
        window=4,
        dtype=torch.bfloat16,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5),
        after_step=scheduler.step,
    )
    assert same(ours, theirs)


def test_the_model_stays_and_integers_leave_its_optimizer():
    model = net()
    layers, trained = list(model), [model[0].bias, model[1].weight, model[1].bias, model[3].bias]
    optimizer = torch.optim.AdamW([{"params": model[:3].parameters()}, {"params": model[3:].parameters(), "lr": 0.1}])
    train_with(Quantize("int8-weights"), model=model, optimizer=optimizer, data=batches(2), epochs=1)
    assert list(model) == layers
    assert kind_of(model[0].weight) == kind_of(model[3].weight) == "Int8Tensor"
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in trained]
    assert set(optimizer.state) == set(trained)


def test_names_of_parameters_in_the_optimizer_follow():
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    train_with(Quantize("int8-weights"), model=model, optimizer=optimizer, data=batches(1), epochs=1)
    assert optimizer.param_groups[0]["param_names"] == ["0.bias", "1.weight", "1.bias", "3.bias"]


def test_torch_goes_on_as_it_was_set():
    """torchao's own default changes inductor's settings for all that the process compiles."""
    import torch._inductor.config as inductor

    before = inductor.coordinate_descent_tuning, torch.get_float32_matmul_precision()
    Quantize("int8-weights").apply(net())
    assert (inductor.coordinate_descent_tuning, torch.get_float32_matmul_precision()) == before


def test_a_model_without_an_engine():
    ours = net()
    Quantize("int4-weights").apply(ours)
    x, _ = batches(1)[0]
    assert torch.equal(ours(x), quantized(net(), "int4-weights")(x))


def test_layers_by_choice():
    for layers in (["0"], lambda name, layer: layer.out_features == 64):
        model = net()
        Quantize("int8-weights", layers=layers).apply(model)
        assert (kind_of(model[0].weight), kind_of(model[3].weight)) == ("Int8Tensor", "Parameter")


def test_a_weight_that_an_embedding_shares_is_left_alone():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(9, 32)
            self.inner = nn.Linear(32, 32)
            self.head = nn.Linear(32, 9, bias=False)
            self.head.weight = self.embedding.weight

    model = Language()
    Quantize("int8-weights").apply(model)
    assert kind_of(model.inner.weight) == "Int8Tensor"
    assert model.head.weight is model.embedding.weight
    with pytest.raises(ValueError, match="can't change head: its weight is another layer's too"):
        Quantize("int8-weights", layers=["head"]).apply(Language())


def test_a_layer_that_occurs_twice():
    layer = nn.Linear(32, 32)
    model = nn.Sequential(layer, nn.Sequential(nn.Tanh(), layer))
    Quantize("int8-weights").apply(model)
    assert model[0] is model[1][1]
    model(torch.randn(2, 32))


def test_two_updates_each_by_its_own_kind():
    models = {"a": net(), "b": net()}

    def process(engine, batch):
        for update in (a, b):
            with update.forward():
                loss = loss_fn(models[update.name](batch[0]), batch[1])
            update.backward(loss)

    engine = Engine(process)
    a, b = (Update(engine, model, sgd(model), name=name) for name, model in models.items())
    engine.attach(Quantize("int8-weights", update="a"), Quantize("qat-int4", update="b"))
    engine.run(batches(2))
    assert [type(models[name][0]).__name__ for name in "ab"] == ["Linear", "FakeQuantizedLinear"]


# -- their state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8-weights", "int4-weights"])
def test_the_state_of_a_quantized_model_is_plain_tensors(kind):
    model, other = net(), net()
    with torch.no_grad():
        other[0].weight.mul_(2)
    for each in (model, other):
        Quantize(kind).apply(each)
    state = model.state_dict()
    assert {type(value) for value in state.values()} == {torch.Tensor}
    assert {name for name in state if name.startswith("0.")} == {
        *("0.bias", "0.weight.qdata", "0.weight.scale", "0.weight.zero_point"),
    }
    assert not same(model, other)
    other.load_state_dict(state)
    assert same(model, other)
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    assert same(model, other)


@pytest.mark.parametrize("kind", ["int8-weights", "int4-weights", "qat-int4", "float8"])
def test_a_resumed_run_is_the_run_that_never_stopped(kind, tmp_path):
    options = {"emulate": True} if kind == "float8" else {}

    def run(seed, stop=None, resume=None):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Dropout(0.3), nn.Linear(64, 32), nn.Linear(32, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        trainer = supervised_trainer(model, optimizer, loss_fn)
        trainer.attach(Checkpoint(tmp_path / str(resume or "whole"), resume=resume), Quantize(kind, **options))
        if stop is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), trainer.interrupt)
        trainer.run(batches(), max_epochs=2)
        return model

    expected = run(seed=0)
    run(seed=0, stop=7, resume="auto")
    resumed = run(seed=3, resume="auto")
    assert same(resumed, expected)


# -- quantization-aware training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QAT)
def test_rehearsing_is_the_loop_with_torchaos_layers_to_the_bit(name):
    kind, options = QAT[name]
    ours, theirs, exact = net(), net(), net()
    train_with(handler := Quantize(kind, **options), model=ours, optimizer=sgd(ours), data=batches())
    rehearsing(theirs, kind, **options)
    train_by_hand(theirs, sgd(theirs), batches())
    train_by_hand(exact, sgd(exact), batches())
    assert equal(ours, theirs)
    assert not equal(ours, exact)

    handler.convert()
    rehearsing(theirs, kind, step="convert", **options)
    assert kind_of(ours[0].weight) == "IntxUnpackedToInt8Tensor"
    assert same(ours, theirs)
    assert {type(value) for value in ours.state_dict().values()} == {torch.Tensor}


def test_converting_changes_nothing_in_what_the_model_says():
    model = net()
    train_with(handler := Quantize("qat-int4"), model=model, optimizer=sgd(model), data=batches(), epochs=1)
    x, _ = batches(1)[0]
    rehearsed = model(x)
    handler.convert()
    assert torch.equal(model(x), rehearsed)


def test_evaluations_are_of_the_rounded_weights():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    evaluator = supervised_evaluator(model)
    trainer.attach(handler := Quantize("qat-int4"), Evaluate(evaluator, batches(1)))
    trainer.run(batches(2))
    seen, _ = evaluator.state.output
    handler.convert(model)
    assert torch.equal(model.eval()(batches(1)[0][0]), seen)


def test_rehearsing_keeps_parameters_and_their_names():
    model = net()
    parameters, names = list(model.parameters()), list(model.state_dict())
    Quantize("qat-int8").apply(model)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == names


# -- how it is told ----------------------------------------------------------------------------------------------------


def test_an_engine_shows_it():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(Quantize("qat-int8"))
    assert 'QUANTIZE  Quantize("qat-int8")' in str(trainer)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_kind_that_is_not_known():
    with pytest.raises(ValueError, match=r"knows the kinds int8-weights, int4-weights, .*, but got 'int2'"):
        Quantize("int2")


def test_groups_for_float8():
    with pytest.raises(ValueError, match="has no groups, but got group_size=32"):
        Quantize("float8", group_size=32)


def test_a_group_size_that_does_not_divide_the_inputs():
    with pytest.raises(ValueError, match="can't change 0: its 32 inputs are no multiple of group_size=48"):
        Quantize("int4-weights", group_size=48).apply(net())


def test_weights_of_another_dtype():
    with pytest.raises(ValueError, match=r"can't change 0: torchao rounds .*, and its weight is torch\.float64"):
        Quantize("int8-weights").apply(net().double())


def test_a_packing_that_the_device_has_not():
    """Which error torchao raises hangs on what is installed; it is told what was asked for."""
    with pytest.raises((ImportError, NotImplementedError, AssertionError)) as error:
        Quantize("int4-weights", int4_packing_format="plain_int32").apply(net())
    assert "on cpu with: Int4WeightOnlyConfig(group_size=32" in error.value.__notes__[0]


@pytest.mark.parametrize("what", ["the model has nothing else", "the optimizer has nothing else"])
def test_nothing_left_to_train(what):
    bias = what == "the optimizer has nothing else"
    model = nn.Sequential(nn.Linear(32, 8, bias=bias), nn.Linear(8, 2, bias=bias))
    trainer = supervised_trainer(model, torch.optim.SGD([model[0].weight, model[1].weight], lr=0.1), loss_fn)
    trainer.attach(Quantize("int8-weights"))
    with pytest.raises(ValueError, match="froze the weights it made, and the optimizer of update 'default'"):
        trainer.run(batches(1))


def test_a_converted_model_is_trained_no_more():
    model = nn.Sequential(nn.Linear(32, 2, bias=False))
    trainer = train_with(handler := Quantize("qat-int8"), model=model, optimizer=sgd(model), data=batches(1), epochs=1)
    handler.convert()
    with pytest.raises(ValueError, match="is converted"):
        trainer.run(batches(1), max_epochs=2)


def test_nothing_to_convert():
    with pytest.raises(ValueError, match="has nothing to convert; only the qat kinds do"):
        Quantize("int8-weights").convert(net())
    with pytest.raises(ValueError, match="finds no layer to convert; run the trainer"):
        Quantize("qat-int8").convert(net())


def test_an_evaluator_has_no_update():
    with pytest.raises(ValueError, match=r"or change the model yourself: Quantize\(\"int8-weights\"\)\.apply\(model\)"):
        supervised_evaluator(net()).attach(Quantize("int8-weights"))


COMPANY = {
    "another": (lambda: Quantize("float8"), "both change the models of one update"),
    "fp8": (lambda: MixedPrecision("fp8"), "both change the linear layers; take MixedPrecision"),
    "fp64": (lambda: MixedPrecision("fp64-true"), "torchao rounds fp32, bf16 and fp16 to integers, and no fp64"),
    "Finetune": (lambda: Finetune({1: "3", 2: "0"}), "integer weights can't be unfrozen"),
}


@pytest.mark.parametrize("name", COMPANY)
@pytest.mark.parametrize("first", [True, False])
def test_company_that_does_not_go_with_it(name, first):
    make, reason = COMPANY[name]
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    handlers = [Quantize("int8-weights"), make()]
    with pytest.raises(ValueError, match=reason):
        trainer.attach(*(handlers if first else handlers[::-1]))


# -- ranks -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_replicas_begin_with_rank_zeros_integers_and_stay_equal():
    """torch's own replicas can't broadcast torchao's tensors."""
    pytest.importorskip("peft")
    sys.path.insert(0, str(Path(__file__).parent / "scripts"))
    from quantized_ranks import train

    one, other = dist.launch(train, 2, backend="gloo", timeout=100)
    assert all(torch.equal(one[name], other[name]) for name in one)
    torch.manual_seed(0)
    rank_zeros = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 2))
    Quantize("int8-weights").apply(rank_zeros)
    assert torch.equal(one["0.base_layer.weight.qdata"], rank_zeros[0].weight.qdata)
    assert one["0.lora_B.default.weight"].any()
