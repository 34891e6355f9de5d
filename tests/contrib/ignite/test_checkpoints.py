"""Ignite's Checkpoint, ModelCheckpoint and DiskSaver: which files there are, what is in them, how they are read."""

from pathlib import Path
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from torch import nn

from leyden.contrib.ignite.engine import Engine, Events
from leyden.contrib.ignite.handlers import Checkpoint, CheckpointEvents, DiskSaver, ModelCheckpoint

SCORES = [0.5, 0.7, 0.6, 0.9, 0.7, 0.1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(of: Any, events: Any, engine: Any, make: Any, *args: Any, epochs: int = 6) -> Any:
    """Runs epochs of two iterations, with a score of the epoch, and the checkpoint at their end."""

    def score(engine: Any) -> None:
        engine.state.metrics["accuracy"] = SCORES[engine.state.epoch - 1]

    checkpoint = make(of)
    engine.add_event_handler(events.EPOCH_COMPLETED, score)
    engine.add_event_handler(events.EPOCH_COMPLETED, checkpoint, *args)
    engine.run([0, 0], max_epochs=epochs)
    return checkpoint


CASES = {
    "the newest": lambda of, folder: of.Checkpoint(objects(), folder),
    "the two newest": lambda of, folder: of.Checkpoint(objects(), folder, n_saved=2),
    "all": lambda of, folder: of.Checkpoint(objects(), folder, n_saved=None, filename_prefix="run"),
    "the best by a metric": lambda of, folder: of.Checkpoint(objects(), folder, score_name="accuracy", n_saved=2),
    "the best, the later of equal ones": lambda of, folder: of.Checkpoint(
        objects(), folder, score_name="accuracy", n_saved=2, greater_or_equal=True
    ),
    "the best by a function": lambda of, folder: of.Checkpoint(
        {"net": nn.Linear(1, 1)}, folder, score_function=lambda engine: -engine.state.epoch, n_saved=3
    ),
    "by epoch": lambda of, folder: of.Checkpoint(
        objects(), folder, n_saved=3, global_step_transform=lambda engine, event: engine.state.epoch
    ),
    "a pattern of one's own": lambda of, folder: of.Checkpoint(
        objects(), folder, score_name="accuracy", filename_pattern="{name}-{score_name}-{score}.{ext}"
    ),
}


def objects() -> dict[str, Any]:
    model = nn.Linear(2, 1)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}


@pytest.mark.parametrize("case", CASES)
def test_the_files_are_those_that_ignite_leaves(case: str, tmp_path: Path) -> None:
    import leyden.contrib.ignite.handlers as ours

    last = []
    for name, of, events, engine in (
        ("ours", ours, Events, Engine(lambda engine, batch: None)),
        ("theirs", ignite.handlers, ignite.engine.Events, ignite.engine.Engine(lambda engine, batch: None)),
    ):
        checkpoint = run(of, events, engine, lambda of, name=name: CASES[case](of, tmp_path / name))
        last.append(Path(checkpoint.last_checkpoint).name)
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    assert last[0] == last[1]


