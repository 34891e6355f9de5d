"""Forward passes in low precision. Loss scaling, which fp16 needs, is in test_loss_scaling.py."""

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, GradientAccumulation, MixedPrecision
from leyden.handlers.training.fast_precision import has_bf16


def note_dtypes(module):
    """The dtypes in which the module's output leaves it, noted at each forward pass."""
    seen = []
    module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    return seen


def test_bf16_is_the_autocast_loop_to_the_bit():
    ours, theirs = net(), net()
    trainer = train_with(MixedPrecision("bf16"), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10), dtype=torch.bfloat16)
    assert trainer.state.step == 30
    assert equal(ours, theirs)
    in_fp32 = net()
    train_by_hand(in_fp32, sgd(in_fp32), batches(10))
    assert not equal(ours, in_fp32)  # the comparison could have failed


def test_what_the_processor_computes_fast_is_the_default():
    ours, theirs = net(), net()
    train_with(MixedPrecision(), model=ours, optimizer=sgd(ours), data=batches(3))
    train_with(MixedPrecision("bf16" if has_bf16() else "fp32"), model=theirs, optimizer=sgd(theirs), data=batches(3))
    assert equal(ours, theirs)


def test_bf16_under_accumulation_is_the_autocast_loop_to_the_bit():
    ours, theirs = net(), net()
    train_with(MixedPrecision("bf16"), GradientAccumulation(4), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10), window=4, dtype=torch.bfloat16)
    assert equal(ours, theirs)


def test_fp32_does_nothing():
    ours, theirs = net(), net()
    seen = note_dtypes(ours)
    train_with(MixedPrecision("fp32"), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand(theirs, sgd(theirs), batches(10))
    assert equal(ours, theirs)
    assert set(seen) == {torch.float32}


def test_parameters_gradients_and_optimizer_state_stay_in_fp32():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(MixedPrecision("bf16"))
    gradients = []

    @trainer.on(UpdateEvents.GRADIENTS_READY)
    def note(engine, update):
        gradients.extend(gradient.dtype for gradient in update.gradients())

    trainer.run(batches(2))
    assert set(gradients) == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_the_forward_pass_is_in_low_precision_and_nothing_else_is():
    model = net()
    seen = note_dtypes(model)
    trainer = supervised_trainer(
        model, sgd(model), loss_fn, output_transform=lambda x, y, y_pred, loss: {"y_pred": y_pred, "loss": loss}
    )
    trainer.attach(MixedPrecision("bf16"))
    outside = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: outside.append(torch.is_autocast_enabled("cpu")))
    output = trainer.run(batches(2)).output
    assert set(seen) == {torch.bfloat16}
    assert output["y_pred"].dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, y = batches(1)[0]
        assert output["loss"].dtype == loss_fn(net()(x), y).dtype
    assert outside == [False, False]


def test_autocast_is_left_when_the_forward_pass_fails():
    model = net()

    def fail(y_pred, y):
        raise ArithmeticError("in the forward pass")

    trainer = supervised_trainer(model, sgd(model), fail)
    trainer.attach(MixedPrecision("bf16"))
    with pytest.raises(ArithmeticError):
        trainer.run(batches(1))
    assert not torch.is_autocast_enabled("cpu")


# -- evaluators --------------------------------------------------------------------------------------------------------


def test_an_evaluator_of_its_own():
    model = net()
    evaluator = supervised_evaluator(model)
    evaluator.attach(MixedPrecision("bf16"))
    y_pred, _ = evaluator.run(batches(1)).output
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(batches(1)[0][0])
    assert y_pred.dtype == torch.bfloat16
    assert torch.equal(y_pred, expected)
    assert not torch.is_autocast_enabled("cpu")


def test_an_evaluator_in_fp32():
    evaluator = supervised_evaluator(net())
    evaluator.attach(MixedPrecision("fp32"))
    assert evaluator.run(batches(1)).output[0].dtype == torch.float32


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize("first", ["Evaluate", "MixedPrecision"])
def test_the_evaluators_that_a_trainer_runs_follow_it(precision, dtype, first):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    evaluator = supervised_evaluator(model)
    handlers = [Evaluate(evaluator, batches(2)), MixedPrecision(precision)]
    trainer.attach(*(handlers if first == "Evaluate" else handlers[::-1]))
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output[0].dtype))
    trainer.run(batches(2), max_epochs=2)
    assert seen == [dtype] * 4


