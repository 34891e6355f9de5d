"""Metrics of Ignite that have no class here: what is attached in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

ELSEWHERE: Mapping[str, str] = {
    "ClassificationReport": 'MetricsLambda(lambda p, r, f: {"precision": p, "recall": r, "f1": f}, '
    "Precision(), Recall(), F1())",
    "CohenKappa": "torchmetrics.classification.MulticlassCohenKappa(5)",
    "MatthewsCorrCoef": "torchmetrics.classification.MulticlassMatthewsCorrCoef(5)",
    "MeanAveragePrecision": "AveragePrecision()",
    "PrecisionRecallCurve": "torchmetrics.classification.BinaryPrecisionRecallCurve()",
    "RocCurve": "torchmetrics.classification.BinaryROC()",
    "Entropy": "Mean(lambda output: Categorical(logits=output[0]).entropy())",
    "MutualInformation": "EpochMetric(mutual_information, lambda output: output[0])",
    "KLDivergence": "torchmetrics.regression.KLDivergence(log_prob=True), lambda output: (output[1].log_softmax(1), "
    "output[0].log_softmax(1))",
    "JSDivergence": "torchmetrics.regression.JensenShannonDivergence(log_prob=True), lambda output: "
    "(output[0].log_softmax(1), output[1].log_softmax(1))",
    "PearsonCorrelation": "torchmetrics.regression.PearsonCorrCoef()",
    "SpearmanRankCorrelation": "torchmetrics.regression.SpearmanCorrCoef()",
    "KendallRankCorrelation": "torchmetrics.regression.KendallRankCorrCoef()",
    "MeanError": "Mean(lambda output: output[1] - output[0])",
    "MeanNormalizedBias": "Mean(lambda output: (output[1] - output[0]) / output[1])",
    "MeanAbsoluteRelativeError": "torchmetrics.regression.MeanAbsolutePercentageError()",
    "FractionalBias": "Mean(lambda output: 2 * (output[1] - output[0]) / (output[1] + output[0]))",
    "FractionalAbsoluteError": "torchmetrics.regression.SymmetricMeanAbsolutePercentageError()",
    "MaximumAbsoluteError": "torchmetrics.MaxMetric(), lambda output: (output[1] - output[0]).abs()",
    "MedianAbsoluteError": "EpochMetric(lambda y_pred, y: (y - y_pred).abs().quantile(0.5))",
    "MedianAbsolutePercentageError": "EpochMetric(lambda y_pred, y: 100 * ((y - y_pred) / y).abs().quantile(0.5))",
    "MedianRelativeAbsoluteError": "EpochMetric(lambda y_pred, y: ((y - y_pred) / (y - y.mean())).abs().quantile(0.5))",
    "GeometricMeanAbsoluteError": "GeometricMean(lambda output: (output[1] - output[0]).abs())",
    "GeometricMeanRelativeAbsoluteError": "EpochMetric(lambda y_pred, y: ((y - y_pred) / (y - "
    "y.mean())).abs().log().mean().exp())",
    "ManhattanDistance": "torchmetrics.regression.MinkowskiDistance(p=1)",
    "CanberraMetric": "torchmetrics.SumMetric(), lambda output: (output[1] - output[0]).abs() / (output[1].abs() + "
    "output[0].abs())",
    "WaveHedgesDistance": "torchmetrics.SumMetric(), lambda output: (output[1] - output[0]).abs() / "
    "torch.maximum(*output)",
    "MeanPairwiseDistance": "Mean(lambda output: pairwise_distance(*output))",
    "CosineSimilarity": "Mean(lambda output: cosine_similarity(*output))",
    "MaximumMeanDiscrepancy": "Mean(lambda output: discrepancy(*output)).clamp(min=0).sqrt()",
    "HSIC": "Mean(lambda output: independence(*output))",
    "SilhouetteScore": 'EpochMetric(silhouette_score, device="cpu")',
    "CalinskiHarabaszScore": "torchmetrics.clustering.CalinskiHarabaszScore()",
    "DaviesBouldinScore": "torchmetrics.clustering.DaviesBouldinScore()",
    "PSNR": "torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3))",
    "SSIM": "torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0)",
    "FID": "EpochMetric(frechet_distance, features)",
    "InceptionScore": "EpochMetric(mutual_information, class_scores).exp()",
    "ObjectDetectionAvgPrecisionRecall": "torchmetrics.detection.mean_ap.MeanAveragePrecision(), boxes",
    "CommonObjectDetectionMetrics": "torchmetrics.detection.mean_ap.MeanAveragePrecision(), boxes",
    "Bleu": "Mean(lambda output: torch.stack([bleu_score([a], [b]) for a, b in zip(*sentences(output))]))",
    "CharacterErrorRate": "torchmetrics.text.CharErrorRate()",
    "Rouge": 'torchmetrics.text.ROUGEScore(rouge_keys=("rouge1", "rouge2", "rougeL")), sentences',
    "RougeN": 'torchmetrics.text.ROUGEScore(rouge_keys="rouge2"), sentences',
    "RougeL": 'torchmetrics.text.ROUGEScore(rouge_keys="rougeL"), sentences',
    "HitRate": "Mean(lambda output: output[1].gather(1, output[0].topk(2).indices).amax(1)) / Mean(lambda output: "
    "output[1].amax(1))",
    "NDCG": 'EpochMetric(lambda y_pred, y: ndcg_score(2 ** y[y.any(1)] - 1, y_pred[y.any(1)], k=2), device="cpu")',
    "SelectionRate": "selection_rate(5)",
    "DemographicParityDifference": "(selection_rate(5, in_group(0)) - selection_rate(5, in_group(1))).abs().max()",
    "SubgroupMetric": "MetricsLambda(dict, women=Accuracy(in_group(0)), men=Accuracy(in_group(1)))",
    "SubgroupDifference": "(Accuracy(in_group(0)) - Accuracy(in_group(1))).abs()",
    "SubgroupAccuracyDifference": "(Accuracy(in_group(0)) - Accuracy(in_group(1))).abs()",
    "Average": "Mean()",
    "GeometricAverage": "GeometricMean()",
    "VariableAccumulation": "torchmetrics.SumMetric()",
    "MetricGroup": "MetricsLambda(dict, a=Accuracy(), p=Precision())",
    "GpuInfo": "Mean(lambda output: used_memory()), usage=BatchWise()",
}
"""By name, what comes after the name in `engine.attach_metric`, as the page docs/from-ignite-metrics.md has it."""


def not_here(module: str) -> Callable[[str], NoReturn]:
    """A module's `__getattr__`. For such a metric it raises ImportError, which `from module import name` lets through,
    with what to write; for any other name AttributeError.
    """

    def look_up(name: str) -> NoReturn:
        if name not in ELSEWHERE:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise ImportError(
            f"{module} has no {name}. What measures it here is\n\n"
            f'    engine.attach_metric("name", {ELSEWHERE[name]})\n\n'
            "The names in it stand in docs/from-ignite-metrics.md",
            name=module,
        )

    return look_up
