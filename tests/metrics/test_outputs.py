"""From an engine's output to what a metric takes, and what is said of an output that does not fit."""

import pytest
import torch

from leyden.metrics import Accuracy, Loss, Mean, MeanSquaredError

Y_PRED, Y = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])


@pytest.mark.parametrize(
    "output",
    [(Y_PRED, Y), [Y_PRED, Y], {"y": Y, "y_pred": Y_PRED, "loss": 1.0}],
    ids=["tuple", "list", "mapping"],
)
def test_a_pair_or_a_mapping_is_taken(measured, output) -> None:
    assert measured([output], mse=MeanSquaredError())["mse"] == 0.5


def test_output_transform_makes_the_pair(measured) -> None:
    output = {"prediction": Y_PRED, "batch": (None, Y)}
    metric = MeanSquaredError(output_transform=lambda output: (output["prediction"], output["batch"][1]))
    assert measured([output], mse=metric)["mse"] == 0.5


def test_an_output_of_several_pairs_is_a_batch_of_each(measured) -> None:
    output = ([Y_PRED, torch.tensor([3.0])], [Y, torch.tensor([1.0])])
    assert measured([output], mse=MeanSquaredError())["mse"] == pytest.approx(5 / 3)


def test_unrolling_can_be_left_out(measured) -> None:
    class Lengths(Mean):
        def update(self, output):
            super().update(float(len(output[0])))

    assert measured([([1, 2, 3], [4, 5])], length=Lengths())["length"] == 3


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Y, r"MeanSquaredError takes \(y_pred, y\), two tensors, but found a tensor of shape \(2,\), float32"),
        ((Y, Y, Y), r"MeanSquaredError takes .* a tuple of 3"),
        ((Y, 3), r"MeanSquaredError takes .* int 3"),
        (None, r"MeanSquaredError takes .* NoneType None"),
    ],
)
def test_what_is_no_pair_is_named(output, message) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        MeanSquaredError().update(output)
    assert "output_transform" in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(
        ValueError, match="Accuracy needs y in its output, but found a mapping with the keys y_pred, loss"
    ):
        Accuracy().update({"y_pred": Y_PRED, "loss": 0.1})


@pytest.mark.parametrize(
    ("metric", "y_pred", "y", "message"),
    [
        (
            MeanSquaredError(),
            torch.zeros(4, 1),
            torch.zeros(4),
            r"shape \(4, 1\), float32 and a tensor of shape \(4,\)",
        ),
        (Accuracy(), torch.zeros(4, 3), torch.zeros(5).long(), r"Accuracy takes scores .* shape \(4, 3\)"),
        (Accuracy(), torch.zeros(4, 3, 2), torch.zeros(4, 3).long(), r"Accuracy takes scores"),
        (Accuracy(), torch.tensor(1), torch.tensor(1), r"Accuracy takes scores"),
        (Accuracy(is_multilabel=True), torch.zeros(4), torch.zeros(4), r"one shape \(N, C, ...\) with C > 1"),
    ],
)
def test_shapes_that_do_not_fit_are_told(metric, y_pred, y, message) -> None:
    with pytest.raises(ValueError, match=message):
        metric.update((y_pred, y))


def test_floating_class_indices_are_told() -> None:
    with pytest.raises(TypeError, match="Accuracy needs class indices as y, whole numbers"):
        Accuracy().update((torch.zeros(4, 3), torch.zeros(4)))


def test_outputs_can_not_change_their_kind_within_an_epoch() -> None:
    metric = Accuracy()
    metric.update((torch.zeros(4, 3), torch.zeros(4).long()))
    with pytest.raises(ValueError, match="began with multiclass outputs of 3 classes, but now found binary ones of 2"):
        metric.update((torch.zeros(4), torch.zeros(4)))


def test_a_loss_must_be_a_scalar() -> None:
    metric = Loss(torch.nn.MSELoss(reduction="none"))
    with pytest.raises(
        ValueError, match=r"must give the mean over the batch, a scalar, but gave a tensor of shape \(2,\)"
    ):
        metric.update((Y_PRED, Y))


def test_an_output_transform_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="output_transform of Accuracy must be a function, but is 'y_pred'"):
        Accuracy(output_transform="y_pred")


def test_the_mean_takes_numbers_only() -> None:
    with pytest.raises(TypeError, match=r"Mean takes a number, a tensor, or .* but found a mapping with the keys loss"):
        Mean().update({"loss": 1.0})


def test_arrays_are_told_by_their_shape_alone(measured) -> None:
    with pytest.raises(TypeError, match=r"but found a tuple of 2: \(an array of shape \(2,\), float32; an array"):
        measured([(Y_PRED.numpy(), Y.numpy())], mse=MeanSquaredError())
