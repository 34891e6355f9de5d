"""A learning rate found by raising it until the loss diverges."""

import logging
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from trainings import (
    adamw,
    batches,
    everything,
    loss_fn,
    net,
    plain_net,
    same,
    samples,
    seed_all,
    shuffled,
    trainer_of,
)

from leyden.engine import Engine, Events, Order, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision, Schedule
from leyden.handlers.model.compile import Compile
from leyden.handlers.searching.learning_rate_finder import LearningRateFinder
from leyden.handlers.searching.range_test import RangeTest
from leyden.handlers.training.param_schedule import ParamSchedule
from leyden.handlers.training.shapes import Linear

# Most of these look at the losses alone, of searches with few steps.
pytestmark = pytest.mark.filterwarnings("ignore:LearningRateFinder found no learning rate")


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def finder(steps=30, start_lr=1e-4, end_lr=10.0, **options):
    return LearningRateFinder(start_lr, end_lr, steps=steps, **options)


def find(model, *handlers, data=None, optimizer=None, **options):
    trainer = trainer_of(model, sgd(model) if optimizer is None else optimizer, *handlers)
    return finder(apply=False, **options).find(trainer, batches() if data is None else data)


def range_test_by_hand(model, rates, data, window=1, dtype=None, clip=None):
    """The losses of steps with these learning rates, each on the next `window` batches."""
    optimizer = sgd(model)
    stream = (batch for _ in range(100) for batch in data)
    losses = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        total = 0.0
        for _ in range(window):
            x, y = next(stream)
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = loss_fn(model(x), y)
            total += float(loss.detach())
            (loss / window if window > 1 else loss).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / window)
    return losses


# -- the losses --------------------------------------------------------------------------------------------------------


def test_the_losses_are_those_of_a_loop_that_multiplies_the_learning_rate():
    result = find(plain_net(), steps=30, diverge=math.inf)
    factor = (10.0 / 1e-4) ** (1 / 29)
    rates = [1e-4 * factor**k for k in range(30)]
    assert result.lrs == rates
    assert rates[-1] == pytest.approx(10.0)
    assert result.losses == range_test_by_hand(plain_net(), rates, batches())


def test_in_linear_mode_the_learning_rate_grows_by_the_same_amount():
    result = find(plain_net(), steps=5, start_lr=0.1, end_lr=0.5, mode="linear")
    assert result.lrs == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert result.losses == range_test_by_hand(plain_net(), result.lrs, batches())


@pytest.mark.parametrize("window", [3, 4])
def test_under_accumulation_each_optimizer_step_has_its_learning_rate(window):
    result = find(plain_net(), GradientAccumulation(window), steps=12)
    assert len(result.lrs) == 12
    assert result.losses == range_test_by_hand(plain_net(), result.lrs, batches(), window=window)


def test_in_bf16():
    result = find(plain_net(), MixedPrecision("bf16"))
    assert result.losses == range_test_by_hand(plain_net(), result.lrs, batches(), dtype=torch.bfloat16)


def test_gradients_are_clipped_as_in_training():
    result = find(plain_net(), ClipGradients(norm=0.1), steps=12)
    assert result.losses == range_test_by_hand(plain_net(), result.lrs, batches(), clip=0.1)


def test_a_step_that_fp16_skips_is_tried_again_with_the_same_learning_rate():
    seen = []
    trainer = trainer_of(model := plain_net(), sgd(model), MixedPrecision("fp16", init_scale=2.0**18))
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda: seen.append(trainer.updates["default"].optimizer.param_groups[0]["lr"])
    )
    result = finder(steps=12, apply=False).find(trainer, batches())
    assert len(result.lrs) == 12
    assert len(seen) > 12
    assert sorted(set(seen)) == result.lrs


def test_every_kind_of_loss_that_is_one_number():
    outputs = {
        "tensor": lambda loss: loss,
        "number": lambda loss: float(loss.detach()),
        "one element": lambda loss: loss.reshape(1),
    }
    results = []
    for output in outputs.values():
        trainer = supervised_trainer(
            model := plain_net(), sgd(model), loss_fn, output_transform=lambda x, y, y_pred, loss, f=output: f(loss)
        )
        results.append(finder(steps=5, apply=False).find(trainer, batches()).losses)
    assert results[0] == results[1] == results[2]


