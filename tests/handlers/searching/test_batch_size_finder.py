"""The largest batch size that fits."""

import gc
import json
import logging
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from trainings import adamw, batches, everything, loss_fn, net, plain_net, same, samples, seed_all, shuffled

from leyden.engine import DataStage, Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision
from leyden.handlers.data.reproducible import Reproducible
from leyden.handlers.searching import BatchSizeFinder, LearningRateFinder, out_of_memory
from leyden.handlers.searching.batch_size_finder import largest
from leyden.handlers.training.batch_size_schedule import BatchSizeSchedule

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect():
    """Each trial collects garbage: it need not look through all that torch and its packages make for a first step."""
    run()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def trainer_with_room_for(most, *handlers, model=None, error=torch.OutOfMemoryError):
    """A trainer that runs out of memory above `most` samples, and the sizes of the batches that it was given."""
    trainer = supervised_trainer(model := net() if model is None else model, adamw(model), loss_fn)
    process, sizes = trainer.process, []

    def process_in_little_memory(engine, batch):
        sizes.append(len(batch[0]))
        if len(batch[0]) > most:
            raise error if isinstance(error, BaseException) else error()
        return process(engine, batch)

    trainer.process = process_in_little_memory
    trainer.attach(*handlers)
    return trainer, sizes


def tried(sizes):
    """Without repetition, in the order of the trials."""
    return list(dict.fromkeys(sizes))


# -- what it tries -----------------------------------------------------------------------------------------------------


def test_it_doubles_until_memory_runs_out():
    trainer, sizes = trainer_with_room_for(21)
    finder = BatchSizeFinder(steps=3)
    assert finder.find(trainer, shuffled(100)) == finder.size == 16
    assert sizes == [2, 2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32]


def test_binary_search_finds_the_last_that_fits():
    trainer, sizes = trainer_with_room_for(21)
    assert BatchSizeFinder(mode="binary", steps=1).find(trainer, shuffled(100)) == 21
    assert sizes == [2, 4, 8, 16, 32, 24, 20, 22, 21]


@pytest.mark.parametrize("room", [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 99, 100])
def test_both_modes_for_every_room(room):
    def fits(size):
        return size <= room, False

    for start in (1, 2, 5, 64, 100):
        assert largest(fits, start, 100, binary=True, trials=25) == room
    power = max(2**k for k in range(7) if 2**k <= room)
    assert largest(fits, 1, 100, binary=False, trials=25) == (100 if room == 100 else power)


def test_it_ends_at_the_size_of_the_data_set():
    trainer, sizes = trainer_with_room_for(1000)
    assert BatchSizeFinder().find(trainer, shuffled(40)) == 40
    assert tried(sizes) == [2, 4, 8, 16, 32, 40]


def test_it_ends_at_max_size():
    trainer, sizes = trainer_with_room_for(1000)
    assert BatchSizeFinder(mode="binary", max_size=12).find(trainer, shuffled(40)) == 12
    assert tried(sizes) == [2, 4, 8, 12]


def test_it_ends_after_max_trials():
    trainer, sizes = trainer_with_room_for(21)
    assert BatchSizeFinder(mode="binary", max_trials=6).find(trainer, shuffled(100)) == 16
    assert tried(sizes) == [2, 4, 8, 16, 32, 24]


def test_it_begins_where_it_is_told():
    trainer, sizes = trainer_with_room_for(30)
    assert BatchSizeFinder(5).find(trainer, shuffled(100)) == 20
    assert tried(sizes) == [5, 10, 20, 40]


def test_binary_search_also_goes_below_its_start():
    trainer, sizes = trainer_with_room_for(5)
    assert BatchSizeFinder(32, mode="binary", steps=1).find(trainer, shuffled(100)) == 5
    assert sizes == [32, 16, 8, 4, 6, 5]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stream_that_ends_ends_it_too(steps):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(*samples(20).tensors, strict=True)

    trainer, sizes = trainer_with_room_for(1000)
    assert BatchSizeFinder(steps=steps).find(trainer, DataLoader(Stream(), batch_size=1)) == 32
    assert tried(sizes) == [2, 4, 8, 16, 20]  # the last one asked for 32


def test_a_trial_is_of_optimizer_steps_whatever_the_window():
    trainer, sizes = trainer_with_room_for(2, GradientAccumulation(4))
    BatchSizeFinder(steps=2).find(trainer, shuffled(100))
    assert sizes == [2] * 8 + [4]


