"""AUROC and AveragePrecision are scikit-learn's: exactly, and of scores in bins as of scores that are equal there."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.contrib.ignite import metrics as as_ignite
from leyden.engine import Engine
from leyden.metrics import AUROC, AveragePrecision, NotComputableError

SKLEARN = {AUROC: sklearn.metrics.roc_auc_score, AveragePrecision: sklearn.metrics.average_precision_score}
METRICS = pytest.mark.parametrize("metric", SKLEARN)
THRESHOLDS = [None, 5, 200, [0.0, 0.1, 0.45, 0.9]]
thresholds = st.sampled_from(THRESHOLDS)
examples = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


def draw_scores(generator, shape, dtype, steps):
    """Between 0 and 1; with `steps` only so many values, of which many are equal."""
    scores = torch.rand(shape, generator=generator, dtype=dtype)
    return scores if steps is None else (scores * steps).round() / steps


def one_class(metric, y, scores):
    """scikit-learn's value of one class, NaN where there is none."""
    y, scores = np.asarray(y), np.asarray(scores)
    if y.sum() == 0 or (metric is AUROC and y.all()):
        return np.nan
    return SKLEARN[metric](y, scores)


def binned(scores, thresholds):
    if thresholds is None:
        return scores
    edges = torch.linspace(0, 1, thresholds, dtype=torch.float64) if isinstance(thresholds, int) else thresholds
    return torch.bucketize(scores, torch.as_tensor(edges).to(scores.dtype), right=True)


def averaged(values, positives, average):
    if average is None:
        return values
    there = ~np.isnan(values)
    if not there.any():
        return np.nan
    weights = np.asarray(positives)[there] if average == "weighted" else None
    return np.average(values[there], weights=weights)


@METRICS
@examples
@given(
    seed=seeds,
    samples=st.integers(1, 60),
    positive=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    steps=st.sampled_from([None, 1, 4]),
    thresholds=thresholds,
    dtype=dtypes,
    ignored=st.sampled_from([None, -100, 7]),
)
def test_of_binary_labels(
    seen, agree, drawn, metric, seed, samples, positive, steps, thresholds, dtype, ignored
) -> None:
    scores = draw_scores(drawn(seed), (samples,), dtype, steps)
    y = (torch.rand(samples, generator=drawn(seed + 1)) < positive).long()
    kept = torch.ones(samples, dtype=torch.bool)
    if ignored is not None:
        kept[1::3] = False
    expected = one_class(metric, y[kept], binned(scores, thresholds)[kept])
    y = torch.where(kept, y, 0 if ignored is None else ignored)
    agree(seen(metric(thresholds=thresholds, ignore_index=ignored), scores, y, seed=seed), expected)
    agree(seen(metric(thresholds=thresholds, ignore_index=ignored), scores[:, None], y, seed=seed), expected)
    if thresholds is None:
        agree(seen(metric(ignore_index=ignored), torch.logit(scores.double()), y, seed=seed), expected)


@METRICS
@pytest.mark.parametrize("average", [None, "macro", "weighted"])
@examples
@given(
    seed=seeds,
    samples=st.integers(1, 40),
    classes=st.integers(2, 5),
    thresholds=thresholds,
    dtype=dtypes,
    ignored=st.sampled_from([None, -100]),
    data=st.data(),
)
def test_of_classes(seen, agree, drawn, metric, average, seed, samples, classes, thresholds, dtype, ignored, data):
    scores = draw_scores(drawn(seed), (samples, classes), dtype, data.draw(st.sampled_from([None, 4])))
    y = torch.randint(0, data.draw(st.integers(1, classes)), (samples,), generator=drawn(seed))
    if ignored is not None:
        y[1::4] = ignored
    kept = y >= 0
    found = seen(metric(average=average, thresholds=thresholds, ignore_index=ignored), scores, y, seed=seed)
    true = torch.stack([y[kept] == each for each in range(classes)], 1)
    columns = binned(scores[kept], thresholds)
    values = np.array([one_class(metric, true[:, each], columns[:, each]) for each in range(classes)])
    agree(found, averaged(values, true.sum(0), average))


