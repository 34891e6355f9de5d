"""Every class of torchmetrics that needs no further package: how it is made, and a batch for it."""

import warnings

import batches
import torch
from batches import CLASSES, LABELS
from torchmetrics import (
    MetricCollection,
    aggregation,
    audio,
    classification,
    clustering,
    detection,
    image,
    multimodal,
    nominal,
    regression,
    retrieval,
    segmentation,
    shape,
    text,
    wrappers,
)
from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

warnings.filterwarnings("ignore")

CASES = {}
"""By name: a function that makes the metric, and one that makes the arguments of `update` from a number."""


def add(make, batch, **options):
    name = make.__name__
    while name in CASES:
        name += "'"
    CASES[name] = (lambda: make(**options), batch)


# -- classification ----------------------------------------------------------------------------------------------------

OF_ALL_TASKS = [
    "Accuracy", "AUROC", "AveragePrecision", "ConfusionMatrix", "EER", "F1Score", "FBetaScore", "HammingDistance",
    "JaccardIndex", "LogAUC", "MatthewsCorrCoef", "NegativePredictiveValue", "Precision", "PrecisionAtFixedRecall",
    "PrecisionRecallCurve", "ROC", "Recall", "RecallAtFixedPrecision", "SensitivityAtSpecificity", "Specificity",
    "SpecificityAtSensitivity", "StatScores",
]  # fmt: skip
OF_TWO_TASKS = ["CalibrationError", "CohenKappa", "HingeLoss"]
NEEDED = {
    "FBetaScore": {"beta": 0.5},
    "PrecisionAtFixedRecall": {"min_recall": 0.5},
    "RecallAtFixedPrecision": {"min_precision": 0.5},
    "SensitivityAtSpecificity": {"min_specificity": 0.5},
    "SpecificityAtSensitivity": {"min_sensitivity": 0.5},
}
TASKS = {
    "Binary": (batches.binary, {}),
    "Multiclass": (batches.multiclass, {"num_classes": CLASSES}),
    "Multilabel": (batches.multilabel, {"num_labels": LABELS}),
}
CURVES = ("AUROC", "AveragePrecision", "EER", "LogAUC", "Fixed", "Curve", "ROC", "SensitivityAt", "SpecificityAt")

for kind in OF_ALL_TASKS + OF_TWO_TASKS:
    for task, (batch, options) in TASKS.items():
        if task == "Multilabel" and kind in OF_TWO_TASKS:
            continue
        add(getattr(classification, task + kind), batch, **options, **NEEDED.get(kind, {}))
        if any(part in kind for part in CURVES):  # of a set of thresholds it has other states
            add(getattr(classification, task + kind), batch, **options, **NEEDED.get(kind, {}), thresholds=11)
        if kind in ("Accuracy", "StatScores", "Precision") and task != "Binary":
            add(getattr(classification, task + kind), batch, **options, average=None)

for kind in (*OF_ALL_TASKS, *OF_TWO_TASKS):  # makes one of those above
    add(
        getattr(classification, kind),
        batches.multiclass,
        task="multiclass",
        num_classes=CLASSES,
        **NEEDED.get(kind, {}),
    )
add(classification.ExactMatch, batches.sequences, task="multiclass", num_classes=CLASSES)
add(classification.MulticlassExactMatch, batches.sequences, num_classes=CLASSES)
add(classification.MulticlassAccuracy, batches.sequences, num_classes=CLASSES, multidim_average="samplewise")
add(classification.MultilabelExactMatch, batches.multilabel, num_labels=LABELS)
add(classification.BinaryFairness, batches.groups, num_groups=2)
add(classification.BinaryGroupStatRates, batches.groups, num_groups=2)
for kind in ("CoverageError", "RankingAveragePrecision", "RankingLoss"):
    add(getattr(classification, "Multilabel" + kind), batches.multilabel, num_labels=LABELS)

# -- regression, aggregation -------------------------------------------------------------------------------------------

for each in (
    regression.ConcordanceCorrCoef, regression.CriticalSuccessIndex, regression.ExplainedVariance,
    regression.KendallRankCorrCoef, regression.LogCoshError, regression.MeanAbsoluteError,
    regression.MeanAbsolutePercentageError, regression.MeanSquaredError, regression.MinkowskiDistance,
    regression.NormalizedRootMeanSquaredError, regression.PearsonCorrCoef, regression.R2Score,
    regression.RelativeSquaredError, regression.SpearmanCorrCoef, regression.SymmetricMeanAbsolutePercentageError,
    regression.WeightedMeanAbsolutePercentageError,
):  # fmt: skip
    more = {"CriticalSuccessIndex": {"threshold": 0.1}, "MinkowskiDistance": {"p": 3}}
    add(each, batches.numbers, **more.get(each.__name__, {}))
