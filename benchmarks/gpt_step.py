"""What a GPT's training step costs on leyden with ten handlers attached, beside the bare loop that does the same.

    python benchmarks/gpt_step.py                              on a GPU: GPT-2 small, compiled; on a CPU: a tiny one
    python benchmarks/gpt_step.py --preset 124m --compile      that on either

The two take turns in one process, from equal weights on equal batches. At the end their weights are compared: bit for
bit the same on a CPU, near to it on a GPU, where sums may come in another order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import quantiles

import torch
from _gpt_loops import Loop, Task, attached, bare  # it also makes the example's modules importable
from _measure import no_collection, print_table
from language_model import PRESETS, Batch, Shape

PEAKS = {"B200": 2250.0, "H200": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.4, "A100": 312.0}
"""Teraflops a second in bf16 without sparsity, as NVIDIA's data sheets have them; the first name that fits."""

AT_LEAST = 0.99


class TimedBatches:
    """Batches of an epoch; it notes when the measured ones begin and end. The device has then done what it was given.

    Both moments come before a window begins, so that whole steps lie between them.
    """

    def __init__(self, task: Task, first: int, steps: int) -> None:
        self.batches = task.make_batches(task.accumulate)
        self.first, self.steps = first, steps
        self.task = task
        self.begun_at = self.ended_at = 0.0

    def __len__(self) -> int:
        return (self.first + self.steps + 1) * len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.first + self.steps + 1):
            if step == self.first:
                self.begun_at = self._now()
            elif step == self.first + self.steps:
                self.ended_at = self._now()
            yield from self.batches

    def _now(self) -> float:
        if self.task.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def seconds_a_step(self) -> float:
        return (self.ended_at - self.begun_at) / self.steps


def seconds_a_step(loops: dict[str, Loop], task: Task, steps: int, repeats: int) -> dict[str, list[float]]:
    """The seconds of a step in each of the repeats, the loops taking turns; the first turn compiles and is not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(repeats + 1):
        with no_collection():
            for name, loop in loops.items():
                data = TimedBatches(task, first=2, steps=steps if repeat else 1)
                loop.train(data)
                if repeat:
                    seconds[name].append(data.seconds_a_step)
    return seconds


def flops_a_token(shape: Shape, weights: int) -> int:
    """Forward and backward: 6 N + 12 L H Q T (Chowdhery et al., PaLM, 2022, appendix B).

    N leaves out the embedding of positions, which multiplies nothing; that of tokens is the head as well.
    """
    return 6 * (weights - shape.context * shape.width) + 12 * shape.layers * shape.width * shape.context


def peak_of(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


@torch.no_grad()
def largest_difference(loops: dict[str, Loop]) -> float:
    one, other = (loop.weights() for loop in loops.values())
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def parse() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="124m" if gpu else "tiny")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu)
    parser.add_argument("--batch-size", type=int, default=16 if gpu else 4)
    parser.add_argument("--accumulate", type=int, default=2, help="batches in a step")
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn that are measured")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each")
    parser.add_argument("--peak", type=float, help="teraflops a second of the device in bf16, for the MFU")
    return parser.parse_args()


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = options.peak or peak_of(device)
    task = Task(PRESETS[options.preset], options.batch_size, options.accumulate, options.compile, device)
    loops = {"bare loop": bare(task), "leyden": attached(task)}
    seconds = seconds_a_step(loops, task, options.steps, options.repeats)

    shape = task.shape
    weights = sum(parameter.numel() for parameter in task.make_model().parameters())
    tokens = task.accumulate * task.batch_size * shape.context
    handlers = loops["leyden"].handlers
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    rows = []
    for loop, each in seconds.items():
        rate = tokens / min(each)
        mfu = f"{rate * flops_a_token(shape, weights) / (peak * 1e12):.1%}" if peak else ""
        rows.append((loop, f"{min(each) * 1e3:.2f}", f"{rate:,.0f}", mfu))
    print_table(
        f"A step of a GPT of {weights:,} weights: {task.accumulate} batches of {task.batch_size} × {shape.context} "
        f"tokens, bf16, {'compiled' if task.compiled else 'not compiled'}\n"
        f"    on: {name}, PyTorch {torch.__version__}\n"
        f"    attached: {len(handlers)} handlers: {', '.join(handlers)}\n"
        f"    time: best of {options.repeats} turns of {options.steps} steps\n"
        f"    MFU: {f'of an assumed peak of {peak:g} teraflops a second' if peak else 'no peak is known, say --peak'}",
        ("loop", "ms a step", "tokens/s", "MFU"),
        rows,
    )
    ratios = [a / b for a, b in zip(seconds["bare loop"], seconds["leyden"], strict=True)]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    best = min(seconds["bare loop"]) / min(seconds["leyden"])
    print(f"\n  pairs of turns: median {middle:.4f}, middle half {low:.4f} .. {high:.4f}")
    print(f"  largest difference of weights and averages afterwards: {largest_difference(loops):.2g}")
    holds = ("yes" if best >= AT_LEAST else "NO") if device.type == "cuda" else "a GPU's bar"
    row = ("bare loop's time over leyden's", f"at least {AT_LEAST}", f"{best:.4f}", holds)
    print_table("Bars", ("what", "bar", "seen", "holds"), [row])


if __name__ == "__main__":
    main()
