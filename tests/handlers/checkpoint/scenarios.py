"""Scripts of scenarios, functions of a folder that ranks run together: `play` starts one, which ends in `main`."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from leyden import distributed as dist

SCRIPTS = Path(__file__).parent / "scripts"


def play(script, count, base, *names):
    """What each of `count` ranks, in processes of their own, tells of each scenario."""
    done = start(script, count, base, *names)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def start(script, count, base, *names):
    """The ended process."""
    command = [sys.executable, str(SCRIPTS / script), str(count), str(base), *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def main(scenarios):
    """Runs those that the command line names. `scenarios` by name."""
    _, count, base, *names = sys.argv
    run = partial(in_turn, [scenarios[name] for name in names], Path(base))
    of_ranks = dist.launch(run, int(count), backend="gloo", timeout=30)
    print(json.dumps(dict(zip(names, zip(*of_ranks, strict=True), strict=True))))


def in_turn(scenarios, base):
    return [scenario(base) for scenario in scenarios]
