"""Any function of all that an epoch gave."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.kept_rows import KeepsRows
from leyden.metrics.outputs import described


class EpochMetric(KeepsRows):
    """`compute_fn(y_pred, y)` of all predictions and all targets of the epoch, over all ranks:
    `EpochMetric(sklearn.metrics.r2_score, lambda output: (output[1], output[0]), device="cpu")`.

    An output may also be one tensor, several in a tuple (their function takes as many), or a mapping of others than
    y_pred and y (the function takes them by name). All are (N, ...); (N, 1) becomes (N,). They are kept as they are,
    at least float32, on the device of the data, or on `device`: "cpu" lets them lie in the host's memory, where a
    function of NumPy wants them, but each update then waits for the copy. Memory grows with the epoch; on XLA, where
    each length would be compiled anew, this metric is not for use.

    `check_compute_fn` calls the function on the first batch too, and warns if it fails there (a step that waits).
    What it makes of NaN or of a class that never occurs is its own affair. No sample: NotComputableError. Raises
    TypeError for a function that can't be called and for an output without tensors, ValueError for tensors of
    different lengths, and where dtypes or shapes change between batches or ranks.
    """

    skip_unrolling = True
    required_output_keys = None

    def __init__(
        self,
        compute_fn: Callable[..., Any],
        output_transform: OutputTransform | None = None,
        check_compute_fn: bool = False,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        on_rank_zero: bool = False,
    ) -> None:
        if not callable(compute_fn):
            raise TypeError(f"the compute_fn of EpochMetric must be a function, but is {compute_fn!r}")
        super().__init__(output_transform, device, skip_unrolling)
        self.compute_fn = compute_fn
        self._check = check_compute_fn
        self.on_rank_zero = on_rank_zero
        self.declare_rows()

    def update(self, output: Any) -> None:
        names: list[str] | None = None
        if isinstance(output, torch.Tensor):
            tensors = [output]
        elif isinstance(output, Mapping):
            # Of these two the function has names of its own, and an order in which everyone writes them.
            names = ["y_pred", "y"] if set(output) == {"y_pred", "y"} else sorted(output)
            tensors = [output[name] for name in names]
            names = None if names == ["y_pred", "y"] else names
        else:
            tensors = list(output) if isinstance(output, tuple | list) else []
        if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
            raise TypeError(
                f"EpochMetric takes (y_pred, y), or other tensors in a tuple or a mapping, but found "
                f"{described(output)}; give it an output_transform that makes such a pair of the engine's output"
            )
        tensors = [tensor.squeeze(1) if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor for tensor in tensors]
        self.keep(tensors, names)
        if self._check:
            self._check = False
            self._try(tensors, names)

    def _try(self, tensors: list[torch.Tensor], names: list[str] | None) -> None:
        try:
            self._call(tensors, names)
        except Exception as error:
            warnings.warn(
                f"the compute_fn of EpochMetric fails on the first batch, and may at the end of the epoch: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )

    def _call(self, tensors: list[torch.Tensor], names: list[str] | None) -> Any:
        if names is None:
            return self.compute_fn(*tensors)
        return self.compute_fn(**dict(zip(names, tensors, strict=True)))

    def compute(self) -> Any:
        return self._call(*self.kept())
