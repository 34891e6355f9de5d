"""What a call of `run` means: where it begins, what it goes on with, when it ends."""

import logging
import sys

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from leyden.engine import DataStage, Engine, Events, Stage


@pytest.fixture
def seen():
    """The (epoch, iteration, batch) of each step."""
    return []


@pytest.fixture
def engine(seen):
    return Engine(lambda engine, batch: seen.append((engine.state.epoch, engine.state.iteration, batch)))


def where(engine):
    return engine.state.epoch, engine.state.iteration


# -- a second run ----------------------------------------------------------------------------------------


def test_without_a_limit_a_run_is_one_epoch(engine):
    state = engine.run("abc")
    assert state is engine.state
    assert (where(engine), state.max_epochs, state.max_iters, state.epoch_length) == ((1, 3), 1, None, 3)


def test_the_same_max_epochs_again_restarts(engine, seen):
    engine.run("ab", max_epochs=2)
    engine.run("ab", max_epochs=2)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "a"), (2, 4, "b")] * 2


def test_no_limit_again_restarts(engine, seen):
    engine.run("ab")
    engine.run("ab")
    assert seen == [(1, 1, "a"), (1, 2, "b")] * 2


def test_a_larger_max_epochs_continues(engine, seen):
    engine.run("ab", max_epochs=1)
    engine.run("ab", max_epochs=2)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "a"), (2, 4, "b")]


def test_a_smaller_max_epochs_is_told_and_the_engine_stays_usable(engine, seen):
    engine.run("ab", max_epochs=3)
    with pytest.raises(ValueError, match=r"max_epochs=2 is .* than the 3 epochs.*max_epochs = None"):
        engine.run("ab", max_epochs=2)
    seen.clear()
    engine.run("ab", max_epochs=4)
    assert seen == [(4, 7, "a"), (4, 8, "b")]


def test_setting_max_epochs_to_none_restarts(engine, seen):
    engine.run("ab", max_epochs=3)
    seen.clear()
    engine.state.max_epochs = None
    engine.run("ab", max_epochs=2)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "a"), (2, 4, "b")]


def test_the_same_max_iters_again_restarts(engine):
    engine.run("ab", max_iters=3)
    engine.run("ab", max_iters=3)
    assert where(engine) == (2, 3)


def test_a_larger_max_iters_continues_with_the_next_epoch(engine, seen):
    engine.run("ab", max_iters=3)
    engine.run("ab", max_iters=5)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "a"), (3, 4, "a"), (3, 5, "b")]


def test_a_smaller_max_iters_is_told(engine):
    engine.run("ab", max_iters=3)
    with pytest.raises(ValueError, match=r"max_iters=2 is .* than the 3 iterations"):
        engine.run("ab", max_iters=2)


def test_setting_max_iters_to_none_restarts(engine):
    engine.run("ab", max_iters=3)
    engine.state.max_iters = None
    engine.run("ab", max_iters=2)
    assert where(engine) == (1, 2)


def test_one_kind_of_limit_may_follow_the_other(engine):
    engine.run("ab", max_epochs=2)
    engine.run("ab", max_iters=7)
    assert (where(engine), engine.state.max_epochs, engine.state.max_iters) == ((4, 7), None, 7)


def test_a_terminated_run_goes_on_with_the_next_batch(engine, seen):
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate):
        engine.run("abc", max_epochs=2)
    engine.run("abc", max_epochs=2)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (1, 3, "c"), (2, 4, "a"), (2, 5, "b"), (2, 6, "c")]


def test_a_restart_begins_with_counts_of_zero(engine):
    at_start = []
    engine.add_event_handler(Events.STARTED, lambda: at_start.append(where(engine)))
    engine.run("ab")
    engine.run("ab")
    assert at_start == [(0, 0), (0, 0)]


def test_the_limit_may_be_moved_by_a_handler(engine):
    @engine.on(Events.EPOCH_COMPLETED(once=1))
    def one_more(engine):
        engine.state.max_epochs = 2

    engine.run("ab", max_epochs=1)
    assert where(engine) == (2, 4)


# -- epoch_length ----------------------------------------------------------------------------------------


def test_another_epoch_length_in_a_continued_run_is_told(engine):
    engine.run("abcd", max_epochs=1, epoch_length=2)
    with pytest.raises(ValueError, match=r"epoch_length=3 differs from the 2 of the run that is continued"):
        engine.run("abcd", max_epochs=2, epoch_length=3)


