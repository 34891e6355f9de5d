"""What a progress bar shows on a terminal and in a file, and that it sleeps between."""

import io
import re
import sys
import time
from itertools import pairwise
from types import FrameType

import pytest
import torch

from leyden.engine import Engine, Events
from leyden.handlers.monitoring import ProgressBar


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def frames(self) -> list[str]:
        """What was drawn, one after the other."""
        return [frame for frame in re.split(r"[\r\n]+", self.getvalue()) if frame.strip()]

    def screen(self) -> list[str]:
        """The lines that a user sees in the end."""
        lines, row = [""], 0
        for part in re.findall(r"\r|\n|\x1b\[A|[^\r\n\x1b]+", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part == "\x1b[A":
                row -= 1
            elif part != "\r":
                lines[row] = part.rstrip() + lines[row][len(part) :]
        return [line.rstrip() for line in lines if line.strip()]


def engine_with_loss(pause: float = 0.0) -> Engine:
    def process(engine: Engine, batch: object) -> torch.Tensor:
        time.sleep(pause)
        return torch.tensor(engine.state.iteration / 8)

    return Engine(process)


def without_rates(text: str) -> str:
    """Without what depends on the clock: `| 2/4 [00:00<00:00, 93.1it/s, loss=1]` becomes `| 2/4 [loss=1]`."""
    return re.sub(r"\[\d\d:\d\d[^,\]]*, +[^,\]]*(, )?", "[", text)


def test_a_bar_is_drawn_every_n_iterations_and_at_the_end_of_an_epoch() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=0.5, recall={"cat": 1}))
    engine.attach(ProgressBar(every=2, file=terminal))
    engine.run(range(4), max_epochs=2)
    assert [without_rates(frame).rstrip() for frame in terminal.frames()] == [
        "Epoch 1/2:   0%|          | 0/4 []",
        "Epoch 1/2:  50%|#####     | 2/4 [loss=0.25]",
        "Epoch 1/2: 100%|##########| 4/4 [loss=0.5]",
        "Epoch 1/2: 100%|##########| 4/4 [loss=0.5, accuracy=0.5]",
        "Epoch 1/2: 100%|##########| 4/4 [loss=0.5, accuracy=0.5]",
        "Epoch 2/2:   0%|          | 0/4 []",
        "Epoch 2/2:  50%|#####     | 2/4 [loss=0.75, accuracy=0.5]",
        "Epoch 2/2: 100%|##########| 4/4 [loss=1, accuracy=0.5]",
        "Epoch 2/2: 100%|##########| 4/4 [loss=1, accuracy=0.5]",
        "Epoch 2/2: 100%|##########| 4/4 [loss=1, accuracy=0.5]",
    ], "the last of an epoch is drawn once more, to stay"
    assert [without_rates(line) for line in terminal.screen()] == [
        "Epoch 1/2: 100%|##########| 4/4 [loss=0.5, accuracy=0.5]",
        "Epoch 2/2: 100%|##########| 4/4 [loss=1, accuracy=0.5]",
    ], "a line for each epoch stays"


def test_bars_that_do_not_persist_leave_nothing_behind() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=2, persist=False, file=terminal))
    engine.run(range(4), max_epochs=2)
    assert terminal.screen() == []


def test_bars_that_persist_stay_with_the_metrics_of_their_end() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=e.state.epoch / 4))
    engine.attach(
        ProgressBar(
            persist=True, desc="Round", metrics=["accuracy"], output_transform=lambda x: {"x": x}, file=terminal
        )
    )
    engine.declare_metrics("accuracy")
    engine.run(range(4), max_epochs=2)
    assert [without_rates(line) for line in terminal.screen()] == [
        "Round 1/2: 100%|##########| 4/4 [x=0.5, accuracy=0.25]",
        "Round 2/2: 100%|##########| 4/4 [x=1, accuracy=0.5]",
    ]


def test_a_bar_within_a_bar_leaves_the_outer_one_whole() -> None:
    trainer, evaluator, terminal = engine_with_loss(), Engine(lambda engine, batch: None, training=False), Terminal()
    evaluator.attach(ProgressBar(every=1, file=terminal))
    trainer.attach(ProgressBar(every=1, file=terminal))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: evaluator.run(range(2)))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(range(2)))
    trainer.run(range(4))
    assert any("Evaluation: 100%|##########| 2/2" in frame for frame in terminal.frames())
    assert [without_rates(line) for line in terminal.screen()] == ["Epoch 1/1: 100%|##########| 4/4 [loss=0.5]"]
    evaluator.run(range(2))
    assert "Evaluation: 100%|##########| 2/2" in terminal.screen()[-1], "one by itself stays"


