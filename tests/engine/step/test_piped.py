"""A pipeline of two ranks through the driver's slot of an unchanged supervised_trainer: the whole model's weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "piped.py"


def test_stages_train_as_the_whole_model_does() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, last = json.loads(done.stdout.splitlines()[-1])
    assert len(first) == 5
    # Micro-batches overflow at another scale than the batch does; an overflow that one stage sees is one of both.
    stages = [found.pop("overflow")[0] for found in (first, last)]
    assert stages[0]["skipped"] == stages[1]["skipped"] != []
    assert stages[0]["steps"] == stages[1]["steps"] > 0
    for found in (first, last):
        for case, (piped, whole) in found.items():
            bound = 2e-3 if case == "fp16" else 1e-5
            assert piped["weights"] == pytest.approx(whole["weights"], abs=bound), case
            assert piped["norm"] == pytest.approx(whole["norm"], rel=1e-5), case
            assert piped["steps"] == whole["steps"] > 0, case
    for case, (piped, whole) in last.items():
        assert first[case][0]["loss"] is None  # which the last stage alone has
        assert piped["loss"] == pytest.approx(whole["loss"], rel=1e-3), case