add(regression.MeanSquaredLogError, batches.positive)
add(regression.TweedieDevianceScore, batches.positive, power=1.5)
add(regression.CosineSimilarity, batches.vectors, reduction="mean")
add(regression.PearsonCorrCoef, batches.vectors, num_outputs=3)
add(regression.MeanSquaredError, batches.vectors, num_outputs=3)
add(regression.R2Score, batches.vectors, multioutput="raw_values")
add(regression.ContinuousRankedProbabilityScore, batches.ensembles)
add(regression.KLDivergence, batches.distributions)
add(regression.KLDivergence, batches.distributions, reduction="none")
add(regression.JensenShannonDivergence, batches.distributions)
for each in (aggregation.CatMetric, aggregation.MaxMetric, aggregation.MeanMetric, aggregation.MinMetric):
    add(each, batches.value)
add(aggregation.SumMetric, batches.value)
add(aggregation.RunningMean, batches.value, window=3)
add(aggregation.RunningSum, batches.value, window=3)

# -- retrieval, nominal, clustering, segmentation ----------------------------------------------------------------------

for kind in (
    "AUROC", "FallOut", "HitRate", "MAP", "MRR", "NormalizedDCG", "Precision", "PrecisionRecallCurve", "RPrecision",
    "Recall", "RecallAtFixedPrecision",
):  # fmt: skip
    options = {"max_k": 4} if kind in ("PrecisionRecallCurve", "RecallAtFixedPrecision") else {}
    add(getattr(retrieval, "Retrieval" + kind), batches.queries, **options)
for each in (nominal.CramersV, nominal.PearsonsContingencyCoefficient, nominal.TheilsU, nominal.TschuprowsT):
    add(each, batches.nominal, num_classes=CLASSES)
add(nominal.FleissKappa, batches.ratings)
for kind in (
    "AdjustedMutualInfoScore", "AdjustedRandScore", "CompletenessScore", "FowlkesMallowsIndex", "HomogeneityScore",
    "MutualInfoScore", "NormalizedMutualInfoScore", "RandScore", "VMeasureScore",
):  # fmt: skip
    add(getattr(clustering, kind), batches.nominal)
for each in (clustering.CalinskiHarabaszScore, clustering.DaviesBouldinScore, clustering.DunnIndex):
    add(each, batches.points)
for each in (segmentation.DiceScore, segmentation.GeneralizedDiceScore, segmentation.MeanIoU):
    add(each, batches.masks, num_classes=CLASSES, input_format="index")
add(segmentation.MeanIoU, batches.masks, num_classes=CLASSES, input_format="index", per_class=True)
add(segmentation.HausdorffDistance, batches.masks, num_classes=CLASSES, input_format="index")

# -- text --------------------------------------------------------------------------------------------------------------

for each in (
    text.CharErrorRate, text.EditDistance, text.ExtendedEditDistance, text.MatchErrorRate, text.WordErrorRate,
    text.WordInfoLost, text.WordInfoPreserved,
):  # fmt: skip
    add(each, batches.sentences)
add(text.EditDistance, batches.sentences, reduction="none")
for each in (text.BLEUScore, text.CHRFScore, text.SacreBLEUScore, text.TranslationEditRate):
    add(each, batches.translations)
add(text.ROUGEScore, batches.translations, rouge_keys=("rouge1", "rougeL"))
add(text.SQuAD, batches.answers)
add(text.Perplexity, batches.logits)

# -- pictures, sound, shapes -------------------------------------------------------------------------------------------


class Features(torch.nn.Module):
    """In place of an Inception network, whose weights would have to be fetched."""

    num_features = 6

    def forward(self, pictures):
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float(), (1, 2)).flatten(1)


add(image.StructuralSimilarityIndexMeasure, batches.images, data_range=1.0)
add(image.MultiScaleStructuralSimilarityIndexMeasure, batches.large_images, data_range=1.0)
add(image.PeakSignalNoiseRatio, batches.images, data_range=1.0)
add(image.PeakSignalNoiseRatio, batches.images, data_range=(0.0, 1.0), reduction="none", dim=(1, 2, 3))
add(image.PeakSignalNoiseRatioWithBlockedEffect, batches.grey_images, data_range=1.0)
for each in (
    image.ErrorRelativeGlobalDimensionlessSynthesis, image.RelativeAverageSpectralError,
    image.RootMeanSquaredErrorUsingSlidingWindow, image.SpatialCorrelationCoefficient, image.SpectralAngleMapper,
    image.SpectralDistortionIndex, image.UniversalImageQualityIndex,
):  # fmt: skip
    add(each, batches.images)