def test_the_epoch_length_holds_in_a_continued_run(engine):
    engine.run("abcd", max_epochs=1, epoch_length=2)
    engine.run("abcd", max_epochs=3)
    assert (where(engine), engine.state.epoch_length) == ((3, 6), 2)


def test_another_epoch_length_in_a_restarted_run(engine):
    engine.run("abcd", max_epochs=1, epoch_length=2)
    engine.run("abcd", max_epochs=1, epoch_length=3)
    assert (where(engine), engine.state.epoch_length) == ((1, 3), 3)


def test_a_restart_forgets_the_epoch_length(engine):
    engine.run("abcd", epoch_length=2)
    engine.run("abcd")
    assert where(engine) == (1, 4)


def test_data_of_another_length_in_a_continued_run_sets_the_length_of_its_epochs(engine):
    engine.run("abc", max_epochs=1)
    engine.run("de", max_epochs=2)
    assert (where(engine), engine.state.epoch_length) == ((2, 5), 2)


def test_epoch_length_is_unknown_until_the_data_has_told_it(engine):
    lengths = []
    engine.add_event_handler(
        Events.STARTED | Events.ITERATION_COMPLETED(once=1) | Events.EPOCH_COMPLETED,
        lambda engine: lengths.append(engine.state.epoch_length),
    )
    engine.run(iter("ab"))
    assert lengths == [None, None, 2]


# -- data ------------------------------------------------------------------------------------------------


class Sequence:
    """The old protocol of iteration: __getitem__ alone."""

    def __getitem__(self, index):
        if index == 2:
            raise IndexError
        return "ab"[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def test_data_by_getitem(engine, seen):
    engine.run(Sequence())
    assert [batch for _, _, batch in seen] == ["a", "b"]


def test_a_loader(engine, seen):
    engine.run(DataLoader(range(5), batch_size=2), max_epochs=2)
    assert where(engine) == (2, 6)
    assert torch.equal(seen[-1][2], torch.tensor([4]))


def test_a_loader_that_does_not_know_its_length(engine):
    engine.run(DataLoader(Stream(), batch_size=2), max_epochs=2)
    assert (where(engine), engine.state.epoch_length) == ((2, 6), 3)


def test_run_without_data_takes_the_data_of_the_run_before(engine, seen):
    engine.run("ab", max_epochs=1)
    engine.run(max_epochs=2)
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "a"), (2, 4, "b")]


def test_data_set_before_the_run(engine, seen):
    engine.set_data("ab")
    engine.run()
    assert seen == [(1, 1, "a"), (1, 2, "b")]


def test_without_data_max_iters_makes_one_epoch(engine, seen):
    engine.run(max_iters=3)
    assert seen == [(1, 1, None), (1, 2, None), (1, 3, None)]


def test_set_data_in_mid_epoch_gives_the_next_batches(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def exchange(engine):
        engine.set_data("xyz")

    engine.run("abcd", max_epochs=1)
    # The epoch keeps its length of four.
    assert [batch for _, _, batch in seen] == ["a", "b", "x", "y"]


def test_set_data_at_the_end_of_an_epoch_holds_for_the_next(engine, seen):
    @engine.on(Events.EPOCH_COMPLETED(once=1))
    def exchange(engine):
        engine.set_data("xy")

    engine.run("ab", max_epochs=2)
    assert [batch for _, _, batch in seen] == ["a", "b", "x", "y"]


def test_set_data_at_the_start_of_an_epoch_holds_for_it(engine, seen):
    @engine.on(Events.EPOCH_STARTED(once=2))
    def exchange(engine):
        engine.set_data(iter("xy"))

    engine.run("ab", max_epochs=2)
    assert [batch for _, _, batch in seen] == ["a", "b", "x", "y"]


def test_set_data_in_the_first_step(engine):
    seen = []

    def step(engine, batch):
        seen.append(batch)
        if batch == "a":
            engine.set_data("xyz")

    Engine(step).run("abc")
    assert seen == ["a", "x", "y"]


def test_the_state_shows_the_data(engine):
    data, other = ["a", "b"], ["x", "y"]
    shown = []

    @engine.on(Events.ITERATION_COMPLETED)
    def look(engine):
        shown.append(engine.state.dataloader)
        engine.set_data(other)

    engine.run(data)
    assert shown == [data, other]


def test_a_batch_altered_by_a_handler_reaches_the_step(engine, seen):
    @engine.on(Events.GET_BATCH_COMPLETED)
    def alter(engine):
        engine.state.batch = engine.state.batch.upper()

    engine.run("ab")
    assert [batch for _, _, batch in seen] == ["A", "B"]


def test_the_output_of_an_iteration_is_in_the_state():
    engine = Engine(lambda engine, batch: batch * 10)
    outputs = []
    before = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda engine: before.append(engine.state.output))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
    state = engine.run([1, 2])
    assert (before, outputs, state.output) == ([None, None], [10, 20], 20)


