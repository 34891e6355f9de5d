"""From where a run goes on, and what keeps it from going on."""

import os
import resource
import socket

import pytest
import torch
from torch import nn

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, CheckpointDamagedError


@pytest.fixture
def kept(make_run, tmp_path):
    """A directory with the checkpoints of three epochs."""
    run = make_run(Checkpoint(tmp_path / "kept"))
    run.trainer.run(run.data, max_epochs=3)
    return tmp_path / "kept"


def epochs_run(run, max_epochs=4):
    seen = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append(run.trainer.state.epoch))
    run.trainer.run(run.data, max_epochs=max_epochs)
    return seen


@pytest.mark.parametrize("there", [None, "nothing in it"])
def test_auto_begins_anew_where_nothing_is(there, make_run, tmp_path) -> None:
    if there is not None:
        (tmp_path / "kept").mkdir()
    assert epochs_run(make_run(Checkpoint(tmp_path / "kept", resume="auto")), 1) == [1]


def test_auto_goes_on_from_the_newest(make_run, kept) -> None:
    assert epochs_run(make_run(Checkpoint(kept, resume="auto"))) == [4]


def test_a_path_to_one_checkpoint(make_run, kept) -> None:
    path = kept / "epoch=0002-iteration=00000010"
    assert epochs_run(make_run(Checkpoint(kept, resume=path))) == [3, 4]


def test_a_path_to_a_directory_of_them(make_run, kept, tmp_path) -> None:
    assert epochs_run(make_run(Checkpoint(tmp_path / "other", resume=str(kept)))) == [4]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["epoch=0004-iteration=00000020"]


def test_the_newest_is_the_one_saved_last_not_the_one_that_came_furthest(make_run, kept) -> None:
    run = make_run(Checkpoint(kept, resume=kept / "epoch=0001-iteration=00000005"))
    run.trainer.run(run.data, max_epochs=2)
    checkpoint = Checkpoint(kept, resume="auto")
    assert checkpoint.last_path == kept / "epoch=0002-iteration=00000010-save=2"
    assert epochs_run(make_run(checkpoint)) == [3, 4]


def test_a_run_that_is_complete_ends_at_once_and_saves_nothing_more(make_run, kept) -> None:
    before = sorted(kept.iterdir())
    assert epochs_run(make_run(Checkpoint(kept, resume="auto")), 3) == []
    assert sorted(kept.iterdir()) == before


def test_it_is_restored_once(make_run, kept) -> None:
    run = make_run(Checkpoint(kept, resume="auto"))
    assert epochs_run(run) == [4]
    run.trainer.run(run.data, max_epochs=5)
    assert run.trainer.state.iteration == 25


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: None, "there is nothing at that path"),
        (lambda path: path.write_text("weights"), "that is a file of 7 bytes"),
        (lambda path: path.mkdir(), "that is an empty directory"),
        (lambda path: (path.mkdir(), (path / "model.pt").touch()), "that directory has model.pt, and no manifest.json"),
    ],
)
def test_a_path_that_is_no_checkpoint(make, found, make_run, tmp_path) -> None:
    make(tmp_path / "old")
    with pytest.raises(ValueError, match=rf"old is no checkpoint: {found}\. Expected is the folder of a checkpoint"):
        make_run(Checkpoint(tmp_path / "kept", resume=tmp_path / "old"))


def test_a_directory_of_another_run_is_not_mixed_up_with_this_one(make_run, kept) -> None:
    run = make_run(Checkpoint(kept))
    with pytest.raises(ValueError, match=r'kept has 3 checkpoints of an earlier run .*resume="auto"'):
        run.trainer.run(run.data, max_epochs=4)


def mismatch(make_run, kept, **kinds):
    """The error on going on from the checkpoints with another kind of run, of which nothing may have changed."""
    extra = kinds.pop("extra", None)
    run = make_run(Checkpoint(kept, resume="auto", extra=extra), **kinds)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    random_numbers = torch.get_rng_state()
    with pytest.raises(ValueError, match="does not fit what is to go on from it") as error:
        run.trainer.run(run.data, max_epochs=4)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert run.optimizer.state == {}
    return str(error.value)


