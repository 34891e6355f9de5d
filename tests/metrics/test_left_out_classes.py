"""A class that is left out counts in no average; rounding makes no probability a logit."""

import pytest
import torch

from leyden.metrics import Accuracy, Precision, Recall

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def value(metric, y_pred, y):
    metric.update((y_pred, y))
    return metric.compute()


@pytest.mark.parametrize("metric", [Precision, Recall])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_a_perfect_prediction_is_perfect_without_one_class(metric, average):
    assert value(metric(average=average, ignore_index=0), torch.eye(3)[LABELS], LABELS) == 1.0


def test_the_mean_goes_over_the_other_classes():
    predicted = torch.tensor([1, 1, 2, 0, 2, 2])
    recall = value(Recall(average="macro", ignore_index=0), torch.eye(3)[predicted], LABELS)
    assert recall == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert value(Recall(average="macro"), torch.eye(3)[predicted], LABELS) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_probability_may_be_rounded_beyond_its_bounds(dtype):
    eps = torch.finfo(dtype).eps
    scores = torch.tensor([1 + eps, -eps, 1, 0], dtype=dtype)
    assert value(Accuracy(), scores, torch.tensor([1, 0, 1, 1])) == 0.75


@pytest.mark.parametrize("score", [1.05, -0.05])
def test_a_logit_is_none(score):
    with pytest.raises(ValueError, match=r"outside of 0, \.\.\., 1"):
        Accuracy().update((torch.tensor([score]), torch.tensor([1])))