def test_a_trial_goes_on_until_each_update_has_stepped():
    models = {"critic": plain_net(), "generator": plain_net()}

    def process(engine, batch):
        for name, update in engine.updates.items():
            if name == "critic" or engine.state.iteration % 5 == 0:
                with update.forward():
                    loss = loss_fn(models[name](batch[0]), batch[1])
                update.backward(loss)
        sizes.append(len(batch[0]))

    sizes = []
    engine = Engine(process)
    for name, model in models.items():
        Update(engine, model, adamw(model), name=name)
    BatchSizeFinder(steps=2, max_size=2).find(engine, shuffled(100))
    assert sizes == [2] * 10


def test_steps_that_fp16_skips_do_not_count():
    trainer, sizes = trainer_with_room_for(100, MixedPrecision("fp16", init_scale=2.0**20))
    BatchSizeFinder(steps=2, max_size=2).find(trainer, shuffled(100))
    assert len(sizes) > 2


# -- the run -----------------------------------------------------------------------------------------------------------


def run(*handlers, size=None, data=None, room=10):
    """Everything after a run of 2 epochs, and the sizes of its batches."""
    trainer, _ = trainer_with_room_for(room, *handlers)
    sizes = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: sizes.append(len(trainer.state.batch[0])))
    seed_all()
    trainer.run(shuffled(40, 4 if size is None else size) if data is None else data, max_epochs=2)
    state = everything(trainer)
    for name in ("BatchSizeFinder", "LearningRateFinder"):
        state["handlers"].pop(name, None)
        state["engine"].get("handlers", {}).pop(name, None)
    return state, sizes


@pytest.mark.parametrize(
    "handlers",
    [
        lambda: (),
        lambda: (GradientAccumulation(2),),
        lambda: (MixedPrecision("bf16"), ClipGradients(norm=0.1)),
        lambda: (MixedPrecision("fp16"),),
    ],
)
def test_the_run_is_the_one_with_a_loader_of_that_size(handlers):
    found, sizes = run(BatchSizeFinder(), *handlers())
    expected, expected_sizes = run(*handlers(), size=8)
    assert sizes == expected_sizes == [8] * 10
    assert same(found, expected)


def test_the_seeds_of_samples_do_not_know_of_the_trials():
    def handlers(*others):
        return Reproducible(3), *others

    for others in ((BatchSizeFinder(),), (BatchSizeFinder(), LearningRateFinder(1e-4, 10.0, steps=30, apply=False))):
        found, _ = run(*handlers(*others))
        expected, _ = run(*handlers(), size=8)
        del found["handlers"], expected["handlers"]
        assert same(found, expected)
    data = shuffled(40, 8)
    found, _ = run(BatchSizeFinder(), *handlers(), data=data)
    del found["handlers"]
    assert same(found, expected)


def test_the_users_own_loader_stays_as_it_is():
    data = shuffled(40, 4)
    before = dict(vars(data))
    run(BatchSizeFinder(), data=data)
    assert all(vars(data)[key] is value for key, value in before.items())
    assert (data.batch_size, data.batch_sampler.batch_size) == (4, 4)


def test_without_apply_the_run_keeps_its_batches():
    finder = BatchSizeFinder(apply=False)
    found, sizes = run(finder)
    expected, _ = run()
    assert finder.size == 8
    assert set(sizes) == {4}
    assert same(found, expected)


def test_a_second_run_does_not_search_again():
    trainer, sizes = trainer_with_room_for(10, BatchSizeFinder())
    trainer.run(shuffled(40), max_epochs=1)
    del sizes[:]
    trainer.run(shuffled(40), max_epochs=2)
    trainer.state.max_epochs = None
    trainer.run(shuffled(40), max_epochs=1)
    assert sizes == [8] * 10


