"""EMAHandler and FastaiLRFinder on engines whose step is a user's own."""

from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from torch import nn

import leyden.contrib.ignite.handlers as ours
from leyden.contrib.ignite.engine import Engine, Events, create_supervised_trainer


def averaged(of: Any, engine_kind: Any, **options: Any) -> tuple[list[torch.Tensor], float]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(engine: Any, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    engine = engine_kind(step)
    handler = of.EMAHandler(model, **options)
    handler.attach(engine)
    engine.run(list(torch.randn(12, 5, 3)), max_epochs=1)
    return list(handler.ema_model.state_dict().values()), engine.state.ema_momentum


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.1},
        {"momentum": 0.1, "handle_buffers": "ema_train"},
        {"momentum": 0.2, "momentum_warmup": 0.5, "warmup_iters": 8},
        {"momentum": 0.5, "momentum_warmup": 0.1, "warmup_iters": 4},
    ],
)
def test_the_average_is_ignites(options: dict[str, Any]) -> None:
    tensors, momentum = averaged(ours, Engine, **options)
    expected, expected_momentum = averaged(ignite.handlers, ignite.engine.Engine, **options)
    assert momentum == pytest.approx(expected_momentum)
    torch.testing.assert_close(tensors, expected)


def test_updated_buffers_are_averaged_and_counts_copied() -> None:
    tensors, _ = averaged(ours, Engine, momentum=0.1, handle_buffers="update")
    expected, _ = averaged(ignite.handlers, ignite.engine.Engine, momentum=0.1, handle_buffers="update")
    count = next(place for place, tensor in enumerate(tensors) if tensor.ndim == 0)
    assert int(tensors.pop(count)) == 12
    expected.pop(count)  # Ignite averages the count too, in whole numbers
    torch.testing.assert_close(tensors, expected)


def test_a_copied_buffer_stays_the_averages_own() -> None:
    model = nn.BatchNorm1d(2)
    handler = ours.EMAHandler(model, momentum=0.5)
    engine = Engine(lambda engine, batch: model(batch))
    handler.attach(engine)
    engine.run([torch.randn(4, 2)], max_epochs=1)
    before = handler.ema_model.running_mean.clone()
    model(torch.randn(4, 2) + 5)
    assert torch.equal(handler.ema_model.running_mean, before)


def make_trainer() -> tuple[Any, nn.Module, torch.optim.Optimizer, list[Any]]:
    torch.manual_seed(1)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = create_supervised_trainer(model, optimizer, nn.functional.mse_loss)
    inputs = torch.randn(40, 8, 4)
    return trainer, model, optimizer, [(x, x.sum(1, keepdim=True)) for x in inputs]


def test_the_finder_leaves_no_trace_and_finds_a_rate_at_which_the_loss_falls() -> None:
    trainer, model, optimizer, data = make_trainer()
    weight = model.weight.detach().clone()
    finder = ours.FastaiLRFinder()
    with finder.attach(
        trainer, to_save={"model": model, "optimizer": optimizer}, num_iter=40, end_lr=10.0
    ) as searching:
        searching.run(data)
    results = finder.get_results()
    assert len(results["lr"]) == len(results["loss"]) < 40  # it diverged
    assert results["lr"][0] == pytest.approx(1e-3 * 1e4 ** (1 / 40))
    assert all(a < b for a, b in zip(results["lr"], results["lr"][1:], strict=False))
    assert results["loss"][-1] > 5 * min(results["loss"])
    assert torch.equal(model.weight, weight)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert trainer.state.iteration == 0

    suggestion = finder.lr_suggestion()
    assert suggestion in results["lr"]
    finder.apply_suggested_lr(optimizer)
    assert optimizer.param_groups[0]["lr"] == suggestion
    trainer.run(data, max_epochs=2)
    assert trainer.state.iteration == 80
    assert trainer.state.output < 1e-3


def test_a_search_that_does_not_diverge_says_so_and_a_linear_one_has_lines() -> None:
    trainer, model, optimizer, data = make_trainer()
    finder = ours.FastaiLRFinder()
    with (
        pytest.warns(UserWarning, match="did not diverge"),
        finder.attach(
            trainer, {"model": model, "optimizer": optimizer}, start_lr=1e-4, end_lr=1e-3, step_mode="linear"
        ) as searching,
    ):
        searching.run(data, max_epochs=1)
    rates = finder.get_results()["lr"]
    assert len(rates) == 40
    assert rates[10] - rates[0] == pytest.approx(10 * (1e-3 - 1e-4) / 40)


def test_an_error_in_the_search_puts_everything_back_too() -> None:
    trainer, model, optimizer, data = make_trainer()
    weight = model.weight.detach().clone()
    with (
        pytest.raises(TypeError, match="output_transform"),
        ours.FastaiLRFinder().attach(
            trainer, {"model": model, "optimizer": optimizer}, output_transform=lambda output: {"loss": output}
        ) as searching,
    ):
        searching.run(data, max_epochs=1)
    assert torch.equal(model.weight, weight)
    assert not trainer.has_event_handler(ours.FastaiLRFinder, Events.ITERATION_COMPLETED)
    trainer.run(data, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to_save": {"model": nn.Linear(1, 1)}}, '"optimizer"'),
        ({"start_lr": 1.0, "end_lr": 0.1}, "less than end_lr"),
        ({"step_mode": "cosine"}, "step_mode"),
        ({"smooth_f": 1.0}, "smooth_f"),
        ({"num_iter": 0}, "num_iter"),
        ({"end_lr": [1.0, 2.0]}, "2 values for 1 groups"),
    ],
)
def test_arguments_that_cannot_be_meant_are_told(options: dict[str, Any], words: str) -> None:
    trainer, model, optimizer, _ = make_trainer()
    arguments = {"to_save": {"model": model, "optimizer": optimizer}} | options
    with pytest.raises(ValueError, match=words), ours.FastaiLRFinder().attach(trainer, **arguments):
        pass
