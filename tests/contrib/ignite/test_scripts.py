"""Scripts as Ignite's users have them: with `ignite` in their imports written as `leyden.contrib.ignite`, and no other
line changed, they print the numbers that Ignite prints.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"


def output_of(name: str, folder: Path, *args: str, ported: bool) -> list[str]:
    """What the script prints, run as it stands or with its imports ported."""
    text = (SCRIPTS / f"{name}.py").read_text()
    if ported:
        text = re.sub(r"^from ignite\b", "from leyden.contrib.ignite", text, flags=re.MULTILINE)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, f"{name}.py", *args]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ignite" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mnist", 22),
        ("mnist_with_tqdm_logger", 2),
        pytest.param("reinforce", 4, marks=pytest.mark.slow),
        pytest.param("actor_critic", 7, marks=pytest.mark.slow),
        ("siamese", 6),
    ],
)
def test_a_script_prints_what_it_prints_under_ignite(name: str, lines: int, tmp_path: Path) -> None:
    found = output_of(name, tmp_path / "ours", ported=True)
    assert found == output_of(name, tmp_path / "theirs", ported=False)
    assert len(found) >= lines


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lines"), [("dcgan", 12), ("mnist_with_tensorboard_logger", 3)])
def test_a_script_that_writes_files_prints_what_it_prints_under_ignite(name: str, lines: int, tmp_path: Path) -> None:
    found = output_of(name, tmp_path / "ours", str(tmp_path / "ours" / "out"), ported=True)
    assert found == output_of(name, tmp_path / "theirs", str(tmp_path / "theirs" / "out"), ported=False)
    assert len(found) == lines


@pytest.mark.slow
def test_a_run_that_crashes_goes_on_at_the_very_batch(tmp_path: Path) -> None:
    """Until the crash as Ignite. The epoch that was open ends as in the run that never crashed, where Ignite begins
    another order; later ones are drawn anew, since such a file has no state of the generators.
    """
    name, logs = "mnist_save_resume_engine", tmp_path / "logs"
    straight = output_of(name, tmp_path / "ours", str(logs / "straight"), "0", "", ported=True)
    assert straight == output_of(name, tmp_path / "theirs", str(logs / "theirs"), "0", "", ported=False)

    crashed = output_of(name, tmp_path / "ours", str(logs / "resumed"), "33", "", ported=True)
    assert crashed[-2] == "STOP at 33"
    assert crashed[:-2] == straight[: len(crashed) - 2]
    checkpoint = str(logs / "resumed" / "checkpoint_25.pt")
    resumed = output_of(name, tmp_path / "ours", str(logs / "resumed"), "0", checkpoint, ported=True)
    assert resumed[0] == "Resume from a checkpoint: checkpoint_25.pt"
    second_epoch = [line for line in straight if line.startswith(("30 ", "40 ", "Validation - epoch 2"))]
    assert resumed[1:4] == second_epoch
    assert [line.split()[0] for line in resumed if line.split()[0].isdigit()] == ["30", "40", "50", "60"]