def test_a_resumed_run_keeps_the_size_that_was_found():
    whole, _ = run(BatchSizeFinder())
    first, _ = trainer_with_room_for(10, BatchSizeFinder())
    seed_all()
    first.add_event_handler(Events.EPOCH_COMPLETED(once=1), first.interrupt)
    first.run(shuffled(40), max_epochs=2)
    finder = BatchSizeFinder()
    model = first.updates["default"].modules["model"]
    resumed, sizes = trainer_with_room_for(10, finder, model=model)
    resumed.updates["default"].optimizer.load_state_dict(first.updates["default"].optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    resumed.run(shuffled(40), max_epochs=2)
    assert finder.size == 8
    assert sizes == [8] * 5
    assert same(whole["updates"], everything(resumed)["updates"])


def test_attached_in_the_middle_of_a_run_it_does_not_search(caplog):
    trainer, sizes = trainer_with_room_for(10)
    trainer.run(shuffled(40), max_epochs=1)
    trainer.attach(finder := BatchSizeFinder())
    trainer.run(shuffled(40), max_epochs=2)
    assert finder.size is None
    assert set(sizes) == {4}
    assert caplog.messages == [
        "BatchSizeFinder does not search in the middle of a run (iteration 10): its data stays as it is"
    ]


def test_other_data_in_mid_run_has_the_size_that_was_found():
    trainer, sizes = trainer_with_room_for(10, BatchSizeFinder())
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: trainer.set_data(shuffled(40)))
    trainer.run(shuffled(40), max_epochs=2)
    assert sizes[-10:] == [8] * 10


def test_trials_see_what_later_stages_make_of_the_data():
    trainer, sizes = trainer_with_room_for(10, BatchSizeFinder())
    calls = []

    class Doubled:
        def __init__(self, data):
            self.data = data

        def __iter__(self):
            return ((torch.cat([x, x]), torch.cat([y, y])) for x, y in self.data)

    class Counter:
        count = 0

        def change(self, data):
            self.count += 1
            calls.append(self.count)
            return Doubled(data)

    trainer.data_setup.add(DataStage.TRANSFER, Counter().change)
    trainer.run(shuffled(40), max_epochs=1)
    assert sizes[-1] == 8  # twice 4
    assert len(calls) > 1
    assert set(calls) == {1}  # nobody has counted the trials


def test_no_handler_sees_the_trials():
    events = []
    trainer, _ = trainer_with_room_for(10, BatchSizeFinder())
    for event in Events:
        if event is not Events.EXCEPTION_RAISED:
            trainer.add_event_handler(event, lambda event=event: events.append(event))
    trainer.run(shuffled(40), max_iters=1)
    assert [event for event in events if event in (Events.STARTED, Events.ITERATION_COMPLETED)] == [
        Events.STARTED,
        Events.ITERATION_COMPLETED,
    ]


def test_print_tells_of_it():
    trainer, _ = trainer_with_room_for(10, BatchSizeFinder())
    assert "BATCH  BatchSizeFinder" in str(trainer)


def test_the_batch_size_comes_first_then_the_learning_rate():
    sizes_first, rate = BatchSizeFinder(), LearningRateFinder(1e-4, 10.0, steps=30)
    found, sizes = run(rate, sizes_first)
    alone = LearningRateFinder(1e-4, 10.0, steps=30)
    expected, _ = run(alone, size=8)
    assert set(sizes) == {8}
    assert rate.result.losses == alone.result.losses
    assert same(found, expected)


@pytest.mark.parametrize(
    ("room", "words"),
    [(10, "batches of 8 samples (16 do not fit in memory)"), (99, "batches of 40 samples (memory allows more)")],
)
def test_it_says_what_it_found_in_one_line(caplog, room, words):
    with caplog.at_level(logging.INFO, "leyden.handlers"):
        run(BatchSizeFinder(), room=room)
    assert caplog.messages == [f"BatchSizeFinder: {words}"]


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")
@pytest.mark.parametrize("mode", ["power", pytest.param("binary", marks=pytest.mark.slow)])
def test_real_memory_that_runs_out(mode):
    """600 MB more than the process has, and a model with 6 MB of activations a sample, gradients beside them."""
    script = str(SCRIPTS / "run_out_of_memory.py")
    done = subprocess.run([sys.executable, script, mode], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seen"] == [True, found["size"]]  # all as it was when the run began, with batches of that size
    assert found["size"] in ([16, 32, 64] if mode == "power" else range(17, 100))
    assert found["errors"]
    assert all("DefaultCPUAllocator: can't allocate memory" in error for error in found["errors"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB"),
        RuntimeError("HIP out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous"
        ),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
        RuntimeError("std::bad_alloc"),
        OSError("[Errno 12] Cannot allocate memory"),
    ],
    ids=str,
)
def test_errors_that_say_that_memory_ran_out(error):
    assert out_of_memory.is_out_of_memory(error)
    trainer, _ = trainer_with_room_for(10, error=error)
    assert BatchSizeFinder().find(trainer, shuffled(40)) == 8


def test_an_error_that_was_wrapped():
    error = RuntimeError("backend compiler failed")
    error.__cause__ = torch.OutOfMemoryError()
    assert out_of_memory.is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("a")])