def test_another_model(make_run, kept) -> None:
    def other():
        return nn.Sequential(
            nn.Linear(4, 9), nn.BatchNorm1d(9, affine=False), nn.Dropout(), nn.Linear(9, 2, bias=False), nn.PReLU()
        )

    said = mismatch(make_run, kept, model=other)
    assert "Sequential of update 'default' has 4.weight, which the checkpoint lacks" in said
    assert "the checkpoint has 1.weight, 1.bias, 3.bias, which Sequential of update 'default' lacks" in said
    assert "0.weight of Sequential of update 'default' has shape (9, 4), in the checkpoint its shape is (8, 4)" in said


def test_the_same_model_in_another_dtype(make_run, kept) -> None:
    def other():
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2)).bfloat16()

    said = mismatch(make_run, kept, model=other)
    assert "0.weight of Sequential of update 'default' is bfloat16, in the checkpoint float32" in said
    assert "and 5 more of other dtypes" in said


def test_another_optimizer(make_run, kept) -> None:
    said = mismatch(make_run, kept, optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=1.0))
    assert "the optimizer of update 'default' is SGD, in the checkpoint AdamW" in said


def test_other_groups_of_parameters(make_run, kept) -> None:
    def two_groups(net):
        return torch.optim.AdamW([{"params": net[0].parameters()}, {"params": net[3].parameters()}])

    def fewer(net):
        return torch.optim.AdamW([*net[0].parameters(), *net[3].parameters()])

    assert "has 2 groups of parameters, in the checkpoint 1" in mismatch(make_run, kept, optimizer=two_groups)
    said = mismatch(make_run, kept, optimizer=fewer)
    assert "the checkpoint has model/1.weight, model/1.bias in group 0" in said


def test_other_extras(make_run, kept) -> None:
    said = mismatch(make_run, kept, extra={"sampler": nn.Linear(1, 1)})
    assert "extra: the checkpoint has none; the run has 'sampler'" in said


def test_a_metric_that_will_not_come_up(make_run, metric_of, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, best="val/acuracy", mode="max"))
    metric_of(run.trainer, [0.1])
    with pytest.raises(ValueError, match='Checkpoint watches "val/acuracy", but the engine has: score'):
        run.trainer.run(run.data, max_epochs=1)


def test_a_metric_that_is_no_number(make_run, metric_of, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, best="score"))
    metric_of(run.trainer, [[1, 2]])
    with pytest.raises(TypeError, match='Checkpoint ranks by "score", which is no number, but a list'):
        run.trainer.run(run.data, max_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "best"}, 'mode "max" or "min", but got \'best\''),
        ({"keep": 0}, "keeps at least 1 checkpoint, or all by keep=None, but got keep=0"),
        ({"every": 0}, "every of an event must be at least 1"),
        ({"every": 2, "event": Events.EPOCH_COMPLETED}, "give only one of them"),
        ({"event": Events.ITERATION_STARTED(every=3)}, "can't save at Events.ITERATION_STARTED"),
        ({"event": Events.EPOCH_COMPLETED | Events.EPOCH_STARTED}, "can't save at Events.EPOCH_STARTED"),
        ({"directory": "nowhere://bucket/run"}, "Protocol not known: nowhere"),
        ({"keep_best": 2}, "the 2 best by a metric: best= names it"),
        ({"keep_best": 2, "best": "score", "keep": None}, "give only one of them"),
        ({"every_minutes": 0}, "more than 0, but got every_minutes=0"),
        ({"on_error": "ignore"}, 'on_error "warn" or "raise", but got \'ignore\''),
    ],
)
def test_arguments_that_make_no_sense(arguments, said, tmp_path) -> None:
    with pytest.raises(ValueError, match=said):
        Checkpoint(**{"directory": tmp_path, **arguments})


def test_an_extra_without_a_state(tmp_path) -> None:
    with pytest.raises(TypeError, match="extra 'sampler' is a list, which has no state_dict"):
        Checkpoint(tmp_path, extra={"sampler": []})


