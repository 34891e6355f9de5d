"""`Update`: the order of a step, and the same numbers, to the bit where that is possible, as a loop written by hand."""

import contextlib
import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode

from leyden.engine import Engine, Events, Update, UpdateEvents


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def make_batches(count=10, size=6):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 4, generator=generator), torch.randn(size, 1, generator=generator)) for _ in range(count)
    ]


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def trainer_of(model, optimizer, **update_arguments):
    def step(engine, batch):
        x, y = batch
        with update.forward():
            loss = mse_loss(model(x), y)
        update.backward(loss)
        return loss.detach()

    engine = Engine(step)
    update = Update(engine, model, optimizer, **update_arguments)
    return engine, update


def assert_same(model, reference):
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(parameter, expected), name


def assert_close(model, reference, tolerance=1e-6):
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=tolerance, atol=tolerance, msg=name)


def trained_by_hand(batches, windows, epochs=1):
    """A model trained by a loop: `windows` says how many batches each optimizer step of an epoch takes."""
    model = make_model()
    optimizer = make_optimizer(model)
    for _ in range(epochs):
        coming = iter(batches)
        for size in windows:
            optimizer.zero_grad()
            for _ in range(size):
                x, y = next(coming)
                (mse_loss(model(x), y) / size).backward()
            optimizer.step()
    return model


# -- against loops written by hand -----------------------------------------------------------------------


def test_a_plain_step():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    engine.run(batches, max_epochs=3)
    reference = make_model()
    optimizer = make_optimizer(reference)
    for _ in range(3):
        for x, y in batches:
            optimizer.zero_grad()
            mse_loss(reference(x), y).backward()
            optimizer.step()
    assert_same(model, reference)
    assert (engine.state.step, update.steps) == (30, 30)


@pytest.mark.parametrize(
    ("size", "windows"),
    [(1, [1] * 10), (2, [2] * 5), (3, [3, 3, 3, 1]), (4, [4, 4, 2]), (25, [10])],
    ids=str,
)
def test_a_window_of_batches_whose_tail_is_normalised_by_its_own_size(size, windows):
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: size)
    stepped_after = []
    engine.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine: stepped_after.append(engine.state.iteration))
    engine.run(batches, max_epochs=2)
    assert_same(model, trained_by_hand(batches, windows, epochs=2))
    ends = [sum(windows[: i + 1]) for i in range(len(windows))]
    assert stepped_after == ends + [10 + end for end in ends]
    assert engine.state.step == 2 * len(windows)


def test_a_window_of_four_over_ten_batches_steps_after_4_8_and_10():
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    stepped_after = []
    engine.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine: stepped_after.append(engine.state.iteration))
    engine.run(make_batches())
    assert stepped_after == [4, 8, 10]


def test_the_window_ends_with_max_iters_too():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    engine.run(batches, max_iters=7)
    assert_same(model, trained_by_hand(batches[:7], [4, 3]))


def test_a_window_may_change_its_size_from_one_to_the_next():
    batches, model = make_batches(6), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: update.steps + 1)
    engine.run(batches)
    assert_same(model, trained_by_hand(batches, [1, 2, 3]))


def test_data_of_unknown_length_is_stepped_with_at_the_end_of_the_epoch():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    engine.run(batch for batch in batches)
    assert engine.state.step == 3
    assert_close(model, trained_by_hand(batches, [4, 4, 2]))


def test_a_terminated_epoch_steps_with_what_its_window_holds():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.terminate_epoch)
    steps = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: steps.append(engine.state.step))
    engine.run(batches)
    assert steps == [2]  # before EPOCH_COMPLETED, so that who evaluates there sees the whole epoch's work
    assert_close(model, trained_by_hand(batches[:6], [4, 2]))


def test_an_interrupted_window_goes_on():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.interrupt):
        engine.run(batches, max_epochs=2)
    assert engine.state.step == 1
    engine.run()
    assert_same(model, trained_by_hand(batches, [4, 4, 2], epochs=2))


