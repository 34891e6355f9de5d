"""What importing leyden costs a user who has imported torch already, and what it leaves alone."""

import math
import os
import subprocess
import sys

import pytest

ENGINE_BUDGET = 30.0 / 800.0
"""30 ms where importing torch takes 800, as a share of it, seen in one process: machines differ threefold."""
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


def share_of_importing(module: str, of: str) -> float:
    """Time importing `of`, then `module` and all that it brings along, in one process; the second as a share."""
    report = run_python("-X", "importtime", "-c", f"import {of}\nimport {module}").stderr
    # import time: self [us] | cumulative | imported package
    rows = [line.removeprefix("import time:").split("|") for line in report.splitlines() if line.count("|") == 2]
    microseconds = {name.strip(): int(cumulative) for _, cumulative, name in rows if name.strip() in (module, of)}
    return microseconds[module] / microseconds[of]


def test_the_engine_adds_little_to_importing_torch() -> None:
    # The first run may have to compile, and a busy machine makes any run longer: the best of eight counts.
    seen: list[float] = []
    while len(seen) < 8 and min(seen, default=math.inf) > ENGINE_BUDGET:
        seen.append(share_of_importing("leyden.engine", of="torch"))
    assert min(seen) <= ENGINE_BUDGET


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