# -- the loop's own rules --------------------------------------------------------------------------------


def test_a_run_inside_its_own_run_is_told(engine):
    engine.add_event_handler(Events.ITERATION_COMPLETED, engine.run, "ab")
    with pytest.raises(RuntimeError, match="this engine is running already"):
        engine.run("ab")


def test_a_refused_inner_run_leaves_the_outer_one_whole(engine, seen):
    @engine.on(Events.ITERATION_COMPLETED(once=1))
    def try_it(engine):
        with pytest.raises(RuntimeError):
            engine.run("xyz", max_epochs=7)

    engine.run("ab")
    assert seen == [(1, 1, "a"), (1, 2, "b")]
    assert engine.state.max_epochs == 1


def test_engines_run_inside_each_other(engine, seen):
    evaluated = []
    evaluator = Engine(lambda engine, batch: evaluated.append(batch))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run("xy"))
    engine.run("a", max_epochs=2)
    assert (seen, evaluated) == ([(1, 1, "a"), (2, 2, "a")], ["x", "y", "x", "y"])


@pytest.mark.parametrize(
    "event",
    [
        event
        for event in Events
        if event not in (Events.INTERRUPT, Events.TERMINATE, Events.TERMINATE_SINGLE_EPOCH, Events.EXCEPTION_RAISED)
    ],
    ids=str,
)
def test_after_an_error_in_any_event_the_engine_runs_again(event, engine, seen):
    def fail():
        raise RuntimeError("boom")

    with (
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.request_save),
        engine.add_event_handler(event, fail),
        pytest.raises(RuntimeError, match="boom"),
    ):
        engine.run("ab", max_epochs=1, epoch_length=3)
    seen.clear()
    engine.state.max_epochs = None
    engine.run("xy")
    assert seen == [(1, 1, "x"), (1, 2, "y")]


def test_an_error_in_the_arguments_leaves_an_interrupted_run_where_it_is(engine, seen):
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.interrupt):
        engine.run(iter("abc"), max_epochs=1)
    for wrong in ({"max_epochs": 0}, {"max_epochs": 2, "max_iters": 3}, {"data": 3}, {"data": []}):
        with pytest.raises((ValueError, TypeError)):
            engine.run(**wrong)
    engine.run()
    assert [batch for _, _, batch in seen] == ["a", "b", "c"]


def test_times_are_seconds(engine):
    assert engine.state.times == {"EPOCH_COMPLETED": None, "COMPLETED": None}
    at_completed = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: at_completed.append(dict(engine.state.times)))
    engine.run("abc")
    assert 0 < at_completed[0]["EPOCH_COMPLETED"] <= engine.state.times["COMPLETED"] < 10
    assert at_completed[0]["COMPLETED"] is None


# -- setup -----------------------------------------------------------------------------------------------


def test_stages_run_in_their_order_before_started_and_once(engine):
    ran = []
    for stage in reversed(Stage):
        engine.setup.add(stage, lambda stage=stage: ran.append(stage))
    engine.add_event_handler(Events.STARTED, lambda: ran.append("STARTED"))
    engine.run("ab")
    assert ran == [*Stage, "STARTED"]
    assert [stage.name for stage in Stage] == [
        "DEVICE",
        "QUANTIZE",
        "ADAPT",
        "TENSOR",
        "CONTEXT",
        "ACTIVATION_CHECKPOINTING",
        "COMPILE",
        "SHARD",
        "MATERIALISE",
        "OPTIMIZER",
        "AVERAGE",
        "SCHEDULE",
        "DATA",
        "RESTORE",
        "SEED",
    ]
    ran.clear()
    engine.run("ab")
    assert ran == ["STARTED"]


def test_functions_of_one_stage_run_as_added(engine):
    ran = []
    for name in "xyz":
        engine.setup.add(Stage.SHARD, lambda name=name: ran.append(name))
    engine.run("ab")
    assert ran == ["x", "y", "z"]


def test_a_function_may_be_set_up_at_each_run(engine):
    ran = []
    engine.setup.add(Stage.OPTIMIZER, lambda: ran.append("again"), each_run=True)
    engine.run("ab")
    engine.run("ab")
    assert ran == ["again", "again"]


