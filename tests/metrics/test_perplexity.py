"""Perplexity is the exponential of the mean cross entropy of an epoch's tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leyden.engine import Engine
from leyden.metrics import NotComputableError, Perplexity

examples = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31)


def tokens(generator, shape, classes, dtype, ignored=None):
    y_pred = 3 * torch.randn(*shape, classes, generator=generator, dtype=dtype)
    y = torch.randint(0, classes, shape, generator=generator)
    if ignored is not None:
        y.view(-1)[::3] = ignored
        y.view(-1)[1] = classes - 1
    return y_pred, y


@examples
@given(
    seed=seeds,
    classes=st.integers(2, 20),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shape=st.sampled_from([(7,), (12, 5)]),
    ignored=st.sampled_from([None, -100, 0, 999]),
)
def test_it_is_the_exponential_of_the_mean(seen, agree, drawn, seed, classes, dtype, shape, ignored) -> None:
    y_pred, y = tokens(drawn(seed), shape, classes, dtype, ignored)
    kept = y.flatten() != (-1 if ignored is None else ignored)
    expected = nn.functional.cross_entropy(y_pred.double().view(-1, classes)[kept], y.flatten()[kept]).exp()
    agree(seen(Perplexity(ignore_index=ignored, class_dim=-1), y_pred, y, seed=seed), expected, dtype)
    agree(seen(Perplexity(ignore_index=ignored), y_pred.movedim(-1, 1), y, seed=seed), expected, dtype)
    agree(seen(Perplexity(ignore_index=ignored), y_pred.log_softmax(-1).movedim(-1, 1), y), expected, dtype)


@examples
@given(seed=seeds, ignored=st.sampled_from([None, -100, 1]))
def test_it_is_torchmetrics(seen, agree, drawn, seed, ignored) -> None:
    text = pytest.importorskip("torchmetrics.functional.text")
    y_pred, y = tokens(drawn(seed), (6, 5), 9, torch.float64, ignored)
    expected = text.perplexity(y_pred, y, ignore_index=ignored)
    agree(seen(Perplexity(ignore_index=ignored, class_dim=-1), y_pred, y, seed=seed), expected, torch.float32)


def test_nan_and_what_is_impossible(seen) -> None:
    y = torch.tensor([0, 1])
    assert seen(Perplexity(), torch.tensor([[0.0, torch.nan], [0, 0]]), y).isnan()
    assert seen(Perplexity(), torch.tensor([[-torch.inf, 0.0], [0, 0]]), y).isinf()
    assert seen(Perplexity(), torch.tensor([[torch.nan, 0.0], [0, 0]]), torch.tensor([-100, 1])) == pytest.approx(2)


def test_16_bits_are_enough_for_logits(seen) -> None:
    y_pred, y = tokens(torch.Generator().manual_seed(0), (50, 40), 100, torch.bfloat16)
    expected = nn.functional.cross_entropy(y_pred.double().view(-1, 100), y.flatten()).exp()
    assert seen(Perplexity(class_dim=-1), y_pred, y).item() == pytest.approx(expected.item(), rel=1e-6)


def test_what_can_not_be_meant_is_told() -> None:
    y = torch.zeros(4, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"takes logits \(N, C, ...\) .*; their shapes fit Perplexity\(class_dim=-1\)"):
        Perplexity().update((torch.rand(4, 5, 9), y))
    with pytest.raises(ValueError, match=r"takes logits \(N, ..., C\) .*; their shapes fit Perplexity\(class_dim=1\)"):
        Perplexity(class_dim=-1).update((torch.rand(4, 9, 5), y))
    with pytest.raises(ValueError, match="but found a tuple"):
        Perplexity().update((torch.rand(4, 9), y))
    with pytest.raises(ValueError, match=r"found 9 in y, none of the classes 0, ..., 8"):
        Perplexity(class_dim=-1).update((torch.rand(4, 5, 9), y + 9))
    with pytest.raises(TypeError, match="takes logits, floating numbers"):
        Perplexity(class_dim=-1).update((torch.rand(4, 5, 9).long(), y))
    with pytest.raises(TypeError, match="and token indices, whole ones"):
        Perplexity(class_dim=-1).update((torch.rand(4, 5, 9), y.float()))
    metric = Perplexity(class_dim=-1)
    metric.update((torch.rand(4, 5, 9), y))
    with pytest.raises(ValueError, match="began with multiclass outputs of 9 classes"):
        metric.update((torch.rand(4, 5, 8), y))
    with pytest.raises(ValueError, match="class_dim is 1"):
        Perplexity(class_dim=2)
    with pytest.raises(NotComputableError, match="has seen no sample"):
        Perplexity().compute()


def test_on_an_accelerator_a_wrong_token_is_told_at_the_epochs_end(monkeypatch) -> None:
    for place in ("classification", "label_faults"):
        monkeypatch.setattr(f"leyden.metrics.{place}.can_look_at", lambda tensor: False)
    engine = Engine(lambda engine, batch: batch, training=False)
    Perplexity().attach(engine, "perplexity")
    with pytest.raises(ValueError, match=r"Perplexity found values in y, none of the classes 0, ..., 2"):
        engine.run([(torch.rand(2, 3), torch.tensor([0, 3]))])


def test_nothing_but_what_is_left_out_has_no_value() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    Perplexity().attach(engine, "perplexity")
    with pytest.warns(UserWarning, match="Perplexity has seen no label but those of ignore_index=-100"):
        assert engine.run([(torch.rand(2, 3), torch.tensor([-100, -100]))]).metrics == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_in_place_of_logits(dtype) -> None:
    logits, y = torch.randn(20, 4), torch.arange(20) % 4
    with pytest.raises(ValueError, match="Perplexity found probabilities in y_pred, rows that sum to 1"):
        Perplexity().update((logits.softmax(1).to(dtype), y))
    for allowed in (logits, logits.log_softmax(1), torch.eye(4).repeat(5, 1), torch.zeros(20, 4), logits.sigmoid()):
        Perplexity().update((allowed, y))
    with pytest.raises(ValueError, match="found probabilities"):
        Perplexity(class_dim=-1).update((logits.softmax(1).view(4, 5, 4), y.view(4, 5)))
