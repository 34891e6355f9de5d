"""What `import leyden` gives: the rooms, their names, a version; nothing is imported before it is asked for."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import leyden
from leyden import Accuracy, Checkpoint, Engine, engine, handlers, metrics


def test_the_names_of_the_rooms_are_those_of_leyden() -> None:
    for room in (engine, metrics, handlers):
        for name in room.__all__:
            assert getattr(leyden, name) is getattr(room, name)
    assert (Engine, Accuracy, Checkpoint) == (engine.Engine, metrics.Accuracy, handlers.Checkpoint)


def test_no_two_rooms_offer_one_name() -> None:
    names = [name for room in (engine, metrics, handlers) for name in room.__all__]
    assert len(names) == len(set(names))


def test_leyden_says_its_version() -> None:
    assert leyden.__version__ == version("leyden")


def test_what_leyden_has_is_listed() -> None:
    assert {"Engine", "EarlyStopping", "Accuracy", "contrib", "distributed", "engine"} <= set(dir(leyden))


def test_a_name_that_is_not_there_is_an_error_that_names_the_rooms() -> None:
    with pytest.raises(AttributeError, match=r"no 'Trainer'.*leyden\.engine, leyden\.handlers"):
        _ = leyden.Trainer
    assert not hasattr(leyden, "_private")


@pytest.mark.parametrize(
    ("statement", "imported"),
    [
        ("import leyden", set()),
        ("import leyden; leyden.__version__", set()),
        ("from leyden import Engine", {"leyden.distributed", "leyden.engine"}),
        ("import leyden; leyden.distributed", {"leyden.distributed"}),
    ],
)
def test_only_what_is_asked_for_is_imported(statement: str, imported: set[str]) -> None:
    script = f"{statement}; import sys; print(*(name for name in sys.modules if name.count('.') == 1))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert {name for name in done.stdout.split() if name.startswith("leyden.")} == imported
