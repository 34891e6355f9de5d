"""A compiled model learns the same; what is attached to its run breaks no graph and compiles nothing anew."""

import contextlib
import logging

import pytest
import torch
from by_hand import batches, loss_fn, net, sgd
from models import deep, equal_tensors, tensors
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, ClipGradients, Evaluate, GradientAccumulation, Schedule, TerminateOnNan
from leyden.handlers.model import ChannelsLast, Compile, Finetune, Freeze
from leyden.metrics import Accuracy, Loss, RunningAverage


class Compilations:
    """What dynamo did in a stretch.

    compiled: how often a function was, by dynamo's hook on the code it makes. recompilations: how many of these had
    been compiled before, for other sizes or modes, by dynamo's log of them. breaks: by its counter of graph breaks.
    """

    def __init__(self, backend):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        self.backend = CompileCounterWithBackend(backend)
        self.compiled = self.recompilations = 0

    @property
    def breaks(self):
        return sum(torch._dynamo.utils.counters["graph_break"].values())

    @property
    def figures(self):
        assert self.backend.frame_count >= self.compiled  # more where dynamo begins a compilation anew
        return self.breaks, self.compiled, self.recompilations

    def note_code(self, *_):
        self.compiled += 1

    def note_record(self, record):
        self.recompilations += "Recompiling function" in record.getMessage()
        return False  # it is not logged


@contextlib.contextmanager
def counted(backend):
    compilations = Compilations(backend)
    torch._logging.set_logs(recompiles=True)
    logger = logging.getLogger("torch._dynamo.guards.__recompiles")
    logger.addFilter(compilations.note_record)
    hook = torch._dynamo.convert_frame.register_bytecode_hook(compilations.note_code)
    try:
        yield compilations
    finally:
        hook.remove()
        logger.removeFilter(compilations.note_record)
        torch._logging.set_logs()


def classes(data):
    return [(x, (y[:, 0] > 0).long()) for x, y in data]


def full_run(tmp_path, data, handlers, evaluate=True, epochs=3):
    """An engine with metrics, events, and handlers of all kinds, run."""
    model = deep(dropout=0.1)
    optimizer = sgd(model, lr=0.01)
    loss = nn.CrossEntropyLoss()
    trainer = supervised_trainer(model, optimizer, loss)
    RunningAverage(output_transform=lambda output: output).attach(trainer, "loss")
    evaluator = supervised_evaluator(model, metrics={"accuracy": Accuracy(), "loss": Loss(loss)})
    trainer.attach(
        *handlers,
        *([Evaluate(evaluator, data, prefix="val/")] if evaluate else []),
        GradientAccumulation(2),
        ClipGradients(norm=1.0),
        Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)),
        TerminateOnNan(every=10),
        Checkpoint(tmp_path),
    )
    seen = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output.item()))
    trainer.add_event_handler(UpdateEvents.FORWARD_STARTED | UpdateEvents.GRADIENTS_READY, lambda: seen.append(0))
    trainer.add_event_handler(Events.ITERATION_STARTED(every=3), lambda engine: engine.state.batch[0].sum().item())
    state = trainer.run(data, max_epochs=epochs)
    assert state.epoch == epochs
    assert 0 <= state.metrics["loss"] < 10
    return trainer


def data_of(short):
    """10 batches; the last may be a short one."""
    return classes([*batches(9), *batches(1, size=3)] if short else batches(10))


# (options of Compile, a short last batch, an evaluator): compilations, and recompilations among them.
FIGURES = {
    "training alone": ({}, False, False, 1, 0),
    "with an evaluator": ({}, False, True, 2, 1),
    "with a short last batch": ({}, True, False, 2, 1),
    "with both": ({}, True, True, 3, 2),
    "with both, dynamic": ({"dynamic": True}, True, True, 2, 1),
    "with both, by blocks": ({"regional": True}, True, True, 3, 2),
    "with both, by blocks, dynamic": ({"regional": True, "dynamic": True}, True, True, 2, 1),
}


@pytest.mark.parametrize("what", FIGURES)
def test_compilations_over_three_epochs(what, tmp_path):
    options, short, evaluate, compiled, recompilations = FIGURES[what]
    with counted("eager") as compilations:
        full_run(tmp_path, data_of(short), [Compile(backend=compilations.backend, **options)], evaluate)
    assert compilations.figures == (0, compiled, recompilations)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "figures"),
    [("even batches", (0, 2, 1)), ("a short last batch, dynamic", (0, 2, 1)), ("a short last batch", (0, 3, 2))],
)
def test_inductor_breaks_no_graph_and_recompiles_once(what, figures, tmp_path):
    """Graph breaks, compilations and recompilations over three epochs of training and evaluation.

    The one recompilation is that for evaluation, which runs without gradients and without dropout.
    """
    with counted("inductor") as compilations:
        handler = Compile(backend=compilations.backend, fullgraph=True, dynamic=True if "dynamic" in what else None)
        full_run(tmp_path, data_of("short" in what), [handler])
    print(
        f"{what}: {compilations.breaks} graph breaks, {compilations.compiled} compilations, of which "
        f"{compilations.recompilations} of what had been compiled before"
    )
    assert compilations.figures == figures