add(image.VisualInformationFidelity, batches.middle_images)
add(image.TotalVariation, batches.one_image)
add(image.SpatialDistortionIndex, batches.fused_images)
add(image.QualityWithNoReference, batches.fused_images)
add(FrechetInceptionDistance, batches.real_or_not, feature=Features(), normalize=True)
add(KernelInceptionDistance, batches.real_or_not, feature=Features(), normalize=True, subsets=1, subset_size=6)
add(image.MemorizationInformedFrechetInceptionDistance, batches.real_or_not, feature=Features(), normalize=True)
add(InceptionScore, batches.one_image, feature=Features(), normalize=True, splits=1)
for each in (
    audio.ScaleInvariantSignalDistortionRatio, audio.ScaleInvariantSignalNoiseRatio, audio.SignalDistortionRatio,
    audio.SignalNoiseRatio, audio.SourceAggregatedSignalDistortionRatio,
):  # fmt: skip
    add(each, batches.signals)
add(audio.ComplexScaleInvariantSignalNoiseRatio, batches.spectra)
add(audio.PermutationInvariantTraining, batches.signals, metric_func=scale_invariant_signal_noise_ratio)
for each in (detection.ModifiedPanopticQuality, detection.PanopticQuality):
    add(each, batches.segments, things={0}, stuffs={1})
add(multimodal.LipVertexError, batches.shapes, mouth_map=[0, 2, 5])
add(shape.ProcrustesDisparity, batches.shapes)

NOT_TRIED = {
    "abstract": ["BaseAggregator", "Metric", "MetricInputTransformer", "RetrievalMetric", "WrapperMetric"],
    "needs torchvision": [
        "ARNIQA", "CompleteIntersectionOverUnion", "DistanceIntersectionOverUnion", "GeneralizedIntersectionOverUnion",
        "IntersectionOverUnion", "LearnedPerceptualImagePatchSimilarity", "MeanAveragePrecision",
        "PerceptualPathLength",
    ],
    "needs a network's weights": [
        "BERTScore", "CLIPImageQualityAssessment", "CLIPScore", "DeepImageStructureAndTextureSimilarity", "InfoLM",
    ],
    "needs another package": [
        "ClusterAccuracy", "DeepNoiseSuppressionMeanOpinionScore", "NonIntrusiveSpeechQualityAssessment",
        "PerceptualEvaluationSpeechQuality", "ShortTimeObjectiveIntelligibility",
        "SpeechReverberationModulationEnergyRatio", "VideoMultiMethodAssessmentFusion",
    ],
    "refused, since loggers and Checkpoint(best=...) do it": ["MetricTracker"],
}  # fmt: skip
"""All other classes of torchmetrics, by the reason."""

# -- wrappers ----------------------------------------------------------------------------------------------------------


def case(name, batch):
    def take(make):
        CASES[name] = (make, batch)
        return make

    return take


@case("ClasswiseWrapper", batches.multiclass)
def classwise():
    return wrappers.ClasswiseWrapper(classification.MulticlassRecall(CLASSES, average=None))


@case("MinMaxMetric", batches.numbers)
def extremes():
    return wrappers.MinMaxMetric(regression.MeanSquaredError())


@case("MultioutputWrapper", batches.vectors)
def outputs():
    return wrappers.MultioutputWrapper(regression.SpearmanCorrCoef(), num_outputs=3)


@case("MultitaskWrapper", batches.tasks)
def tasks():
    return wrappers.MultitaskWrapper({"sign": classification.BinaryAUROC(), "size": regression.R2Score()})


@case("Running", batches.numbers)
def running():
    return wrappers.Running(regression.MeanSquaredError(), window=3)


@case("BootStrapper", batches.seeded)
def bootstrapped():
    return wrappers.BootStrapper(regression.MeanAbsoluteError(), num_bootstraps=4, raw=True)


@case("LambdaInputTransformer", batches.numbers)
def transformed():
    return wrappers.LambdaInputTransformer(
        classification.BinaryAccuracy(), lambda preds: (preds > 0).float(), lambda target: (target > 0).long()
    )


@case("BinaryTargetTransformer", batches.positive)
def binarised():
    return wrappers.BinaryTargetTransformer(classification.BinaryAUROC(), threshold=0.5)


@case("CompositionalMetric", batches.numbers)
def arithmetic():
    return 1 - regression.MeanAbsoluteError() / (regression.MeanSquaredError() + 1)


@case("MetricCollection", batches.multiclass)
def collection():
    return MetricCollection(
        [
            classification.MulticlassF1Score(CLASSES),
            classification.MulticlassPrecision(CLASSES),
            classification.MulticlassAUROC(CLASSES),
        ],
        prefix="val_",
    )
