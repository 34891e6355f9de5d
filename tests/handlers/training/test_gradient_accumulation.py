"""Several batches to an optimizer step."""

import itertools
import re

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd, train_by_hand, train_with

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_trainer
from leyden.handlers import GradientAccumulation


def steps_of(trainer):
    """The iterations in which the optimizer stepped, noted as the trainer runs."""
    steps = []
    trainer.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine: steps.append(engine.state.iteration))
    return steps


@pytest.mark.parametrize("window", [1, 3, 4, 10, 25])
def test_it_is_the_loop_by_hand_to_the_bit(window):
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(window))
    steps = steps_of(trainer)
    trainer.run(batches(10), max_epochs=3)
    expected = train_by_hand(theirs, sgd(theirs), batches(10), epochs=3, window=window)
    assert steps == expected
    assert trainer.state.step == len(expected)
    assert equal(ours, theirs)


def test_the_window_closes_at_the_end_of_the_epoch_too():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(GradientAccumulation(4))
    steps = steps_of(trainer)
    trainer.run(batches(10), max_epochs=2)
    assert steps == [4, 8, 10, 14, 18, 20]


def test_a_window_has_the_gradient_of_the_big_batch():
    ours, theirs = net(), net()
    data = batches(8)
    train_with(GradientAccumulation(4), model=ours, optimizer=sgd(ours), data=data, epochs=1)
    whole = [tuple(map(torch.cat, zip(*data[i : i + 4], strict=True))) for i in (0, 4)]
    train_by_hand(theirs, sgd(theirs), whole, epochs=1)
    for ours_parameter, theirs_parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(ours_parameter, theirs_parameter, atol=1e-6)


def test_the_output_is_the_loss_of_the_batch_not_its_share_of_the_window():
    model = net()
    trainer = train_with(GradientAccumulation(4), model=model, optimizer=sgd(model), data=batches(1), epochs=1)
    x, y = batches(1)[0]
    assert trainer.state.output == loss_fn(net()(x), y)


@pytest.mark.parametrize("limits", [{"max_iters": 6}, {"epoch_length": 6, "max_epochs": 1}])
def test_a_run_that_ends_sooner_closes_its_window_in_time(limits):
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4))
    steps = steps_of(trainer)
    trainer.run(batches(10), **limits)
    train_by_hand(theirs, sgd(theirs), batches(10)[:6], epochs=1, window=4)
    assert steps == [4, 6]
    assert equal(ours, theirs)


def close(model, other):
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_data_of_unknown_length_loses_no_gradient():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4))
    trainer.run(iter(batches(6)), max_epochs=1)
    train_by_hand(theirs, sgd(theirs), batches(6), epochs=1, window=4)
    assert trainer.state.step == 2
    assert close(ours, theirs)


def test_an_epoch_that_is_terminated_loses_no_gradient():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), trainer.terminate_epoch)
    trainer.run(batches(10), max_epochs=1)
    train_by_hand(theirs, sgd(theirs), batches(6), epochs=1, window=4)
    assert trainer.state.step == 2
    assert close(ours, theirs)


def test_an_interrupted_window_goes_on():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4))
    steps = steps_of(trainer)
    data = batches(10)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), trainer.interrupt)
    trainer.run(data, max_epochs=1)
    assert steps == [4]
    trainer.run(data, max_epochs=1)
    train_by_hand(theirs, sgd(theirs), data, epochs=1, window=4)
    assert steps == [4, 8, 10]
    assert equal(ours, theirs)


def test_a_run_from_the_beginning_carries_nothing_over():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4))
    with trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate):
        trainer.run(batches(10), max_epochs=1)
    assert trainer.state.step == 0
    trainer.state.max_epochs = None
    trainer.run(batches(10), max_epochs=1)
    train_by_hand(theirs, sgd(theirs), batches(10), epochs=1, window=4)
    assert equal(ours, theirs)


def test_updates_may_have_windows_of_their_own():
    models = {"fast": net(), "slow": net()}

    def process(engine, batch):
        x, y = batch
        for update in (fast, slow):
            with update.forward():
                loss = loss_fn(models[update.name](x), y)
            update.backward(loss)

    engine = Engine(process)
    fast, slow = (Update(engine, model, sgd(model), name=name) for name, model in models.items())
    engine.attach(GradientAccumulation(3, update="slow"))
    engine.run(batches(10))
    assert (fast.steps, slow.steps) == (10, 4)
    for name, window in (("fast", 1), ("slow", 3)):
        expected = net()
        train_by_hand(expected, sgd(expected), batches(10), epochs=1, window=window)
        assert equal(models[name], expected)