def test_one_evaluator_for_two_data_sets():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    evaluator = supervised_evaluator(model)
    trainer.attach(MixedPrecision("bf16"), Evaluate(evaluator, batches(2), prefix="a/"))
    trainer.attach(Evaluate(evaluator, batches(1), prefix="b/"))
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output[0].dtype))
    trainer.run(batches(1), max_epochs=1)
    assert seen == [torch.bfloat16] * 3


# -- several updates ---------------------------------------------------------------------------------------------------


def two_updates():
    """An engine that trains two models, each by its own update, and what the forward passes of each gave."""
    models = {"first": net(), "second": net()}

    def process(engine, batch):
        x, y = batch
        for update in (first, second):
            with update.forward():
                loss = loss_fn(models[update.name](x), y)
            update.backward(loss)

    engine = Engine(process)
    first = Update(engine, models["first"], sgd(models["first"]), name="first")
    second = Update(engine, models["second"], sgd(models["second"]), name="second")
    return engine, {name: note_dtypes(model) for name, model in models.items()}


def test_all_updates_by_default():
    engine, seen = two_updates()
    engine.attach(MixedPrecision("bf16"))
    engine.run(batches(1))
    assert seen == {"first": [torch.bfloat16], "second": [torch.bfloat16]}


def test_each_update_may_have_its_own():
    engine, seen = two_updates()
    engine.attach(MixedPrecision("bf16", update="first"), MixedPrecision("fp16", update="second"))
    engine.run(batches(1))
    assert seen == {"first": [torch.bfloat16], "second": [torch.float16]}


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_an_unknown_precision():
    with pytest.raises(
        ValueError, match="knows the precisions fp32, bf16, fp16, fp8, bf16-true, fp64-true, but got 'half'"
    ):
        MixedPrecision("half")


def test_options_of_a_scaler_that_is_not_there():
    with pytest.raises(ValueError, match="only fp16 and fp8 have options; bf16 has no use for: init_scale"):
        MixedPrecision("bf16", init_scale=4.0)


def test_two_of_them():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(MixedPrecision("bf16"))
    with pytest.raises(ValueError, match="MixedPrecision and MixedPrecision both set autocast of one update"):
        trainer.attach(MixedPrecision("fp16"))


def test_two_of_them_on_an_evaluator():
    evaluator = supervised_evaluator(net())
    evaluator.attach(MixedPrecision("bf16"))
    with pytest.raises(ValueError, match="MixedPrecision"):
        evaluator.attach(MixedPrecision("fp16"))


def test_an_engine_without_an_update():
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(ValueError, match=r"MixedPrecision works on an Update, and this engine has none: make Update\("):
        engine.attach(MixedPrecision("bf16"))
    assert engine.handlers == {}


def test_an_update_that_is_not_there():
    engine, _ = two_updates()
    with pytest.raises(ValueError, match="MixedPrecision names the update 'third', but the engine has: first, second"):
        engine.attach(MixedPrecision("bf16", update="third"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_device_without_autocast(precision, dtype):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn, device="meta")
    trainer.attach(MixedPrecision(precision))
    with pytest.raises(ValueError, match=rf"{dtype} on the device 'meta', for which torch has no autocast; train in"):
        trainer.run(batches(1))


def test_an_evaluator_on_a_device_without_autocast():
    evaluator = supervised_evaluator(net(), device="meta")
    evaluator.attach(MixedPrecision("bf16"))
    with pytest.raises(ValueError, match="on the device 'meta', for which torch has no autocast"):
        evaluator.run(batches(1))


def test_a_step_without_the_forward_context():
    model = net()

    def process(engine, batch):
        x, y = batch
        update.backward(loss_fn(model(x), y))

    engine = Engine(process)
    update = Update(engine, model, sgd(model))
    engine.run(batches(1))  # nothing that needs it is attached
    engine.attach(MixedPrecision("bf16"))
    with pytest.raises(RuntimeError, match=r"MixedPrecision needs the forward pass inside `with update.forward\(\):`"):
        engine.run(batches(1))


def test_a_model_of_layers_that_autocast_leaves_alone():
    """Normalisation stays in fp32, as torch's lists of operations say."""
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    seen = note_dtypes(model[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model[1](model[0](batches(1)[0][0])).dtype
    seen.clear()
    train_with(MixedPrecision("bf16"), model=model, optimizer=sgd(model), data=batches(1), epochs=1)
    assert seen == [expected]