def test_after_an_error_in_mid_window_a_run_from_the_beginning_is_clean():
    batches, model = make_batches(), make_model()
    start = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model)
    engine, update = trainer_of(model, optimizer)
    update.slots.claim("window", "a test", lambda: 4)

    def fail():
        raise RuntimeError("boom")

    event = UpdateEvents.BACKWARD_COMPLETED
    with engine.add_event_handler(event, fail), pytest.raises(RuntimeError, match="boom"):
        engine.run(batches)
    model.load_state_dict(start)
    optimizer.state.clear()
    engine.state.max_epochs = None
    engine.run(batches)
    assert_same(model, trained_by_hand(batches, [4, 4, 2]))


def test_gradients_left_from_elsewhere_are_cleared():
    batches, model = make_batches(), make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    model(batches[0][0]).sum().backward()
    engine.run(batches)
    assert_same(model, trained_by_hand(batches, [1] * 10))


# -- weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("known_length", [True, False], ids=["known length", "unknown length"])
def test_weights_make_the_window_equal_to_the_big_batch(as_tensor, known_length):
    generator = torch.Generator().manual_seed(2)
    sizes = [3, 17, 1, 8, 5]
    batches = [(torch.randn(n, 4, generator=generator), torch.randn(n, 1, generator=generator)) for n in sizes]
    model = make_model()

    def step(engine, batch):
        x, y = batch
        with update.forward():
            loss = mse_loss(model(x), y)
        update.backward(loss, weight=torch.tensor(len(x)) if as_tensor else len(x))

    engine = Engine(step)
    update = Update(engine, model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 3)
    engine.run(batches if known_length else iter(batches))

    reference = make_model()
    optimizer = make_optimizer(reference)
    for window in (batches[:3], batches[3:]):
        optimizer.zero_grad()
        x, y = (torch.cat(parts) for parts in zip(*window, strict=True))
        mse_loss(reference(x), y).backward()
        optimizer.step()
    assert_close(model, reference)


def test_a_window_without_any_weight_changes_nothing_and_makes_no_nan():
    model = make_model()
    engine = Engine(lambda engine, batch: update.backward(mse_loss(model(batch[0]), batch[1]), weight=0))
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    engine.run(make_batches(2))
    assert_same(model, make_model())


# -- several updates, several losses ---------------------------------------------------------------------


def make_gan():
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.01) for module in (critic, generator)]
    return generator, critic, *optimizers


def gan_losses(generator, critic, real):
    noise = real[:, :2].cos()
    return (
        lambda: critic(generator(noise)).mean() - critic(real).mean(),
        lambda: -critic(generator(noise)).mean(),
    )


def test_two_updates_on_one_engine_do_not_leak_into_each_other():
    batches = [x for x, _ in make_batches()]
    generator, critic, critic_optimizer, generator_optimizer = make_gan()

    def step(engine, real):
        critic_loss, generator_loss = gan_losses(generator, critic, real)
        with critic_update.forward():
            loss = critic_loss()
        critic_update.backward(loss)
        assert all(parameter.grad is None for parameter in generator.parameters())
        with generator_update.forward():
            loss = generator_loss()
        generator_update.backward(loss)
        assert all(parameter.grad is None for parameter in critic.parameters())

    engine = Engine(step)
    critic_update = Update(engine, critic, critic_optimizer, name="critic")
    generator_update = Update(engine, generator, generator_optimizer, name="generator")
    engine.run(batches, max_epochs=2)

    twin_generator, twin_critic, twin_critic_optimizer, twin_generator_optimizer = make_gan()
    for _ in range(2):
        for real in batches:
            critic_loss, generator_loss = gan_losses(twin_generator, twin_critic, real)
            twin_critic_optimizer.zero_grad()
            critic_loss().backward()
            twin_critic_optimizer.step()
            twin_generator_optimizer.zero_grad()
            generator_loss().backward()
            twin_generator_optimizer.step()
    assert_same(generator, twin_generator)
    assert_same(critic, twin_critic)
    assert (critic_update.steps, generator_update.steps, engine.state.step) == (20, 20, 40)


