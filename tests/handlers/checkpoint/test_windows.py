"""A run that is stopped inside an accumulation window goes on there: none of its gradients is lost."""

import functools

import pytest
import scenarios
import torch
from torch import nn

from leyden.engine import Engine, Events, Update
from leyden.handlers import GradientAccumulation, MixedPrecision
from leyden.handlers.checkpoint import Checkpoint, read

EPOCHS = 3  # of 5 batches


def by_weight(batch):
    """The number of samples of class 1, a tensor."""
    return batch[1].sum() + 1


WINDOWS = {
    "step": {},
    "carry": {"tail": "carry"},
    "drop": {"tail": "drop"},
    "weighted": {"weight": by_weight},
    "weighted by a number": {"weight": lambda batch: len(batch[0]) / 3},
    "weighted, carried": {"weight": by_weight, "tail": "carry"},
}


def train(run, epochs=EPOCHS):
    run.trainer.run(run.data, max_epochs=epochs)
    return run


def assert_same_end(run, reference, same):
    assert same(run.model.state_dict(), reference.model.state_dict())
    assert same(run.optimizer.state_dict(), reference.optimizer.state_dict())
    assert run.trainer.state.step == reference.trainer.state.step
    assert [loss.item() for loss in run.losses] == [
        loss.item() for loss in reference.losses[len(reference.losses) - len(run.losses) :]
    ]


@pytest.mark.parametrize("window", WINDOWS)
def test_a_run_goes_on_from_each_of_its_iterations_as_if_it_had_not_stopped(window, make_run, same, tmp_path) -> None:
    def accumulation():
        return GradientAccumulation(4, **WINDOWS[window])

    saving = Checkpoint(tmp_path / "kept", event=Events.ITERATION_COMPLETED | Events.EPOCH_COMPLETED, keep=None)
    reference = train(make_run(accumulation(), saving))
    paths = sorted((tmp_path / "kept").iterdir())
    assert len(paths) == (5 + 1) * EPOCHS
    for number, path in enumerate(paths[:-1]):
        run = make_run(accumulation(), Checkpoint(tmp_path / f"{number}", event=Events.COMPLETED, resume=path))
        assert_same_end(train(run), reference, same)


def test_an_interrupt_in_a_window(make_run, same, tmp_path) -> None:
    reference = train(make_run(GradientAccumulation(4)))
    run = make_run(GradientAccumulation(4), Checkpoint(tmp_path, resume="auto"))
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), run.trainer.interrupt)
    train(run)
    assert run.trainer.updates["default"].rank_state_dict()["done"] == 2
    run = train(make_run(GradientAccumulation(4), Checkpoint(tmp_path, resume="auto")))
    assert_same_end(run, reference, same)


def test_scaled_gradients_of_half_precision(make_run, same, tmp_path) -> None:
    def handlers():
        return MixedPrecision("fp16"), GradientAccumulation(4)

    reference = train(make_run(*handlers()))
    run = make_run(*handlers(), Checkpoint(tmp_path, resume="auto"))
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=8), run.trainer.interrupt)
    train(run)
    assert_same_end(train(make_run(*handlers(), Checkpoint(tmp_path, resume="auto"))), reference, same)


def test_sparse_gradients(make_run, same, tmp_path) -> None:
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 6, sparse=True)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.embedding(x).mean(1))

    generator = torch.Generator().manual_seed(3)
    kind = {
        "model": Words,
        "optimizer": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
        "data": [
            (torch.randint(0, 20, (4, 3), generator=generator), torch.randint(0, 2, (4,), generator=generator))
            for _ in range(5)
        ],
    }
    reference = train(make_run(GradientAccumulation(4), **kind))
    run = make_run(GradientAccumulation(4), Checkpoint(tmp_path, resume="auto"), **kind)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=8), run.trainer.interrupt)
    train(run)
    assert_same_end(
        train(make_run(GradientAccumulation(4), Checkpoint(tmp_path, resume="auto"), **kind)), reference, same
    )


def test_gradients_are_saved_only_while_a_window_is_open(make_run, tmp_path) -> None:
    saving = Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED, keep=None)
    train(make_run(GradientAccumulation(4), saving), 1)
    saved = [read(path).rank_outline(0)["engine"]["updates"] for path in sorted(tmp_path.iterdir())]
    # 5 batches: a window of 4, which closes, and one of 1, which the epoch's end closes.
    assert [updates.get("default", {}).get("done") for updates in saved] == [1, 2, 3, None, None, None]
    assert set(saved[0]["default"]["gradients"]) == {
        *(f"model/{layer}.{kind}" for layer in (0, 1, 3) for kind in ("weight", "bias")),
    }


# -- without a checkpoint ------------------------------------------------------------------------------------------


def two_updates():
    """An engine with two updates, each with a window of its own."""
    torch.manual_seed(0)
    models = {name: nn.Linear(3, 1) for name in ("a", "b")}

    def step(engine, batch):
        for name, update in updates.items():
            with update.forward():
                loss = models[name](batch).square().mean()
            update.backward(loss)

    engine = Engine(step)
    updates = {
        name: Update(engine, model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), name=name)
        for name, model in models.items()
    }
    engine.attach(GradientAccumulation(3, update="a"), GradientAccumulation(4, update="b", tail="carry"))
    return engine, models, updates