def test_two_checkpoints_on_one_engine(make_run, kept, tmp_path) -> None:
    with pytest.raises(ValueError, match="two Checkpoints write to"):
        make_run(Checkpoint(tmp_path / "a"), Checkpoint(tmp_path / "a", every=5))
    with pytest.raises(ValueError, match="two Checkpoints resume"):
        make_run(Checkpoint(tmp_path / "a", resume=kept), Checkpoint(kept, resume="auto"))
    run = make_run(Checkpoint(tmp_path / "a"), Checkpoint(tmp_path / "b", every=2, resume=kept))
    assert epochs_run(run) == [4]


def test_two_checkpoints_of_which_one_resumes_both_go_on(make_run, metric_of, epochs_in, tmp_path) -> None:
    def run(epochs):
        made = make_run(
            Checkpoint(tmp_path / "last", keep=1, resume="auto"), Checkpoint(tmp_path / "best", best="score", keep=1)
        )
        metric_of(made.trainer, [3.0, 2.0, 1.0, 4.0, 0.0])
        made.trainer.run(made.data, max_epochs=epochs)
        return made.losses

    whole = make_run()
    whole.trainer.run(whole.data, max_epochs=5)
    assert run(2) + run(3) + run(5) == whole.losses
    assert epochs_in(tmp_path / "last") == [5]
    assert epochs_in(tmp_path / "best") == [4, 5]


def test_the_directory_beside_must_be_of_the_run_that_is_gone_on_with(make_run, kept, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path / "last", resume="auto"), Checkpoint(kept))
    with pytest.raises(ValueError, match="kept has 3 checkpoints of an earlier run"):
        run.trainer.run(run.data, max_epochs=4)
    assert len(list(kept.iterdir())) == 3  # nor is there a mark left


def test_a_handler_whose_state_is_no_data(make_run, tmp_path) -> None:
    class Strange:
        def attach(self, engine):
            self.engine = engine

        def state_dict(self):
            return {"rules": [print]}

        def load_state_dict(self, state_dict):
            raise NotImplementedError

    run = make_run(Strange(), Checkpoint(tmp_path / "kept"))
    with pytest.raises(TypeError, match=r"engine/handlers/Strange/rules/0 is a builtins.builtin_function_or_method"):
        run.trainer.run(run.data, max_epochs=1)
    assert not (tmp_path / "kept").exists()


def test_what_dead_processes_left_is_removed_and_nothing_else(make_run, kept) -> None:
    name = ".tmp-epoch=0004-iteration=00000020"
    host = socket.gethostname()
    dead, alive, elsewhere = f"{name}@{host}@4194303", f"{name}@{host}@1", f"{name}@another-host@77"
    old = f"{name}@another-host@78"
    for folder in (dead, alive, elsewhere, old, ".tmp-mine", "notes"):
        (kept / folder).mkdir()
    os.utime(kept / old, (0, 0))
    run = make_run(Checkpoint(kept, resume="auto"))
    run.trainer.run(run.data, max_epochs=3)
    left = {path.name for path in kept.iterdir() if not path.name.startswith("epoch=")}
    assert left == {alive, elsewhere, ".tmp-mine", "notes"}


def test_a_disk_that_does_not_take_it_leaves_the_older_ones(make_run, kept) -> None:
    run = make_run(Checkpoint(kept, resume="auto"))
    before = sorted(kept.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond 5 kB: the write fails in the midst of the tensors, as on a full disk.
    run.trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    )
    try:
        with pytest.raises(OSError, match="too large") as error:
            run.trainer.run(run.data, max_epochs=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the older ones are as they were" in error.value.__notes__[0]
    assert sorted(kept.iterdir()) == before


def test_a_damaged_checkpoint_that_was_asked_for_by_path(make_run, kept) -> None:
    path = kept / "epoch=0002-iteration=00000010"
    (path / "state.json").unlink()
    run = make_run(Checkpoint(kept, resume=path))
    with pytest.raises(CheckpointDamagedError, match=r"lacks its file state\.json"):
        run.trainer.run(run.data, max_epochs=4)
