"""When a checkpoint is saved, and which ones stay."""

import logging
import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, UpdateEvents
from leyden.handlers import TerminateOnNan
from leyden.handlers.checkpoint import Checkpoint, read

NAN = float("nan")


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_after_each_epoch_the_last_three_stay(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))
    run.trainer.run(run.data, max_epochs=5)
    assert names(tmp_path) == [f"epoch=000{epoch}-iteration=000000{5 * epoch:02}" for epoch in (3, 4, 5)]


def test_every_nth_epoch_and_the_end(make_run, epochs_in, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, every=2, keep=None))
    run.trainer.run(run.data, max_epochs=5)
    assert epochs_in(tmp_path) == [2, 4, 5]


def test_another_event(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(every=4), keep=None))
    run.trainer.run(run.data, max_epochs=2)
    assert [name[-2:] for name in names(tmp_path)] == ["04", "08", "10"]


def test_every_nth_optimizer_step(make_run, tmp_path) -> None:
    run = make_run()
    run.trainer.attach(Checkpoint(tmp_path, event=UpdateEvents.STEP_COMPLETED(every=5), keep=None))
    run.trainer.run(run.data, max_iters=7)
    assert [name[-2:] for name in names(tmp_path)] == ["05", "07"]


@pytest.mark.parametrize("way", ["terminate", "interrupt"])
def test_a_run_that_ends_early_is_saved_where_it_ended(way, make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), getattr(run.trainer, way))
    run.trainer.run(run.data, max_epochs=5)
    assert names(tmp_path) == ["epoch=0001-iteration=00000003"]
    assert read(tmp_path).manifest.epoch_open


def test_an_exception_saves_nothing(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))

    @run.trainer.on(Events.ITERATION_COMPLETED(once=7))
    def fail():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run.trainer.run(run.data, max_epochs=5)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005"]


@pytest.mark.filterwarnings("ignore:the output of iteration")
def test_numbers_that_are_lost_are_not_saved(make_run, tmp_path) -> None:
    run = make_run(TerminateOnNan(), Checkpoint(tmp_path))
    run.data[2] = (run.data[2][0] * NAN, run.data[2][1])
    run.trainer.add_event_handler(
        Events.EPOCH_STARTED(once=1), lambda: run.trainer.set_data(run.data[:2] + run.data[3:])
    )
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda: run.trainer.set_data(run.data))
    run.trainer.run(run.data, max_epochs=5, epoch_length=4)
    assert run.trainer.state.diverged
    assert names(tmp_path) == ["epoch=0001-iteration=00000004"]


def test_one_moment_is_saved_once(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, event=Events.EPOCH_COMPLETED | Events.TERMINATE, keep=None))
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), run.trainer.terminate)
    run.trainer.run(run.data, max_epochs=5)
    assert [name[-2:] for name in names(tmp_path)] == ["05", "10"]


def test_the_end_of_an_epoch_replaces_what_was_saved_at_its_last_iteration(make_run, metric_of, tmp_path) -> None:
    event = Events.ITERATION_COMPLETED(every=5) | Events.EPOCH_COMPLETED
    run = make_run(Checkpoint(tmp_path, event=event))
    metric_of(run.trainer, [0.5])
    run.trainer.run(run.data, max_epochs=1)
    (kept,) = tmp_path.iterdir()
    assert read(kept).manifest.metrics == {"score": 0.5}
    assert not read(kept).manifest.epoch_open


def test_by_hand(make_run, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every=100)
    run = make_run(checkpoint)
    saved = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=2), lambda engine: saved.append(checkpoint.save(engine))
    )
    run.trainer.run(run.data, max_epochs=1)
    assert saved[0].name == "epoch=0001-iteration=00000002"
    assert read(saved[0]).manifest.iteration == 2


def test_a_run_begun_again_in_one_process_saves_again(make_run, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, keep=None)
    run = make_run(checkpoint)
    run.trainer.run(run.data, max_epochs=1)
    run.trainer.run(run.data, max_epochs=1)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005", "epoch=0001-iteration=00000005-save=2"]
    assert checkpoint.last_path == tmp_path / "epoch=0001-iteration=00000005-save=2"