def test_the_state_dict_of_an_engine_has_its_open_windows(same) -> None:
    data = list(torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)))
    whole, whole_models, _ = two_updates()
    whole.run(data, max_epochs=4)

    engine, models, updates = two_updates()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=8), engine.interrupt)
    engine.run(data, max_epochs=4)
    state = engine.state_dict()
    others = {name: (m.state_dict(), updates[name].optimizer.state_dict()) for name, m in models.items()}
    others = json_like_copy(others)
    engine.run(data)  # what was saved is a copy

    fresh, models, updates = two_updates()
    fresh.load_state_dict(state)
    for name, (model, optimizer) in others.items():
        models[name].load_state_dict(model)
        updates[name].optimizer.load_state_dict(optimizer)
    assert same(fresh.state_dict(), state)  # also before the run has begun
    fresh.run(data)
    for name, model in models.items():
        assert same(model.state_dict(), whole_models[name].state_dict())


def json_like_copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)((key, json_like_copy(item)) for key, item in value.items())
    return type(value)(map(json_like_copy, value)) if isinstance(value, list | tuple) else value


def test_a_state_between_windows_closes_the_one_that_is_open() -> None:
    data = list(torch.randn(6, 2, 3))
    engine, _, updates = two_updates()
    state = engine.state_dict()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt)
    engine.run(data)
    engine.load_state_dict(state)
    assert updates["a"].rank_state_dict() == {}
    engine.add_event_handler(
        Events.STARTED, lambda: seen.extend(parameter.grad for parameter in updates["a"].trainable())
    )
    seen = []
    engine.run(data)
    assert seen == [None, None]


def test_gradients_of_another_model_are_told(make_run, tmp_path) -> None:
    engine, _, _ = two_updates()
    state = engine.state_dict()
    window = {"done": 1, "size": 3, "divisor": 3, "weight": None, "gradients": {"model/weight": torch.ones(1, 4)}}
    state["own"]["state"]["updates"] = {"a": window}
    engine.load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"the saved window of update 'a' has a gradient of model/weight of shape \(1,"
    ):
        engine.run([torch.ones(1, 3)])


# -- several ranks -------------------------------------------------------------------------------------------------


play = functools.partial(scenarios.play, "window_ranks.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("windows")


@pytest.fixture(scope="module")
def two(base):
    return play(2, base, "whole", "stopped", "resumed")


@pytest.fixture(scope="module")
def shards(base):
    return play(2, base, "sharded_whole", "sharded_stopped", "sharded_resumed", "sharded_averages")


def assert_goes_on(whole, resumed):
    for one, other in zip(whole, resumed, strict=True):
        assert other["losses"] == one["losses"][-len(other["losses"]) :]
        assert 0 < len(other["losses"]) < len(one["losses"])
        assert other["weights"] == one["weights"]


def test_two_ranks_go_on_inside_a_window(two) -> None:
    assert_goes_on(two["whole"], two["resumed"])


@pytest.mark.slow
def test_two_ranks_that_were_killed_inside_a_window_go_on_in_it(two, base) -> None:
    assert scenarios.start("window_ranks.py", 2, base, "killed").returncode != 0
    assert_goes_on(two["whole"], play(2, base, "after_kill")["after_kill"])


def test_each_rank_has_its_own_gradients_again(two) -> None:
    stopped, resumed = two["stopped"], two["resumed"]
    assert [rank["gradients"] for rank in stopped] == [rank["gradients"] for rank in resumed]
    assert stopped[0]["gradients"] != stopped[1]["gradients"]  # not synchronised yet


@pytest.mark.slow
def test_gradients_of_shards(shards) -> None:
    assert_goes_on(shards["sharded_whole"], shards["sharded_resumed"])


@pytest.mark.slow
def test_averages_of_shards_are_read_as_shards(shards) -> None:
    for rank in shards["sharded_averages"]:
        assert rank["same"]
        place = "engine/handlers/EMA/updates/default/averages/model"
        assert rank["spread"] == sorted(f"{place}/{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))


def test_one_rank_takes_over_the_window_of_two(two, base) -> None:
    (alone,) = play(1, base, "taken_over")["taken_over"]
    # The mean over one rank is what the mean over two would have been.
    sums = [sum(values) / 2 for values in zip(*(rank["gradients"] for rank in two["stopped"]), strict=True)]
    assert alone["gradients"] == pytest.approx(sums, rel=1e-6)
    assert alone["done"] == two["stopped"][0]["done"] == 2


@pytest.mark.slow
def test_three_ranks_share_out_the_window_of_two(two, base) -> None:
    ranks = play(3, base, "taken_over")["taken_over"]
    for rank, old in zip(ranks, two["stopped"], strict=False):
        assert rank["gradients"] == pytest.approx([value / 2 * 3 for value in old["gradients"]], rel=1e-6)
    assert ranks[2]["gradients"] == []
    assert {rank["done"] for rank in ranks} == {2}
