"""What a metric's name tells about which of its values are better, and where a mode has to be said."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from leyden.handlers import Checkpoint, EarlyStopping, Schedule
from leyden.handlers.common.metric_modes import mode_of

LESS = """
    loss val/loss val_loss loss/val valid.loss validation-loss valLoss ValLoss valloss train_loss_epoch loss_1
    loss2 error error_rate top1_err top5_error mean_squared_error
    MeanSquaredError mse val_rmse RMSE mae
    perplexity val/ppl nll cross_entropy BinaryCrossEntropy crossentropy WER fid brier_score
    brier_score_loss dice_loss accuracy/loss
    val/f1_loss bits_per_byte val/error@1 logloss loss_total"""
MORE = """
    accuracy val/accuracy val_accuracy valAccuracy accuracy/val trainaccuracy top5_accuracy accuracy_top5 acc acc@1
    val/acc1 f1 val/f1 f1_macro F1Score f1_score precision recall
    recall@10 auc roc_auc ROC_AUC auroc average_precision
    mAP mAP@50 map50 mIoU iou dice BLEU bleu4 BLEU-4 rougeL ROUGE1 psnr ssim r2 ndcg@10 mrr mcc kappa episode_reward
    score val/score r2_score loss/accuracy"""
NOTHING = """
    a value metric lr grad_norm neg_mean_squared_error negative_loss minus_loss neg_loss loss_scale loss_weight
    accuracy_gap loss_ratio accuracy_std loss_accuracy steps time gloomy lossy mirror throughput 1-accuracy
    inaccuracy val/unaccuracy negloss kl_divergence entropy temperature"""


@pytest.mark.parametrize("name", LESS.split())
def test_names_of_which_less_is_better(name):
    assert mode_of(name) == "min"


@pytest.mark.parametrize("name", MORE.split())
def test_names_of_which_more_is_better(name):
    assert mode_of(name) == "max"


@pytest.mark.parametrize("name", [*NOTHING.split(), "1 - accuracy", "1 -accuracy", "", "/"])
def test_names_that_do_not_tell(name):
    assert mode_of(name) is None


def stopper(metric, **mode):
    return EarlyStopping(metric, **mode).mode


def keeper(metric, **mode):
    return Checkpoint("runs", best=metric, **mode).keeping.mode


@pytest.mark.parametrize("mode", [stopper, keeper], ids=["EarlyStopping", "Checkpoint"])
def test_the_name_or_the_user_says_the_mode(mode):
    assert mode("val/loss") == "min"
    assert mode("val/accuracy") == "max"
    assert mode("val/accuracy", mode="min") == "min"  # what is said goes first
    assert mode("val/gloss", mode="max") == "max"
    assert mode("temperature", mode="min") == "min"
    with pytest.raises(ValueError, match='more or less is better, and the name "temperature" does not tell: say mode='):
        mode("temperature")
    with pytest.raises(ValueError, match='needs mode "max" or "min", but got \'maximum\''):
        mode("val/accuracy", mode="maximum")


def test_a_function_never_tells():
    def val_loss(engine):
        return -1.0

    with pytest.raises(ValueError, match="and a function does not tell: say mode="):
        EarlyStopping(val_loss)
    assert EarlyStopping(val_loss, mode="max").mode == "max"


def test_a_checkpoint_without_a_metric_needs_no_mode():
    assert Checkpoint("runs").keeping.best is None


def plateau_on(metric, **mode):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    return Schedule(ReduceLROnPlateau(optimizer, **mode), metric=metric)


def test_a_plateau_schedule_has_the_mode_of_its_metric():
    for metric, mode in (("val/loss", {}), ("val/accuracy", {"mode": "max"}), ("temperature", {}), ("mean", {})):
        assert plateau_on(metric, **mode).metric == metric
    with pytest.raises(
        ValueError, match=r"of mode=\"min\" \(torch's default is \"min\"\) is to watch \"val/accuracy\""
    ):
        plateau_on("val/accuracy")
    with pytest.raises(ValueError, match='of which, by its name, less is better; make it with mode="min"'):
        plateau_on("val/loss", mode="max")
    with pytest.raises(TypeError, match="Schedule takes metric= as the name of a metric, but got 3"):
        plateau_on(3)