def test_updates_have_windows_of_their_own():
    batches = [x for x, _ in make_batches()]
    generator, critic, critic_optimizer, generator_optimizer = make_gan()

    def step(engine, real):
        critic_loss, generator_loss = gan_losses(generator, critic, real)
        critic_update.backward(critic_loss())
        generator_update.backward(generator_loss())

    engine = Engine(step)
    critic_update = Update(engine, critic, critic_optimizer, name="critic")
    generator_update = Update(engine, generator, generator_optimizer, name="generator")
    generator_update.slots.claim("window", "a test", lambda: 3)
    engine.run(batches)

    twin_generator, twin_critic, twin_critic_optimizer, twin_generator_optimizer = make_gan()
    for number, real in enumerate(batches, start=1):
        critic_loss, generator_loss = gan_losses(twin_generator, twin_critic, real)
        loss = critic_loss()
        for parameter, gradient in zip(
            twin_critic.parameters(), torch.autograd.grad(loss, list(twin_critic.parameters())), strict=True
        ):
            parameter.grad = gradient
        twin_critic_optimizer.step()
        size = 1 if number == 10 else 3
        loss = generator_loss() / size
        gradients = torch.autograd.grad(loss, list(twin_generator.parameters()))
        for parameter, gradient in zip(twin_generator.parameters(), gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if number in (3, 6, 9, 10):
            twin_generator_optimizer.step()
            twin_generator_optimizer.zero_grad()
    assert_same(critic, twin_critic)
    assert_same(generator, twin_generator)


def test_an_update_may_skip_batches():
    """A critic that is trained five times as often: the generator's steps are its own."""
    batches = [x for x, _ in make_batches()]
    generator, critic, critic_optimizer, generator_optimizer = make_gan()

    def step(engine, real):
        critic_loss, generator_loss = gan_losses(generator, critic, real)
        critic_update.backward(critic_loss())
        if engine.state.iteration % 5 == 0:
            generator_update.backward(generator_loss())

    engine = Engine(step)
    critic_update = Update(engine, critic, critic_optimizer, name="critic")
    generator_update = Update(engine, generator, generator_optimizer, name="generator")
    engine.run(batches)
    assert (critic_update.steps, generator_update.steps) == (10, 2)


def test_several_losses_go_backward_together():
    batches, model = make_batches(), make_model()

    def step(engine, batch):
        with update.forward():
            y_pred = model(batch[0])
            losses = [mse_loss(y_pred, batch[1]), y_pred.square().mean()]
        update.backward(losses)

    engine = Engine(step)
    update = Update(engine, model, make_optimizer(model))
    engine.run(batches)
    assert engine.state.step == 10

    reference = make_model()
    optimizer = make_optimizer(reference)
    for x, y in batches:
        optimizer.zero_grad()
        y_pred = reference(x)
        (mse_loss(y_pred, y) + y_pred.square().mean()).backward()
        optimizer.step()
    assert_close(model, reference)


def test_the_graph_may_be_kept():
    model = make_model()
    again = []

    def step(engine, batch):
        loss = model(batch[0]).square().mean()
        update.backward(loss, retain_graph=True)
        if engine.state.iteration == 1:  # inside the window: no parameter has changed yet
            again.append(torch.autograd.grad(loss, model[0].weight)[0])

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    update.slots.claim("window", "a test", lambda: 2)
    engine.run(make_batches(2))
    reference = make_model()
    reference(make_batches(1)[0][0]).square().mean().backward()
    assert torch.equal(again[0], reference[0].weight.grad)


def test_an_update_may_have_several_modules():
    batches = make_batches()
    torch.manual_seed(4)
    body, head = nn.Linear(4, 8), nn.Linear(8, 1)
    twin_body, twin_head = copy.deepcopy(body), copy.deepcopy(head)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], 0.1)
    engine = Engine(lambda engine, batch: update.backward(mse_loss(head(body(batch[0])), batch[1])))
    update = Update(engine, [body, head], optimizer)
    engine.run(batches)
    optimizer = torch.optim.SGD([*twin_body.parameters(), *twin_head.parameters()], 0.1)
    for x, y in batches:
        optimizer.zero_grad()
        mse_loss(twin_head(twin_body(x)), y).backward()
        optimizer.step()
    assert_same(body, twin_body)
    assert_same(head, twin_head)


