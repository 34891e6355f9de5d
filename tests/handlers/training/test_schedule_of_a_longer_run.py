"""A run that goes on to another end than it was planned for, and its schedulers."""

import warnings

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_trainer
from leyden.handlers import GradientAccumulation, Schedule
from leyden.handlers.checkpoint import Checkpoint

MAKE = {
    "OneCycleLR": lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, total_steps=n),
    "OneCycleLR of the optimizer's rate": lambda o, n: lr_scheduler.OneCycleLR(
        o, 3 * o.param_groups[0]["lr"], total_steps=n
    ),
    "CosineAnnealingLR": lambda o, n: lr_scheduler.CosineAnnealingLR(o, n),
    "LinearLR to 0": lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=n),
    "LambdaLR": lambda o, n: lr_scheduler.LambdaLR(o, lambda step: 1 - step / n),
    "SequentialLR": lambda o, n: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.CosineAnnealingLR(o, n - 2)], milestones=[2]
    ),
    "ChainedScheduler": lambda o, n: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.PolynomialLR(o, n)]
    ),
}  # fmt: skip
PACES = {
    "step": {},
    "second step": {"every": 2},
    "epoch": {"per": "epoch"},
    "warm-up": {"warmup": 4},
    "long warm-up": {"warmup": 25},
}
CASES = [
    (name, pace)
    for name in MAKE
    for pace in PACES
    if "warm-up" not in pace or name not in ("SequentialLR", "ChainedScheduler")
]


def trainer_of(*handlers, lr=0.1):
    model = net()
    optimizer = sgd(model, lr=lr)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(*handlers)
    values = []

    @trainer.on(UpdateEvents.GRADIENTS_READY)
    def note():
        values.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])

    return trainer, optimizer, values


def whole_run(make, epochs, arguments, *handlers, lr=0.1):
    trainer, optimizer, values = trainer_of(Schedule(make, **arguments), *handlers, lr=lr)
    trainer.run(batches(10), max_epochs=epochs)
    return values, optimizer.param_groups[0]["lr"]


def told_anew(told):
    return [str(each.message) for each in told if "made its" in str(each.message)]


@pytest.mark.parametrize(("name", "pace"), CASES)
def test_in_one_process_it_goes_on_by_the_curve_of_the_new_number(name, pace):
    expected, last = whole_run(MAKE[name], 4, PACES[pace])
    trainer, optimizer, values = trainer_of(Schedule(MAKE[name], **PACES[pace]))
    trainer.run(batches(10), max_epochs=3)
    with pytest.warns(UserWarning, match="made its") as told:
        trainer.run(batches(10), max_epochs=4)
    assert len(told_anew(told)) == 1
    assert values[30:] == expected[30:]
    assert optimizer.param_groups[0]["lr"] == last


@pytest.mark.parametrize(("name", "pace"), CASES)
def test_from_a_checkpoint_too(name, pace, tmp_path):
    expected, last = whole_run(MAKE[name], 4, PACES[pace])
    whole_run(MAKE[name], 3, PACES[pace], Checkpoint(tmp_path))
    trainer, optimizer, values = trainer_of(Schedule(MAKE[name], **PACES[pace]), Checkpoint(tmp_path, resume="auto"))
    with pytest.warns(UserWarning, match="made its") as told:
        trainer.run(batches(10), max_epochs=4)
    assert len(told_anew(told)) == 1
    assert values == expected[30:]
    assert optimizer.param_groups[0]["lr"] == last


def test_both_numbers_and_both_rates_are_told():
    trainer, _, _ = trainer_of(Schedule(MAKE["LinearLR to 0"]))
    trainer.run(batches(10), max_epochs=2)
    message = (
        r"goes on to 40 optimizer steps, and was planned for 20: .* LinearLR anew for 40, .* \(20\): .* 0.05 there"
    )
    with pytest.warns(UserWarning, match=message):
        trainer.run(batches(10), max_epochs=4)


def test_in_mid_epoch_and_to_an_earlier_end(tmp_path):
    def make():
        return trainer_of(Schedule(MAKE["CosineAnnealingLR"]), Checkpoint(tmp_path, resume="auto"))

    expected, last = whole_run(MAKE["CosineAnnealingLR"], 3, {})
    trainer, _, _ = make()
    with trainer.add_event_handler(UpdateEvents.STEP_COMPLETED(once=14), trainer.interrupt):
        trainer.run(batches(10), max_epochs=6)
    resumed, optimizer, values = make()
    with pytest.warns(UserWarning, match="goes on to 30 optimizer steps, and was planned for 60"):
        resumed.run(batches(10), max_epochs=3)
    assert values == expected[30 - len(values) :]
    assert 0 < len(values) < 30
    assert optimizer.param_groups[0]["lr"] == last


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {}], ids=str)
def test_with_the_same_number_nothing_is_made_anew(limit, tmp_path):
    expected, _ = whole_run(MAKE["OneCycleLR"], 3, {})
    handlers = [lambda: Schedule(MAKE["OneCycleLR"]), lambda: Checkpoint(tmp_path, resume="auto")]
    trainer, _, values = trainer_of(*(make() for make in handlers))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with trainer.add_event_handler(UpdateEvents.STEP_COMPLETED(once=14), trainer.interrupt):
            trainer.run(batches(10), max_epochs=3)
        first = len(values)
        resumed, _, rest = trainer_of(*(make() for make in handlers))
        resumed.run(batches(10), **limit)
    assert 0 < first < 30
    assert values + rest == expected


