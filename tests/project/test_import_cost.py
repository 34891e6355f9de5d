"""What importing leyden costs a user who has imported torch already, and what it leaves alone."""

import math
import os
import subprocess
import sys

import pytest

ENGINE_BUDGET_MS = 30.0
OPTIONAL = (
    "mlflow",
    "tensorboardX",
    "torchmetrics",
    "torchdata",
    "torch_xla",
    "ignite",
    "pytorch_lightning",
    "sklearn",
)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # As for a user, whose modules were compiled by the first import.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def milliseconds_to_import(module: str, after: str) -> float:
    """Time importing `module`, and all that it brings along, in a process that has imported `after`."""
    report = run_python("-X", "importtime", "-c", f"import {after}\nimport {module}").stderr
    # import time: self [us] | cumulative | imported package
    rows = [line.removeprefix("import time:").split("|") for line in report.splitlines() if line.count("|") == 2]
    (microseconds,) = (int(cumulative) for _, cumulative, name in rows if name.strip() == module)
    return microseconds / 1000


def test_the_engine_adds_little_to_importing_torch() -> None:
    # The first run may have to compile, and a busy machine makes any run longer: the best of eight counts.
    seen: list[float] = []
    while len(seen) < 8 and min(seen, default=math.inf) > ENGINE_BUDGET_MS:
        seen.append(milliseconds_to_import("leyden.engine", after="torch"))
    assert min(seen) <= ENGINE_BUDGET_MS


@pytest.mark.parametrize("room", ["distributed", "engine", "metrics", "handlers", "contrib"])
def test_a_room_imports_no_optional_package(room: str) -> None:
    script = f"import sys, leyden.{room}\nprint(*(name for name in {OPTIONAL!r} if name in sys.modules))"
    assert run_python("-c", script).stdout.split() == []


@pytest.mark.parametrize("room", ["distributed", "engine"])
def test_a_room_leaves_numpys_random_numbers_to_those_who_draw_them(room: str) -> None:
    # They take several milliseconds, and a checkpoint holds their state where they are in use.
    script = (
        "import sys, torch\nbefore = 'numpy.random' in sys.modules\n"
        f"import leyden.{room}\nprint(before, 'numpy.random' in sys.modules)"
    )
    before, after = run_python("-c", script).stdout.split()
    assert before == after