# -- closures --------------------------------------------------------------------------------------------


def lbfgs_trainer(model, **options):
    engine = Engine(lambda engine, batch: update.step(lambda: mse_loss(model(batch[0]), batch[1])))
    update = Update(engine, model, torch.optim.LBFGS(model.parameters(), **options))
    return engine, update


def test_an_optimizer_with_a_closure():
    batches, model = make_batches(), make_model()
    engine, _ = lbfgs_trainer(model, lr=0.5, max_iter=5)
    losses = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output))
    engine.run(batches, max_epochs=2)
    assert engine.state.step == 20

    reference = make_model()
    optimizer = torch.optim.LBFGS(reference.parameters(), lr=0.5, max_iter=5)
    expected = []
    for _ in range(2):
        for x, y in batches:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = mse_loss(reference(x), y)
                loss.backward()
                return loss

            expected.append(optimizer.step(closure).detach())
    assert_same(model, reference)
    assert torch.equal(torch.stack(losses), torch.stack(expected))
    assert not losses[0].requires_grad


def test_each_evaluation_of_a_closure_fires_the_events_of_a_pass():
    model = make_model()
    engine, update = lbfgs_trainer(model, max_iter=2, max_eval=2, tolerance_grad=0, tolerance_change=0)
    fired = journal_of(update)
    engine.run(make_batches(1))
    assert fired == [
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED", "GRADIENTS_READY"),
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED", "GRADIENTS_READY"),
        "STEP_COMPLETED",
    ]


class Accumulation:
    """Stands for a handler that owns a slot."""


@pytest.mark.parametrize("slot", ["window", "scaler"])
def test_a_closure_with_what_cannot_work_with_it_is_told(slot):
    engine, update = lbfgs_trainer(make_model())
    update.slots.claim(slot, Accumulation(), {"window": lambda: 2, "scaler": Scaler()}[slot])
    with pytest.raises(RuntimeError, match="Accumulation can't work with a closure"):
        engine.run(make_batches(1))


# -- parameters ------------------------------------------------------------------------------------------


def test_frozen_parameters_stay_as_they_are():
    batches, model, reference = make_batches(), make_model(), make_model()
    for module in (model, reference):
        module[0].requires_grad_(False)
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 4)
    engine.run(batch for batch in batches)
    optimizer = make_optimizer(reference)
    for window in (batches[:4], batches[4:8], batches[8:]):
        optimizer.zero_grad()
        for x, y in window:
            (mse_loss(reference(x), y) / len(window)).backward()
        optimizer.step()
    assert_close(model, reference)
    assert_same(model[0], make_model()[0])


def test_an_optimizer_of_a_part_of_the_model():
    batches, model = make_batches(), make_model()
    engine, _ = trainer_of(model, torch.optim.SGD(model[2].parameters(), 0.1))
    engine.run(batches)
    assert_same(model[0], make_model()[0])
    assert not torch.equal(model[2].weight, make_model()[2].weight)


