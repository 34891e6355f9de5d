"""What logger tests read back with, the tests of examples do too; how they run one lies beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "handlers" / "loggers"))
sys.path.insert(0, str(Path(__file__).parent))
