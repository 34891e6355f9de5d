"""Long sequences trained on in parts."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, supervised_trainer
from leyden.handlers import Checkpoint, ClipGradients, GradientAccumulation, MixedPrecision
from leyden.handlers.training.ema import EMA
from leyden.handlers.training.fast_precision import has_bf16
from leyden.handlers.training.truncated_bptt import TruncatedBPTT, TruncatedBPTTEvents
from leyden.metrics import RunningAverage

pytestmark = pytest.mark.timeout(60)

STARTED, COMPLETED = TruncatedBPTTEvents.TIME_ITERATION_STARTED, TruncatedBPTTEvents.TIME_ITERATION_COMPLETED
loss_fn = nn.MSELoss()


class Recurrent(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 2)

    def forward(self, x, hidden=None):
        output, hidden = self.lstm(x, hidden)
        return self.head(output), hidden


def batches(number=10, times=(7,)):
    generator = torch.Generator().manual_seed(1)
    sizes = [times[i % len(times)] for i in range(number)]
    return [(torch.randn(4, t, 3, generator=generator), torch.randn(4, t, 2, generator=generator)) for t in sizes]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def recurrent_trainer(*handlers, model=None, optimizer=None):
    model = Recurrent() if model is None else model

    def train_step(engine, batch):
        x, y = batch
        with update.forward():
            prediction, engine.state.hidden = model(x, engine.state.hidden)
            loss = loss_fn(prediction, y)
        update.backward(loss)
        return loss.detach()

    engine = Engine(train_step)
    update = Update(engine, model, sgd(model) if optimizer is None else optimizer)
    engine.attach(*handlers)
    return engine, model


def train_by_hand(model, data, length, epochs=3, dim=1, clip=None, dtype=None):
    """Gives the losses of the chunks, batch by batch."""
    optimizer = sgd(model)
    losses = []
    for _ in range(epochs):
        for x, y in data:
            hidden = None
            losses.append([])
            for x_chunk, y_chunk in zip(x.split(length, dim), y.split(length, dim), strict=True):
                with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    prediction, hidden = model(x_chunk, hidden)
                    loss = loss_fn(prediction, y_chunk)
                loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                hidden = tuple(each.detach() for each in hidden)
                losses[-1].append(loss.detach())
    return losses


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 7, 10])
@pytest.mark.parametrize("times", [(7,), (7, 2, 12)], ids=["of one length", "of several lengths"])
def test_it_is_the_loop_by_hand_to_the_bit(length, times):
    engine, model = recurrent_trainer(TruncatedBPTT(length))
    engine.run(batches(times=times), max_epochs=3)
    theirs = Recurrent()
    losses = train_by_hand(theirs, batches(times=times), length)
    assert equal(model, theirs)
    assert engine.state.iteration == 30
    assert engine.state.step == engine.state.time_iteration == sum(map(len, losses))


def test_time_may_be_the_first_dimension():
    data = [(x.transpose(0, 1), y.transpose(0, 1)) for x, y in batches()]
    model, theirs = Recurrent(batch_first=False), Recurrent(batch_first=False)
    engine, _ = recurrent_trainer(TruncatedBPTT(3, dim=0), model=model)
    engine.run(data, max_epochs=3)
    train_by_hand(theirs, data, 3, dim=0)
    assert equal(model, theirs)


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (lambda: ClipGradients(norm=0.1), {"clip": 0.1}),
        (lambda: MixedPrecision("bf16"), {"dtype": torch.bfloat16}),
        (lambda: EMA(0.9), {}),
    ],
    ids=["ClipGradients", "MixedPrecision", "EMA"],
)
def test_handlers_of_the_step_work_on_each_chunk(handler, options):
    engine, model = recurrent_trainer(handler(), TruncatedBPTT(3))
    theirs = Recurrent()
    # oneDNN has no LSTM in bf16 for processors without instructions for it, and torch takes no other by itself.
    with torch.backends.mkldnn.flags(enabled=has_bf16()):
        engine.run(batches(), max_epochs=3)
        train_by_hand(theirs, batches(), 3, **options)
    assert equal(model, theirs)
    (each,) = (handler for handler in engine.handlers.values() if not isinstance(handler, TruncatedBPTT))
    if isinstance(each, EMA):
        assert each.state_dict()["updates"]["default"]["count"] == 90


def test_without_an_update_the_step_is_the_users():
    model, theirs = Recurrent(), Recurrent()
    optimizer = sgd(model)

    def train_step(engine, batch):
        x, y = batch
        prediction, engine.state.hidden = model(x, engine.state.hidden)
        loss_fn(prediction, y).backward()
        optimizer.step()
        optimizer.zero_grad()

    engine = Engine(train_step)
    engine.attach(TruncatedBPTT(3))
    engine.run(batches(), max_epochs=3)
    train_by_hand(theirs, batches(), 3)
    assert equal(model, theirs)


def test_closures():
    """Each evaluation begins with the hidden state that the chunk began with."""

    def by_closure(model, optimizer, x, y, hidden):
        after = []

        def closure():
            prediction, left = model(x, hidden)
            after[:] = [left]
            return loss_fn(prediction, y)

        return closure, after

    def lbfgs(model):
        return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    model, theirs = Recurrent(), Recurrent()

    def train_step(engine, batch):
        closure, after = by_closure(model, update.optimizer, *batch, engine.state.hidden)
        update.step(closure)
        (engine.state.hidden,) = after

    engine = Engine(train_step)
    update = Update(engine, model, lbfgs(model))
    engine.attach(TruncatedBPTT(3))
    engine.run(batches(3))
    optimizer = lbfgs(theirs)
    for x, y in batches(3):
        hidden = None
        for chunk in zip(x.split(3, 1), y.split(3, 1), strict=True):
            closure, after = by_closure(theirs, optimizer, *chunk, hidden)

            def evaluate(closure=closure):
                optimizer.zero_grad()
                loss = closure()
                loss.backward()
                return loss

            optimizer.step(evaluate)
            hidden = tuple(each.detach() for each in after[0])
    assert equal(model, theirs)


# -- what a chunk is ---------------------------------------------------------------------------------------------------


Pair = namedtuple("Pair", ["x", "mask"])


def chunks_of(batch, length=2, **options):
    seen = []
    engine = Engine(lambda engine, chunk: seen.append(chunk))
    engine.attach(TruncatedBPTT(length, **options))
    engine.run([batch])
    return seen


def test_nested_batches_are_cut_where_they_have_time():
    x, mask, state = torch.arange(10).reshape(2, 5), torch.ones(2, 5, 3), torch.zeros(2, 4)
    chunks = chunks_of({"in": Pair(x, mask), "rest": [state, torch.arange(2), "name", {}, (), None]})
    assert [type(chunk["in"]) for chunk in chunks] == [Pair] * 3
    assert [chunk["in"].x.tolist() for chunk in chunks] == [part.tolist() for part in x.split(2, 1)]
    assert [chunk["in"].mask.shape[1] for chunk in chunks] == [2, 2, 1]
    for chunk in chunks:
        assert chunk["rest"][0] is state
        assert chunk["rest"][2:] == ["name", {}, (), None]


def test_a_batch_that_is_one_chunk_stays_what_it_is():
    batch = [torch.zeros(2, 3), torch.zeros(2)]
    (chunk,) = chunks_of(batch, length=3)
    assert chunk is batch


def test_a_split_of_ones_own():
    chunks = chunks_of("abcdefg", length=3, split=lambda text, n: (text[i : i + n] for i in range(0, len(text), n)))
    assert chunks == ["abc", "def", "g"]


def test_what_is_left_for_the_next_chunk_is_detached():
    seen = []
    weight = torch.ones(2, requires_grad=True)

    def process(engine, batch):
        seen.append(engine.state.hidden)
        engine.state.hidden = {"pair": Pair(weight * 2, (weight * 3, 7)), "list": [weight * 4], "none": None}

    engine = Engine(process)
    engine.attach(TruncatedBPTT(2))
    engine.run([torch.zeros(1, 4), torch.zeros(1, 4)])
    assert seen[0] is seen[2] is None
    hidden = seen[1]
    assert type(hidden["pair"]) is Pair
    tensors = [hidden["pair"].x, hidden["pair"].mask[0], hidden["list"][0]]
    assert [tensor.tolist() for tensor in tensors] == [[2, 2], [3, 3], [4, 4]]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert (hidden["pair"].mask[1], hidden["none"]) == (7, None)


# -- outputs -----------------------------------------------------------------------------------------------------------


def test_the_output_is_the_mean_over_time():
    engine, _ = recurrent_trainer(TruncatedBPTT(3))
    outputs = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: outputs.append(engine.state.output))
    RunningAverage().attach(engine, "loss")
    engine.run(batches(4), max_epochs=1)
    losses = train_by_hand(Recurrent(), batches(4), 3, epochs=1)
    for output, (a, b, c) in zip(outputs, losses, strict=True):
        assert torch.equal(output, (a * 3 + b * 3 + c * 1) / 7)
        assert not output.requires_grad
    assert isinstance(engine.state.metrics["loss"], float)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([1.0, 2.0, 3.0], 1.8),
        ([torch.tensor(1.0), 2.0, torch.tensor(3.0)], torch.tensor(1.8)),
        ([{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}], [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}]),
        ([None, None, None], [None, None, None]),
        ([1.0, None, 2.0], [1.0, None, 2.0]),
    ],
)
def test_outputs_that_are_no_scalars_come_in_a_list(outputs, expected):
    waiting = list(outputs)
    engine = Engine(lambda engine, batch: waiting.pop(0))
    engine.attach(TruncatedBPTT(2))
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(engine.state.output))
    engine.run([torch.zeros(1, 5)])
    assert seen == [expected if isinstance(expected, list) else pytest.approx(float(expected))]


# -- events ------------------------------------------------------------------------------------------------------------


def test_the_order_of_events():
    engine = Engine(lambda engine, batch: told.append(("process", batch.tolist())))
    engine.attach(TruncatedBPTT(2))
    told = []
    for event in (Events.ITERATION_STARTED, STARTED, COMPLETED, Events.ITERATION_COMPLETED):

        def tell(event=event):
            told.append((event.name, engine.state.iteration, engine.state.time_iteration))

        engine.add_event_handler(event, tell)
    engine.add_event_handler(COMPLETED(every=3), lambda: told.append("every third"))
    engine.run([torch.tensor([[0, 1, 2]]), torch.tensor([[3, 4]])])
    assert told == [
        ("ITERATION_STARTED", 1, 0),
        ("TIME_ITERATION_STARTED", 1, 1),
        ("process", [[0, 1]]),
        ("TIME_ITERATION_COMPLETED", 1, 1),
        ("TIME_ITERATION_STARTED", 1, 2),
        ("process", [[2]]),
        ("TIME_ITERATION_COMPLETED", 1, 2),
        ("ITERATION_COMPLETED", 1, 2),
        ("ITERATION_STARTED", 2, 2),
        ("TIME_ITERATION_STARTED", 2, 3),
        ("process", [[3, 4]]),
        ("TIME_ITERATION_COMPLETED", 2, 3),
        "every third",
        ("ITERATION_COMPLETED", 2, 3),
    ]


def test_a_run_from_the_beginning_counts_from_there():
    engine = Engine(lambda engine, batch: None)
    engine.attach(TruncatedBPTT(2))
    counts = []
    engine.add_event_handler(COMPLETED(every=2), lambda: counts.append(engine.state.time_iteration))
    data = [torch.zeros(1, 6)] * 2
    engine.run(data, max_epochs=1)
    engine.run(data, max_epochs=1)
    assert counts == [2, 4, 6, 2, 4, 6]
    engine.run(data, max_epochs=2)
    assert counts[6:] == [8, 10, 12]


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path):
    whole, model = recurrent_trainer(TruncatedBPTT(3))
    data = batches(times=(7, 2, 12))
    whole.run(data, max_epochs=2)
    first, _ = recurrent_trainer(TruncatedBPTT(3), Checkpoint(tmp_path))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=14), first.interrupt)
    first.run(data, max_epochs=2)
    second, resumed = recurrent_trainer(TruncatedBPTT(3), Checkpoint(tmp_path, resume="auto"))
    second.run(data, max_epochs=2)
    assert equal(resumed, model)
    assert second.state.time_iteration == whole.state.time_iteration


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "TruncatedBPTT takes length as a whole number, at least 1, but got 0"),
        ({"length": 2.5}, "TruncatedBPTT takes length as a whole number, at least 1, but got 2.5"),
        ({"length": 2, "dim": -1}, "TruncatedBPTT takes dim as a whole number, at least 0, but got -1"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TruncatedBPTT(**arguments)


def test_a_split_that_is_no_function():
    with pytest.raises(TypeError, match=r"takes split= as a function of \(batch, length\), but got 3"):
        TruncatedBPTT(2, split=3)


@pytest.mark.parametrize("batch", [torch.zeros(3), {"x": torch.zeros(3)}, "text", torch.zeros(3, 0)])
def test_a_batch_without_time(batch):
    with pytest.raises(ValueError, match="cuts batches along dim=1, but no tensor in this one"):
        chunks_of(batch)


@pytest.mark.parametrize("place", [0, 1])
def test_a_packed_batch(place):
    batch = [torch.zeros(2, 4)]
    batch.insert(place, nn.utils.rnn.pack_sequence([torch.zeros(3, 2), torch.zeros(2, 2)]))
    with pytest.raises(TypeError, match="can't cut a PackedSequence"):
        chunks_of(batch)


@pytest.mark.parametrize("first", [0, 1])
def test_beside_accumulation(first):
    model = Recurrent()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    handlers = [TruncatedBPTT(2), GradientAccumulation(2)]
    with pytest.raises(ValueError, match=r"can't both be attached to one engine: windows are of whole batches"):
        trainer.attach(handlers[first], handlers[1 - first])


def test_two_of_them():
    engine = Engine(lambda engine, batch: None)
    engine.attach(TruncatedBPTT(2))
    with pytest.raises(ValueError, match="can't both be attached to one engine: a batch is cut into chunks once"):
        engine.attach(TruncatedBPTT(2))


def test_one_of_them_on_two_engines():
    handler = TruncatedBPTT(2)
    Engine(lambda engine, batch: None).attach(handler)
    with pytest.raises(ValueError, match="attached to an engine already; make one for each"):
        Engine(lambda engine, batch: None).attach(handler)