class Words(nn.Module):
    """Words to one number, by an embedding with sparse gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.embedding = nn.Embedding(20, 3, sparse=True)

    def forward(self, words):
        return self.embedding(words).square().sum(dim=(1, 2))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.SparseAdam])
@pytest.mark.parametrize("weight", [None, 2.0], ids=["plain", "weighted"])
def test_sparse_gradients(kind, weight):
    generator = torch.Generator().manual_seed(6)
    batches = [torch.randint(20, (4, 5), generator=generator) for _ in range(5)]
    model, reference = Words(), Words()
    engine = Engine(lambda engine, batch: update.backward(model(batch).mean(), weight=weight))
    update = Update(engine, model, kind(model.parameters(), 0.1))
    update.slots.claim("window", "a test", lambda: 3)
    engine.run(iter(batches))  # of unknown length, so that the tail is scaled too
    optimizer = kind(reference.parameters(), 0.1)
    for window in (batches[:3], batches[3:]):
        optimizer.zero_grad()
        for batch in window:
            (reference(batch).mean() / len(window)).backward()
        optimizer.step()
    assert_close(model, reference, tolerance=1e-5)


def test_parameters_exchanged_after_the_optimizer_was_made_are_tied_by_name():
    batches, model = make_batches(), make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(layer.weight.detach().clone())
    engine.run(batches)
    assert_same(model, trained_by_hand(batches, [1] * 10))


def test_the_optimizers_state_follows_an_exchanged_parameter():
    batches, model = make_batches(), make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    engine.run(batches, max_epochs=1)
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(layer.weight.detach().clone())
    engine.run(batches, max_epochs=2)
    assert_same(model, trained_by_hand(batches, [1] * 10, epochs=2))


def test_a_parameter_that_an_adapter_gives_another_name_stays_the_optimizers():
    batches, model = make_batches(), make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    model[2] = nn.Sequential(model[2])
    engine.run(batches)
    reference = trained_by_hand(batches, [1] * 10)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_parameter_that_is_gone_is_told():
    model = make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    model[2] = nn.Identity()
    with pytest.raises(ValueError, match=r"the optimizer trains model/2.weight, which its model no longer has"):
        engine.run(make_batches(1))


def test_an_optimizer_made_for_another_model_is_told():
    model = make_model()
    with pytest.raises(ValueError, match=r"the optimizer of update 'default' trains .* model does not have"):
        Update(Engine(lambda engine, batch: None), model, make_optimizer(make_model(seed=1)))


def test_an_optimizer_made_before_its_parameters_were_exchanged_is_told():
    model = make_model()
    optimizer = make_optimizer(model)
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    with pytest.raises(ValueError, match=r"leaves out 1 of the model's \(model/0.weight"):
        Update(Engine(lambda engine, batch: None), model, optimizer)


def test_two_updates_of_one_name_are_told():
    model = make_model()
    engine, _ = trainer_of(model, make_optimizer(model), name="critic")
    with pytest.raises(ValueError, match="the engine has an update 'critic' already"):
        Update(engine, model, make_optimizer(model), name="critic")


# -- events ----------------------------------------------------------------------------------------------


def journal_of(update):
    fired = []
    for event in UpdateEvents:
        update.add_event_handler(event, lambda name=event.name: fired.append(name))
    return fired


def test_the_events_of_a_window_of_two_over_three_batches():
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 2)
    fired = journal_of(update)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: fired.append("--"))
    engine.run(make_batches(3))
    assert fired == [
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED"),
        "--",
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED"),
        *("GRADIENTS_READY", "STEP_COMPLETED"),
        "--",
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED"),
        *("GRADIENTS_READY", "STEP_COMPLETED"),
        "--",
    ]


def test_the_events_of_a_window_that_the_end_of_unknown_data_closes():
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 2)
    fired = journal_of(update)
    engine.add_event_handler(Events.ITERATION_COMPLETED | Events.EPOCH_COMPLETED, lambda: fired.append("--"))
    engine.run(iter(make_batches(1)))
    assert fired == [
        *("FORWARD_STARTED", "FORWARD_COMPLETED", "BACKWARD_STARTED", "BACKWARD_COMPLETED"),
        "--",
        *("GRADIENTS_READY", "STEP_COMPLETED"),
        "--",
    ]


def test_gradients_are_whole_when_they_are_ready_and_gone_after_the_step():
    batches, model, reference = make_batches(2), make_model(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 2)
    ready, after = [], []
    engine.add_event_handler(
        UpdateEvents.GRADIENTS_READY, lambda: ready.extend(p.grad.clone() for p in model.parameters())
    )
    engine.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda: after.extend(p.grad for p in model.parameters()))
    engine.run(batches)
    for x, y in batches:
        (mse_loss(reference(x), y) / 2).backward()
    assert all(torch.equal(gradient, p.grad) for gradient, p in zip(ready, reference.parameters(), strict=True))
    assert after == [None] * 4


def test_what_a_handler_does_to_ready_gradients_reaches_the_optimizer():
    model = make_model()
    engine, _ = trainer_of(model, torch.optim.SGD(model.parameters(), 0.1))
    engine.add_event_handler(UpdateEvents.GRADIENTS_READY, lambda: [p.grad.zero_() for p in model.parameters()])
    engine.run(make_batches())
    assert_same(model, make_model())


@pytest.mark.parametrize("event", [UpdateEvents.STEP_COMPLETED, UpdateEvents.GRADIENTS_READY], ids=str)
def test_filters_count_optimizer_steps(event):
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 2)
    seen = []
    engine.add_event_handler(event(every=2), lambda engine: seen.append(engine.state.iteration))
    engine.run(make_batches(8), max_epochs=2)
    assert seen == [4, 8, 12, 16]


def test_events_of_a_pass_count_the_step_they_belong_to():
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 2)
    seen = []
    engine.add_event_handler(UpdateEvents.FORWARD_STARTED(once=2), lambda engine: seen.append(engine.state.iteration))
    engine.add_event_handler(UpdateEvents.BACKWARD_STARTED(once=1), lambda engine: seen.append(-engine.state.iteration))
    engine.run(make_batches(8))
    assert seen == [-1, -2, 3, 4]


def test_filters_count_on_after_a_resume():
    def make():
        model = make_model()
        engine, update = trainer_of(model, make_optimizer(model))
        engine.add_event_handler(UpdateEvents.STEP_COMPLETED(every=4), lambda: seen.append(update.steps))
        return engine

    seen, batches = [], make_batches()
    engine = make()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), engine.interrupt):
        engine.run(batches, max_epochs=2)
    fresh = make()
    fresh.load_state_dict(engine.state_dict())
    fresh.run(batches)
    assert seen == [4, 8, 12, 16, 20]


def test_filters_count_the_steps_of_their_own_update():
    generator, critic, critic_optimizer, generator_optimizer = make_gan()

    def step(engine, real):
        critic_loss, generator_loss = gan_losses(generator, critic, real)
        critic_update.backward(critic_loss())
        if engine.state.iteration % 3 == 0:
            generator_update.backward(generator_loss())

    engine = Engine(step)
    critic_update = Update(engine, critic, critic_optimizer, name="critic")
    generator_update = Update(engine, generator, generator_optimizer, name="generator")
    seen = []
    engine.add_event_handler(
        UpdateEvents.STEP_COMPLETED(every=2),
        lambda engine, update: seen.append((update.name, update.steps, engine.state.iteration)),
    )
    engine.run([x for x, _ in make_batches(6)])
    assert seen == [("critic", 2, 2), ("critic", 4, 4), ("critic", 6, 6), ("generator", 2, 6)]


def two_updates(between=lambda engine: None):
    """An engine with two updates of small models; `between` runs after the first was made."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)

    def step(engine, batch):
        for update, model in zip(engine.updates.values(), (first, second), strict=True):
            update.backward(model(batch).sum())

    engine = Engine(step)
    one = Update(engine, first, torch.optim.SGD(first.parameters(), 0.1), name="one")
    between(engine)
    two = Update(engine, second, torch.optim.SGD(second.parameters(), 0.1), name="two")
    return engine, one, two


