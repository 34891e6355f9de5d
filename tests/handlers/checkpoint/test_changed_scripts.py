"""Where the script is not the one whose run goes on, it is told once, by name; `override` lets the script win."""

import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import Events, Update, supervised_trainer
from leyden.handlers import Checkpoint, MixedPrecision, Schedule

SAMPLES = TensorDataset(torch.arange(80.0).reshape(20, 4) / 80, torch.arange(20) % 2)


def go(directory, epochs, *handlers, make=None, data=None, override=(), **loader):
    """Runs, and gives the trainer's optimizer and what it was told of the script."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = (make or sgd(0.1))(model.parameters())
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    trainer.attach(*(each(optimizer) for each in handlers), Checkpoint(directory, resume="auto", override=override))
    data = DataLoader(SAMPLES, **({"batch_size": 4} | loader)) if data is None else data
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.run(data, max_epochs=epochs)
    return optimizer, [str(each.message) for each in caught if "the script is not" in str(each.message)]


def sgd(lr, **options):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


def test_the_same_script_is_told_nothing_also_for_more_epochs(tmp_path) -> None:
    assert [go(tmp_path, epochs)[1] for epochs in (1, 2, 2, 3)] == [[], [], [], []]


def test_options_of_the_optimizer_are_told_each_time_and_the_checkpoint_holds(tmp_path) -> None:
    go(tmp_path, 1, make=sgd(0.1, momentum=0.9))
    for epochs in (2, 3):
        optimizer, (said,) = go(tmp_path, epochs, make=sgd(0.01, momentum=0.5, weight_decay=0.3))
        for option, mine, old in (("lr", 0.01, 0.1), ("momentum", 0.5, 0.9), ("weight_decay", 0.3, 0)):
            assert f"{option} of update 'default': {mine} in the script, {old} in the checkpoint, which holds" in said
            assert optimizer.param_groups[0][option] == old


def test_override_lets_the_script_win_and_is_remembered(tmp_path) -> None:
    go(tmp_path, 1)
    changed = sgd(0.01, weight_decay=0.3)
    optimizer, said = go(tmp_path, 2, make=changed, override=("lr", "weight_decay"))
    assert said == []
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.01, 0.3)
    assert go(tmp_path, 3, make=changed)[1] == []


def test_an_overridden_rate_keeps_what_a_schedule_made_of_it(tmp_path) -> None:
    cosine = lambda o: Schedule(lr_scheduler.CosineAnnealingLR(o, 20))  # noqa: E731
    go(tmp_path / "a", 2, cosine)
    changed, said = go(tmp_path / "a", 4, cosine, make=sgd(0.5), override=["lr"])
    assert said == []
    halfway = sgd(0.5)([nn.Parameter(torch.zeros(1))])
    straight = cosine(halfway)
    for _ in range(20):
        halfway.step()
        straight.scheduler.step()
    assert changed.param_groups[0]["lr"] == pytest.approx(halfway.param_groups[0]["lr"], abs=1e-9)


def test_an_overridden_rate_in_the_midst_of_a_schedule(tmp_path) -> None:
    exponential = lambda o: Schedule(lr_scheduler.ExponentialLR(o, 0.5), per="epoch")  # noqa: E731
    go(tmp_path, 2, exponential)
    optimizer, _ = go(tmp_path, 3, exponential, make=sgd(1.0), override=["lr"])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.0 * 0.5**3)
    optimizer, said = go(tmp_path, 4, exponential, make=sgd(1.0))
    assert (said, optimizer.param_groups[0]["lr"]) == ([], pytest.approx(1.0 * 0.5**4))


def test_what_can_not_be_overridden(tmp_path) -> None:
    go(tmp_path, 1, make=torch.optim.Adam)
    amsgrad = lambda parameters: torch.optim.Adam(parameters, amsgrad=True)  # noqa: E731
    assert (
        "amsgrad of update 'default': True in the script, False in the checkpoint"
        in go(tmp_path, 2, make=amsgrad)[1][0]
    )
    with pytest.raises(ValueError, match="can't name 'amsgrad': the optimizer would look for a state"):
        go(tmp_path, 3, make=amsgrad, override=("amsgrad",))
    with pytest.raises(ValueError, match="names 'rate', but the options of the optimizers are: amsgrad, betas"):
        go(tmp_path, 3, make=torch.optim.Adam, override=("rate",))
    with pytest.raises(TypeError, match="names of options as override="):
        Checkpoint(tmp_path, override="lr")


def test_other_data_is_told(tmp_path) -> None:
    go(tmp_path, 1)
    _, (said,) = go(tmp_path, 2, batch_size=5, shuffle=True)
    assert "batch size of the data: 5 now, 4 when it was saved" in said
    assert "sampler of the data: 'RandomSampler' now, 'SequentialSampler' when it was saved" in said
    shorter = TensorDataset(*SAMPLES[:8])
    _, (said,) = go(tmp_path, 3, data=DataLoader(shorter, batch_size=5, shuffle=True))
    assert said.endswith("samples of the data: 8 now, 20 when it was saved")


def test_only_of_another_order_is_told_that_samples_may_be_missed(tmp_path) -> None:
    class Stops:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt)

    go(tmp_path, 1, lambda o: Stops())
    shutil.copytree(tmp_path, tmp_path.with_name("again"))
    _, (said,) = go(tmp_path, 1, batch_size=5)
    assert said.endswith("batch size of the data: 5 now, 4 when it was saved")
    _, (said,) = go(tmp_path.with_name("again"), 1, shuffle=True)
    assert said.endswith("the open epoch goes on where it was in the old order, so samples may be missed or come twice")


def test_fewer_epochs_are_told(tmp_path) -> None:
    class Once:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), engine.interrupt)

    go(tmp_path, 5, lambda o: Once())
    _, (said,) = go(tmp_path, 3)
    assert said.endswith("max_epochs: 3 now, 5 when it was saved; the run ends earlier")


def test_loss_scaling_that_came_or_went_is_told(tmp_path) -> None:
    go(tmp_path, 1, lambda o: MixedPrecision("bf16"))
    _, (said,) = go(tmp_path, 2)
    assert "MixedPrecision is no longer attached" in said
    _, (said,) = go(tmp_path, 3, lambda o: MixedPrecision("bf16"))
    assert "MixedPrecision was not attached before" in said


def test_a_trained_parameter_outside_all_modules_goes_on_with_its_value(tmp_path) -> None:
    def train(directory, epochs):
        torch.manual_seed(0)
        model, weight = nn.Linear(4, 2), nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.Adam([*model.parameters(), weight], lr=0.1)

        def step(engine, batch):
            with update.forward():
                loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
            update.backward(loss * torch.exp(-weight).sum() + weight.sum())

        from leyden.engine import Engine

        trainer = Engine(step)
        update = Update(trainer, model, optimizer)
        trainer.attach(Checkpoint(directory, resume="auto"))
        trainer.run(DataLoader(SAMPLES, batch_size=4), max_epochs=epochs)
        return weight.item()

    straight = train(tmp_path / "straight", 4)
    train(tmp_path / "resumed", 2)
    assert train(tmp_path / "resumed", 4) == straight
    assert abs(straight) > 0.1