def test_weights_make_the_mean_over_all_tokens():
    """Batches of 1 to 6 tokens in one window: the step is that of one batch with all of them."""
    ours, theirs = net(), net()
    x, y = torch.randn(21, 6), torch.randn(21, 2)
    data = list(zip(x.split([1, 2, 3, 4, 5, 6]), y.split([1, 2, 3, 4, 5, 6]), strict=True))

    def process(engine, batch):
        x, y = batch
        with update.forward():
            loss = loss_fn(ours(x), y)
        update.backward(loss, weight=len(x))

    engine = Engine(process)
    update = Update(engine, ours, sgd(ours))
    engine.attach(GradientAccumulation(6))
    engine.run(data, max_epochs=3)
    train_by_hand(theirs, sgd(theirs), [(x, y)], epochs=3)
    assert close(ours, theirs)


def train_by_hand_in_windows(model, optimizer, data, windows, divisors=None):
    """Trains on batches window by window; a loss is divided by the size of its window, or by that divisor."""
    rest = iter(data)
    for window, divisor in zip(windows, divisors or windows, strict=True):
        for x, y in itertools.islice(rest, window):
            (loss_fn(model(x), y) / divisor).backward()
        optimizer.step()
        optimizer.zero_grad()


# -- a schedule --------------------------------------------------------------------------------------------------------


def test_a_schedule_of_epochs_that_count_from_one():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation({1: 1, 3: 4}))
    steps = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: steps.append(engine.state.step))
    trainer.run(batches(6), max_epochs=4)
    assert steps == [6, 12, 14, 16]
    train_by_hand_in_windows(theirs, sgd(theirs), batches(6) * 4, [1] * 12 + [4, 2, 4, 2])
    assert equal(ours, theirs)


def test_before_the_first_epoch_of_a_schedule_each_batch_is_a_step():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(GradientAccumulation({2: 3}))
    steps = steps_of(trainer)
    trainer.run(batches(3), max_epochs=2)
    assert steps == [1, 2, 3, 6]


# -- the last window ---------------------------------------------------------------------------------------------------


def test_a_last_window_that_is_carried_over_is_filled_by_the_next_epoch():
    """And at the end of the run the optimizer steps with what is there: 30 batches are 7 windows of 4 and one of 2."""
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, tail="carry"))
    steps = steps_of(trainer)
    trainer.run(batches(10), max_epochs=3)
    assert steps == [4, 8, 12, 16, 20, 24, 28, 30]
    train_by_hand_in_windows(theirs, sgd(theirs), batches(10) * 3, [4] * 7 + [2])
    assert equal(ours, theirs)


def test_a_window_that_is_carried_over_to_a_later_run():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, tail="carry"))
    steps = steps_of(trainer)
    with trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), trainer.terminate):
        trainer.run(batches(6), max_epochs=2)
    assert steps == [4]
    trainer.run(batches(6), max_epochs=2)
    assert steps == [4, 8, 12]
    train_by_hand_in_windows(theirs, sgd(theirs), batches(6) * 2, [4] * 3)
    assert equal(ours, theirs)


def test_carried_over_where_the_data_has_no_length():
    class Stream:
        def __iter__(self):
            return iter(batches(6))

    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, tail="carry"))
    trainer.run(Stream(), max_epochs=3)
    train_by_hand_in_windows(theirs, sgd(theirs), batches(6) * 3, [4] * 4 + [2])
    assert trainer.state.step == 5
    assert close(ours, theirs)


def test_a_last_window_that_is_dropped_leaves_nothing():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, tail="drop"))
    steps = steps_of(trainer)
    trainer.run(batches(10), max_epochs=3)
    assert steps == [4, 8, 14, 18, 24, 28]
    train_by_hand_in_windows(theirs, sgd(theirs), batches(10)[:8] * 3, [4] * 6)
    assert equal(ours, theirs)
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_a_loss_may_be_divided_by_the_full_number_in_a_short_window_too():
    ours, theirs = net(), net()
    train_with(GradientAccumulation(4, divide_by="steps"), model=ours, optimizer=sgd(ours), data=batches(10))
    train_by_hand_in_windows(theirs, sgd(theirs), batches(10) * 3, [4, 4, 2] * 3, [4] * 9)
    assert equal(ours, theirs)


def test_the_full_number_where_the_epoch_ends_unforeseen():
    ours, theirs = net(), net()
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, divide_by="steps"))
    trainer.run(iter(batches(6)), max_epochs=1)
    train_by_hand_in_windows(theirs, sgd(theirs), batches(6), [4, 2], [4, 4])
    assert equal(ours, theirs)