def test_a_handler_of_the_engine_hears_all_updates_also_later_ones():
    seen = []
    engine, _, _ = two_updates(
        lambda engine: engine.add_event_handler(
            UpdateEvents.STEP_COMPLETED, lambda engine, update: seen.append(update.name)
        )
    )
    engine.run([torch.ones(1)])
    assert seen == ["one", "two"]


def test_a_handler_removed_before_a_later_update_does_not_hear_it():
    def removed():
        raise AssertionError

    def come_and_go(engine):
        engine.add_event_handler(UpdateEvents.STEP_COMPLETED, removed).remove()
        engine.add_event_handler(UpdateEvents.STEP_COMPLETED, removed)
        engine.remove_event_handler(removed, UpdateEvents.STEP_COMPLETED)

    engine, _, _ = two_updates(come_and_go)
    engine.run([torch.ones(1)])
    assert not engine.has_event_handler(removed)


def test_the_handle_of_an_early_handler_removes_it_from_later_updates_too():
    seen, handles = [], []
    engine, _, _ = two_updates(
        lambda engine: handles.append(
            engine.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine, update: seen.append(update.name))
        )
    )
    handles[0].remove()
    engine.run([torch.ones(1)])
    assert seen == []


def test_a_handler_of_one_update_hears_only_it():
    engine, _, two = two_updates()
    seen = []
    two.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine, update: seen.append(update.name))
    engine.run([torch.ones(1)])
    assert seen == ["two"]