@pytest.mark.parametrize(
    ("mode", "scores", "kept", "best"),
    [
        ("max", [0.1, 0.9, 0.5, 0.8, 0.2, 0.3], [2, 4, 6], 2),
        ("min", [0.1, 0.9, 0.5, 0.8, 0.2, 0.3], [1, 5, 6], 1),
        ("max", [0.1, 0.9, 0.5, 0.8, 0.2, 1.0], [2, 6], 6),
        ("max", [0.5, 0.5, 0.5, 0.5], [1, 2, 4], 1),
        ("max", [NAN, 0.1, NAN, NAN], [2, 4], 2),
        ("max", [0.3, float("-inf"), None, 0.1, None], [1, 4, 5], 1),
        ("max", [None, None, None], [3], None),
    ],
)
def test_the_best_stay_and_the_newest(mode, scores, kept, best, make_run, metric_of, epochs_in, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, best="score", mode=mode, keep=2)
    run = make_run(checkpoint)
    metric_of(run.trainer, scores)
    run.trainer.run(run.data, max_epochs=len(scores))
    assert epochs_in(tmp_path) == kept
    assert checkpoint.last_path.name.startswith(f"epoch=000{len(scores)}")
    assert (checkpoint.best_path is None) == (best is None)
    if best is not None:
        assert checkpoint.best_path.name.startswith(f"epoch=000{best}")


def test_a_resumed_run_knows_the_best_of_the_run_before(make_run, metric_of, epochs_in, tmp_path) -> None:
    for resume, epochs in ((None, 3), ("auto", 6)):
        run = make_run(Checkpoint(tmp_path, best="score", keep=2, resume=resume))
        metric_of(run.trainer, [0.9, 0.1, 0.8, 0.2, 0.3, 0.4])
        run.trainer.run(run.data, max_epochs=epochs)
    assert epochs_in(tmp_path) == [1, 3, 6]


def test_a_checkpoint_between_two_evaluations_does_not_compete(make_run, metric_of, tmp_path) -> None:
    event = Events.ITERATION_COMPLETED(every=3) | Events.EPOCH_COMPLETED
    checkpoint = Checkpoint(tmp_path, best="score", keep=2, event=event)
    run = make_run(checkpoint)
    metric_of(run.trainer, [0.9, 0.8, 0.7])
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=14), run.trainer.terminate)
    run.trainer.run(run.data, max_epochs=3)
    assert [name[-2:] for name in names(tmp_path)] == ["05", "10", "14"]
    assert checkpoint.best_path.name.endswith("05")


def test_an_engine_without_an_update_has_no_model_to_save_unless_it_is_named(tmp_path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step(engine, batch):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()

    data = list(torch.ones(3, 2))
    bare, named = Engine(step), Engine(step)
    bare.attach(Checkpoint(tmp_path / "bare"))
    with pytest.warns(UserWarning, match=r'bare will hold no model: .* extra=\{"model": model'):
        bare.run(data)
    named.attach(Checkpoint(tmp_path / "named", extra={"model": model, "optimizer": optimizer}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named.run(data)
    assert "extra/model/weight" in read(tmp_path / "named").tensors


def test_the_engine_shows_what_runs_when(make_run, tmp_path) -> None:
    shown = str(make_run(Checkpoint(tmp_path, every=2, best="score")).trainer)
    assert "+10  Checkpoint.save_when_due  [every=2]" in shown
    assert "+10  Checkpoint.save_at_end" in shown


def test_where_it_resumed_is_told(make_run, tmp_path, caplog, capsys) -> None:
    run = make_run(Checkpoint(tmp_path))
    run.trainer.run(run.data, max_epochs=1)
    assert "resumed from" not in capsys.readouterr().out
    run = make_run(Checkpoint(tmp_path, resume="auto"))
    with caplog.at_level(logging.INFO, logger="leyden"):
        run.trainer.run(run.data, max_epochs=2)
    told = f"resumed from {tmp_path / 'epoch=0001-iteration=00000005'}: epoch 1, iteration 5"
    assert told in [record.getMessage() for record in caplog.records]
    assert capsys.readouterr().out.count(told) == 1


def test_the_manifest_says_what_the_checkpoint_is(make_run, metric_of, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))
    metric_of(run.trainer, [torch.tensor(0.25)])
    run.trainer.run(run.data, max_epochs=1)
    manifest = read(tmp_path).manifest
    assert (manifest.epoch, manifest.iteration, manifest.step, manifest.world_size) == (1, 5, 5, 1)
    assert manifest.metrics == {"score": 0.25}
    assert manifest.torch == torch.__version__
    assert set(manifest.files) == {"state.json", "index.json"}