def test_the_loss_in_an_output_is_found_by_a_function():
    def make():
        return supervised_trainer(
            model := plain_net(), sgd(model), loss_fn, output_transform=lambda x, y, y_pred, loss: {"loss": loss}
        )

    result = finder(steps=5, apply=False, output_transform=lambda output: output["loss"]).find(make(), batches())
    assert result.losses == find(plain_net(), steps=5).losses
    with pytest.raises(
        TypeError, match="needs the loss as one number, but the process function's output is dict; give"
    ):
        finder(steps=5).find(make(), batches())


def test_it_ends_when_the_loss_diverges():
    result = find(plain_net(), steps=100, end_lr=1e4)
    by_hand = range_test_by_hand(plain_net(), finder(steps=100, end_lr=1e4).rates(), batches())
    assert result.losses == by_hand[: len(result.losses)]
    assert len(result.losses) < 100
    assert result.smoothed[-1] > 4.0 * min(result.smoothed)
    assert all(value <= 4.0 * min(result.smoothed[: i + 1]) for i, value in enumerate(result.smoothed[:-1]))


def test_a_loss_that_is_not_finite_ends_it_and_is_left_out():
    trainer = trainer_of(model := plain_net(), sgd(model))
    values = iter([3.0, 2.0, 1.0, math.nan, 0.5])
    process = trainer.process

    def broken(engine, batch):
        process(engine, batch)
        return next(values)

    trainer.process = broken
    with pytest.warns(UserWarning, match="found no learning rate in 3 steps, up to"):
        assert finder(steps=10).find(trainer, batches()).losses == [3.0, 2.0, 1.0]


# -- the suggestion ----------------------------------------------------------------------------------------------------


def filled(losses, lrs=None, smoothing=1.0):
    result = RangeTest(smoothing)
    for k, loss in enumerate(losses):
        result.add(10.0 ** (k - 30) if lrs is None else lrs[k], loss)
    return result


def test_smoothing_is_an_unbiased_exponential_mean():
    result = filled([4.0, 2.0, 6.0], smoothing=0.25)
    # a = 1, 1.25, 2.4375; divided by 1 - 0.75^n = 0.25, 0.4375, 0.578125
    assert result.smoothed == pytest.approx([4.0, 1.25 / 0.4375, 2.4375 / 0.578125])


def test_the_suggestion_is_where_the_loss_falls_fastest():
    losses = [9.0] * 13 + [8.9, 8.0, 5.0, 4.5, 4.4, 4.4, 4.4] + [5.0] * 5
    # Central differences: (8.9 - 9)/2, (8 - 9)/2, (5 - 8.9)/2, (4.5 - 8)/2, ...: the third is the steepest, at 14.
    assert filled(losses).steepest() == pytest.approx(10.0 ** (14 - 30))