@pytest.mark.slow
def test_inductor_by_its_name():
    ours, theirs = deep(), deep()
    torch._dynamo.reset()
    train(ours, Compile("default"), epochs=1, number=3)
    train(theirs, epochs=1, number=3)
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs.state_dict()[name], rtol=1e-4, atol=1e-5)


def train(model, *handlers, epochs=3, number=10):
    trainer = supervised_trainer(model, sgd(model, lr=0.01), loss_fn)
    trainer.attach(*handlers)
    trainer.run(batches(number), max_epochs=epochs)
    return trainer


@pytest.mark.parametrize("regional", [False, True], ids=["whole", "by blocks"])
def test_training_is_that_of_the_model_as_it_was_to_the_bit(regional):
    ours, theirs = deep(), deep()
    with counted("aot_eager") as compilations:
        train(ours, Compile(backend=compilations.backend, regional=regional))
    assert compilations.compiled > 0
    train(theirs)
    assert equal_tensors(ours, theirs)


def test_the_model_stays_the_users_own():
    model = deep()
    optimizer = sgd(model)
    before = dict(model.named_parameters())
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(Compile(backend="eager"))
    trainer.run(batches(1))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert list(model.state_dict()) == list(deep().state_dict())


def test_a_second_run_compiles_nothing_anew():
    model = deep()
    with counted("eager") as compilations:
        trainer = train(model, Compile(backend=compilations.backend), epochs=1)
        trainer.run(max_epochs=3)
        trainer.state.max_epochs = None
        trainer.run(batches(10), max_epochs=2)
    assert compilations.compiled == 1


def test_equal_blocks_are_compiled_once():
    with counted("eager") as compilations:
        train(deep(depth=12), Compile(backend=compilations.backend, regional=True), epochs=1)
    assert compilations.figures == (0, 1, 0)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch has one limit for all that is compiled of a class")
def test_blocks_of_many_sizes_are_all_compiled():
    """torch compiles 8 forms of one function by itself, and runs the others uncompiled."""

    class Wide(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = nn.Linear(6, width)
            self.outer = nn.Linear(width, 6)

        def forward(self, x):
            return self.outer(torch.relu(self.inner(x)))

    model = nn.Sequential(*[Wide(width) for width in range(8, 20)], nn.Linear(6, 2))
    with counted("eager") as compilations:
        train(model, Compile(backend=compilations.backend, regional=True), epochs=1, number=2)
    assert compilations.compiled == 12


def test_a_part_that_is_unfrozen_is_compiled_again_once():
    with counted("eager") as compilations:
        model = deep()
        plan = {1: ["head", "blocks"], 2: "stem"}
        train(model, Compile(backend=compilations.backend), Finetune(plan), epochs=3)
    assert compilations.figures == (0, 2, 1)


def test_frozen_batch_norms_are_compiled_once():
    model = deep(norm=nn.BatchNorm1d)
    before = tensors(model.blocks)
    with counted("aot_eager") as compilations:
        train(model, Freeze("blocks"), Compile(backend=compilations.backend))
    assert compilations.compiled == 1
    assert equal_tensors(model.blocks, before)


def test_beside_channels_last():
    """The change of the inputs is a graph of its own, or from torch 2.14 on a part of the model's; none comes twice."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    with counted("eager") as compilations:
        trainer = supervised_trainer(model, sgd(model, lr=0.01), loss_fn)
        trainer.attach(Compile(backend=compilations.backend, fullgraph=True), ChannelsLast())
        trainer.run([(torch.randn(2, 3, 8, 8), torch.randn(2, 2))] * 3)
    breaks, compiled, recompilations = compilations.figures
    assert (breaks, recompilations) == (0, 0)
    assert compiled in (1, 2)


def test_updates_of_one_engine():
    def compiled(handler):
        models = {"one": deep(), "two": deep()}
        engine = Engine(lambda engine, batch: None)
        for name, model in models.items():
            Update(engine, model, sgd(model), name=name)
        engine.attach(handler)
        engine.run([None])
        return [model._compiled_call_impl is not None for model in models.values()]

    assert compiled(Compile()) == [True, True]
    assert compiled(Compile(update="two")) == [False, True]


def test_the_setup_tells_it():
    model = deep()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(Compile())
    assert "COMPILE  Compile" in str(trainer)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_no_block_to_compile():
    with pytest.raises(ValueError, match="update 'default' has none among its classes: Sequential, Linear, Tanh"):
        train(net(), Compile(regional=True))


def test_two_of_them():
    with pytest.raises(ValueError, match="both would compile the same model; attach only one"):
        train(deep(), Compile(), Compile(regional=True))


def test_a_model_that_is_wrapped_already():
    with pytest.raises(ValueError, match=r"is wrapped by torch.compile already; give the engine the model itself"):
        train(torch.compile(deep()), Compile())


def test_an_unknown_mode():
    with pytest.raises(RuntimeError, match="Unrecognized mode=fastest"):
        train(deep(), Compile("fastest"))


def test_an_engine_without_an_update():
    with pytest.raises(ValueError, match="Compile works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(Compile())
