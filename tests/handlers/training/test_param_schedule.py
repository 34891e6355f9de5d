"""Any number of a run, driven by a shape: the right value in each step, of the right groups, also after a resume."""

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand
from test_cost import by_engine
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_trainer
from leyden.handlers import GradientAccumulation, Schedule
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.training import Constant, Cosine, Cyclic, Linear, Piecewise, Polynomial
from leyden.handlers.training.param_schedule import ParamSchedule

SHAPE = Cyclic(Cosine(0.1, 0.01, 7), stretch=2).with_warmup(4, 0.001)


def trainer_of(optimizer, model, *handlers):
    """A trainer, and the list of what its steps find in the optimizer's groups."""
    trainer, found = supervised_trainer(model, optimizer, loss_fn), []
    trainer.attach(*handlers)
    trainer.add_event_handler(
        UpdateEvents.GRADIENTS_READY,
        lambda: found.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]),
    )
    return trainer, found


def of_first_group(found, name):
    return [groups[0][name] for groups in found]


# -- which count -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "every"), [(1, 1), (1, 2), (2, 1), (3, 1), (2, 2), (3, 2)])
def test_per_step_it_is_the_loop_by_hand_to_the_bit(window, every):
    ours, theirs = net(), net()
    trainer, _ = trainer_of(sgd(ours), ours, ParamSchedule("lr", SHAPE, every=every), GradientAccumulation(window))
    trainer.run(batches(10), max_epochs=3)

    optimizer, steps = sgd(theirs), 0

    def after_step():
        nonlocal steps
        steps += 1
        optimizer.param_groups[0]["lr"] = SHAPE(steps // every)

    optimizer.param_groups[0]["lr"] = SHAPE(0)
    train_by_hand(theirs, optimizer, batches(10), window=window, after_step=after_step)
    assert equal(ours, theirs)


def test_it_is_torchs_scheduler():
    """Beside it, step by step: the same numbers to 1e-12, at the same steps."""
    model, other = net(), net()
    trainer, found = trainer_of(sgd(model), model, ParamSchedule("lr", Polynomial(0.1, 0, 25)), GradientAccumulation(3))
    optimizer = sgd(other)
    scheduled, expected = trainer_of(
        optimizer, other, Schedule(lr_scheduler.PolynomialLR(optimizer, 25)), GradientAccumulation(3)
    )
    for each in (trainer, scheduled):
        each.run(batches(10), max_epochs=3)
    assert of_first_group(found, "lr") == pytest.approx(of_first_group(expected, "lr"), abs=1e-12)


def test_per_iteration_and_per_epoch():
    model = net()
    trainer, found = trainer_of(
        torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9), model,
        ParamSchedule("lr", Linear(0, 1, 8), per="iteration", every=2),
        ParamSchedule("weight_decay", Linear(0, 0.3, 3), per="epoch"),
        ParamSchedule("momentum", Linear(0.5, 0.8, 3), per="epoch", every=2),
        GradientAccumulation(2),
    )  # fmt: skip
    trainer.run(batches(4), max_epochs=4)
    assert of_first_group(found, "lr") == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert of_first_group(found, "weight_decay") == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert of_first_group(found, "momentum") == pytest.approx([0.5] * 4 + [0.6] * 4)


def test_a_skipped_step_does_not_count():
    model = net()
    optimizer = sgd(model)
    trainer, _ = trainer_of(optimizer, model, ParamSchedule("lr", Linear(0, 1, 10)))

    class SkipsTheSecond:
        """A scaler of losses that finds an overflow in the second step."""

        calls = 0

        def scale(self, loss):
            return loss

        def unscale(self, optimizer):
            pass

        def step(self, optimizer):
            self.calls += 1
            if self.calls != 2:
                optimizer.step()
            return self.calls != 2

    scaler = SkipsTheSecond()
    trainer.updates["default"].slots.claim("scaler", scaler, scaler)
    rates = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.run(batches(4))
    assert rates == [0.1, 0.1, 0.2, pytest.approx(0.3)]


def test_a_run_from_the_beginning_begins_with_the_first_value():
    model = net()
    trainer, found = trainer_of(sgd(model), model, ParamSchedule("lr", Linear(1, 0, 4)))
    trainer.run(batches(2))
    trainer.run(batches(2))
    assert of_first_group(found, "lr") == [1, 0.75] * 2