def test_twice_longer_and_then_from_the_beginning():
    expected, last = whole_run(MAKE["OneCycleLR"], 6, {})
    trainer, optimizer, values = trainer_of(Schedule(MAKE["OneCycleLR"]))
    trainer.run(batches(10), max_epochs=2)
    with pytest.warns(UserWarning, match="was planned for 20"):
        trainer.run(batches(10), max_epochs=4)
    with pytest.warns(UserWarning, match="was planned for 40"):
        trainer.run(batches(10), max_epochs=6)
    assert values[40:] == expected[40:]
    assert optimizer.param_groups[0]["lr"] == last
    values.clear()
    trainer.state.max_epochs = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(batches(10), max_epochs=6)
    assert values == expected


def test_a_resumed_run_that_is_begun_anew_begins_its_curve_anew(tmp_path):
    expected, _ = whole_run(MAKE["CosineAnnealingLR"], 2, {}, Checkpoint(tmp_path))
    trainer, _, values = trainer_of(Schedule(MAKE["CosineAnnealingLR"]), Checkpoint(tmp_path, resume="auto"))
    with pytest.warns(UserWarning, match="goes on to 30"):
        trainer.run(batches(10), max_epochs=3)
    values.clear()
    trainer.state.max_epochs = None
    trainer.run(batches(10), max_epochs=2)
    assert values == expected


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR of the optimizer's rate"])
def test_an_overridden_rate_is_that_of_the_new_curve(name, tmp_path):
    expected, last = whole_run(MAKE[name], 4, {}, lr=0.2)
    whole_run(MAKE[name], 3, {}, Checkpoint(tmp_path))
    again = Checkpoint(tmp_path, resume="auto", override=("lr",))
    trainer, optimizer, values = trainer_of(Schedule(MAKE[name]), again, lr=0.2)
    with pytest.warns(UserWarning, match="goes on to 40"):
        trainer.run(batches(10), max_epochs=4)
    assert [first[0] for (first,) in values] == pytest.approx([first[0] for (first,) in expected[30:]])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(last, abs=1e-12)


def test_under_accumulation():
    expected, _ = whole_run(MAKE["CosineAnnealingLR"], 4, {}, GradientAccumulation(3))
    trainer, _, values = trainer_of(GradientAccumulation(3), Schedule(MAKE["CosineAnnealingLR"]))
    trainer.run(batches(10), max_epochs=2)
    with pytest.warns(UserWarning, match="goes on to 16 optimizer steps, and was planned for 8"):
        trainer.run(batches(10), max_epochs=4)
    assert values[8:] == expected[8:]


def test_of_one_of_several_updates():
    models = [net(), net()]
    optimizers = [sgd(model) for model in models]

    def step(engine, batch):
        for model, update in zip(models, engine.updates.values(), strict=True):
            with update.forward():
                loss = loss_fn(model(batch[0]), batch[1])
            update.backward(loss)

    trainer = Engine(step)
    for name, model, optimizer in zip("ab", models, optimizers, strict=True):
        Update(trainer, model, optimizer, name=name)
    trainer.attach(Schedule(MAKE["LinearLR to 0"], update="b"))
    trainer.run(batches(10), max_epochs=2)
    with pytest.warns(UserWarning, match="goes on to 40"):
        trainer.run(batches(10), max_epochs=4)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [0.1, pytest.approx(0, abs=1e-12)]


def test_of_several_optimizers_of_one_update_the_message_names_their_schedulers():
    model = net()
    optimizers = [torch.optim.SGD([parameter], lr=0.1) for parameter in model.parameters()]

    def step(engine, batch):
        with update.forward():
            loss = loss_fn(model(batch[0]), batch[1])
        update.backward(loss)

    trainer = Engine(step)
    update = Update(trainer, model, optimizers)
    trainer.attach(Schedule(MAKE["LinearLR to 0"]))
    trainer.run(batches(10), max_epochs=2)
    with pytest.warns(UserWarning, match="has made its LinearLR anew for 40, brought to where it stands"):
        trainer.run(batches(10), max_epochs=4)