def test_the_first_ten_and_the_last_five_points_have_no_say():
    falling = [100.0 - 10 * k for k in range(10)]
    losses = [*falling, 9.0, 8.9, 8.8, 7.0, 6.9, 6.9, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert filled(losses).steepest() == pytest.approx(10.0 ** (12 - 30))  # (7 - 8.9)/2 is the steepest of six


@pytest.mark.parametrize("losses", [[5.0] * 17, [float(k) for k in range(30)], [1.0] * 30, []])
def test_too_few_points_or_a_loss_that_never_falls_suggest_nothing(losses):
    assert filled(losses).steepest() is None


def test_a_loss_below_zero_diverges_only_when_it_rises_far():
    assert not filled([-10.0, -2.0]).diverged(4.0)
    assert filled([-10.0, 21.0]).diverged(4.0)


def test_the_plot_marks_the_suggestion():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    result = find(plain_net(), steps=60)
    axes = result.plot()
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
    assert curves["loss"] == (result.lrs, result.losses)
    assert curves["smoothed"] == (result.lrs, result.smoothed)
    assert curves[f"suggestion {result.suggestion:.2e}"][0] == [result.suggestion]
    assert axes.get_xscale() == "log"
    assert result.plot(axes) is axes
    pyplot.close("all")


# -- no trace ----------------------------------------------------------------------------------------------------------


class Average:
    """Follows the weights as an average does: in steps, on its own."""

    def __init__(self):
        self.weights, self.events = [], []

    def attach(self, engine):
        engine.add_event_handler(UpdateEvents.STEP_COMPLETED, self.follow)
        for event in Events:
            if event is not Events.EXCEPTION_RAISED:
                engine.add_event_handler(event, lambda event=event: self.events.append((event, engine.state.iteration)))

    def follow(self, engine, update):
        now = [p.detach().clone() for module in update.modules.values() for p in module.parameters()]
        self.weights = [0.9 * a + 0.1 * p for a, p in zip(self.weights, now, strict=True)] if self.weights else now


HANDLERS = {
    "alone": lambda optimizer: (),
    "accumulation": lambda optimizer: (GradientAccumulation(3),),
    "bf16": lambda optimizer: (MixedPrecision("bf16"),),
    "fp16": lambda optimizer: (MixedPrecision("fp16", growth_interval=3),),
    "a schedule": lambda optimizer: (Schedule(lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=50)),),
    "clipping": lambda optimizer: (ClipGradients(norm=0.1),),
}


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("make_data", [shuffled, lambda: shuffled(generator=torch.Generator().manual_seed(3)), batches])
def test_a_run_with_it_is_the_run_without_it(kind, make_data):
    runs = []
    for searches in (False, True):
        model = net()
        optimizer = adamw(model)
        trainer = trainer_of(model, optimizer, Average(), *HANDLERS[kind](optimizer))
        search = finder(apply=False)
        if searches:
            trainer.attach(search)
        seed_all()
        trainer.run(make_data(), max_epochs=2)
        state = everything(trainer)
        state["handlers"].pop("LearningRateFinder", None)
        runs.append(state)
    assert search.result.suggestion is not None
    assert same(*runs)


def test_a_compiled_run_compiles_as_if_it_had_not_been():
    """The last batch is shorter: what is compiled for it fits the others too, but must not come before its turn."""

    class Own(nn.Module):  # torch compiles no forward of its own classes
        def __init__(self):
            super().__init__()
            self.layers = plain_net()

        def forward(self, x):
            return self.layers(x)

    def compiled(*handlers):
        graphs = []

        def backend(graph, inputs):
            graphs.append([str(each.shape) for each in inputs if isinstance(each, torch.Tensor)])
            return graph

        torch.compiler.reset()
        trainer = trainer_of(model := Own(), sgd(model), Compile(backend=backend), *handlers)
        trainer.add_event_handler(Events.STARTED, graphs.clear, order=Order.SAVERS)
        x, y = samples(42).tensors
        trainer.run(list(zip(x.split(4), y.split(4), strict=True)), max_epochs=2)
        return graphs

    expected = compiled()
    assert len(expected) == 2
    assert compiled(finder(apply=False)) == expected


def test_a_second_run_from_the_beginning_is_searched_anew_and_a_continued_one_is_not():
    search = finder()
    trainer = trainer_of(model := plain_net(), sgd(model), search)
    data = batches()
    trainer.run(data, max_epochs=1)
    first = search.result
    trainer.run(data, max_epochs=2)
    assert search.result is first
    trainer.state.max_epochs = None
    trainer.run(data, max_epochs=1)
    assert search.result is not first


def test_a_resumed_run_keeps_what_was_found():
    trainer = trainer_of(model := plain_net(), sgd(model), finder())
    trainer.run(batches(), max_epochs=1)
    again = finder()
    resumed = trainer_of(model := plain_net(), optimizer := sgd(model), again)
    optimizer.load_state_dict(trainer.updates["default"].optimizer.state_dict())
    resumed.load_state_dict(trainer.state_dict())
    resumed.run(batches(), max_epochs=2)
    assert again.result is None
    assert optimizer.param_groups[0]["lr"] == trainer.updates["default"].optimizer.param_groups[0]["lr"] != 0.1


# -- what it sets ------------------------------------------------------------------------------------------------------


def test_training_begins_from_the_suggestion():
    def train(lr, *handlers):
        trainer = trainer_of(model := net(), adamw(model, lr), *handlers)
        seed_all()
        trainer.run(shuffled(), max_epochs=2)
        return everything(trainer)["updates"]

    search = finder()
    found = train(0.1, search)
    assert same(found, train(search.result.suggestion))


