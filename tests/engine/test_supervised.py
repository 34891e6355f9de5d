"""The two engines that most scripts need: `supervised_trainer` and `supervised_evaluator`."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from leyden.engine import (
    Engine,
    Events,
    UpdateEvents,
    create_supervised_evaluator,
    create_supervised_trainer,
    supervised_evaluator,
    supervised_trainer,
    to_device,
)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 1))


def make_batches(count=4):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 3, generator=generator), torch.randn(6, 1, generator=generator)) for _ in range(count)]


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def outputs_of(engine, batches, **limits):
    outputs = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
    engine.run(batches, **limits)
    return outputs


# -- the trainer -----------------------------------------------------------------------------------------


def test_a_trainer_does_what_the_loop_by_hand_does():
    batches, model, reference = make_batches(), make_model(), make_model()
    trainer = supervised_trainer(model, make_optimizer(model), mse_loss)
    torch.manual_seed(7)
    losses = outputs_of(trainer, batches, max_epochs=2)

    optimizer = make_optimizer(reference)
    torch.manual_seed(7)
    expected = []
    reference.train()
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            loss = mse_loss(reference(x), y)
            loss.backward()
            optimizer.step()
            expected.append(loss.detach())
    assert torch.equal(torch.stack(losses), torch.stack(expected))
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), reference.state_dict().values(), strict=True)
    )
    assert trainer.state.step == 8


def test_the_output_is_the_detached_loss_as_a_tensor():
    model = make_model()
    output = supervised_trainer(model, make_optimizer(model), mse_loss).run(make_batches()).output
    assert isinstance(output, torch.Tensor)
    assert (output.shape, output.requires_grad) == ((), False)


def test_a_trainer_has_one_update_of_its_model_and_optimizer():
    model = make_model()
    optimizer = make_optimizer(model)
    trainer = supervised_trainer(model, optimizer, mse_loss)
    (update,) = trainer.updates.values()
    assert (update.name, update.optimizer) == ("default", optimizer)
    assert list(update.modules.values()) == [model]
    assert trainer.training


def test_the_transform_of_the_output():
    model, batches = make_model(), make_batches(1)
    trainer = supervised_trainer(
        model,
        make_optimizer(model),
        mse_loss,
        output_transform=lambda x, y, y_pred, loss: (x, y, y_pred.shape, loss.ndim),
    )
    assert trainer.run(batches).output == (*batches[0], (6, 1), 0)


def test_preparing_the_batch():
    model, batches = make_model(), make_batches()
    given = []

    def prepare_batch(batch, device, non_blocking):
        given.append((device, non_blocking))
        return batch["x"], batch["y"]

    trainer = supervised_trainer(
        model,
        make_optimizer(model),
        mse_loss,
        device="cpu",
        non_blocking=True,
        prepare_batch=prepare_batch,
        output_transform=lambda x, y, y_pred, loss: x,
    )
    outputs = outputs_of(trainer, [{"x": x, "y": y} for x, y in batches])
    assert given == [(torch.device("cpu"), True)] * 4
    assert all(torch.equal(output, x) for output, (x, _) in zip(outputs, batches, strict=True))


def test_calling_the_model_and_transforming_its_prediction():
    model = make_model()
    seen = []

    def loss_fn(y_pred, y):
        seen.append(y_pred.shape)
        return mse_loss(y_pred, y.squeeze(1))

    trainer = supervised_trainer(
        model,
        make_optimizer(model),
        loss_fn,
        model_fn=lambda model, x: {"logits": model(x)},
        model_transform=lambda prediction: prediction["logits"].squeeze(1),
    )
    trainer.run(make_batches(1))
    assert seen == [(6,)]


def test_the_step_trains_also_after_someone_set_the_model_to_eval():
    model = make_model()
    trainer = supervised_trainer(model, make_optimizer(model), mse_loss)
    modes = []
    trainer.add_event_handler(Events.ITERATION_STARTED, model.eval)
    trainer.add_event_handler(UpdateEvents.FORWARD_STARTED, lambda: modes.append(model.training))
    trainer.run(make_batches(2))
    assert modes == [True, True]


def test_a_module_kept_in_eval_mode_stays_so():
    model = make_model()
    model.train()
    model[1].eval()
    supervised_trainer(model, make_optimizer(model), mse_loss).run(make_batches(2))
    assert (model.training, model[1].training) == (True, False)


def test_an_optimizer_with_a_closure():
    batches, model, reference = make_batches(), nn.Linear(3, 1), nn.Linear(3, 1)
    reference.load_state_dict(model.state_dict())
    trainer = supervised_trainer(
        model,
        torch.optim.LBFGS(model.parameters(), max_iter=4),
        mse_loss,
        output_transform=lambda x, y, y_pred, loss: (y_pred.shape, loss),
    )
    outputs = outputs_of(trainer, batches)
    optimizer = torch.optim.LBFGS(reference.parameters(), max_iter=4)
    for (x, y), (shape, loss) in zip(batches, outputs, strict=True):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = mse_loss(reference(x), y)
            loss.backward()
            return loss

        assert torch.equal(loss, optimizer.step(closure).detach())
        assert shape == (6, 1)
    assert torch.equal(model.weight, reference.weight)


def test_a_run_moves_the_model_and_the_batches_and_the_optimizer_follows():
    model = make_model()
    optimizer = make_optimizer(model)
    trainer = supervised_trainer(model, optimizer, mse_loss, device="meta")
    assert model[0].weight.device.type == "cpu"  # not before the run
    output = trainer.run(make_batches(1)).output
    assert output.device.type == "meta"
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    held = optimizer.param_groups[0]["params"]
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))


# -- the evaluator ---------------------------------------------------------------------------------------


def test_an_evaluator_predicts_in_eval_mode_without_gradients():
    batches, model = make_batches(), make_model()
    outputs = outputs_of(supervised_evaluator(model), batches)
    model.eval()
    for (y_pred, target), (x, y) in zip(outputs, batches, strict=True):
        assert torch.equal(y_pred, model(x))
        assert target is y
        assert not y_pred.requires_grad
    assert not supervised_evaluator(model).training


@pytest.mark.parametrize("end", ["success", "terminate", "interrupt", "error"])
def test_an_evaluator_gives_each_module_its_mode_back(end):
    model = make_model()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    evaluator = supervised_evaluator(model)
    during = []

    def finish():
        during.append([module.training for module in model.modules()])
        if end == "error":
            raise RuntimeError("boom")
        if end != "success":
            getattr(evaluator, end)()

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, finish)
    if end == "error":
        with pytest.raises(RuntimeError):
            evaluator.run(make_batches(1))
    else:
        evaluator.run(make_batches(1))
    assert during == [[False] * 5]
    assert [module.training for module in model.modules()] == modes


def test_an_evaluator_inside_a_trainer():
    model = make_model()
    trainer = supervised_trainer(model, make_optimizer(model), mse_loss)
    evaluator = supervised_evaluator(model)
    modes = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(make_batches(2)))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: modes.append(model.training))
    trainer.run(make_batches(), max_epochs=2)
    assert modes == [True, True]
    assert (evaluator.state.iteration, trainer.state.iteration) == (2, 8)


def test_the_arguments_of_an_evaluator():
    evaluator = supervised_evaluator(
        make_model(),
        device="cpu",
        non_blocking=True,
        prepare_batch=lambda batch, device, non_blocking: (batch[0], (device.type, non_blocking)),
        model_fn=lambda model, x: {"logits": model(x)},
        model_transform=lambda prediction: prediction["logits"].shape,
        output_transform=lambda x, y, y_pred: (x.shape, y, y_pred),
    )
    assert evaluator.run(make_batches(1)).output == ((6, 3), ("cpu", True), (6, 1))


def test_metrics_are_attached_under_their_names():
    class Metric:
        def attach(self, engine, name):
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update({name: 7}))

    state = supervised_evaluator(make_model(), metrics={"accuracy": Metric(), "loss": Metric()}).run(make_batches(1))
    assert state.metrics == {"accuracy": 7, "loss": 7}


# -- names and devices -----------------------------------------------------------------------------------


def test_the_names_of_ignite():
    assert create_supervised_trainer is supervised_trainer
    assert create_supervised_evaluator is supervised_evaluator


Pair = namedtuple("Pair", ["x", "y"])


def test_to_device_moves_the_tensors_of_nested_batches_and_leaves_the_rest():
    batch = {"pair": Pair(torch.ones(1), [torch.ones(2), "text"]), "id": (3, None)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["id"] == (3, None)
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].x.device.type == "meta"
    assert moved["pair"].y[0].device.type == "meta"
    assert moved["pair"].y[1] == "text"
    assert batch["pair"].x.device.type == "cpu"


def test_the_engines_are_engines():
    model = make_model()
    assert type(supervised_trainer(model, make_optimizer(model), mse_loss)) is Engine
