"""What holds for every test: nothing leaves the machine, and many small processes share few cores."""

import os

# Set before torch, mlflow and the processes that tests start read them.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
# One thread a process: models in tests are tiny, and ranks that compete for cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
