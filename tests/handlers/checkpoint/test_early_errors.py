"""What can't be meant, or stored, is told where it is given or before the first step; plain values are stored."""

import collections
import enum
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from leyden.engine import Engine
from leyden.handlers import Checkpoint, Preemption
from leyden.handlers.checkpoint import read
from leyden.handlers.checkpoint.files.codec import decode, encode

Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1


class Holder:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"directory": ""}, 'needs a directory .* for the working directory itself say "."'),
        ({"directory": 3}, "takes the path or URL of a directory"),
        ({"directory": None}, "takes the path or URL of a directory"),
        ({"directory": os.fsdecode(b"run-\xff")}, "a name that is no UTF-8"),
        ({"best": 3}, "a metric, whose name best= gives"),
        ({"best": ""}, "but got an empty name"),
        ({"resume": True}, "but got resume=True"),
        ({"resume": ""}, "but got an empty path"),
        ({"every": 1.5}, "a whole number, but got every=1.5"),
        ({"every": True}, "a whole number, but got every=True"),
        ({"every_minutes": "5"}, "a number, but got every_minutes='5'"),
        ({"every_minutes": float("nan")}, "more than 0, but got every_minutes=nan"),
        ({"every_minutes": float("inf")}, "more than 0, but got every_minutes=inf"),
        ({"asynchronous": "no"}, "asynchronous=True or False, but got 'no'"),
        ({"on_exception": "yes"}, "on_exception=True or False"),
        ({"extra": [nn.Linear(1, 1)]}, 'takes extra={"name": object}'),
        ({"extra": {3: nn.Linear(1, 1)}}, "by name, but got the name 3"),
    ],
)
def test_arguments_of_checkpoint(arguments, said, tmp_path) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        Checkpoint(**{"directory": tmp_path} | arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"signals": True}, "signals by name or number"),
        ({"signals": 1.5}, "signals by name or number"),
        ({"signals": None}, "signals by name or number"),
        ({"exits": "yes"}, "exits=True or False, but got 'yes'"),
    ],
)
def test_arguments_of_preemption(arguments, said) -> None:
    with pytest.raises(TypeError, match=said):
        Preemption(**arguments)


def test_one_signal_by_its_number() -> None:
    assert [signal.name for signal in Preemption(15).signals] == ["SIGTERM"]


def test_preemption_without_a_checkpoint_is_told_once(tmp_path) -> None:
    def warned(*handlers):
        engine = Engine(lambda engine, batch: None)
        engine.attach(*handlers)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.run(range(2), max_epochs=1)
            engine.run(range(2), max_epochs=2)
        return [str(each.message) for each in caught if "without a Checkpoint" in str(each.message)]

    assert len(warned(Preemption())) == 1
    assert warned(Preemption(exits=False)) == []
    assert warned(Preemption(), Checkpoint(tmp_path, extra={"model": nn.Linear(1, 1)})) == []


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_directory_that_can_be_none(kind, make_run, tmp_path) -> None:
    place = tmp_path / "runs"
    if kind == "file":
        place.write_text("")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match="is a file, where" if kind == "file" else "is a link to .*nowhere, where nothing"
    ):
        make_run(Checkpoint(place))


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Colour.RED, "its .value, or its .name"),
        (torch.Generator(), r"its get_state\(\)"),
        (object(), "give such data$"),
    ],
)
def test_a_state_that_can_not_be_stored_is_told_before_the_first_step(value, advice, make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path / "kept", extra={"held": Holder(value)}))
    with pytest.raises(TypeError, match=f"extra/held/value is a .*{advice}"):
        run.trainer.run(run.data, max_epochs=1)
    assert run.losses == []


def test_the_state_of_a_handler_too(make_run, tmp_path) -> None:
    class Odd(Holder):
        def attach(self, engine):
            pass

    run = make_run(Odd(object()), Checkpoint(tmp_path / "kept"))
    with pytest.raises(TypeError, match="engine/handlers/Odd/value is a"):
        run.trainer.run(run.data, max_epochs=1)
    assert run.losses == []


def test_plain_values_of_every_kind_are_stored(tmp_path, make_run) -> None:
    counts = collections.defaultdict(list, {"a": [1]})
    values = {"path": Path("a/b"), "device": torch.device("cpu"), "point": Point(1, 2.5), "counts": counts}
    make_run(Checkpoint(tmp_path / "kept", extra={"held": Holder(values)})).trainer.run(
        [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))], max_epochs=1
    )
    held = Holder(None)
    run = make_run(Checkpoint(tmp_path / "kept", resume="auto", extra={"held": held}))
    run.trainer.run([(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))], max_epochs=1)
    assert held.value == values
    assert held.value["point"].y == 2.5
    assert held.value["counts"]["new"] == []


@pytest.mark.parametrize(
    "json",
    [
        {"$namedtuple": [1], "name": "A", "fields": ["x", "y"]},
        {"$namedtuple": [1], "name": "A b", "fields": ["x"]},
        {"$namedtuple": [1], "name": "A", "fields": "x"},
        {"$namedtuple": [1], "name": "A", "fields": ["import os"]},
        {"$defaultdict": [], "of": "eval"},
        {"$device": "nowhere"},
        {"$path": 3},
    ],
)
def test_forged_forms_of_these_are_refused(json) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(json, lambda info: info)
    assert encode({"a": Path("x")})[0] == {"a": {"$path": "x"}}


def test_a_buffer_that_shares_memory_with_itself_is_loaded(make_run, tmp_path) -> None:
    class Scaled(nn.Linear):
        def __init__(self):
            super().__init__(4, 2)
            self.register_buffer("scale", torch.ones(1).expand(5))

    whole = make_run(model=Scaled)
    whole.trainer.run(whole.data, max_epochs=2)
    for epochs in (1, 2):
        run = make_run(Checkpoint(tmp_path / "kept", resume="auto"), model=Scaled)
        run.trainer.run(run.data, max_epochs=epochs)
    assert torch.equal(run.model.weight, whole.model.weight)
    assert run.model.scale.tolist() == [1.0] * 5


def test_the_last_state_is_saved_once(make_run, tmp_path) -> None:
    from leyden.engine import Events

    run = make_run(Checkpoint(tmp_path / "kept", event=Events.ITERATION_COMPLETED(every=5)))
    run.trainer.run(run.data, max_epochs=2)
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["epoch=0001-iteration=00000005", "epoch=0002-iteration=00000010"]
    assert not read(tmp_path / "kept").manifest.epoch_open


def test_where_checkpoints_lie_is_printed_once(make_run, metric_of, capsys, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path / "kept", best="score", keep=3))
    metric_of(run.trainer, [1.0, 2.0, 3.0])
    run.trainer.run(run.data, max_epochs=2)
    run.trainer.run(run.data, max_epochs=3)
    assert capsys.readouterr().out == (
        f'Checkpoint saves to {tmp_path / "kept"}, and keeps the 3 best by "score" and the newest\n'
    )