def test_a_stage_that_failed_is_tried_again_at_the_next_run(engine, seen):
    tries = []

    def device():
        tries.append("device")

    def shard():
        tries.append("shard")
        if tries.count("shard") == 1:
            raise RuntimeError("no memory")

    engine.setup.add(Stage.SHARD, shard)
    engine.setup.add(Stage.DEVICE, device)
    with pytest.raises(RuntimeError, match="no memory"):
        engine.run("ab")
    assert seen == []
    engine.run("ab")
    assert tries == ["device", "shard", "shard"]
    assert where(engine) == (1, 2)


def test_data_is_dealt_as_the_setup_says(engine, seen):
    engine.data_setup.add(DataStage.DEAL, lambda data: data[::2])
    engine.run("abcde", max_epochs=2)
    assert [batch for _, _, batch in seen] == ["a", "c", "e", "a", "c", "e"]
    assert engine.state.epoch_length == 3


def test_the_stages_of_data_run_in_their_order_whatever_the_order_of_adding(engine, seen):
    for stage in reversed(DataStage):
        engine.data_setup.add(stage, lambda data, stage=stage: [f"{batch}{stage.name[0]}" for batch in data])
    engine.run("x")
    assert [batch for _, _, batch in seen] == ["xBDSLT"]


class Parts:
    """Data of two loaders."""

    def __init__(self, *loaders):
        self.loaders = loaders

    def map_loaders(self, change):
        return Parts(*map(change, self.loaders))

    def __iter__(self):
        return iter(zip(*self.loaders, strict=True))


def test_data_of_several_loaders_is_dealt_by_each_and_limited_as_a_whole(engine, seen):
    engine.data_setup.add(DataStage.LIMIT, lambda data: list(data)[:2])
    engine.data_setup.add(DataStage.DEAL, lambda data: data[::2])
    engine.run(Parts("abcdef", "uvwxyz"))
    assert [batch for _, _, batch in seen] == [("a", "u"), ("c", "w")]


def test_what_is_restored_is_known_when_the_data_is_made_ready(engine, seen):
    finished = Engine(lambda engine, batch: None)
    finished.run("ab", max_epochs=1)
    state = finished.state_dict()
    epochs = []
    engine.setup.add(Stage.RESTORE, lambda: engine.load_state_dict(state))
    engine.data_setup.add(DataStage.BATCH, lambda data: epochs.append(engine.state.epoch) or data)
    engine.run("ab", max_epochs=2)
    assert epochs == [1]


# -- where a run will end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "data", "ends"),
    [
        ({"max_epochs": 3}, "abcd", [12, 12, 12]),
        ({"max_iters": 6}, "abcd", [6, 6]),
        ({"max_epochs": 2, "epoch_length": 3}, "abcd", [6, 6]),
    ],
    ids=str,
)
def test_the_end_of_the_run_is_known_in_each_epoch(engine, limits, data, ends):
    seen = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append((engine.state.epoch, engine.run_end))
    )
    engine.run(data, **limits)
    assert list(dict(seen).values()) == ends


def test_the_end_of_a_run_over_data_of_unknown_length_is_not_known(engine):
    seen = set()
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.add(engine.run_end))
    engine.run(iter("abcd"), max_epochs=1)
    assert seen == {sys.maxsize}


def sliced_by_epoch(engine):
    """Data of one letter more in each epoch."""
    made = []

    def letters():
        return max(engine.state.epoch, 1)

    def change(data):
        made.append(letters())
        return data[: made[-1]]

    engine.data_setup.add(DataStage.LIMIT, change, outdated=lambda: made[-1] != letters())
    return made


def test_data_may_be_made_anew_for_an_epoch(engine, seen):
    """Before EPOCH_STARTED, whose handlers find the new data and its length."""
    made, found = sliced_by_epoch(engine), []
    engine.data_setup.add(DataStage.TRANSFER, str.upper)

    @engine.on(Events.EPOCH_STARTED)
    def look(engine):
        found.append((engine.state.dataloader, engine.state.epoch_length))

    engine.run("abcd", max_epochs=3)
    assert made == [1, 2, 3]
    assert found == [("A", 1), ("AB", 2), ("ABC", 3)]
    assert seen == [(1, 1, "A"), (2, 2, "A"), (2, 3, "B"), (3, 4, "A"), (3, 5, "B"), (3, 6, "C")]


def test_data_that_is_not_outdated_is_not_made_again(engine, seen):
    made = []
    engine.data_setup.add(DataStage.LIMIT, lambda data: made.append(data) or data, outdated=lambda: False)
    engine.run("ab", max_epochs=3)
    assert made == ["ab"]
    assert len(seen) == 6


