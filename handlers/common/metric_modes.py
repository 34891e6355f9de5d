"""Whether more or less of a metric is better, as far as its name tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any


def _words_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


LESS = _words_in(
    "loss losses logloss error errors err perplexity ppl nll bce crossentropy mse rmse mae mape smape msle rmsle mase "
    "wer cer ter eer ece fid kid lpips brier crps bpb bpc hinge huber regret"
)
MORE = _words_in(
    "accuracy accuracies acc f1 f2 fbeta precision recall sensitivity specificity auc auroc auprc rocauc prauc ap map "
    "ndcg mrr iou miou jaccard dice bleu chrf rouge meteor cider psnr ssim r2 kappa mcc reward rewards f1score hits "
    "pearson spearman score scores"
)
"""Words of which less, or more, is better."""
WEAK = frozenset({"score", "scores"})
"""More is better, as scikit-learn's names have it, unless another word says something: brier_score."""
HEADS = frozenset({"loss", "losses", "error", "errors", "err"})
"""At the end they say what it is, whatever it is made of: dice_loss."""
ENDINGS = ("loss", "error", "perplexity", "accuracy")
"""Prefixes of names that are written as one word: valloss."""
PAIRS = {("cross", "entropy"): "crossentropy", ("bits", "per"): "bpb"}
UNSURE = _words_in(
    "neg negative minus inverse inv gap diff difference delta ratio scale weight std var variance drop change gain "
    "improvement reduction"
)
"""Words that may reverse the meaning of others, so that a name with one tells nothing: neg_mean_squared_error,
loss_scale.
"""
TURNING = frozenset({"in", "un", "non", "mis", "neg", "inv"})
"""Prefixes that do so within a word: inaccuracy, negloss."""


def mode_of(name: str) -> str | None:
    """Says "max" or "min" where a metric's name tells what is better, also under a prefix or with a suffix; else None.

    What stands behind the last "/" goes first: accuracy/loss is a loss, and so is loss/val.
    """
    return _said_by(name.rpartition("/")[2]) or _said_by(name)


def require_mode(who: str, metric: str | Callable[..., Any], mode: str | None) -> str:
    """The mode that was given, or else the one that the metric's name tells.

    Raises ValueError for another word, and where none is given and the name tells nothing. A function tells nothing,
    whatever its name: it may give a loss, or a loss with the sign turned. `who` is the handler that asks.
    """
    if mode in ("max", "min"):
        return mode
    if mode is not None:
        raise ValueError(f'{who} needs mode "max" or "min", but got {mode!r}')
    said = mode_of(metric) if isinstance(metric, str) else None
    if said is None:
        what = f'the name "{metric}"' if isinstance(metric, str) else "a function" if callable(metric) else repr(metric)
        raise ValueError(
            f"{who} needs to know whether more or less is better, and {what} does not tell: say "
            'mode="max" (as for an accuracy) or mode="min" (as for a loss)'
        )
    return said


def _said_by(name: str) -> str | None:
    words = _words(name)
    if UNSURE.intersection(words) or re.search(r"\b1 *-", name):
        return None
    less, more = LESS.intersection(words), MORE.intersection(words)
    if less and more and not (more <= WEAK or words[-1] in HEADS):
        return None
    return "min" if less else "max" if more else None


def _words(name: str) -> list[str]:
    """The words of a name, in small letters: top5_accuracy, valLoss, mAP@50, cross-entropy."""
    words: list[str] = []
    for piece in re.findall(r"[^\W_]+", name):
        plain = piece.lower()
        bare = plain.rstrip("0123456789")
        if known := next((word for word in (plain, bare) if word in LESS | MORE), None):
            words.append(known)
            continue
        parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\WA-Za-z_]+", piece)]
        for part in parts:
            end = next((end for end in ENDINGS if part.endswith(end)), part)
            words += ["negative", end] if part.removesuffix(end) in TURNING else [end]
    paired = [PAIRS.get(pair) for pair in pairwise(words)]
    return words + [word for word in paired if word is not None]
