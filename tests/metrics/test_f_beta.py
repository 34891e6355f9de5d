"""FBeta and F1 are scikit-learn's fbeta_score, by class and averaged."""

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.contrib.ignite.metrics import Fbeta
from leyden.metrics import F1, FBeta, NotComputableError, Precision, Recall

examples = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
betas = st.sampled_from([0.25, 0.5, 1, 2.0, 7])
AVERAGES = [None, "macro", "micro", "weighted"]


def sklearns(y, y_pred, beta, average, **options):
    return sklearn.metrics.fbeta_score(y, y_pred, beta=beta, average=average, zero_division=0, **options)


@pytest.mark.parametrize("average", AVERAGES)
@examples
@given(seed=seeds, beta=betas, samples=st.integers(1, 40), classes=st.integers(2, 6), data=st.data())
def test_of_classes(seen, agree, drawn, average, seed, beta, samples, classes, data) -> None:
    y_pred = torch.rand(samples, classes, generator=drawn(seed))
    y = torch.randint(0, data.draw(st.integers(1, classes)), (samples,), generator=drawn(seed))
    expected = sklearns(y, y_pred.argmax(1), beta, average, labels=range(classes))
    agree(seen(FBeta(beta, average=average), y_pred, y, seed=seed), expected)


@pytest.mark.parametrize("average", [False, *AVERAGES])
@examples
@given(seed=seeds, beta=betas, samples=st.integers(1, 40), positive=st.sampled_from([0.0, 0.3, 1.0]))
def test_of_binary_labels(seen, agree, drawn, average, seed, beta, samples, positive) -> None:
    y_pred = torch.rand(samples, generator=drawn(seed))
    y = (torch.rand(samples, generator=drawn(seed + 1)) < positive).long()
    there = "binary" if average is False else average
    expected = sklearns(y, y_pred > 0.5, beta, there, labels=None if average is False else [0, 1])
    agree(seen(FBeta(beta, average=average), y_pred, y, seed=seed), expected)


@pytest.mark.parametrize("average", AVERAGES)
@examples
@given(seed=seeds, beta=betas, samples=st.integers(1, 40), classes=st.integers(2, 5))
def test_of_several_labels(seen, agree, drawn, average, seed, beta, samples, classes) -> None:
    y_pred = torch.rand(samples, classes, generator=drawn(seed))
    y = torch.randint(0, 2, (samples, classes), generator=drawn(seed + 1))
    expected = sklearns(y, y_pred > 0.5, beta, average)
    agree(seen(FBeta(beta, average=average, is_multilabel=True), y_pred, y, seed=seed), expected)


@examples
@given(seed=seeds, beta=betas, ignored=st.sampled_from([-100, 7]))
def test_what_is_left_out_does_not_count(seen, agree, drawn, seed, beta, ignored) -> None:
    y_pred, y = torch.rand(40, 4, generator=drawn(seed)), torch.randint(0, 4, (40,), generator=drawn(seed))
    y[::3] = ignored
    kept = y != ignored
    expected = sklearns(y[kept], y_pred.argmax(1)[kept], beta, "macro", labels=range(4))
    agree(seen(FBeta(beta, average="macro", ignore_index=ignored), y_pred, y, seed=seed), expected)


@examples
@given(seed=seeds, beta=betas)
def test_under_ignites_name(seen, agree, drawn, seed, beta) -> None:
    y_pred, y = torch.rand(30, 3, generator=drawn(seed)), torch.randint(0, 3, (30,), generator=drawn(seed))
    for average, there in ((True, "macro"), (False, None)):
        expected = sklearns(y, y_pred.argmax(1), beta, there, labels=range(3))
        agree(seen(Fbeta(beta, average), y_pred, y, seed=seed), expected)
        agree(seen(Fbeta(beta, average, Precision(), Recall()), y_pred, y, seed=seed), expected)


def test_f1_is_the_harmonic_mean(seen) -> None:
    y_pred, y = torch.rand(40, 3), torch.randint(0, 3, (40,))
    p, r = seen(Precision(), y_pred, y), seen(Recall(), y_pred, y)
    torch.testing.assert_close(seen(F1(), y_pred, y), torch.nan_to_num(2 * p * r / (p + r)))


def test_what_can_not_be_meant_is_told() -> None:
    with pytest.raises(ValueError, match="above 0, but is 0"):
        FBeta(0)
    with pytest.raises(TypeError, match="beta is a number above 0"):
        FBeta(lambda output: output)
    with pytest.raises(ValueError, match="F1 found 3 in y, none of the classes"):
        F1().update((torch.rand(2, 3), torch.tensor([0, 3])))
    with pytest.raises(ValueError, match=r"For logits give F1\(threshold=0.0\)"):
        F1().update((torch.tensor([3.0, -2.0]), torch.tensor([0, 1])))
    with pytest.raises(NotComputableError):
        F1().compute()
    with pytest.raises(ValueError, match="needs a precision by class"):
        Fbeta(1, precision=Precision(average="macro"))
    with pytest.raises(ValueError, match="give these to the recall"):
        Fbeta(1, recall=Recall(), device="cpu")
