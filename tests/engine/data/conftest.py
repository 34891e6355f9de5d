"""Lets the tests of data share `passes`, also with the workers that they start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