@METRICS
@pytest.mark.parametrize("average", [None, "macro", "weighted"])
@examples
@given(seed=seeds, samples=st.integers(1, 40), classes=st.integers(2, 4), thresholds=thresholds, dtype=dtypes)
def test_of_several_labels(seen, agree, drawn, metric, average, seed, samples, classes, thresholds, dtype) -> None:
    scores = draw_scores(drawn(seed), (samples, classes), dtype, None)
    y = torch.randint(0, 2, (samples, classes), generator=drawn(seed + 1))
    y[:, 0] = 0
    y[::5, 1] = -100
    found = seen(metric(average=average, is_multilabel=True, thresholds=thresholds), scores, y, seed=seed)
    kept, columns = y >= 0, binned(scores, thresholds)
    values = np.array([one_class(metric, y[kept[:, c], c], columns[kept[:, c], c]) for c in range(classes)])
    agree(found, averaged(values, (y == 1).sum(0), average))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, thresholds=st.sampled_from([None, 20]))
def test_they_are_torchmetrics(seen, agree, drawn, seed, thresholds) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    scores = torch.randn(50, 4, generator=drawn(seed)).softmax(1) * 0.99
    y = torch.randint(0, 4, (50,), generator=drawn(seed))
    for metric, theirs in (
        (AUROC, functional.multiclass_auroc),
        (AveragePrecision, functional.multiclass_average_precision),
    ):
        for average in (None, "macro", "weighted"):
            found = seen(metric(average=average, thresholds=thresholds), scores, y, seed=seed)
            agree(found, theirs(scores, y, 4, average=average, thresholds=thresholds), torch.float32)


@METRICS
def test_of_pixels(seen, agree, drawn, metric) -> None:
    scores = torch.rand(4, 3, 5, 2, generator=drawn(0))
    y = torch.randint(0, 3, (4, 5, 2), generator=drawn(1))
    flat = scores.movedim(1, -1).reshape(-1, 3)
    agree(seen(metric(), scores, y), seen(metric(), flat, y.flatten()))


@METRICS
def test_scores_of_16_bits_are_kept_as_they_are(seen, agree, drawn, metric) -> None:
    scores = torch.rand(300, generator=drawn(0)).to(torch.bfloat16)
    y = torch.randint(0, 2, (300,), generator=drawn(1))
    found = metric()
    agree(seen(found, scores, y), SKLEARN[metric](y, scores.float()))
    assert sum(rows.numel() for rows in found.rows) == 300 * (2 + 4)
    agree(seen(metric(thresholds=50), scores, y), SKLEARN[metric](y, binned(scores.float(), 50)))


@METRICS
def test_memory_of_bins_is_constant(seen, metric) -> None:
    found = metric(thresholds=10)
    for _ in range(3):
        found.update((torch.rand(100), torch.randint(0, 2, (100,))))
        assert found.bins.shape == (1, 2, 11)


@METRICS
@pytest.mark.parametrize("thresholds", THRESHOLDS)
def test_a_state_that_is_loaded_goes_on(metric, thresholds, agree) -> None:
    scores, y = torch.rand(40), torch.randint(0, 2, (40,))
    before, after, whole = (metric(thresholds=thresholds) for _ in range(3))
    before.update((scores[:25], y[:25]))
    after.load_state_dict(before.state_dict())
    after.update((scores[25:], y[25:]))
    whole.update((scores, y))
    agree(after.compute(), whole.compute())
    if thresholds is None:
        after.load_state_dict(before.state_dict())
        with pytest.raises(ValueError, match=r"began with float32 \(\), int32 \(\) .* now found float64"):
            after.update((scores.double(), y))