def test_a_model_checkpoint_saves_what_it_is_called_with(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    engine = Engine(lambda engine, batch: None)
    checkpoint = ModelCheckpoint(tmp_path, "best", score_name="accuracy", n_saved=2)
    engine.state.metrics["accuracy"] = 0.25
    engine.add_event_handler(Events.COMPLETED, checkpoint, {"model": model})
    engine.run([0], max_epochs=1)
    assert names(tmp_path) == ["best_model_accuracy=0.2500.pt"]
    other = nn.Linear(2, 1)
    other.load_state_dict(torch.load(checkpoint.last_checkpoint))
    assert torch.equal(other.weight, model.weight)


def test_objects_are_loaded_from_a_path_or_from_what_torch_load_gives(tmp_path: Path) -> None:
    saved = objects()
    engine = Engine(lambda engine, batch: None)
    checkpoint = Checkpoint(saved, tmp_path)
    checkpoint(engine)
    for source in (checkpoint.last_checkpoint, torch.load(checkpoint.last_checkpoint)):
        fresh = objects()
        Checkpoint.load_objects(fresh, source)
        assert torch.equal(fresh["model"].weight, saved["model"].weight)
    with pytest.raises(ValueError, match="no scheduler; it has: model, optimizer"):
        Checkpoint.load_objects({"model": nn.Linear(2, 1), "scheduler": saved["optimizer"]}, checkpoint.last_checkpoint)
    wider = nn.Linear(2, 1, bias=False)
    Checkpoint.load_objects({"model": wider, "optimizer": saved["optimizer"]}, source, strict=False)
    assert torch.equal(wider.weight, saved["model"].weight)


def test_a_trainer_is_saved_and_goes_on_at_the_very_batch(tmp_path: Path) -> None:
    data = list(range(10))

    def train(folder: Path, seen: list[int], resume: str | None = None, stop_at: int | None = None) -> None:
        loader = torch.utils.data.DataLoader(data, batch_size=1, shuffle=True)
        trainer = Engine(lambda engine, batch: seen.append(int(batch)))
        model = nn.Linear(1, 1)
        what = {"trainer": trainer, "model": model}
        saver = DiskSaver(folder, require_empty=False)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=4), Checkpoint(what, saver, n_saved=None))
        if resume is not None:
            Checkpoint.load_objects(what, torch.load(folder / resume))

        @trainer.on(Events.ITERATION_COMPLETED(once=stop_at or 10**6))
        def crash() -> None:
            raise RuntimeError("crash")

        trainer.run(loader, max_epochs=2)

    torch.manual_seed(7)
    straight: list[int] = []
    train(tmp_path / "straight", straight)
    torch.manual_seed(7)
    first: list[int] = []
    with pytest.raises(RuntimeError, match="crash"):
        train(tmp_path / "resumed", first, stop_at=7)
    resumed: list[int] = []
    train(tmp_path / "resumed", resumed, resume="checkpoint_4.pt")
    assert first == straight[:7]
    assert sorted(first[:4] + resumed[:6]) == data
    assert resumed[:6] == straight[4:10]


def test_include_self_keeps_count_over_a_restart(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    checkpoint = Checkpoint(objects(), tmp_path, n_saved=1, include_self=True)
    engine.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
    engine.run([0], max_epochs=2)
    assert names(tmp_path) == ["checkpoint_2.pt"]

    again = Checkpoint(objects(), DiskSaver(tmp_path, require_empty=False), n_saved=1, include_self=True)
    Checkpoint.load_objects({"checkpointer": again}, tmp_path / "checkpoint_2.pt")
    engine.state.iteration = 3
    again(engine)
    assert names(tmp_path) == ["checkpoint_3.pt"]


def test_saved_checkpoint_is_an_event(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*CheckpointEvents)
    seen = []
    engine.add_event_handler(Checkpoint.SAVED_CHECKPOINT, lambda: seen.append(engine.state.iteration))
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=2), Checkpoint(objects(), tmp_path))
    engine.run([0] * 5, max_epochs=1)
    assert seen == [2, 4]


def test_a_failed_save_leaves_the_file_before_it_and_no_other(tmp_path: Path) -> None:
    class Unpicklable:
        def state_dict(self) -> Any:
            return {"function": lambda: None} if self.fails else {}

        fails = False

    item = Unpicklable()
    engine = Engine(lambda engine, batch: None)
    checkpoint = Checkpoint({"item": item, "model": nn.Linear(1, 1)}, tmp_path)
    checkpoint(engine)
    item.fails, engine.state.iteration = True, 1
    with pytest.raises(Exception, match=r"pickle|lambda"):
        checkpoint(engine)
    assert names(tmp_path) == ["checkpoint_0.pt"]
    assert Path(checkpoint.last_checkpoint or "").name == "checkpoint_0.pt"


def test_a_folder_with_checkpoints_is_refused_unless_told(tmp_path: Path) -> None:
    (tmp_path / "old.pt").touch()
    with pytest.raises(ValueError, match=r"old\.pt.*require_empty=False"):
        DiskSaver(tmp_path)
    with pytest.raises(ValueError, match="create_dir"):
        DiskSaver(tmp_path / "none", create_dir=False)
    DiskSaver(tmp_path, require_empty=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"to_save": [nn.Linear(1, 1)]}, "maps names to objects"),
        ({"to_save": {"number": 3}}, "'number', a int, which has no state_dict"),
        ({"n_saved": 0}, "at least 1"),
        ({"save_handler": 3}, "save_handler is a folder"),
        ({"global_step_transform": 3}, "is a function"),
    ],
)
def test_arguments_that_cannot_be_meant_are_told(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Checkpoint(**({"to_save": objects(), "save_handler": tmp_path} | arguments))