# -- weights -----------------------------------------------------------------------------------------------------------

RAGGED = [1, 2, 3, 4, 5, 6]


def ragged():
    """Batches of 1 to 6 tokens, and the one batch of all of them."""
    x, y = torch.randn(21, 6), torch.randn(21, 2)
    return list(zip(x.split(RAGGED), y.split(RAGGED), strict=True)), (x, y)


def test_a_weight_by_a_function_of_the_batch_makes_the_mean_over_all_tokens():
    ours, theirs, by_means = net(), net(), net()
    data, big_batch = ragged()
    by_tokens = GradientAccumulation(6, weight=lambda batch: len(batch[0]))
    train_with(by_tokens, model=ours, optimizer=sgd(ours), data=data)
    train_by_hand(theirs, sgd(theirs), [big_batch], epochs=3)
    assert close(ours, theirs)
    train_with(GradientAccumulation(6), model=by_means, optimizer=sgd(by_means), data=data)
    assert not close(by_means, theirs)


def test_a_weight_given_to_backward_goes_first():
    ours, theirs = net(), net()
    data, big_batch = ragged()

    def process(engine, batch):
        x, y = batch
        with update.forward():
            loss = loss_fn(ours(x), y)
        update.backward(loss, weight=len(x))

    engine = Engine(process)
    update = Update(engine, ours, sgd(ours))
    engine.attach(GradientAccumulation(6, weight=lambda batch: 1.0))
    engine.run(data, max_epochs=3)
    train_by_hand(theirs, sgd(theirs), [big_batch], epochs=3)
    assert close(ours, theirs)


@pytest.mark.parametrize("tail", ["carry", "drop"])
def test_weights_of_a_window_that_is_carried_over_or_dropped(tail):
    ours, theirs = net(), net()
    data, _ = ragged()  # windows of 4: the last two batches are left
    trainer = supervised_trainer(ours, sgd(ours), loss_fn)
    trainer.attach(GradientAccumulation(4, weight=lambda batch: len(batch[0]), tail=tail))
    trainer.run(data, max_epochs=2)
    order = data * 2 if tail == "carry" else data[:4] * 2
    whole = [tuple(map(torch.cat, zip(*order[i : i + 4], strict=True))) for i in range(0, len(order), 4)]
    train_by_hand(theirs, sgd(theirs), whole, epochs=1)
    assert close(ours, theirs)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"steps": {}}, ValueError, "got an empty mapping"),
        ({"steps": {1: 0}}, ValueError, "needs at least 1 batch a step, but got 0"),
        ({"steps": {-1: 2}}, ValueError, "has the epoch -1; epochs are counted from 1"),
        ({"steps": {0: 1, 4: 8}}, ValueError, "has the epoch 0; epochs are counted from 1, as state.epoch counts them"),
        ({"steps": {"1": 2}}, TypeError, "has the epoch '1'; epochs are whole numbers"),
        ({"steps": 2, "tail": "keep"}, ValueError, 'takes tail="step", "carry" or "drop", but got \'keep\''),
        ({"steps": 2, "divide_by": "tokens"}, ValueError, 'takes divide_by="window" or "steps", but got \'tokens\''),
        ({"steps": 2, "weight": 3}, TypeError, "takes weight= as a function of the batch, but got 3"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments, error, words):
    with pytest.raises(error, match=re.escape(words)):
        GradientAccumulation(**arguments)


@pytest.mark.parametrize("steps", [0, -1])
def test_fewer_than_one_batch(steps):
    with pytest.raises(ValueError, match=f"needs at least 1 batch a step, but got {steps}"):
        GradientAccumulation(steps)


@pytest.mark.parametrize("steps", [2.0, "2", True, None])
def test_no_whole_number(steps):
    with pytest.raises(TypeError, match="takes a whole number of batches, but got "):
        GradientAccumulation(steps)


def test_two_of_them():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(GradientAccumulation(2))
    with pytest.raises(ValueError, match="GradientAccumulation and GradientAccumulation both set window of one update"):
        trainer.attach(GradientAccumulation(3))


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="GradientAccumulation works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(GradientAccumulation(2))


def test_an_optimizer_with_a_closure():
    model = net()
    trainer = supervised_trainer(model, torch.optim.LBFGS(model.parameters()), loss_fn)
    trainer.attach(GradientAccumulation(2))
    with pytest.raises(RuntimeError, match="GradientAccumulation can't work with a closure"):
        trainer.run(batches(2))