def test_all_groups_keep_their_ratios():
    model = plain_net()
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.04}]
    optimizer = torch.optim.SGD(groups)
    seen = []
    trainer = trainer_of(model, optimizer, search := finder())
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    trainer.run(batches(), max_epochs=1)
    assert seen[: len(search.result.lrs)] == [[lr / 4, lr] for lr in search.result.lrs]
    suggestion = search.result.suggestion
    assert [group["lr"] for group in optimizer.param_groups] == [suggestion / 4, suggestion]


def test_a_learning_rate_that_is_a_tensor_is_filled():
    model = plain_net()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    trainer = trainer_of(model, optimizer, search := finder())
    trainer.run(batches(), max_epochs=1)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(search.result.suggestion)


SCHEDULERS = {
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "function": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "from zero": lambda o: lr_scheduler.LambdaLR(o, lambda step: step / 100),
    "warm-up": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=5),
    "in a row": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[5]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("finder_first", [True, False])
def test_a_schedule_begins_from_the_suggestion(kind, finder_first):
    def rates_of(lr, search=None):
        optimizer = torch.optim.SGD((model := plain_net()).parameters(), lr=lr)
        handlers = [each for each in (search, Schedule(SCHEDULERS[kind](optimizer))) if each is not None]
        trainer = trainer_of(model, optimizer, *(handlers if finder_first else handlers[::-1]))
        rates = []
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
        trainer.run(batches(), max_epochs=2)
        return rates

    search = finder()
    found = rates_of(0.2, search)
    assert found == pytest.approx(rates_of(search.result.suggestion), rel=1e-12)


def test_a_warm_up_of_schedule_rises_to_the_suggestion():
    optimizer = sgd(model := plain_net())
    search = finder()
    schedule = Schedule(lr_scheduler.ExponentialLR(optimizer, 1.0), warmup=5, warmup_start=0.1)
    trainer_of(model, optimizer, search, schedule).run(batches(), max_epochs=1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(search.result.suggestion)


def test_loggers_see_what_was_found_and_what_was_made_ready_at_the_start_is_there():
    model = plain_net()
    optimizer = sgd(model)
    trainer = trainer_of(model, optimizer, search := finder())
    process, seen = trainer.process, []
    trainer.process = lambda engine, batch: process(engine, (batch[0] * engine.state.factor, batch[1]))
    trainer.add_event_handler(Events.STARTED, lambda: setattr(trainer.state, "factor", 1.0))
    trainer.add_event_handler(Events.STARTED, lambda: seen.append(optimizer.param_groups[0]["lr"]), order=10)
    trainer.run(batches(), max_epochs=1)
    assert seen == [search.result.suggestion]


def test_it_says_what_it_found_in_one_line(caplog):
    trainer = trainer_of(model := plain_net(), sgd(model), search := finder())
    with caplog.at_level(logging.INFO, "leyden.handlers"):
        trainer.run(batches(), max_epochs=1)
    found, steps, last = search.result.suggestion, len(search.result.lrs), search.result.lrs[-1]
    assert caplog.messages == [
        f"LearningRateFinder: the loss falls fastest at {found:.3g} ({steps} steps, up to {last:.3g})"
    ]


def test_without_a_suggestion_the_learning_rate_stays_and_a_warning_says_so():
    trainer = trainer_of(model := plain_net(), optimizer := sgd(model), LearningRateFinder(1e-12, 1e-11, steps=5))
    with pytest.warns(UserWarning, match="found no learning rate in 5 steps, up to 1e-11: the points are too few"):
        trainer.run(batches(), max_epochs=1)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_one_of_several_updates():
    models = {"critic": plain_net(), "generator": plain_net()}
    optimizers = {name: sgd(model) for name, model in models.items()}

    def process(engine, batch):
        for name, update in engine.updates.items():
            with update.forward():
                loss = loss_fn(models[name](batch[0]), batch[1])
            update.backward(loss)
        return loss.detach()

    engine = Engine(process)
    for name, model in models.items():
        Update(engine, model, optimizers[name], name=name)
    with pytest.raises(ValueError, match=r"several updates \(critic, generator\); name the one whose"):
        engine.attach(finder())
    engine.attach(search := finder(update="generator"))
    engine.run(batches(), max_epochs=1)
    assert search.result.losses == find(plain_net()).losses
    assert optimizers["critic"].param_groups[0]["lr"] == 0.1
    assert optimizers["generator"].param_groups[0]["lr"] == search.result.suggestion


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_lr": 0.0}, "needs 0 < start_lr < end_lr, but got start_lr=0.0 and end_lr=10.0"),
        ({"start_lr": 1.0, "end_lr": 0.1}, "needs 0 < start_lr < end_lr"),
        ({"end_lr": math.inf}, "needs 0 < start_lr < end_lr"),
        ({"steps": 1}, "needs at least 2 steps, but got 1"),
        ({"mode": "cubic"}, 'needs mode "exponential" or "linear", but got \'cubic\''),
        ({"smoothing": 0.0}, "above 0 and at most 1, but got 0.0"),
        ({"diverge": 1.0}, "a factor above 1 on the least loss, but got 1.0"),
    ],
)
def test_bounds_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearningRateFinder(**arguments)


