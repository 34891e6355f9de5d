"""A store that is down when a process saves for the first time, and what a crash between two saves leaves."""

import shutil

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from leyden.engine import Events
from leyden.handlers import Checkpoint
from leyden.handlers.checkpoint import CheckpointDamagedError, read
from leyden.handlers.checkpoint.files.manifest import FileRecord, Manifest


class FlakyFileSystem(MemoryFileSystem):
    """A store in memory that can be down."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    down = False

    def ls(self, path, detail=True, **kwargs):
        self._ask()
        return super().ls(path, detail=detail, **kwargs)

    def info(self, path, **kwargs):
        self._ask()
        return super().info(path, **kwargs)

    def _ask(self):
        if type(self).down:
            raise OSError("the store is down")


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


@pytest.fixture
def url():
    FlakyFileSystem.down = False
    FlakyFileSystem.store.clear()
    yield "flaky://run/kept"
    FlakyFileSystem.down = False


def test_the_first_save_of_a_process_may_fail_and_training_goes_on(url, make_run) -> None:
    run = make_run(Checkpoint(url))

    def set_down(down):
        FlakyFileSystem.down = down

    run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), set_down, True)
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), set_down, False)
    with pytest.warns(UserWarning, match="could not be written: OSError: the store is down"):
        run.trainer.run(run.data, max_epochs=2)
    assert len(run.losses) == 10
    assert read(url).manifest.iteration == 10


def test_one_that_stays_down_is_raised_as_the_run_ends(url, make_run) -> None:
    run = make_run(Checkpoint(url))
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=1), lambda: setattr(FlakyFileSystem, "down", True))
    with pytest.warns(UserWarning, match="could not be written"), pytest.raises(OSError, match="the store is down"):
        run.trainer.run(run.data, max_epochs=2)
    assert len(run.losses) == 10


def test_it_is_an_error_where_that_was_asked_for(url, make_run) -> None:
    run = make_run(Checkpoint(url, on_error="raise"))
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=1), lambda: setattr(FlakyFileSystem, "down", True))
    with pytest.raises(OSError, match="the store is down"):
        run.trainer.run(run.data, max_epochs=2)
    assert len(run.losses) == 5


def test_what_a_crash_between_two_saves_of_one_iteration_left_goes_at_the_next_save(make_run, tmp_path) -> None:
    kept = tmp_path / "kept"
    run = make_run(Checkpoint(kept, keep=3))
    run.trainer.run(run.data, max_epochs=1)
    name = "epoch=0001-iteration=00000005"
    shutil.copytree(kept / name, kept / f"{name}-save=2")  # as if the first had not been deleted yet
    manifest = Manifest.read(kept / name)
    files = {file: FileRecord.of(kept / name / file) for file in manifest.files}
    later = Manifest(**{**vars(manifest), "files": files, "serial": manifest.serial + 1})
    (kept / f"{name}-save=2" / "manifest.json").write_bytes(later.to_bytes())
    run = make_run(Checkpoint(kept, keep=3, resume="auto"))
    run.trainer.run(run.data, max_epochs=2)
    assert sorted(path.name for path in kept.iterdir()) == [f"{name}-save=2", "epoch=0002-iteration=00000010"]


def nonsense(folder, change):
    """Puts a nonsensical value into the state, with sums that are right."""
    import json

    state = json.loads((folder / "state.json").read_bytes())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    manifest = Manifest.read(folder)
    files = {name: FileRecord.of(folder / name) for name in manifest.files}
    (folder / "manifest.json").write_bytes(Manifest(**{**vars(manifest), "files": files}).to_bytes())


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("engine/iteration", "ten", "engine/iteration is 'ten', where a count should be"),
        ("engine/iteration", 2**70, "engine/iteration is 1180591620717411303424"),
        ("engine/epoch", -1, "engine/epoch is -1"),
        ("engine/max_epochs", "all", "engine/max_epochs is 'all'"),
        ("engine/cursor", None, "engine/cursor is missing"),
        ("engine/cursor/epoch_start", "a", "engine/cursor/epoch_start is 'a'"),
        ("engine/metrics", [], "engine/metrics is a list"),
        (
            "engine/suspended",
            {"event": "NOON", "index": 0, "handler": "a", "terminated": False},
            "'NOON', at which no run",
        ),
        ("engine/handler_marks", {"EMA": {"kind": 3}}, "engine/handler_marks/EMA is not what"),
        ("optimizers/default/groups/0/lr", KeyError, "optimizers/default/groups/0/lr is missing"),
        ("script", [], "script is a list"),
    ],
)
def test_a_nonsensical_state_is_damage_and_the_one_before_is_used(path, value, said, make_run, tmp_path) -> None:
    kept = tmp_path / "kept"
    run = make_run(Checkpoint(kept))
    run.trainer.run(run.data, max_epochs=2)

    def change(state):
        *way, last = path.split("/")
        for key in way:
            state = state[int(key) if isinstance(state, list) else key]
        if value is KeyError:
            del state[last]
        else:
            state[last] = value

    newest = kept / "epoch=0002-iteration=00000010"
    nonsense(newest, change)
    with pytest.raises(CheckpointDamagedError, match=said) as caught:
        read(newest)
    assert str(newest) in str(caught.value)
    run = make_run(Checkpoint(kept, resume="auto"))
    with pytest.warns(UserWarning, match="a damaged checkpoint is passed over"):
        run.trainer.run(run.data, max_epochs=2)
    assert len(run.losses) == 5


def test_a_state_of_very_many_lists_is_refused_at_once(make_run, tmp_path) -> None:
    import time

    run = make_run(Checkpoint(tmp_path))
    run.trainer.run(run.data, max_epochs=1)
    (folder,) = tmp_path.iterdir()
    nonsense(folder, lambda state: state["extra"].update(many=[[]] * 3_000_000))
    began = time.perf_counter()
    with pytest.raises(CheckpointDamagedError, match="lists and mappings, more than 2000000"):
        read(folder)
    assert time.perf_counter() - began < 5
