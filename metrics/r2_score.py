"""The share of the targets' variance that predictions explain."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import NotComputableError, require_samples
from leyden.metrics.outputs import described
from leyden.metrics.regression import numbers

MultiOutput: TypeAlias = Literal["uniform_average", "raw_values", "variance_weighted"]


class R2Score(Metric):
    """The coefficient of determination, 1 - sum((y - y_pred)²) / sum((y - mean of y)²); of (y_pred, y), both (N,) or
    (N, outputs). (S. Wright, Correlation and causation, 1921; the conventions are scikit-learn's.)

    `multioutput`: "uniform_average", the mean of the outputs' values; "raw_values", a value for each output;
    "variance_weighted", the mean weighed by the variance of y. A y that never changes gives 1 if all predictions are
    exact, else 0. NaN in the data makes the value NaN. Means and squares are kept in float64, batch by batch (T. F.
    Chan et al., 1979), so that a large mean does not drown a small variance.

    Fewer than two samples: NotComputableError. Raises ValueError for different shapes, for more than two dimensions,
    and where the number of outputs changes.
    """

    moments: list[torch.Tensor]
    """(rows, 4, outputs): count, mean and sum of squares of y, sum of squared errors; one row for a rank."""
    samples: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        multioutput: MultiOutput = "uniform_average",
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        if multioutput not in get_args(MultiOutput):
            raise ValueError(f"multioutput is one of {', '.join(get_args(MultiOutput))}, but got {multioutput!r}")
        self.multioutput = multioutput
        self.add_state("moments", torch.empty(0, dtype=torch.float64), "cat")
        self.add_state("samples", 0, "sum")

    def update(self, output: Any) -> None:
        y_pred, y = numbers(self, output)
        if y.ndim not in (1, 2):
            raise ValueError(f"R2Score takes y_pred and y of shape (N,) or (N, outputs), but found {described(y)}")
        if len(y) == 0:
            return
        y_pred, y = (each.reshape(len(y), -1).to(self.moments[0]) for each in (y_pred, y))
        mean = y.mean(0)
        batch = torch.stack(
            [torch.full_like(mean, len(y)), mean, (y - mean).square().sum(0), (y - y_pred).square().sum(0)]
        )
        known = [each for each in self.moments if each.numel()]
        if known and known[0].shape[2] != batch.shape[1]:
            raise ValueError(f"R2Score began with {known[0].shape[2]} outputs, but now found {described(output)}")
        self.moments = [_pooled(torch.cat([*known, batch[None]]))[None]]
        self.samples += len(y)

    def compute(self) -> torch.Tensor:
        require_samples(self, self.samples)
        if self.samples < 2:
            raise NotComputableError("R2Score needs two samples at least, but has seen one: one y has no variance")
        _, _, squares, errors = _pooled(torch.cat([each for each in self.moments if each.numel()]))
        score = torch.where(squares > 0, 1 - errors / torch.where(squares > 0, squares, 1), (errors == 0).to(errors))
        score = torch.where(squares.isnan() | errors.isnan(), torch.nan, score)
        if self.multioutput == "raw_values":
            return score if len(score) > 1 else score[0]
        if self.multioutput == "uniform_average":
            return score.mean()
        weighted = (score * squares).sum() / torch.where(squares.sum() > 0, squares.sum(), 1)
        return torch.where(squares.sum() > 0, weighted, score.mean())


def _pooled(rows: torch.Tensor) -> torch.Tensor:
    """(4, outputs) of all rows together."""
    counts, means, squares, errors = rows.unbind(1)
    count = counts.sum(0)
    mean = means[0] + ((means - means[0]) * counts).sum(0) / count
    return torch.stack([count, mean, (squares + counts * (means - mean).square()).sum(0), errors.sum(0)])