@METRICS
def test_what_can_not_be_meant_is_told(metric) -> None:
    name, y = metric.__name__, torch.tensor([0, 1, 2])
    with pytest.raises(TypeError, match=f"{name} needs scores as y_pred, floating numbers"):
        metric().update((torch.eye(3).long(), y))
    with pytest.raises(TypeError, match=f"{name} needs scores as y_pred"):
        metric().update((y > 0, y > 0))
    with pytest.raises(ValueError, match="it compares probabilities"):
        metric().update((torch.eye(3) * 4 - 2, y))
    with pytest.raises(ValueError, match="it compares probabilities"):
        metric(thresholds=10).update((torch.tensor([3.0, -1.0]), torch.tensor([1, 0])))
    with pytest.raises(ValueError, match="found 3 in y, none of the classes"):
        metric().update((torch.eye(3), y + 1))
    with pytest.raises(ValueError, match="found 2 in y, but y_pred and y of one shape are binary"):
        metric().update((torch.rand(3), y))
    with pytest.raises(ValueError, match="NaN among the scores"):
        metric().update((torch.tensor([torch.nan, 1.0]), torch.tensor([1, 0])))
    with pytest.raises(ValueError, match=r"scores and targets of one shape \(N, C\)"):
        metric().update((torch.rand(3, 3), torch.eye(3)))
    with pytest.raises(ValueError, match=r"takes scores \(N, C, ...\) and classes"):
        metric().update((torch.rand(3, 2), torch.zeros(4).long()))
    changing = metric()
    changing.update((torch.eye(3), y))
    with pytest.raises(ValueError, match="began with multiclass outputs of 3 classes"):
        changing.update((torch.eye(2), y[:2]))
    with pytest.raises(ValueError, match="but got 'micro'"):
        metric(average="micro")
    for wrong in (1, [0.5, 0.2], [], [0.0, 1.5], torch.rand(2, 2), [0.0, torch.nan]):
        with pytest.raises(ValueError, match="thresholds"):
            metric(thresholds=wrong)
    with pytest.raises(NotComputableError, match="has seen no sample"):
        metric().compute()


@METRICS
@pytest.mark.parametrize("thresholds", [None, 10])
def test_on_an_accelerator_it_is_told_at_the_epochs_end(monkeypatch, metric, thresholds) -> None:
    for place in ("classification", "label_faults"):
        monkeypatch.setattr(f"leyden.metrics.{place}.can_look_at", lambda tensor: False)
    for y_pred, y, message in (
        (torch.eye(3) * 4, torch.tensor([0, 1, 2]), "found values in y_pred, outside of 0, ..., 1, but it compares"),
        (torch.eye(3), torch.tensor([0, 1, 3]), "found values in y, none of the classes 0, ..., 2"),
        (torch.full((3, 3), torch.nan), torch.tensor([0, 1, 2]), "NaN among the scores"),
    ):
        engine = Engine(lambda engine, batch: batch, training=False)
        metric(thresholds=thresholds).attach(engine, "metric")
        with pytest.raises(ValueError, match=message):
            engine.run([(y_pred, y)])


@METRICS
@pytest.mark.parametrize("thresholds", [None, 10])
def test_nothing_but_what_is_left_out_has_no_value(metric, thresholds) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    metric(thresholds=thresholds).attach(engine, "metric")
    with pytest.warns(UserWarning, match="has seen no label but those of ignore_index=-100"):
        assert engine.run([(torch.rand(2), torch.tensor([-100, -100]))]).metrics == {}


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("ROC_AUC", sklearn.metrics.roc_auc_score), ("AveragePrecision", sklearn.metrics.average_precision_score)],
)
def test_under_ignites_names(seen, agree, drawn, name, theirs) -> None:
    for seed in range(10):
        scores = torch.randn(40, 3, generator=drawn(seed))
        y = torch.randint(0, 2, (40, 3), generator=drawn(seed + 1))
        metric = getattr(as_ignite, name)
        agree(seen(metric(lambda output: output, True), scores, y, seed=seed), theirs(y, scores))
        agree(seen(metric(device="cpu"), scores[:, 0], y[:, 0], seed=seed), theirs(y[:, 0], scores[:, 0]))
