"""What an update of a metric costs, beside Ignite and torchmetrics, and whether it waits for the device.

    python benchmarks/metrics.py                     everything, in half a minute
    python benchmarks/metrics.py --only calls waits  some parts
    python benchmarks/metrics.py --device cuda       on an accelerator

A peer that is not installed is left out (pip install pytorch-ignite torchmetrics).
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: nothing here is large enough for two

import torch
from _measure import Calls, print_table, seconds_in_turn
from _metric_rivals import IGNITE, TORCHMETRICS, outputs, rivals
from _waits import waits
from torch import nn

from leyden import metrics

COUNTED, TIMED, REPEATS, WAITED = 20, 200, 60, 100


def calls(device: str) -> dict[str, dict[str, float]]:
    """Python and C functions called in an update, by row and rival."""
    found: dict[str, dict[str, float]] = {}
    for row, output in outputs(device).items():
        found[row] = {}
        for name, rival in rivals().items():
            update = rival(output, row)
            update()
            found[row][name] = Calls(lambda update=update: [update() for _ in range(COUNTED)]).here.total() / COUNTED
    return found


def microseconds(device: str, repeats: int = REPEATS) -> dict[str, dict[str, float]]:
    """The best time of an update, by row and rival, which take turns."""
    found: dict[str, dict[str, float]] = {}

    def repeated(update: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(TIMED):
                update()
            if device != "cpu":
                torch.accelerator.synchronize()

        return run

    for row, output in outputs(device).items():
        actions = {name: repeated(rival(output, row)) for name, rival in rivals().items()}
        for action in actions.values():
            action()
        seconds = seconds_in_turn(actions, repeats)
        found[row] = {name: min(each) / TIMED * 1e6 for name, each in seconds.items()}
    return found


def waits_of_rivals(device: str) -> dict[str, dict[str, int]]:
    """How often 100 updates wait for the device, by row and rival."""
    return {
        row: {name: waits(rival(output, row), WAITED, device) for name, rival in rivals().items()}
        for row, output in outputs(device).items()
    }


def waits_of_natives(device: str) -> dict[str, int]:
    """How often 100 updates of each metric of leyden wait for the device. Without an accelerator on "meta", where there
    are no values: to look at one is an error.
    """
    device = "meta" if device == "cpu" else device
    pairs = outputs(device)
    classes, binary, labels = (pairs[f"Accuracy, {kind}"] for kind in ("multiclass", "binary", "multilabel"))
    numbers = classes[0], classes[0] + 1
    matrix = metrics.ConfusionMatrix(10)
    cases = {
        "Accuracy": (metrics.Accuracy(), classes),
        "Accuracy, binary": (metrics.Accuracy(), binary),
        "Accuracy, multilabel": (metrics.Accuracy(is_multilabel=True), labels),
        "Accuracy, top 3": (metrics.Accuracy(top_k=3), classes),
        "Precision": (metrics.Precision(), classes),
        "Recall": (metrics.Recall(average="macro"), classes),
        "FBeta": (metrics.FBeta(2), classes),
        "F1": (metrics.F1(is_multilabel=True), labels),
        "ConfusionMatrix": (metrics.ConfusionMatrix(10), classes),
        "MultiLabelConfusionMatrix": (metrics.MultiLabelConfusionMatrix(10), labels),
        "IoU": (metrics.IoU(matrix), classes),
        "MeanIoU": (metrics.MeanIoU(10), classes),
        "Dice": (metrics.Dice(10), classes),
        "AUROC": (metrics.AUROC(), classes),
        "AUROC, binned": (metrics.AUROC(thresholds=200), classes),
        "AveragePrecision": (metrics.AveragePrecision(), binary),
        "AveragePrecision, binned": (metrics.AveragePrecision(is_multilabel=True, thresholds=200), labels),
        "CalibrationError": (metrics.CalibrationError(), classes),
        "Perplexity": (metrics.Perplexity(), classes),
        "MeanSquaredError": (metrics.MeanSquaredError(), numbers),
        "RootMeanSquaredError": (metrics.RootMeanSquaredError(), numbers),
        "MeanAbsoluteError": (metrics.MeanAbsoluteError(), numbers),
        "R2Score": (metrics.R2Score(), numbers),
        "Loss": (metrics.Loss(nn.CrossEntropyLoss()), classes),
        "Mean": (metrics.Mean(), classes[0]),
        "GeometricMean": (metrics.GeometricMean(), classes[0]),
        "RunningAverage": (metrics.RunningAverage(metrics.Accuracy()), classes),
        "Frequency": (metrics.Frequency(), classes[1].sum()),
        "EpochMetric": (metrics.EpochMetric(lambda y_pred, y: (y_pred - y).abs().max()), numbers),
    }
    return {
        name: waits(lambda metric=metric, output=output: metric.observe(output), WAITED, device)
        for name, (metric, output) in cases.items()
    }


def print_ratios(title: str, found: dict[str, dict[str, float]], form: str) -> None:
    names = list(next(iter(found.values())))
    rows = [
        (row, *(f"{each[name]:{form}} ({each[name] / each['leyden']:.2f} ×)" for name in names))
        for row, each in found.items()
    ]
    print_table(title + ", and as a multiple of leyden's", ("metric", *names), rows)


def bars(found: dict[str, dict[str, float]], what: str) -> list[tuple[str, str, str, str]]:
    """leyden beside the better of its peers."""
    rows = []
    for row, each in found.items():
        peers = [value for name, value in each.items() if name in ("Ignite", "torchmetrics")]
        if peers:
            ratio = each["leyden"] / min(peers)
            rows.append((f"{what} of an update, {row}", "1 × the better peer", f"{ratio:.2f} ×", _holds(ratio <= 1)))
    return rows


def _holds(yes: bool) -> str:
    return "yes" if yes else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["calls", "times", "waits"], default=["calls", "times", "waits"])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for package, there in (("pytorch-ignite", IGNITE), ("torchmetrics", TORCHMETRICS)):
        if not there:
            print(f"{package} is not installed: left out")
    rows: list[tuple[str, str, str, str]] = []
    if "calls" in arguments.only:
        found = calls(arguments.device)
        print_ratios("Python and C functions called by an update", found, ".0f")
        rows += bars(found, "calls")
    if "times" in arguments.only:
        found = microseconds(arguments.device)
        print_ratios(f"µs of an update, best of {REPEATS} × {TIMED} taken in turn", found, ".1f")
        rows += bars(found, "time")
    if "waits" in arguments.only:
        seen = waits_of_rivals(arguments.device)
        names = list(next(iter(seen.values())))
        table = [(row, *(str(each[name]) for name in names)) for row, each in seen.items()]
        print_table(f"Waits for an accelerator in {WAITED} updates", ("metric", *names), table)
        natives = waits_of_natives(arguments.device)
        print_table("The same, of all of leyden's", ("metric", "waits"), [(n, str(w)) for n, w in natives.items()])
        total = sum(natives.values())
        rows.append((f"waits in {WAITED} updates of each native metric", "0", str(total), _holds(total == 0)))
    print_table("Bars", ("what", "bar", "seen", "holds"), rows)


if __name__ == "__main__":
    main()
