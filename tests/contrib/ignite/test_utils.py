"""manual_seed, convert_tensor, to_onehot, setup_logger."""

import io
import logging
import random
from pathlib import Path

import numpy as np
import torch

import leyden.contrib.ignite.distributed as idist
from leyden.contrib.ignite.utils import convert_tensor, manual_seed, setup_logger, to_onehot


def test_manual_seed_seeds_all_three_generators() -> None:
    draws = []
    for _ in range(2):
        manual_seed(5)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]


def test_convert_tensor_moves_what_is_nested_and_keeps_the_rest() -> None:
    x = {"a": torch.ones(2), "b": [torch.zeros(1), "text"]}
    moved = convert_tensor(x, device="meta")
    assert (moved["a"].device.type, moved["b"][0].device.type, moved["b"][1]) == ("meta", "meta", "text")
    assert convert_tensor(x) is x


def test_to_onehot() -> None:
    assert to_onehot(torch.tensor([[0, 2]]), 3).tolist() == [[[1, 0], [0, 0], [0, 1]]]


def test_setup_logger_writes_to_a_stream_and_a_file_once(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = setup_logger("of-a-test", stream=stream, filepath=str(tmp_path / "log"), format="%(name)s %(message)s")
    assert setup_logger("of-a-test", stream=stream) is logger
    logger.info("hello")
    assert stream.getvalue() == "of-a-test hello\n" == (tmp_path / "log").read_text()
    assert setup_logger("of-a-test", distributed_rank=1).handlers[0].__class__ is logging.NullHandler


def test_idist_is_leydens() -> None:
    assert (idist.get_rank(), idist.get_world_size()) == (0, 1)
