"""A batch of each kind that a class of torchmetrics measures, drawn from its number."""

import numpy as np
import torch

SAMPLES, CLASSES, LABELS = 8, 4, 3


def draw(index):
    return torch.Generator().manual_seed(1000 + index)


def binary(index):
    g = draw(index)
    return torch.rand(SAMPLES, generator=g), torch.randint(0, 2, (SAMPLES,), generator=g)


def multiclass(index):
    g = draw(index)
    return torch.randn(SAMPLES, CLASSES, generator=g).softmax(1), torch.randint(0, CLASSES, (SAMPLES,), generator=g)


def multilabel(index):
    g = draw(index)
    return torch.rand(SAMPLES, LABELS, generator=g), torch.randint(0, 2, (SAMPLES, LABELS), generator=g)


def groups(index):
    g = draw(index)
    return *binary(index), torch.randint(0, 2, (SAMPLES,), generator=g)


def sequences(index):
    """Classes of three positions a sample; most are right."""
    g = draw(index)
    target = torch.randint(0, CLASSES, (SAMPLES, 3), generator=g)
    return torch.where(torch.rand(SAMPLES, 3, generator=g) < 0.8, target, 0), target


def numbers(index):
    g = draw(index)
    target = torch.randn(SAMPLES, generator=g)
    return target + 0.3 * torch.randn(SAMPLES, generator=g), target


def positive(index):
    g = draw(index)
    return torch.rand(SAMPLES, generator=g) + 0.1, torch.rand(SAMPLES, generator=g) + 0.1


def vectors(index):
    g = draw(index)
    target = torch.randn(SAMPLES, 3, generator=g)
    return target + 0.3 * torch.randn(SAMPLES, 3, generator=g), target


def distributions(index):
    g = draw(index)
    return torch.randn(SAMPLES, 5, generator=g).softmax(1), torch.randn(SAMPLES, 5, generator=g).softmax(1)


def ensembles(index):
    g = draw(index)
    return torch.randn(SAMPLES, 6, generator=g), torch.randn(SAMPLES, generator=g)


def value(index):
    return (torch.randn(SAMPLES, generator=draw(index)),)


def queries(index):
    """Documents of three queries, which go on over batches and ranks."""
    g = draw(index)
    scores, relevant = torch.rand(SAMPLES, generator=g), torch.randint(0, 2, (SAMPLES,), generator=g)
    return scores, relevant, torch.arange(SAMPLES) % 3


def nominal(index):
    g = draw(index)
    target = torch.randint(0, CLASSES, (SAMPLES,), generator=g)
    return torch.where(torch.rand(SAMPLES, generator=g) < 0.6, target, 1), target


def ratings(index):
    """How many of five raters chose each category."""
    chosen = torch.randint(0, CLASSES, (SAMPLES, 5), generator=draw(index))
    return (torch.nn.functional.one_hot(chosen, CLASSES).sum(1),)


def points(index):
    g = draw(index)
    labels = torch.arange(SAMPLES) % 3
    return torch.randn(SAMPLES, 2, generator=g) + 2.0 * labels[:, None], labels


def masks(index):
    g = draw(index)
    target = torch.randint(0, CLASSES, (2, 6, 6), generator=g)
    return torch.where(torch.rand(2, 6, 6, generator=g) < 0.7, target, 0), target


WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "it", "rained", "and", "nobody", "knew", "why"]


def sentence(g):
    return " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (7,), generator=g).tolist())


def sentences(index):
    g = draw(index)
    said = [sentence(g) for _ in range(3)]
    return [each.replace("cat", "dog").replace("on a", "on the") for each in said], said


def translations(index):
    said, meant = sentences(index)
    return said, [[each, sentence(draw(index + 77))] for each in meant]


def answers(index):
    said, meant = sentences(index)
    return (
        [{"prediction_text": each, "id": str(i)} for i, each in enumerate(said)],
        [{"answers": {"answer_start": [0], "text": [each]}, "id": str(i)} for i, each in enumerate(meant)],
    )


def logits(index):
    g = draw(index)
    return torch.randn(2, 5, 7, generator=g), torch.randint(0, 7, (2, 5), generator=g)


def images(index, size=24, channels=3):
    g = draw(index)
    target = torch.rand(2, channels, size, size, generator=g)
    return (target + 0.1 * torch.randn(target.shape, generator=g)).clamp(0.01, 1), target.clamp(0.01, 1)


def large_images(index):
    return images(index, 180, 1)


def middle_images(index):
    return images(index, 48, 1)


def grey_images(index):
    return images(index, 24, 1)


def one_image(index):
    return images(index)[:1]


def fused_images(index):
    """Bands of low resolution, a panchromatic picture of high and of low resolution, and what was fused of them."""
    fused, panchromatic = images(index, 32)
    low, panchromatic_low = (torch.nn.functional.avg_pool2d(each, 4) for each in (fused, panchromatic))
    return fused, {"ms": low, "pan": panchromatic, "pan_lr": panchromatic_low}


def real_or_not(index):
    return images(index)[0], index % 2 == 0


def signals(index):
    g = draw(index)
    target = torch.randn(2, 2, 200, generator=g)
    return target + 0.2 * torch.randn(target.shape, generator=g), target


def spectra(index):
    g = draw(index)
    target = torch.randn(2, 5, 6, 2, generator=g)
    return target + 0.2 * torch.randn(target.shape, generator=g), target


def segments(index):
    """A category and an instance for each pixel."""
    g = draw(index)
    target = torch.stack([torch.randint(0, 2, (1, 8, 8), generator=g), torch.randint(0, 2, (1, 8, 8), generator=g)], -1)
    return torch.where(torch.rand(1, 8, 8, 1, generator=g) < 0.9, target, 0), target


def shapes(index):
    g = draw(index)
    target = torch.randn(2, 9, 3, generator=g)
    return target + 0.2 * torch.randn(target.shape, generator=g), target


def tasks(index):
    (score, label), (number, truth) = binary(index), numbers(index)
    return {"sign": score, "size": number}, {"sign": label, "size": truth}


def seeded(index):
    """Seeds what a metric draws itself, then numbers."""
    torch.manual_seed(index)
    np.random.seed(index)
    return numbers(index)