def test_it_is_asked_once_an_epoch_and_gone_through_once(engine):
    asked, passes = [], []

    class Noted:
        def __init__(self, data):
            self.data = data

        def __iter__(self):
            passes.append(engine.state.epoch)
            return iter(self.data)

        def __len__(self):
            return len(self.data)

    engine.data_setup.add(DataStage.LIMIT, Noted, outdated=lambda: asked.append(engine.state.epoch) or True)
    engine.run("ab", max_epochs=3)
    assert asked == passes == [1, 2, 3]


def test_the_length_that_a_user_fixed_stays_and_new_data_begins_anew(engine, seen):
    sliced_by_epoch(engine)
    engine.run("abcd", max_epochs=3, epoch_length=2)
    assert [batch for _, _, batch in seen] == ["a", "a", "a", "b", "a", "b"]
    assert engine.state.epoch_length == 2


def test_data_made_anew_that_does_not_know_its_length(engine, seen):
    made = sliced_by_epoch(engine)
    engine.data_setup.add(DataStage.TRANSFER, lambda data: Stream() if made[-1] == 2 else data)
    engine.run("abcd", max_epochs=3)
    assert [(epoch, batch) for epoch, _, batch in seen] == [
        (1, "a"), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (3, "a"), (3, "b"), (3, "c"),
    ]  # fmt: skip
    assert engine.state.epoch_length == 3


def test_data_made_anew_that_is_empty_is_told(engine):
    engine.data_setup.add(
        DataStage.LIMIT, lambda data: data[engine.state.epoch :], outdated=lambda: engine.state.epoch > 1
    )
    with pytest.raises(ValueError, match="the data of the run is empty"):
        engine.run("ab", max_epochs=3)
    assert where(engine) == (2, 2)


def test_a_run_of_iterations_ends_in_time_whatever_its_epochs_are(engine):
    sliced_by_epoch(engine)
    engine.run("abcd", max_iters=5)
    assert where(engine) == (3, 5)


def test_where_the_run_will_end_is_known_in_its_last_epoch(engine):
    sliced_by_epoch(engine)
    ends = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: ends.append(engine.run_end))
    engine.run("abcd", max_epochs=3)
    assert ends == [sys.maxsize] * 3 + [6] * 3


def test_a_run_with_data_of_each_epoch_goes_on_where_it_was_restored(engine, seen):
    sliced_by_epoch(engine)
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), engine.interrupt):
        engine.run("abcd", max_epochs=4)
    other_seen = []
    other = Engine(lambda engine, batch: other_seen.append((engine.state.epoch, engine.state.iteration, batch)))
    sliced_by_epoch(other)
    other.load_state_dict(engine.state_dict())
    other.run("abcd", max_epochs=4)
    engine.run("abcd", max_epochs=4)
    assert other_seen == seen[5:]
    assert other_seen == [(3, 6, "c"), (4, 7, "a"), (4, 8, "b"), (4, 9, "c"), (4, 10, "d")]


# -- a restored run --------------------------------------------------------------------------------------


def test_a_run_restored_at_its_end_ends_at_once_and_says_so(engine, seen, caplog):
    finished = Engine(lambda engine, batch: None)
    finished.run("ab", max_epochs=2)
    engine.load_state_dict(finished.state_dict())
    fired = []
    for event in Events:
        engine.add_event_handler(event, lambda name=event.name: fired.append(name))
    with caplog.at_level(logging.WARNING):
        engine.run("ab", max_epochs=2)
    assert (seen, fired) == ([], ["STARTED", "COMPLETED", "CLOSED"])
    assert "the restored run is complete already: epoch 2, iteration 4" in caplog.text


def test_a_restored_run_goes_on_under_a_larger_limit(engine, seen):
    finished = Engine(lambda engine, batch: None)
    finished.run("ab", max_epochs=2)
    engine.load_state_dict(finished.state_dict())
    engine.run("ab", max_epochs=3)
    assert seen == [(3, 5, "a"), (3, 6, "b")]


def test_a_state_restored_by_the_setup_of_the_run(engine, seen):
    finished = Engine(lambda engine, batch: None)
    finished.run("ab", max_epochs=1)
    state = finished.state_dict()
    engine.setup.add(Stage.RESTORE, lambda: engine.load_state_dict(state))
    engine.run("ab", max_epochs=2)
    assert seen == [(2, 3, "a"), (2, 4, "b")]