def test_update_events_join_with_those_of_the_engine():
    model = make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    seen = []
    engine.add_event_handler(
        Events.EPOCH_STARTED | UpdateEvents.STEP_COMPLETED(every=2), lambda engine: seen.append(engine.state.step)
    )
    engine.run(make_batches(4))
    assert seen == [0, 2, 4]


def test_an_update_event_on_an_engine_without_update_is_told():
    with pytest.raises(
        ValueError, match=r"UpdateEvents.STEP_COMPLETED is an event of an Update, and this engine has none"
    ):
        Engine(lambda engine, batch: None).add_event_handler(UpdateEvents.STEP_COMPLETED, lambda: None)


def test_an_event_of_the_engine_on_an_update_is_told():
    model = make_model()
    _, update = trainer_of(model, make_optimizer(model))
    with pytest.raises(
        ValueError, match=r"Events.STARTED is no event of an update; it has: UpdateEvents.FORWARD_STARTED"
    ):
        update.add_event_handler(Events.STARTED, lambda: None)


def test_update_events_are_not_fired_by_hand():
    model = make_model()
    engine, _ = trainer_of(model, make_optimizer(model))
    with pytest.raises(ValueError, match="fire_event takes an event of the engine"):
        engine.fire_event(UpdateEvents.STEP_COMPLETED)


# -- slots -----------------------------------------------------------------------------------------------


def test_two_owners_of_one_slot_are_told_by_name():
    class MixedPrecision:
        """An owner."""

    class OtherPrecision:
        """Another."""

    model = make_model()
    _, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("autocast", MixedPrecision(), contextlib.nullcontext())
    with pytest.raises(ValueError, match="OtherPrecision and MixedPrecision both set autocast of one update"):
        update.slots.claim("autocast", OtherPrecision(), contextlib.nullcontext())


def test_the_autocast_slot_is_around_the_forward_pass_alone():
    model = make_model()
    dtypes = []

    def step(engine, batch):
        x, y = batch
        with update.forward():
            y_pred = model(x)
            loss = mse_loss(y_pred.float(), y)
        dtypes.append((y_pred.dtype, torch.is_autocast_enabled("cpu"), model(x).dtype))
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, make_optimizer(model))
    update.slots.claim("autocast", "a test", torch.autocast("cpu", torch.bfloat16))
    engine.run(make_batches(2))
    assert dtypes == [(torch.bfloat16, False, torch.float32)] * 2


def test_autocast_ends_also_when_the_forward_pass_fails():
    model = make_model()

    def step(engine, batch):
        with update.forward():
            raise RuntimeError("boom")

    engine = Engine(step)
    update = Update(engine, model, make_optimizer(model))
    update.slots.claim("autocast", "a test", torch.autocast("cpu", torch.bfloat16))
    with pytest.raises(RuntimeError, match="boom"):
        engine.run([1])
    assert not torch.is_autocast_enabled("cpu")


def test_backward_without_the_forward_context_that_a_slot_needs_is_told():
    model = make_model()
    engine = Engine(lambda engine, batch: update.backward(mse_loss(model(batch[0]), batch[1])))
    update = Update(engine, model, make_optimizer(model))
    update.slots.claim("autocast", Accumulation(), contextlib.nullcontext())
    with pytest.raises(RuntimeError, match=r"Accumulation needs the forward pass inside `with update.forward\(\):`"):
        engine.run(make_batches(1))


