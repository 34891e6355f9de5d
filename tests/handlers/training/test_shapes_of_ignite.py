"""The shapes beside the values of Ignite's schedulers: a table of them, and Ignite itself where it is installed."""

import pytest

from leyden.handlers.training import Concatenate, Cosine, Cyclic, Linear, Piecewise

TABLE = {
    "CosineAnnealingScheduler": (
        {"start_value": 1.0, "end_value": 0.0, "cycle_size": 6},
        Cyclic(Cosine(1.0, 0.0, 6)),
        [1, 0.9330127019, 0.75, 0.5, 0.25, 0.0669872981, 1, 0.9330127019, 0.75, 0.5, 0.25, 0.0669872981, 1],
    ),
    "CosineAnnealingScheduler, upwards and odd": (
        {"start_value": 0.2, "end_value": 1.0, "cycle_size": 5},
        Cyclic(Cosine(0.2, 1.0, 5)),
        [0.2, 0.2763932023, 0.4763932023, 0.7236067977, 0.9236067977] * 2 + [0.2, 0.2763932023, 0.4763932023],
    ),
    "CosineAnnealingScheduler, cycle_mult=2": (
        {"start_value": 1.0, "end_value": 0.0, "cycle_size": 4, "cycle_mult": 2.0},
        Cyclic(Cosine(1.0, 0.0, 4), stretch=2),
        [
            *(1, 0.8535533906, 0.5, 0.1464466094, 1, 0.9619397663, 0.8535533906, 0.6913417162, 0.5, 0.3086582838),
            *(0.1464466094, 0.0380602337, 1),
        ],
    ),
    "LinearCyclicalScheduler": (
        {"start_value": 1.0, "end_value": 0.0, "cycle_size": 6},
        Cyclic(Linear(1.0, 0.0, 3) + Linear(0.0, 1.0, 3)),
        [1, 0.6666666667, 0.3333333333, 0, 0.3333333333, 0.6666666667] * 2 + [1],
    ),
    "LinearCyclicalScheduler, monotonic": (
        {"start_value": 1.0, "end_value": 0.0, "cycle_size": 6, "monotonic": True},
        Cyclic(Linear(1.0, 0.0, 6)),
        [1, 0.8333333333, 0.6666666667, 0.5, 0.3333333333, 0.1666666667] * 2 + [1],
    ),
    "PiecewiseLinear": (
        {"milestones_values": [(2, 1.0), (5, 0.1), (9, 0.5)]},
        Piecewise({2: 1.0, 5: 0.1, 9: 0.5}),
        [1, 1, 1, 0.7, 0.4, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_shape_has_the_values_of_ignites_scheduler(name):
    _, shape, values = TABLE[name]
    assert [shape(count) for count in range(len(values))] == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_what_ignite_says(name):
    schedulers = pytest.importorskip("ignite.handlers.param_scheduler")
    arguments, _, values = TABLE[name]
    kind = getattr(schedulers, name.partition(",")[0])
    told = kind.simulate_values(num_events=len(values), param_name="lr", **arguments)
    assert [value for _, value in told] == pytest.approx(values, abs=1e-9)


def test_concatenated_as_ignite_concatenates():
    shape = Concatenate([Cyclic(Linear(1.0, 0.5, 3)), Cyclic(Cosine(0.5, 0.0, 4))], durations=[3])
    values = [shape(count) for count in range(8)]
    assert values == pytest.approx(
        [1, 0.8333333333, 0.6666666667, 0.5, 0.4267766953, 0.25, 0.0732233047, 0.5], abs=1e-9
    )
    handlers = pytest.importorskip("ignite.handlers.param_scheduler")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    parts = [
        handlers.LinearCyclicalScheduler(optimizer, "lr", 1.0, 0.5, 3, monotonic=True),
        handlers.CosineAnnealingScheduler(optimizer, "lr", 0.5, 0.0, 4),
    ]
    theirs = handlers.ConcatScheduler(parts, durations=[3])
    told = []
    for _ in range(8):
        theirs(None)
        told.append(optimizer.param_groups[0]["lr"])
    assert told == pytest.approx(values, abs=1e-9)