def test_other_errors_reach_the_user_and_nothing_has_changed(error):
    assert not out_of_memory.is_out_of_memory(error)
    trainer, _ = trainer_with_room_for(10, BatchSizeFinder(), error=error)
    before = everything(trainer)
    with pytest.raises(type(error)) as raised:
        trainer.run(shuffled(40))
    assert raised.value.__notes__ == ["raised while BatchSizeFinder tried batches of 16; max_size= keeps it below"]
    after = everything(trainer)
    assert same(before["updates"], after["updates"])
    assert same(before["random"], after["random"])


def test_what_was_tried_is_freed_before_the_next_trial():
    references, counts = [], []
    trainer, _ = trainer_with_room_for(10)
    process = trainer.process

    def process_that_holds(engine, batch):
        held = torch.zeros(10)
        cycle = [held]
        cycle.append(cycle)  # what only a collection of garbage frees
        if engine.state.iteration == 1:
            counts.append(sum(reference() is not None for reference in references))
        references.append(weakref.ref(held))
        return process(engine, batch)

    trainer.process = process_that_holds
    gc.disable()
    try:
        BatchSizeFinder(mode="binary", steps=1).find(trainer, shuffled(40))
    finally:
        gc.enable()
    assert len(counts) > 5
    assert set(counts) == {0}


def test_not_even_the_smallest_size_fits():
    trainer, _ = trainer_with_room_for(1)
    with pytest.raises(
        RuntimeError, match="not even batches of 2 fit in memory; start lower, or make the model smaller"
    ):
        BatchSizeFinder().find(trainer, shuffled(40))
    trainer, _ = trainer_with_room_for(0)
    with pytest.raises(RuntimeError, match="not even batches of 1 fit in memory; make the model smaller"):
        BatchSizeFinder(mode="binary").find(trainer, shuffled(40))


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["start", "steps", "max_size", "max_trials"])
def test_numbers_that_are_none(name):
    with pytest.raises(ValueError, match=f"needs {name} of at least 1, but got 0"):
        BatchSizeFinder(**{name: 0})
    with pytest.raises(TypeError, match=f"takes {name} as a whole number, at least 1, but got 2.5"):
        BatchSizeFinder(**{name: 2.5})


def test_bounds_that_make_no_sense():
    with pytest.raises(ValueError, match="starts at 8, which is above max_size=4"):
        BatchSizeFinder(8, max_size=4)
    with pytest.raises(ValueError, match='needs mode "power" or "binary", but got \'linear\''):
        BatchSizeFinder(mode="linear")


def test_an_engine_that_does_not_train():
    with pytest.raises(ValueError, match="BatchSizeFinder works on an Update, and this engine has none"):
        Engine(lambda engine, batch: None).attach(BatchSizeFinder())
    with pytest.raises(ValueError, match="tries the steps of a trainer, but this engine evaluates"):
        supervised_evaluator(plain_net()).attach(BatchSizeFinder())


def test_data_without_a_batch_size():
    trainer, _ = trainer_with_room_for(10, BatchSizeFinder())
    with pytest.raises(TypeError, match="only a torch DataLoader's batch size can be changed, but the data is a list"):
        trainer.run(batches())
    own = DataLoader(samples(), batch_sampler=[[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="has a batch sampler of its own"):
        trainer.run(own)


def test_data_made_of_several_loaders():
    class Both:
        def __init__(self, *loaders):
            self.loaders = loaders

        def map_loaders(self, change):
            return Both(*map(change, self.loaders))

        def __iter__(self):
            return zip(*self.loaders, strict=True)

    trainer, _ = trainer_with_room_for(10, BatchSizeFinder())
    with pytest.raises(ValueError, match="one DataLoader, but this data is made of several; find the size of each"):
        trainer.run(Both(shuffled(), shuffled()))


def test_two_that_set_the_batch_size():
    with pytest.raises(ValueError, match="BatchSizeFinder and BatchSizeFinder can't both be attached"):
        trainer_with_room_for(10, BatchSizeFinder(), BatchSizeFinder())
    with pytest.raises(ValueError, match="both set the size of batches; search with apply=False"):
        trainer_with_room_for(10, BatchSizeSchedule({1: 4}), BatchSizeFinder())
    trainer_with_room_for(10, BatchSizeSchedule({1: 4}), BatchSizeFinder(apply=False))