class Sync:
    """Notes when gradients would be synchronised."""

    def __init__(self):
        self.notes = []

    def begin(self, update, closing):
        self.notes.append(closing)

    def before_backward(self, update, losses, closing):
        assert closing == self.notes[-1]
        return losses

    def reduce(self, update):
        self.notes.append("reduce")


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (make_batches(7), [False, False, True, False, False, True, True]),
        (iter(make_batches(5)), [False, False, True, False, False, "reduce"]),
    ],
    ids=["known length", "unknown length"],
)
def test_the_sync_slot_is_told_which_pass_closes_the_window(batches, expected):
    model, sync = make_model(), Sync()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("window", "a test", lambda: 3)
    update.slots.claim("sync", "a test", sync)
    engine.run(batches)
    assert sync.notes == expected


class Scaler:
    """Scales by 1024, and skips the steps it is told to."""

    def __init__(self, *skips):
        self.skips = skips
        self.asked = 0

    def scale(self, loss):
        return loss * 1024

    def unscale(self, optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= 1024

    def step(self, optimizer):
        self.asked += 1
        if self.asked in self.skips:
            return False
        optimizer.step()
        return True

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state_dict):
        self.asked = state_dict["asked"]


def test_a_scaler_leaves_no_trace_in_the_gradients_that_are_ready():
    batches, model = make_batches(), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("scaler", "a test", Scaler())
    update.slots.claim("window", "a test", lambda: 4)
    norms = []
    engine.add_event_handler(UpdateEvents.GRADIENTS_READY, lambda: norms.append(model[2].bias.grad.item()))
    engine.run(batches)
    assert_same(model, trained_by_hand(batches, [4, 4, 2]))  # by a power of two: not a bit is lost
    assert max(map(abs, norms)) < 10


def test_a_skipped_step_fires_step_skipped_and_throws_its_gradients_away():
    batches, model = make_batches(3), make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("scaler", "a test", Scaler(2))
    fired = []
    engine.add_event_handler(
        UpdateEvents.STEP_SKIPPED,
        lambda engine: fired.append(("skipped", engine.state.iteration, model[0].weight.grad)),
    )
    engine.add_event_handler(
        UpdateEvents.STEP_COMPLETED,
        lambda engine: fired.append(("completed", engine.state.iteration, engine.state.step)),
    )
    engine.run(batches)
    assert fired == [("completed", 1, 1), ("skipped", 2, None), ("completed", 3, 2)]
    assert (engine.state.step, update.steps) == (2, 2)
    assert_same(model, trained_by_hand([batches[0], batches[2]], [1, 1]))


def test_a_filtered_handler_counts_no_skipped_step():
    model = make_model()
    engine, update = trainer_of(model, make_optimizer(model))
    update.slots.claim("scaler", "a test", Scaler(2, 3, 4))
    seen = []
    engine.add_event_handler(
        UpdateEvents.STEP_COMPLETED(every=2), lambda engine: seen.append((engine.state.step, engine.state.iteration))
    )
    engine.run(make_batches(7))
    assert seen == [(2, 5), (4, 7)]


def test_the_scalers_state_is_part_of_the_engines():
    def make(scaler):
        model = make_model()
        engine, update = trainer_of(model, make_optimizer(model))
        update.slots.claim("scaler", "a test", scaler)
        return engine

    engine = make(Scaler())
    engine.run(make_batches(3))
    scaler = Scaler()
    make(scaler).load_state_dict(engine.state_dict())
    assert scaler.asked == 3


# -- nothing waits for the device ------------------------------------------------------------------------


class Copies(TorchDispatchMode):
    """Counts the copies of a number from its device to the host (`.item()` and its like)."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_copies_to_the_host_are_counted():
    with Copies() as copies:
        assert math.isclose(torch.ones(1).item(), 1)
    assert copies.count == 1


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_step_copies_nothing_to_the_host(weighted):
    batches, model = make_batches(), make_model()

    def step(engine, batch):
        x, y = batch
        with update.forward():
            loss = mse_loss(model(x), y)
        update.backward(loss, weight=y.count_nonzero() if weighted else None)
        return loss.detach()

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    update.slots.claim("window", "a test", lambda: 3)
    with Copies() as copies:
        engine.run(batch for batch in batches)
    assert copies.count == 0
    assert isinstance(engine.state.step, int)
