"""Measures what docs/from-ignite-metrics.md writes, all rows of one kind of outputs on one engine:
`python rows_on_ranks.py RANKS FILE` writes what each rank found, as JSON.
"""

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from outputs_of_metrics import BATCHES, outputs
from rows_of_metrics import OURS, ROWS, flat

from leyden import distributed as dist
from leyden.engine import Engine, Events

NOT_COMPARED = {"ObjectDetectionAvgPrecisionRecall", "CommonObjectDetectionMetrics", "GpuInfo", "Frequency"}
"""Rows that need packages, a GPU or the clock."""
OF_EACH_RANK = {"RunningAverage"}


def measured(kind, batches):
    """The rows' values; a rank without batches ends its epoch as it begins."""
    engine = Engine(lambda engine, batch: batch, training=False)
    rows = [row for row in ROWS if row.outputs == kind and row.name not in NOT_COMPARED | OF_EACH_RANK]
    for row in rows:
        eval(f"engine.attach_metric({row.theirs!r}, {row.ours})", {**OURS, "engine": engine})
    if not batches:
        engine.add_event_handler(Events.EPOCH_STARTED, engine.terminate_epoch)
    values = engine.run(batches or outputs(kind)).metrics
    return {f"{row.theirs} of {kind}": flat(values[row.theirs]) for row in rows}


def scenarios():
    warnings.simplefilter("ignore")
    found = {}
    for kind in BATCHES:
        batches = outputs(kind)
        found |= {f"{name}, uneven": v for name, v in measured(kind, batches[dist.rank() :: dist.world_size()]).items()}
        found |= {f"{name}, one empty": v for name, v in measured(kind, batches[dist.rank() * 3 :]).items()}
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dist.launch(scenarios, int(sys.argv[1]))))