def test_steps_that_are_no_whole_number():
    with pytest.raises(TypeError, match=r"takes a whole number of steps, but got 2\.5"):
        LearningRateFinder(steps=2.5)


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="LearningRateFinder works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(finder())


def test_an_engine_that_evaluates():
    with pytest.raises(ValueError, match="of a trainer, but this engine evaluates"):
        supervised_evaluator(plain_net()).attach(finder())


def test_an_update_that_is_not_there():
    trainer = trainer_of(model := plain_net(), sgd(model))
    with pytest.raises(ValueError, match="names the update 'critic', but the engine has: default"):
        trainer.attach(finder(update="critic"))


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=50),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.OneCycleLR(o, 0.1, total_steps=50)]),
    ],
)
@pytest.mark.parametrize("finder_first", [True, False])
def test_schedulers_that_take_their_rates_from_their_own_arguments(scheduler, finder_first):
    optimizer = sgd(model := plain_net())
    handlers = [finder(), Schedule(scheduler(optimizer))]
    with pytest.raises(
        ValueError, match="takes its learning rates from its own arguments, so none can be set; search with"
    ):
        trainer_of(model, optimizer, *(handlers if finder_first else handlers[::-1]))


def test_such_a_scheduler_of_another_optimizer():
    model, other = plain_net(), plain_net()
    optimizers = sgd(model), sgd(other)
    engine = Engine(lambda engine, batch: None)
    for name, each, optimizer in zip("ab", (model, other), optimizers, strict=True):
        Update(engine, each, optimizer, name=name)
    engine.attach(finder(update="a"), Schedule(lr_scheduler.OneCycleLR(optimizers[1], 0.1, total_steps=50)))
    assert len(engine.handlers) == 2


@pytest.mark.parametrize("finder_first", [True, False])
def test_a_shape_in_learning_rates_of_its_own(finder_first):
    handlers = [finder(), ParamSchedule("lr", Linear(0.1, 0.01, 50))]
    model = plain_net()
    with pytest.raises(ValueError, match="the schedule's shape is in learning rates of its own"):
        trainer_of(model, sgd(model), *(handlers if finder_first else handlers[::-1]))
    trainer_of(model, sgd(model), finder(), ParamSchedule("momentum", Linear(0.9, 0.5, 50)))


def test_two_of_them():
    model = plain_net()
    with pytest.raises(ValueError, match="LearningRateFinder and LearningRateFinder can't both be attached"):
        trainer_of(model, sgd(model), finder(), finder())


def test_data_that_can_be_gone_through_only_once():
    trainer = trainer_of(model := plain_net(), sgd(model), finder())
    data = iter(batches())
    with pytest.raises(ValueError, match="a search takes batches before the run does, but this data"):
        trainer.run(data, max_epochs=1)
    assert len(list(data)) == 10


def test_a_process_function_that_never_steps():
    model = plain_net()
    engine = Engine(lambda engine, batch: 1.0)
    Update(engine, model, sgd(model))
    with pytest.raises(RuntimeError, match="the optimizer of update 'default' did not step once in 1000 batches"):
        finder().find(engine, batches())


def test_an_optimizer_without_a_learning_rate():
    class Own(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1)
            del self.param_groups[0]["lr"]

    model = plain_net()
    with pytest.raises(ValueError, match="Own has no learning rate"):
        find(model, optimizer=Own(model.parameters()))
