"""Two ranks that fail at about the same time: prints, as JSON, the notes on the error of rank 0 in each case."""

import json
import time

from leyden import distributed as dist


def give_up(error):
    """As a backward pass does that ends in this error."""
    try:
        raise error
    except RuntimeError:
        dist.tell_abandoned()


def fail(case):
    """Rank 1 gives a batch up, and a moment after rank 0 has failed its own error ends the run, or not."""
    error = RuntimeError(f"of rank {dist.rank()}")
    if dist.rank() == 1:
        give_up(error)
    dist.barrier()
    if dist.rank() == 1:
        time.sleep(0.3)
    if dist.rank() == 0 or case == "ends its run":
        dist.tell_failure(error)
    dist.barrier()
    return error.__notes__ if hasattr(error, "__notes__") else []


if __name__ == "__main__":
    cases = ["ends its run", "goes on"]
    print(json.dumps({case: dist.launch(fail, 2, args=(case,), backend="gloo", timeout=60)[0] for case in cases}))
