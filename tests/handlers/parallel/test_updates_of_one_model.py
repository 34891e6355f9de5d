"""Several updates of one model, an actor and a critic on a common trunk: ranks train it as one process does."""

import pytest
import torch
from one_model_cases import CASES, ActorCritic, batches, sgd, weights

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks(*((case,) for case in CASES))


def by_hand(window):
    """In one process, from rank 0's weights: the two take turns in each batch, and step as a window of 7 ends."""
    model = ActorCritic(seed=0)
    turns = [(place, part, sgd(part)) for place, part in enumerate(model.parts())]
    for _ in range(2):
        for number, batch in enumerate(batches()):
            size = min(window, 7 - number // window * window)
            for place, part, optimizer in turns:
                loss = sum(model(each)[place] for each in batch) / 2 / size
                loss.backward(inputs=part)
                if number % window == window - 1 or number == 6:
                    optimizer.step()
                    optimizer.zero_grad()
    return weights(model)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_ranks_train_as_one_process_would(outcomes, case) -> None:
    window = 3 if case == "in_windows" else 1
    expected = torch.cat([torch.tensor(each).flatten() for each in by_hand(window)])
    for found in outcomes[case]:
        assert torch.allclose(torch.cat([torch.tensor(each).flatten() for each in found]), expected, atol=1e-6)