def test_epochs_of_unknown_length_and_runs_by_iterations() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=2, persist=True, file=terminal))
    engine.run((number for number in range(3)), max_epochs=1)
    assert without_rates(terminal.frames()[1]) == "Epoch 1/1: 2it [loss=0.25]"

    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=2, persist=True, file=terminal))
    engine.run(range(4), max_iters=6)
    assert [without_rates(line) for line in terminal.screen()] == [
        "Epoch 1: 100%|##########| 4/4 [loss=0.5]",
        "Epoch 2: 100%|##########| 2/2 [loss=0.75]",
    ]


def test_after_an_interrupt_the_bar_says_how_far_it_came_and_goes_on_from_there() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=1, persist=True, file=terminal))
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda e: e.interrupt()):
        engine.run(range(4))
    engine.run()
    assert [without_rates(line) for line in terminal.screen()] == [
        "Epoch 1/1:  75%|#######5  | 3/4 [stopped]",
        "Epoch 1/1: 100%|##########| 4/4 [loss=0.5]",
    ]
    assert any("75%|#######5  | 3/4 [00:00<?" in frame for frame in terminal.frames()), "the second run began at 3"


def test_an_error_leaves_the_bar_closed_and_its_own_line_to_the_traceback() -> None:
    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=1, file=terminal))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.run(range(4))
    assert [without_rates(line) for line in terminal.screen()] == ["Epoch 1/1:  50%|#####     | 2/4 [stopped]"]
    assert terminal.getvalue().endswith("\n")


def test_a_file_gets_one_line_an_epoch() -> None:
    engine, file = engine_with_loss(), io.StringIO()
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=0.5))
    engine.attach(ProgressBar(file=file))
    engine.run(range(4), max_epochs=2)
    assert without_rates(file.getvalue()).splitlines() == [
        "Epoch 1/2: 100% 4/4 [loss=0.5, accuracy=0.5]",
        "Epoch 2/2: 100% 4/4 [loss=1, accuracy=0.5]",
    ]
    assert "\r" not in file.getvalue()


def test_a_file_gets_a_line_every_n_iterations_if_asked_for() -> None:
    engine, file = engine_with_loss(), io.StringIO()
    engine.attach(ProgressBar(every=3, file=file, metrics=None))
    engine.run(range(4))
    assert without_rates(file.getvalue()).splitlines() == [
        "Epoch 1/1:  75% 3/4 [loss=0.375]",
        "Epoch 1/1: 100% 4/4 [loss=0.5]",
    ]


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    engine = engine_with_loss()
    engine.attach(ProgressBar())
    engine.run(range(4))
    assert without_rates(capsys.readouterr().err) == "Epoch 1/1: 100% 4/4 [loss=0.5]\n"


def test_by_default_about_ten_refreshes_a_second() -> None:
    engine, terminal = engine_with_loss(pause=0.005), Terminal()
    engine.attach(ProgressBar(file=terminal))
    began = time.monotonic()
    engine.run(range(150))
    seconds = time.monotonic() - began
    assert 3 * seconds < len(terminal.frames()) < 11 * seconds + 4


def test_values_are_copied_at_a_refresh_only() -> None:
    reads = 0

    def read(output: object) -> float:
        nonlocal reads
        reads += 1
        return 0.0

    engine, terminal = engine_with_loss(), Terminal()
    engine.attach(ProgressBar(every=10, output_transform=read, file=terminal))
    engine.run(range(40))
    assert reads == 5, "four in the epoch, one at its end"


def calls_per_iteration(engine: Engine) -> list[int]:
    """Python and C calls from each iteration to the next."""
    calls, at = 0, []

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def process(engine: Engine, batch: object) -> float:
        at.append(calls)
        return 1.0

    engine.process = process
    sys.setprofile(count)
    try:
        engine.run(range(3000))
    finally:
        sys.setprofile(None)
    return [after - before for before, after in pairwise(at)]


def test_a_sleeping_bar_costs_nothing() -> None:
    plain, shown = engine_with_loss(), engine_with_loss()
    shown.attach(ProgressBar(file=Terminal()))
    without, beside = calls_per_iteration(plain), calls_per_iteration(shown)
    awake = [index for index, (calls, others) in enumerate(zip(beside, without, strict=True)) if calls != others]
    assert without[-1] == beside[-1]
    assert len(awake) < 40, "it wakes at 1, 2, 4, 8, ... iterations, until a tenth of a second is reached"


def test_mistakes_are_told() -> None:
    engine = engine_with_loss()
    engine.declare_metrics("val/accuracy")
    bar = ProgressBar(metrics=["val/acuracy"])
    engine.attach(bar)
    with pytest.raises(ValueError, match='ProgressBar watches "val/acuracy", but the engine has: val/accuracy'):
        engine.run(range(2))
    with pytest.raises(ValueError, match="give each engine a ProgressBar of its own"):
        engine_with_loss().attach(bar)
    with pytest.raises(TypeError, match=r'ProgressBar\(metrics=\) takes "all", a list of names, or None, but got'):
        ProgressBar(metrics="accuracy")
