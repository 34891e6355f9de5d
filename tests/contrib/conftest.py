"""The loop by hand lies beside the tests of the step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "handlers" / "training"))
