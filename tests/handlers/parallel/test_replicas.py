"""Training on two ranks is training in one process on the two ranks' batches put together."""

import pytest
import replica_cases
import torch
from replica_cases import loss_fn, optimizer_of

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks(*((case,) for case in replica_cases.CASES))


def same(models, others):
    return all(
        torch.equal(a, b)
        for model, other in zip(as_list(models), as_list(others), strict=True)
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def close(models, others):
    return all(
        torch.allclose(a, b, atol=1e-6)
        for model, other in zip(as_list(models), as_list(others), strict=True)
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def as_list(models):
    return models if isinstance(models, list) else [models]


def together(ranks):
    """The global batches: what both ranks had in each iteration, in one batch."""
    both = zip(*(rank["batches"] for rank in ranks), strict=True)
    return [tuple(torch.cat(parts) for parts in zip(*pair, strict=True)) for pair in both]


def train_alone(start, batches, windows, loss=lambda model, x, y: loss_fn(model(x), y), clip=None):
    """The loop by hand in one process; `windows`: how many batches each step has."""
    optimizer = optimizer_of(start)
    iterator = iter(batches)
    for size in windows:
        for _ in range(size):
            (loss(start, *next(iterator)) / size).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(start.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    assert next(iterator, None) is None
    return start


@pytest.mark.parametrize("case", [case.__name__ for case in replica_cases.CASES if case.__name__ != "mistakes"])
def test_parameters_are_equal_on_all_ranks(outcomes, case):
    ours, theirs = outcomes[case]
    assert same(ours["end"], theirs["end"])


@pytest.mark.parametrize(
    ("case", "windows"),
    [
        ("plain", [1] * 6),
        ("accumulated", [2, 1, 2, 1]),
        ("cut_by_unknown_length", [2, 1]),
        ("continued", [1] * 9),
        ("own_replicas", [3, 3, 2] * 2),
        ("in_parts", [1] * 3),
        ("unused_parameters", None),
        ("frozen", None),
    ],
)
def test_it_is_training_in_one_process(outcomes, case, windows):
    ranks = outcomes[case]
    batches = together(ranks)
    start, end = ranks[0]["start"], ranks[0]["end"]
    if case == "in_parts":

        def loss(model, x, y):
            return loss_fn(model["head"](model["mix"](model["mix"](model["embed"](x)))), y)

        expected = train_alone(start, batches, windows, loss)
    elif case == "unused_parameters":
        optimizer = torch.optim.SGD(start.parameters(), lr=0.1)
        for iteration, (x, y) in enumerate(batches, start=1):
            loss_fn(start[iteration % 2](x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        expected = start
    elif case == "frozen":
        student, teacher = start
        train_alone(student, batches, [1] * 3, lambda model, x, y: loss_fn(model(x), teacher(x)))
        expected = [student, teacher]
    else:
        expected = train_alone(start, batches, windows)
    assert close(end, expected)


def test_each_sample_of_an_epoch_is_trained_on_one_rank(outcomes):
    x = torch.cat([batch[0] for batch in together(outcomes["plain"])])
    everything = replica_cases.dataset().tensors[0].sort(dim=0).values
    first, second = x.split(24)
    assert torch.equal(first.sort(dim=0).values, everything)
    assert torch.equal(second.sort(dim=0).values, everything)
    assert not torch.equal(first, second)  # in another order


def test_gradients_are_exchanged_once_in_a_window(outcomes):
    for rank in outcomes["plain"]:
        assert rank["synchronised"] == [True] * 6
    for rank in outcomes["accumulated"]:
        assert rank["synchronised"] == [False, True, True] * 2
    for rank in outcomes["own_replicas"]:
        assert rank["exchanged"] == [3, 6, 8, 11, 14, 16]  # one bucket, each time


def test_the_norm_is_that_of_the_exchanged_gradient(outcomes):
    ranks = outcomes["clipped"]
    assert close(ranks[0]["end"], train_alone(ranks[0]["start"], together(ranks), [2, 1, 2, 1], clip=0.1))


def test_an_epoch_that_one_rank_ends_in_mid_window_ends_on_all_and_loses_no_gradient(outcomes):
    ranks = outcomes["cut_by_terminate_epoch"]
    first, second = (rank["iterations"] for rank in ranks)
    assert first == second < 500 + 500
    assert [rank["steps"] for rank in ranks] == [2, 2]
    expected = train_alone(ranks[0]["start"], together(ranks), [first - 500, 500])
    assert close(ranks[0]["end"], expected)


def test_the_model_stays_the_users_own(outcomes):
    for rank in outcomes["plain"]:
        assert type(rank["end"]) is torch.nn.Sequential
        assert rank["names kept"]


def test_weights_give_the_mean_over_the_tokens_of_all_ranks(outcomes):
    ranks = outcomes["weighted"]
    model = ranks[0]["start"]
    optimizer = optimizer_of(model)
    for window in (0, 2):
        parts = [batch for rank in ranks for batch in rank["batches"][window : window + 2]]
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        loss_fn(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert close(ranks[0]["end"], model)


def test_two_updates_of_one_engine(outcomes):
    ranks = outcomes["gan"]
    critic, generator = ranks[0]["start"]
    for_critic, for_generator = optimizer_of(critic), optimizer_of(generator)
    for i, (real, noise) in enumerate(together(ranks)):
        last_of_epoch = i % 3 == 2
        loss = critic(generator(noise)).square().mean() - critic(real).mean()
        loss = loss if last_of_epoch else loss / 2
        loss.backward(inputs=list(critic.parameters()))
        if i % 3 >= 1:
            for_critic.step()
            for_critic.zero_grad()
        (critic(generator(noise)) - 1).square().mean().backward(inputs=list(generator.parameters()))
        for_generator.step()
        for_generator.zero_grad()
    assert close(ranks[0]["end"], [critic, generator])


def test_an_overflow_on_one_rank_skips_the_step_of_all(outcomes):
    for rank in outcomes["overflow_on_one_rank"]:
        assert rank["skipped"] == [2]
        assert rank["scale"] == 32.0


def test_an_evaluation_measures_the_model_of_rank_zero_on_all_ranks(outcomes):
    """Its batch norms too, of which each rank has had other batches."""
    ours, theirs = outcomes["evaluated"]
    assert len(ours["measured with"]) == len(ours["trained with"]) == len(theirs["measured with"]) > 0
    pairs = zip(ours["trained with"], theirs["trained with"], strict=True)
    assert not any(torch.equal(own, other) for own, other in pairs)
    assert all(map(torch.equal, ours["measured with"], ours["trained with"]))
    assert all(map(torch.equal, theirs["measured with"], ours["trained with"]))


def test_mistakes(outcomes):
    for rank in outcomes["mistakes"]:
        assert rank["twice"].startswith("DataParallel and DataParallel both set sync of one update")
        (warning,) = rank["without an update"]
        assert warning.startswith("DataParallel deals the data, but replicates no model: the engine has no Update.")
        assert rank["a static graph and a window"].startswith("DataParallel(static_graph=True) can't train")
