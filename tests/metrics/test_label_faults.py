"""Labels and scores that can't be meant are told; what is to be left out is left out."""

import pytest
import torch

from leyden.engine import Engine
from leyden.metrics import Accuracy, ConfusionMatrix, NotComputableError, Precision, Recall, RunningAverage

Y = torch.tensor([0, 1, 2, 1])
SCORES = torch.eye(3)[[0, 1, 2, 0]]  # three of four are right
ONE_HOT = torch.nn.functional.one_hot(Y, 3)
LOGITS = torch.tensor([0.3, -0.2, 0.4, 2.0, -1.0, 0.1, 0.2, 0.6])
BINARY = torch.tensor([1, 0, 1, 1, 1, 0, 1, 0])


def value(metric, y_pred, y):
    metric.update((y_pred, y))
    return metric.compute()


# -- left out ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.float32])
def test_the_ignore_index_of_torchs_losses_is_left_out(dtype) -> None:
    y = torch.tensor([0, 1, -100, -100])
    if dtype.is_floating_point:
        assert value(Accuracy(), torch.tensor([0.1, 0.2, 0.3, 0.4]), y.to(dtype)) == 0.5
    else:
        assert value(Accuracy(), torch.eye(2)[[0, 0, 0, 1]], y.to(dtype)) == 0.5
        assert value(Accuracy(), torch.tensor([0, 0, 1, 1]), y.to(dtype)) == 0.5


def test_any_label_may_be_the_one_left_out() -> None:
    y = torch.tensor([0, 255, 1, 255], dtype=torch.uint8)
    assert value(Accuracy(ignore_index=255), torch.eye(3)[[0, 1, 2, 2]], y) == 0.5
    assert value(Recall(ignore_index=255), torch.eye(2)[[0, 1, 1, 1]], y).tolist() == [1, 1]
    assert value(ConfusionMatrix(2, ignore_index=0), torch.eye(2)[[0, 1, 1, 1]], y).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(
        ValueError, match=r"found 255 in y, none of the classes 0, ..., 1; .* ignore_index \(now -100\)"
    ):
        Recall().update((torch.eye(2)[[0, 1, 1, 1]], y))


def test_a_byte_is_not_taken_for_minus_one_hundred() -> None:
    y = torch.tensor([156, 0], dtype=torch.uint8)  # the byte of -100
    with pytest.raises(ValueError, match="found 156 in y"):
        Accuracy().update((torch.eye(2), y))


def test_scores_of_what_is_left_out_do_not_matter() -> None:
    y_pred = torch.eye(3)[[0, 1, 2]]
    y_pred[2] = torch.nan
    assert value(Accuracy(), y_pred, torch.tensor([0, 1, -100])) == 1