def test_an_interrupted_run_goes_on():
    model = net()
    trainer, found = trainer_of(sgd(model), model, ParamSchedule("lr", Linear(0, 8, 8), per="epoch"))
    data = batches(3)
    with trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), trainer.interrupt):
        trainer.run(data, max_epochs=3)
    trainer.run(data, max_epochs=3)
    assert of_first_group(found, "lr") == [0, 0, 0, 1, 1, 1, 2, 2, 2]


# -- which number ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["betas.0", ("betas", 0)])
def test_one_number_of_several(target):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    trainer, found = trainer_of(
        optimizer, model, ParamSchedule(target, Linear(0.5, 0.75, 2)), ParamSchedule("betas.1", Linear(0.75, 0.875, 2))
    )
    trainer.run(batches(3))
    assert of_first_group(found, "betas") == [(0.5, 0.75), (0.625, 0.8125), (0.75, 0.875)]


def test_a_tensor_is_set_in_place():
    model = net()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    trainer, found = trainer_of(optimizer, model, ParamSchedule("lr", Linear(1, 0, 2)))
    trainer.run(batches(2))
    assert all(each is rate for each in of_first_group(found, "lr"))
    assert rate == 0


def two_groups(model):
    return torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.1)


@pytest.mark.parametrize(
    ("shape", "group", "expected"),
    [
        (Linear(0, 4, 4), None, [[0, 0], [1, 1], [2, 2]]),
        (Linear(0, 4, 4), 1, [[0.1, 0], [0.1, 1], [0.1, 2]]),
        ([Linear(0, 4, 4), Constant(7)], None, [[0, 7], [1, 7], [2, 7]]),
    ],
)
def test_groups(shape, group, expected):
    model = net()
    trainer, found = trainer_of(two_groups(model), model, ParamSchedule("lr", shape, group=group))
    trainer.run(batches(3))
    assert [[group["lr"] for group in groups] for groups in found] == expected


def test_groups_may_have_a_schedule_each():
    model = net()
    trainer, found = trainer_of(
        two_groups(model), model,
        ParamSchedule("lr", Linear(0, 4, 4), group=0), ParamSchedule("lr", Constant(7), group=1),
    )  # fmt: skip
    trainer.run(batches(2))
    assert [[group["lr"] for group in groups] for groups in found] == [[0, 7], [1, 7]]


def two_updates():
    models = {"one": net(), "two": net()}

    def process(engine, batch):
        x, y = batch
        for update in updates:
            with update.forward():
                loss = loss_fn(models[update.name](x), y)
            update.backward(loss)

    engine = Engine(process)
    updates = [Update(engine, model, sgd(model), name=name) for name, model in models.items()]
    rates = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: rates.append([update.optimizer.param_groups[0]["lr"] for update in updates]),
    )
    return engine, rates


def test_each_update_counts_its_own_steps():
    engine, rates = two_updates()
    engine.attach(ParamSchedule("lr", Linear(0, 4, 4)), GradientAccumulation(2, update="two"))
    engine.run(batches(4))
    assert rates == [[1, 0], [2, 1], [3, 1], [4, 2]]


def test_updates_may_have_a_schedule_each():
    engine, rates = two_updates()
    engine.attach(ParamSchedule("lr", Linear(0, 4, 4), update="one"), ParamSchedule("lr", Constant(9), update="two"))
    engine.run(batches(2))
    assert rates == [[1, 9], [2, 9]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"per": "iteration"}, [0, 1, 2, 3, 4, 4, 4, 4]),
        ({"per": "epoch"}, [0, 0, 0, 0, 1, 1, 1, 1]),
    ],
    ids=str,
)
def test_an_attribute_of_the_state(arguments, expected):
    model = net()
    trainer, _ = trainer_of(
        sgd(model), model, ParamSchedule("state.temperature", Linear(0, 4, 4), **arguments), GradientAccumulation(2)
    )
    assert trainer.state.temperature == 0
    seen = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: seen.append(trainer.state.temperature))
    trainer.run(batches(4), max_epochs=2)
    assert seen == expected


def test_the_state_of_an_engine_without_an_update():
    seen = []
    engine = Engine(lambda engine, batch: seen.append(engine.state.mix))
    engine.attach(ParamSchedule("state.mix", Piecewise({0: 1, 4: 5}), per="iteration"))
    engine.run("abc")
    assert seen == [1, 2, 3]


