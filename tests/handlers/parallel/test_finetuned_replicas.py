"""Parts that are unfrozen in mid-run are exchanged between the ranks from then on."""

from itertools import islice

import finetune_cases
import pytest
import torch
from replica_cases import loss_fn

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("kept"))
    outcomes = on_two_ranks(
        (finetune_cases.finetuned,),
        (finetune_cases.finetuned, 2),
        (finetune_cases.resumed, directory),
        (finetune_cases.frozen,),
    )
    return {
        "finetuned": outcomes["finetuned"],
        "accumulated": outcomes["finetuned", 2],
        "resumed": outcomes["resumed", directory],
        "frozen": outcomes["frozen"],
    }


def together(ranks):
    both = zip(*(rank["batches"] for rank in ranks), strict=True)
    return [tuple(torch.cat(parts) for parts in zip(*pair, strict=True)) for pair in both]


def train_alone(model, batches, windows, plan):
    """By hand, in one process; `plan`: {epoch: (part, ratio)}, `windows`: the sizes of those of one epoch."""
    model.requires_grad_(False)
    optimizer = torch.optim.SGD([torch.zeros(())], lr=0.1, momentum=0.9)
    iterator = iter(batches)
    for epoch in range(3):
        for part, ratio in plan.get(epoch, ()):
            optimizer.add_param_group({"params": model[part].requires_grad_(True).parameters(), "lr": 0.1 * ratio})
        for size in windows:
            for x, y in islice(iterator, size):
                (loss_fn(model(x), y) / size).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert next(iterator, None) is None
    return model


CASES = {
    "finetuned": ([1, 1, 1], {0: [(2, 1.0)], 1: [(1, 0.5)], 2: [(0, 0.1)]}),
    "accumulated": ([2, 1], {0: [(2, 1.0)], 1: [(1, 0.5)], 2: [(0, 0.1)]}),
    "resumed": ([1, 1, 1], {0: [(2, 1.0)], 1: [(1, 0.5)], 2: [(0, 0.1)]}),
    "frozen": ([1, 1, 1], {0: [(1, 1.0), (2, 1.0)]}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_training_in_one_process(outcomes, case):
    ranks = outcomes[case]
    expected = train_alone(ranks[0]["start"], together(ranks), *CASES[case])
    models = (ranks[0]["end"], ranks[1]["end"], expected)
    for ours, theirs, alone in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, alone, atol=1e-6)


def test_each_gradient_is_exchanged(outcomes):
    for rank in outcomes["finetuned"]:
        assert rank["synchronised"] == [(2, True)] * 3 + [(4, True)] * 3 + [(6, True)] * 3
    for rank in outcomes["accumulated"]:
        assert rank["synchronised"] == [(2, True)] * 2 + [(4, True)] * 2 + [(6, True)] * 2
    for rank in outcomes["resumed"]:
        assert rank["synchronised"] == [(2, True)] * 3 + [(4, True)] * 3 + [(6, True)] * 3