def test_of_several_labels_those_left_out_do_not_matter() -> None:
    y_pred = torch.tensor([[0.9, 0.1, 0.8], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    y = torch.tensor([[1, 0, -100], [1, 1, 0], [-100, -100, -100]])
    assert value(Accuracy(is_multilabel=True), y_pred, y) == 0.5
    assert value(Precision(is_multilabel=True), y_pred, y).tolist() == [1, 1, 0]


def test_nothing_but_labels_left_out_has_no_value() -> None:
    metric = Accuracy()
    metric.update((SCORES, torch.full((4,), -100)))
    with pytest.raises(NotComputableError, match="has seen no label but those of ignore_index=-100"):
        metric.compute()


# -- told --------------------------------------------------------------------------------------------------------------

SAME_SHAPE = r"scores and targets of one shape \(N, C\)"
CASES = {
    "one-hot": (Accuracy, SCORES, ONE_HOT, SAME_SHAPE),
    "floating one-hot": (Accuracy, SCORES, ONE_HOT.float(), SAME_SHAPE),
    "scores all zero": (Accuracy, torch.zeros(4, 3), ONE_HOT, SAME_SHAPE),
    "smoothed": (Accuracy, SCORES, ONE_HOT * 0.9 + 0.1 / 3, SAME_SHAPE),
    "one-hot of whole numbers": (
        Accuracy,
        SCORES.long().repeat(4, 1),
        ONE_HOT.repeat(4, 1),
        "always sum to 1, as one-hot",
    ),
    "one-hot pixels": (Accuracy, torch.rand(4, 3, 4), ONE_HOT[..., None].expand(4, 3, 4), "always sum to 1"),
    "one-hot for precision": (Precision, SCORES, ONE_HOT, SAME_SHAPE),
    "a label too large": (Accuracy, SCORES, torch.tensor([0, 1, 2, 3]), "found 3 in y, none of the classes 0, ..., 2"),
    "a negative label": (Accuracy, SCORES, torch.tensor([0, 1, 2, -1]), "found -1 in y, none of the classes"),
    "a negative class index": (Accuracy, Y, torch.tensor([0, 1, 2, -1]), "found -1 in y, no class"),
    "precision of a label too large": (Precision, SCORES, torch.tensor([0, 1, 2, 3]), "Precision found 3 in y"),
    "a prediction too large": (
        lambda: ConfusionMatrix(3),
        torch.tensor([0, 1, 3, 2]),
        torch.tensor([0, 1, 2, 2]),
        r"found 3 in y_pred, none of the classes 0, \.\.\., 2; num_classes counts those that are predicted too",
    ),
    "NaN": (Accuracy, torch.full((4, 3), torch.nan), Y, "found NaN among the scores"),
    "one NaN": (Recall, SCORES.index_fill(0, torch.tensor(2), torch.nan), Y, "found NaN among the scores"),
    "NaN in a matrix": (lambda: ConfusionMatrix(3), torch.full((4, 3), torch.nan), Y, "found NaN among the scores"),
    "binary NaN": (Accuracy, torch.tensor([0.5, torch.nan]), torch.tensor([0, 1]), "found NaN among the scores"),
    "logits": (Accuracy, LOGITS, BINARY, r"found -0.2 in y_pred, .* For logits give Accuracy\(threshold=0.0\)"),
    "logits (N, 1)": (Precision, LOGITS[:, None], BINARY, r"For logits give Precision\(threshold=0.0\)"),
    "several logits": (
        lambda: Accuracy(is_multilabel=True),
        LOGITS.view(4, 2),
        BINARY.view(4, 2),
        r"found -0.2 in y_pred, .* Accuracy\(threshold=0.0\)",
    ),
    "floating class indices": (Accuracy, Y.float(), Y, "found 2 in y_pred, .* class indices are whole numbers"),
    "predictions as targets": (Accuracy, BINARY, torch.rand(8), "in y, but y_pred and y of one shape are binary"),
    "more classes than two": (Accuracy, torch.rand(4), Y, "found 2 in y, but y_pred and y of one shape are binary"),
    "classes for precision": (Precision, Y, Y, "found 2 in y, but y_pred and y of one shape are binary"),
}


def test_a_prediction_that_is_no_class_counts_nowhere_where_its_label_is_left_out() -> None:
    metric = ConfusionMatrix(3, ignore_index=255)
    metric.update((torch.tensor([0, 7, 7, 2]), torch.tensor([0, 255, 3, 1])))
    assert metric.compute().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("case", CASES)
def test_what_can_not_be_meant_is_told_at_once(case) -> None:
    make, y_pred, y, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        make().update((y_pred, y))


def test_logits_are_taken_with_their_threshold() -> None:
    assert value(Accuracy(threshold=0.0), LOGITS, BINARY) == 0.625
    assert value(Accuracy(), LOGITS.sigmoid(), BINARY) == 0.625


def test_masks_that_are_no_one_hot_targets_are_taken() -> None:
    y = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [1, 0]]])
    assert value(Accuracy(), y * 0.8, y) == 1
    assert value(Accuracy(), torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0, 1], [1, 0]])) == 0.75
    one_sample = torch.tensor([[0, 0, 1, 0]])
    assert value(Accuracy(), one_sample, one_sample) == 1


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_few_sequences_with_one_positive_each_are_taken(samples) -> None:
    """They look one-hot by chance."""
    y = torch.zeros(samples, 5, 1)
    y[:, 2] = 1
    metric = Accuracy()
    metric.update((y * 0.9, y))
    metric.update((torch.full((2, 5, 1), 0.9), torch.zeros(2, 5, 1)))
    assert metric.compute() == 5 * samples / (5 * samples + 10)


def test_class_indices_of_a_sequence_are_taken() -> None:
    y = torch.tensor([[3, 1, 0], [2, 2, 7]])
    assert value(Accuracy(), torch.tensor([[3, 1, 1], [2, 2, 7]]), y) == pytest.approx(5 / 6)


# -- on a device, where a look would wait ------------------------------------------------------------------------------


@pytest.fixture
def accelerator(monkeypatch):
    """Lets metrics treat the tensors of this machine as those of a device that a look would have to wait for."""
    monkeypatch.setattr("leyden.metrics.classification.can_look_at", lambda tensor: False)


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][3] != SAME_SHAPE])
def test_on_an_accelerator_it_is_told_at_the_epochs_end(case, accelerator) -> None:
    make, y_pred, y, _ = CASES[case]
    metric, seen = make(), []
    engine = Engine(lambda engine, batch: seen.append(None) or batch, training=False)
    metric.attach(engine, "metric")
    with pytest.raises(ValueError, match=r"found (values in y|NaN among|a y of the shape)"):
        engine.run([(y_pred, y), (y_pred, y)])
    assert len(seen) == 2
    if not isinstance(metric, ConfusionMatrix):
        assert metric.compute().isnan().all()


def test_an_average_of_what_can_not_be_meant_is_nan(accelerator) -> None:
    metric = RunningAverage(Accuracy())
    for y in (Y, torch.tensor([0, 1, 2, 3]), Y):
        metric.observe((SCORES, y))
    assert metric.compute().isnan()
