"""The models of these tests lie beside them, and the loop by hand beside the tests of the step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
