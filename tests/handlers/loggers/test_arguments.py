"""What loggers and bars can't be made with is told when they are made."""

from typing import Any

import numpy as np
import pytest
from list_logger import ListLogger

from leyden.handlers import MLflowLogger, ProgressBar, TensorBoardLogger

MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"every": 0}, ValueError, r"\(every=\) must be at least 1"),
    ({"every": -3}, ValueError, r"\(every=\) must be at least 1, .* but is -3"),
    ({"every": 2.5}, TypeError, r"\(every=\) takes a whole number of iterations or None, but got 2\.5"),
    ({"every": "50"}, TypeError, r"\(every=\) takes a whole number of iterations or None, but got '50'"),
    ({"every": True}, TypeError, r"\(every=\) takes a whole number"),
    ({"metrics": "loss"}, TypeError, r'\(metrics=\) takes "all", a list of names, or None'),
    ({"metrics": [3]}, TypeError, r'\(metrics=\) takes "all", a list of names, or None'),
    ({"output_transform": "loss"}, TypeError, r"\(output_transform=\) takes a function of the output, but got 'loss'"),
]
OF_LOGGERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"patience": "x"}, TypeError, r"\(patience=\) takes seconds, but got 'x'"),
    ({"patience": None}, TypeError, r"\(patience=\) takes seconds, but got None"),
    ({"patience": -1}, ValueError, r"\(patience=\) must be at least 0 seconds, but is -1"),
    ({"patience": float("nan")}, ValueError, r"\(patience=\) must be at least 0 seconds, but is nan"),
    ({"params": ["lr", 1]}, TypeError, r"\(params=\) takes a mapping of names and values"),
    ({"params": 3}, TypeError, r"\(params=\) takes a mapping of names and values .* but got 3"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), [*MISTAKES, *OF_LOGGERS], ids=str)
@pytest.mark.parametrize("kind", [ListLogger, TensorBoardLogger, MLflowLogger])
def test_of_loggers(kind: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{kind.__name__}{message}"):
        kind(**arguments)


@pytest.mark.parametrize(("arguments", "error", "message"), MISTAKES, ids=str)
def test_of_bars(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^ProgressBar{message}"):
        ProgressBar(**arguments)


def test_of_a_bars_description() -> None:
    with pytest.raises(TypeError, match=r"ProgressBar\(desc=\) takes text, but got 3"):
        ProgressBar(desc=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ProgressBar\(file=\) takes an open text file, but got 'train.log'"):
        ProgressBar(file="train.log")  # type: ignore[arg-type]


def test_of_tensorboards_folder() -> None:
    with pytest.raises(TypeError, match=r"TensorBoardLogger\(log_dir=\) takes a path, or None for a new folder, but"):
        TensorBoardLogger(3)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    logger = ListLogger(every=np.int64(5), patience=np.float32(2))
    assert (logger.every, logger.patience) == (5, 2.0)
    assert ProgressBar(every=np.int32(5)).every == 5  # type: ignore[arg-type]
