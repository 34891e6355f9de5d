"""Shapes: what value stands at which count."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from leyden.handlers.training import (
    Concatenate,
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    Linear,
    Piecewise,
    Polynomial,
    Shape,
)

values = st.floats(-100, 100).map(lambda value: round(value, 6))
durations = st.integers(1, 200)
ramps = st.one_of(
    st.builds(Linear, values, values, durations),
    st.builds(Cosine, values, values, durations),
    st.builds(Polynomial, values, values, durations, st.floats(0.25, 4)),
    st.builds(Exponential, st.floats(1e-6, 100), st.floats(1e-6, 100), durations),
)
pieces = st.one_of(ramps, st.builds(Constant, values, durations))


# -- rules that hold for all of them -----------------------------------------------------------------------------------


@given(ramps)
def test_a_ramp_is_exactly_at_its_ends_and_stays_there(shape):
    assert shape(0) == shape.start
    assert shape(shape.duration) == shape(shape.duration + 1) == shape(10**9) == shape.end


@given(ramps, st.integers(0, 300))
def test_a_ramp_stays_between_its_ends(shape, count):
    low, high = sorted([shape.start, shape.end])
    rounding = 1e-12 * max(1.0, abs(low), abs(high))
    assert low - rounding <= shape(count) <= high + rounding


@given(ramps)
def test_a_ramp_goes_one_way(shape):
    line = [value for _, value in shape.simulate()]
    rises = shape.end >= shape.start
    rounding = 1e-12 * max(1.0, abs(shape.start), abs(shape.end))
    steps = [after - before for before, after in pairwise(line)]
    assert all(step >= -rounding if rises else step <= rounding for step in steps)


@given(st.lists(pieces, min_size=1, max_size=5), st.integers(0, 1200))
def test_a_concatenation_is_its_pieces(shapes, count):
    whole = Concatenate(shapes)
    assert whole.duration == sum(shape.duration for shape in shapes)
    start = 0
    for shape in shapes[:-1]:
        if count < start + shape.duration:
            break
        start += shape.duration
    else:
        shape = shapes[-1]
    assert whole(count) == shape(count - start)


@given(pieces, pieces, pieces, st.integers(0, 700))
def test_adding_needs_no_brackets(a, b, c, count):
    assert (a + b + c)(count) == (a + (b + c))(count) == Concatenate([a, b, c])(count)
    assert a + b + c == Concatenate([a, b, c])


@given(ramps, st.integers(0, 2000))
def test_a_cycle_repeats_its_shape(shape, count):
    assert Cyclic(shape)(count) == shape(count % shape.duration)


@given(ramps, st.integers(2, 3), st.integers(1, 4))
@settings(max_examples=30)
def test_stretched_cycles_take_as_long_as_said(shape, stretch, times):
    cyclic = Cyclic(shape, times, stretch=stretch)
    start = 0
    for cycle in range(times):
        factor = stretch**cycle
        for count in (0, shape.duration // 2, shape.duration - 1):
            assert cyclic(start + count * factor) == shape(count)
        start += shape.duration * factor
    assert cyclic.duration == start
    assert cyclic(start) == cyclic(start + 7) == shape.end


@given(pieces, durations, values, st.integers(0, 500))
def test_a_warm_up_leads_to_the_first_value(shape, counts, start, count):
    warm = shape.with_warmup(counts, start)
    assert warm(0) == start
    assert warm(counts + count) == shape(count)
    assert warm(count) == (Linear(start, shape(0), counts)(count) if count < counts else shape(count - counts))


@given(st.dictionaries(st.integers(0, 100), values, min_size=1, max_size=6), st.integers(-5, 120))
def test_pieces_go_through_their_points(points, count):
    points = dict(sorted(points.items()))
    lines, steps = Piecewise(points), Piecewise(points, interpolate=False)
    for at, value in points.items():
        assert lines(at) == steps(at) == value
    assert min(points.values()) - 1e-9 <= lines(count) <= max(points.values()) + 1e-9
    begun = [value for at, value in points.items() if at <= count]
    assert steps(count) == (begun[-1] if begun else next(iter(points.values())))
    assert lines.duration == max(points)


@given(pieces)
def test_a_value_hangs_on_the_count_alone(shape):
    forward = [shape(count) for count in range(50)]
    assert [shape(count) for count in reversed(range(50))] == forward[::-1]


# -- beside torch's ----------------------------------------------------------------------------------------------------

BASE = 0.1
LIKE_TORCH = {
    "LinearLR": (Linear(0.25 * BASE, 0.75 * BASE, 20), lambda o: lr_scheduler.LinearLR(o, 0.25, 0.75, 20)),
    "CosineAnnealingLR": (Cosine(BASE, 0.01, 40), lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.01)),
    "ExponentialLR": (Exponential(BASE, BASE * 0.9**40, 40), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "PolynomialLR": (Polynomial(BASE, 0, 40, 2), lambda o: lr_scheduler.PolynomialLR(o, 40, 2)),
    "ConstantLR": (
        Constant(BASE / 2, 10) + Constant(BASE),
        lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=10),
    ),
    "MultiStepLR": (
        Piecewise({0: BASE, 7: BASE / 10, 30: BASE / 100}, interpolate=False),
        lambda o: lr_scheduler.MultiStepLR(o, [7, 30]),
    ),
    "CosineAnnealingWarmRestarts": (
        Cyclic(Cosine(BASE, 0.01, 5), stretch=2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
    ),
    "CyclicLR": (
        Cyclic(Linear(0.01, BASE, 6) + Linear(BASE, 0.01, 4)),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, BASE, 6, 4),
    ),
    "CyclicLR triangular2": (
        Cyclic(Linear(0.01, BASE, 6) + Linear(BASE, 0.01, 4), damp=0.5),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, BASE, 6, 4, mode="triangular2"),
    ),
    "SequentialLR": (
        Cosine(BASE, 0.0, 32).with_warmup(8, BASE / 3),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 1 / 3, total_iters=8), lr_scheduler.CosineAnnealingLR(o, 32)], [8]
        ),
    ),
    "OneCycleLR": (
        Cosine(BASE / 25, BASE, 11) + Cosine(BASE, BASE / 25e4, 28),
        lambda o: lr_scheduler.OneCycleLR(o, BASE, total_steps=40),
    ),
}


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_it_is_the_scheduler_of_torch(name):
    shape, make = LIKE_TORCH[name]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE, momentum=0.9)
    scheduler = make(optimizer)
    for count in range(40):
        assert shape(count) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_cycles_there_and_back():
    """Of five counts too, whose half is no whole number."""
    cosine = Cyclic(Cosine(1.0, 0.0, 2.5) + Cosine(0.0, 1.0, 2.5))
    expected = [1 - 0.5 * (1 - math.cos(2 * math.pi * count / 5)) for count in range(5)]
    assert [cosine(count) for count in range(10)] == pytest.approx(expected * 2, abs=1e-12)
    linear = Cyclic(Linear(1.0, 0.0, 2.5) + Linear(0.0, 1.0, 2.5))
    expected = [abs(count / 5 - 0.5) * 2 for count in range(5)]
    assert [linear(count) for count in range(10)] == pytest.approx(expected * 2, abs=1e-12)


# -- what they look like -----------------------------------------------------------------------------------------------


def test_a_simulation_goes_to_the_end():
    assert Linear(0, 4, 4).simulate() == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert Linear(0, 4, 4).simulate(2) == [(0, 0), (1, 1)]
    assert Linear(0, 5, 2.5).simulate()[-1] == (3, 5)


def test_a_simulation_without_end():
    with pytest.raises(ValueError, match="Cyclic has no end; say for how many counts"):
        Cyclic(Linear(0, 1, 2)).simulate()
    assert len(Constant(1).simulate(3)) == 3


def test_a_plot_shows_the_simulation():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    shape = Linear(0, 4, 4) + Constant(1, 3)
    axes = shape.plot()
    (line,) = axes.get_lines()
    assert list(zip(*line.get_data(), strict=True)) == shape.simulate()
    assert shape.plot(2, axes) is axes
    assert len(axes.get_lines()) == 2
    pyplot.close(axes.figure)


def test_a_plot_without_matplotlib(monkeypatch):
    monkeypatch.setattr("leyden.handlers.common.packages.find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "leyden\[plot\]"'):
        Linear(0, 1, 2).plot()


def test_matplotlib_is_imported_by_a_plot_alone():
    code = "import sys, leyden.handlers.training.shapes; print('matplotlib' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


def test_equal_shapes_are_equal_and_show_what_they_are():
    assert Linear(0, 1, 2) + Constant(1) == Linear(0, 1, 2) + Constant(1)
    assert repr(Cyclic(Linear(0, 1, 2), stretch=2)) == (
        "Cyclic(shape=Linear(start=0, end=1, duration=2), times=None, stretch=2, damp=1.0)"
    )


def test_a_shape_of_ones_own():
    class Root(Shape):
        duration = math.inf

        def __call__(self, count):
            return math.sqrt(count)

    assert [(Constant(7, 2) + Root())(count) for count in (0, 1, 2, 6)] == [7, 7, 0, 2]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Linear("0", 1, 2), TypeError, "Linear takes numbers, but its start is '0'"),
        (lambda: Cosine(0, float("nan"), 2), ValueError, "Cosine takes finite numbers, but its end is nan"),
        (lambda: Linear(0, 1, 0), ValueError, "Linear needs a duration above 0 counts, but got 0"),
        (lambda: Linear(0, 1, math.inf), ValueError, "Linear needs a duration here, but got a shape without end"),
        (lambda: Constant(True), TypeError, "Constant takes numbers, but its value is True"),
        (lambda: Exponential(0, 1, 5), ValueError, "Exponential multiplies by a factor, and none leads from 0 to 1"),
        (lambda: Exponential(-1, 1, 5), ValueError, "give two ends of the same sign"),
        (lambda: Polynomial(0, 1, 5, 0), ValueError, "Polynomial needs a power above 0, but got 0"),
        (lambda: Piecewise({}), ValueError, "Piecewise needs points at growing counts, but got {}"),
        (lambda: Piecewise([(3, 1), (3, 2)]), ValueError, "Piecewise needs points at growing counts"),
        (lambda: Piecewise({0: "a"}), TypeError, "Piecewise takes numbers, but its value is 'a'"),
        (lambda: Constant(1) + Linear(0, 1, 2), ValueError, "Concatenate needs a duration here, but got a shape with"),
        (lambda: Concatenate([]), TypeError, r"Concatenate takes shapes \(Linear, Cosine, ...\), but got \[\]"),
        (lambda: Concatenate([Constant(1)] * 2, [1, 2]), ValueError, "a duration for each shape but the last"),
        (lambda: Linear(0, 1, 2) + 3, TypeError, "unsupported operand"),
        (lambda: Constant(1, 2) + Constant(1, 2) + 3, TypeError, "unsupported operand"),
        (lambda: Cyclic(3), TypeError, "Cyclic repeats a shape"),
        (lambda: Cyclic(Constant(3)), ValueError, "Cyclic needs a duration here, but got a shape without end"),
        (lambda: Cyclic(Linear(0, 1, 2), 0), ValueError, "times and stretch of 1 or more, but got 0 and 1"),
        (lambda: Cyclic(Linear(0, 1, 2), stretch=0.5), ValueError, "times and stretch of 1 or more"),
    ],
)
def test_what_makes_no_shape(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_durations_cut_a_shape_short():
    shape = Concatenate([Cyclic(Linear(0, 2, 2)), Constant(9)], durations=[5])
    assert [shape(count) for count in range(7)] == [0, 1, 0, 1, 0, 9, 9]