def test_beside_another_schedule_of_its_optimizer_it_stays_and_what_comes_is_told():
    trainer, optimizer, _ = trainer_of(Schedule(MAKE["CosineAnnealingLR"]))
    trainer.attach(Schedule(lr_scheduler.ExponentialLR(optimizer, 0.99)))
    trainer.run(batches(10), max_epochs=2)
    with pytest.warns(
        UserWarning, match="CosineAnnealingLR is made for 20 optimizer steps, but the run has 40: .* rises"
    ):
        trainer.run(batches(10), max_epochs=4)


# -- schedulers that the user made -------------------------------------------------------------------------------------


def with_made(make, *handlers):
    trainer, optimizer, values = trainer_of(*handlers)
    trainer.attach(Schedule(make(optimizer)))
    return trainer, values


MISFITS = {
    "rises again": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "is 0 from its end on": lambda o: lr_scheduler.PolynomialLR(o, 20),
}


@pytest.mark.parametrize("effect", MISFITS)
def test_one_that_was_made_before_is_warned_of_once_for_each_end(effect, tmp_path):
    message = f"is made for 20 optimizer steps, but the run has 40: .*{effect}"
    trainer, _ = with_made(MISFITS[effect], Checkpoint(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(batches(10), max_epochs=2)
    resumed, _ = with_made(MISFITS[effect], Checkpoint(tmp_path / "next", resume=tmp_path))
    for goes_on in (resumed, trainer):
        with (
            pytest.warns(UserWarning, match=message),
            goes_on.add_event_handler(UpdateEvents.STEP_COMPLETED(once=23), goes_on.terminate),
        ):
            goes_on.run(batches(10), max_epochs=4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            goes_on.run(batches(10), max_epochs=4)


ONE_CYCLE = {
    "alone": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "in a row": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.OneCycleLR(o, 0.1, total_steps=15)], milestones=[5]
    ),
    "in a chain": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.OneCycleLR(o, 0.1, total_steps=20)]),
}


@pytest.mark.parametrize("kind", ONE_CYCLE)
def test_a_one_cycle_that_ends_before_the_run_is_an_error_before_its_first_step(kind, tmp_path):
    trainer, values = with_made(ONE_CYCLE[kind], Checkpoint(tmp_path))
    trainer.run(batches(10), max_epochs=2)
    resumed, _ = with_made(ONE_CYCLE[kind], Checkpoint(tmp_path / "next", resume=tmp_path))
    for goes_on in (trainer, trainer, resumed):
        with pytest.raises(
            ValueError, match="to go on to 40 optimizer steps, but its OneCycleLR is made for 20, after"
        ):
            goes_on.run(batches(10), max_epochs=4)
        assert goes_on.state.iteration == 20
    assert len(values) == 20


def linear_to_zero(batch, *handlers):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = supervised_trainer(model, optimizer, torch.nn.CrossEntropyLoss())
    schedule = Schedule(lambda o, steps: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=steps))
    trainer.attach(schedule, *handlers)
    data = TensorDataset(torch.randn(48, 4), torch.randint(2, (48,)))
    return trainer, optimizer, DataLoader(data, batch)


@pytest.mark.parametrize(("first", "then", "steps"), [(4, 8, 24 + 12), (8, 4, 12 + 24), (4, 48, 24 + 2)])
def test_a_run_that_goes_on_in_batches_of_another_size_ends_its_curve_with_the_run(first, then, steps, tmp_path):
    begun, _, data = linear_to_zero(first, Checkpoint(tmp_path))
    begun.add_event_handler(Events.EPOCH_COMPLETED(once=2), begun.terminate)
    begun.run(data, max_epochs=4)
    for stop in (3, 4):  # the second start finds what it finds, and changes nothing
        goes_on, optimizer, data = linear_to_zero(then, Checkpoint(tmp_path, resume="auto"))
        goes_on.add_event_handler(Events.EPOCH_COMPLETED(once=stop), goes_on.terminate)
        if stop == 3:
            with pytest.warns(UserWarning, match=f"goes on to {steps} optimizer steps, and was planned for"):
                goes_on.run(data, max_epochs=4)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "the run goes on to")
                goes_on.run(data, max_epochs=4)
    assert goes_on.state.step == steps
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_it_does_so_in_one_process_too():
    trainer, optimizer, data = linear_to_zero(4)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), trainer.terminate)
    trainer.run(data, max_epochs=4)
    with pytest.warns(UserWarning, match="goes on to 36 optimizer steps"):
        trainer.run(DataLoader(data.dataset, 8), max_epochs=4)
    assert trainer.state.step == 36
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