def test_the_state_may_count_the_steps_of_one_of_several_updates():
    engine, _ = two_updates()
    engine.attach(ParamSchedule("state.mix", Linear(0, 4, 4), update="two"), GradientAccumulation(2, update="two"))
    engine.run(batches(4))
    assert engine.state.mix == 2


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"every": 2}, {"per": "iteration"}, {"per": "epoch"}], ids=str)
def test_a_run_killed_in_mid_epoch_goes_on_from_its_checkpoint(arguments, tmp_path):
    def run(*handlers, dies=False):
        model = net()
        trainer, found = trainer_of(
            sgd(model), model, ParamSchedule("lr", SHAPE, **arguments),
            ParamSchedule("state.mix", SHAPE, **arguments), GradientAccumulation(3), *handlers,
        )  # fmt: skip
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: found.append(trainer.state.mix))

        @trainer.on(Events.ITERATION_COMPLETED(once=18))
        def die():
            if dies:
                raise KeyboardInterrupt

        trainer.run(batches(10), max_epochs=3)
        return model, found

    expected, all_found = run()
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(every=16)), dies=True)
    again, found = run(Checkpoint(tmp_path, resume="auto"))
    assert 0 < len(found) < len(all_found)
    assert found == all_found[-len(found) :]
    assert equal(again, expected)


def test_nothing_has_to_be_saved():
    model = net()
    trainer, _ = trainer_of(sgd(model), model, ParamSchedule("lr", SHAPE))
    trainer.run(batches(2))
    assert trainer.state_dict()["handlers"] == {}


# -- cost and looks ----------------------------------------------------------------------------------------------------


def test_it_costs_few_calls():
    alone = by_engine()
    assert by_engine(lambda optimizer: ParamSchedule("lr", SHAPE)) - alone <= 12
    assert by_engine(lambda optimizer: ParamSchedule("lr", SHAPE, every=1000)) == alone
    assert by_engine(lambda optimizer: ParamSchedule("lr", SHAPE, per="epoch")) == alone


def test_a_simulation_is_what_the_steps_find():
    model = net()
    schedule = ParamSchedule("lr", SHAPE, every=2)
    trainer, found = trainer_of(sgd(model), model, schedule)
    trainer.run(batches(10))
    assert schedule.simulate(10) == list(enumerate(of_first_group(found, "lr")))
    assert ParamSchedule("lr", Linear(0, 2, 2), every=2).simulate() == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    with pytest.raises(ValueError, match="has no end"):
        schedule.simulate()


def test_a_plot_has_a_line_for_each_shape():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    axes = ParamSchedule("lr", [Linear(0, 1, 4), Constant(0.5, 4)]).plot()
    assert [line.get_label() for line in axes.get_lines()] == ["group 0", "group 1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "lr")
    assert list(axes.get_lines()[0].get_ydata()) == [0, 0.25, 0.5, 0.75, 1]
    pyplot.close(axes.figure)


# -- two owners of one number ------------------------------------------------------------------------------------------


def attach_both(first, second, optimizer=None):
    model = net()
    optimizer = sgd(model) if optimizer is None else optimizer(model.parameters())
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(first(optimizer))
    trainer.attach(second(optimizer))
    trainer.run(batches(1))


def params(target, **options):
    return lambda optimizer: ParamSchedule(target, Constant(0.5), **options)


def schedule(make):
    return lambda optimizer: Schedule(make(optimizer))


def exponential(optimizer):
    return lr_scheduler.ExponentialLR(optimizer, 0.9)


def one_cycle(optimizer):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)


def in_a_row(optimizer):
    return lr_scheduler.SequentialLR(optimizer, [exponential(optimizer), one_cycle(optimizer)], [4])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("one", "other", "field", "optimizer"),
    [
        (params("lr"), params("lr", per="epoch"), "lr", None),
        (params("lr"), params("lr", group=0), "lr", None),
        (params("lr"), schedule(exponential), "lr", None),
        (params("lr", group=0), schedule(exponential), "lr", None),
        (params("momentum"), schedule(one_cycle), "momentum", None),
        (params("momentum"), schedule(in_a_row), "momentum", None),
        (params("betas.0"), schedule(one_cycle), "betas.0", torch.optim.Adam),
        (params("state.mix"), params("state.mix", per="epoch"), "mix", None),
    ],
)
def test_two_owners_of_one_number(one, other, field, optimizer, order):
    with pytest.raises(ValueError, match=f'can\'t both be attached to one engine: both set the same "{field}"'):
        attach_both(*[one, other][::order], optimizer)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("one", "other", "optimizer"),
    [
        (params("weight_decay"), schedule(exponential), None),
        (params("momentum"), schedule(exponential), None),
        (params("betas.1"), schedule(one_cycle), torch.optim.Adam),
        (params("betas.0"), params("betas.1"), torch.optim.Adam),
        (params("state.lr"), params("lr"), None),
        (params("state.lr"), schedule(exponential), None),
    ],
)
def test_two_owners_of_two_numbers(one, other, optimizer, order):
    attach_both(*[one, other][::order], optimizer)


