"""Of shards that several replicas have, one replica writes; also while training goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leyden.handlers.checkpoint import load_weights, read, verify

SCRIPT = Path(__file__).parent / "scripts" / "replica_groups.py"


@pytest.mark.slow
def test_one_replica_writes_and_what_it_writes_is_the_moment_of_the_save(tmp_path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [4, 4, 0, 0]
    name = "epoch=0001-iteration=00000003"
    still, beside = (verify(tmp_path / way / name) for way in ("still", "beside"))
    assert (still.iteration, beside.iteration) == (3, 3)

    def written(name):
        """The bytes of each file of tensors, of the way that waits and of the other."""
        return [
            {path.name: path.read_bytes() for path in (tmp_path / way / name).glob("*.safetensors")}
            for way in ("still", "beside")
        ]

    saved = written(name)
    assert saved[0].keys() == {
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    }
    assert saved[0] == saved[1]
    ends = written("epoch=0001-iteration=00000009")
    assert ends[0] == ends[1] != saved[0]
    model = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2))
    load_weights(tmp_path / "beside" / name, model)
    saved = read(tmp_path / "still" / name).load_model("default", "model")
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
