"""The loop that a user would write by hand lies beside the tests, which compare handlers with it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
