"""The pairs that can't work on one engine, and the words of the error that says so."""

PRECISIONS = ("bf16", "fp16", "fp8", "bf16-true", "fp64-true")
REFUSED = {
    **{
        (f"MixedPrecision {one}", f"MixedPrecision {other}"): "MixedPrecision and MixedPrecision both set autocast"
        for i, one in enumerate(PRECISIONS)
        for other in PRECISIONS[i:]
    },
    ("MixedPrecision fp8", "Quantize in training"): "both change the linear layers",
    ("MixedPrecision fp8", "Quantize weights"): "both change the linear layers",
    ("MixedPrecision fp64-true", "Quantize in training"): "fp64",
    ("MixedPrecision fp64-true", "Quantize weights"): "fp64",
    ("GradientAccumulation", "GradientAccumulation by weight"): "both set window of one update",
    ("GradientAccumulation", "TruncatedBPTT"): "each chunk of a batch has its own optimizer step",
    ("GradientAccumulation by weight", "TruncatedBPTT"): "each chunk of a batch has its own optimizer step",
    ("BatchSizeSchedule", "BatchSizeFinder"): "both set the size of batches",
    ("LoRA", "Freeze"): "LoRA freezes the model itself",
    ("LoRA", "Finetune"): "LoRA freezes the model itself",
    ("LoRA", "Quantize in training"): 'LoRA freezes the weights that "qat-int8" is to train',
    ("Finetune", "Quantize weights"): "integer weights can't be unfrozen",
    ("Quantize in training", "Quantize weights"): "both change the models of one update",
    ("LimitBatches", "Overfit"): "both say how many batches an epoch has",
    ("GradientAccumulation", "GradientAccumulation"): "both set window of one update",
    ("GradientAccumulation by weight", "GradientAccumulation by weight"): "both set window of one update",
    ("ClipGradients norm", "ClipGradients norm"): "both bound the norm of one update's gradients",
    ("ClipGradients value", "ClipGradients value"): "both bound the value of one update's gradients",
    ("ParamSchedule", "ParamSchedule"): 'both set the same "momentum"',
    ("BatchSizeSchedule", "BatchSizeSchedule"): "both set the size of batches",
    ("EMA", "EMA"): "an evaluation would find the weights of both in one model",
    ("SWA", "SWA"): "both would put their average into one model",
    ("TruncatedBPTT", "TruncatedBPTT"): "a batch is cut into chunks once",
    ("Compile", "Compile"): "both would compile the same model",
    ("ActivationCheckpointing", "ActivationCheckpointing"): "give one of them all parts",
    ("Finetune", "Finetune"): "both would say what one model trains",
    ("LoRA", "LoRA"): "both adapt the models of one update",
    ("Quantize in training", "Quantize in training"): "both change the models of one update",
    ("Quantize weights", "Quantize weights"): "both change the models of one update",
    ("ChannelsLast", "ChannelsLast"): "both would set the memory format of the same model",
    ("DeviceTransfer", "DeviceTransfer"): "both move its batches",
    ("LimitBatches", "LimitBatches"): "both say how many batches an epoch has",
    ("DryRun", "DryRun"): "one dry run is enough",
    ("Overfit", "Overfit"): "both say how many batches an epoch has",
    ("Reproducible", "Reproducible"): "a run has one seed",
    ("LearningRateFinder", "LearningRateFinder"): "each sets the learning rate that the other has found",
    ("BatchSizeFinder", "BatchSizeFinder"): "each sets the batch size that the other has found",
}
"""At attach time, whatever the order."""

REFUSED_WHEN_IT_MEETS_THE_DATA = {
    ("BatchSizeFinder", "CombinedLoader"): "searches for the batch size of one DataLoader",
}