def test_a_schedule_of_another_optimizer_is_no_second_owner():
    engine, _ = two_updates()
    engine.attach(
        ParamSchedule("lr", Constant(1), update="one"), Schedule(exponential(engine.updates["two"].optimizer))
    )
    engine.run(batches(1))


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        (("lr", 0.1), {}, TypeError, "ParamSchedule follows a shape .* or a list of them, but got 0.1"),
        (("lr", []), {}, TypeError, r"ParamSchedule follows a shape .*, but got \[\]"),
        (
            ("lr", Constant(1)),
            {"per": "batch"},
            ValueError,
            'per "step", "iteration" or "epoch", but got per=\'batch\'',
        ),
        (("lr", [Constant(1)]), {"group": 0}, ValueError, "a shape for each group, or one for group=0"),
        (("state.mix", [Constant(1)]), {}, ValueError, "state.mix is one number, so it follows one shape"),
        (("state.mix", Constant(1)), {"group": 1}, ValueError, "state.mix is one number"),
        (("state.mix", Constant(1)), {"per": "epoch", "update": "one"}, ValueError, "leave update= out"),
        ((3, Constant(1)), {}, ValueError, "drives a field of the parameter groups .* but got 3"),
        (("optimizer.lr", Constant(1)), {}, ValueError, "but got 'optimizer.lr'"),
        (("lr", Constant(1), 3), {}, TypeError, "positional argument"),
    ],
)
def test_arguments_that_make_no_sense(arguments, options, error, said):
    with pytest.raises(error, match=said):
        ParamSchedule(*arguments, **options)


@pytest.mark.parametrize(
    ("schedule", "error", "said"),
    [
        (
            ParamSchedule("learning_rate", Constant(1)),
            ValueError,
            "has no 'learning_rate' to drive; its numbers are: lr,",
        ),
        (ParamSchedule("nesterov", Constant(1)), TypeError, '"nesterov" of the SGD is False, not a number'),
        (ParamSchedule("lr.0", Constant(1)), ValueError, r'"lr" of the SGD is 0\.1, which has no number 0'),
        (ParamSchedule("lr", [Constant(1)] * 2), ValueError, "has 2 shapes, but the SGD has 1 groups"),
        (ParamSchedule("lr", Constant(1), group=1), ValueError, "is for group 1, but the SGD has 1 groups"),
        (ParamSchedule("lr", Constant(1), every=0), ValueError, "must be at least 1, but is 0"),
        (
            ParamSchedule("lr", Constant(1), update="critic"),
            ValueError,
            "names the update 'critic', but the engine has",
        ),
        (ParamSchedule("state.epoch", Constant(1)), ValueError, "the engine itself sets state.epoch"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_the_engine_does_not_have(schedule, error, said):
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    with pytest.raises(error, match=said):
        trainer.attach(schedule)
    assert trainer.handlers == {}


def test_several_numbers_and_none_named():
    model = net()
    trainer = supervised_trainer(model, torch.optim.Adam(model.parameters()), loss_fn)
    with pytest.raises(TypeError, match=r'"betas" of the Adam holds 2 numbers; name one of them: "betas\.0"'):
        trainer.attach(ParamSchedule("betas", Constant(0.9)))


def test_the_state_of_several_updates_needs_a_name():
    engine, _ = two_updates()
    with pytest.raises(
        ValueError, match=r"state\.mix counts the steps of one update; name it by update=, one of: one, "
    ):
        engine.attach(ParamSchedule("state.mix", Constant(1)))


def test_steps_of_an_engine_without_an_update():
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(ValueError, match="ParamSchedule works on an Update, and this engine has none"):
        engine.attach(ParamSchedule("lr", Constant(1)))
