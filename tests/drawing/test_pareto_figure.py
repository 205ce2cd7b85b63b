"""Plots of files, tested by their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tfnas.drawing.figures import BLUE, ORANGE, PURPLE, png
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot, far_worse, near

ROWS = [(0.871, 0.36, 92_000), (0.855, 0.22, 48_000), (0.870, 0.31, 90_000)]
GUESSES = (0.1, 1.2, 52_000)


def drawn(*args, **kwargs):
    picture = png(pareto_figure(ParetoPlot(*args, **kwargs)))
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def places(pixels, color, above=0.7):
    """(y, x) of the pixels of a color, mixed with the paper at most."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    mixed = 255 + above * (rgb - 255)
    low, high = np.minimum(rgb, mixed) - 8, np.maximum(rgb, mixed) + 8
    return np.argwhere(((pixels >= low) & (pixels <= high)).all(axis=-1))


def height(pixels):
    """How far apart the front's points lie, as a fraction of the picture."""
    y = places(pixels, BLUE)[:, 0]
    return (y.max() - y.min()) / len(pixels)


def test_a_file_that_guesses_does_not_squeeze_the_others():
    alone = drawn(ROWS, [0, 1, 2], 0)
    beside = drawn([*ROWS, GUESSES], [0, 1, 2], 0)
    assert height(beside) > 0.6 * height(alone)


ERROR = ParetoLabels("error", higher_is_better=False)
ERRORS = [1.0, 1.02, 0.98, 1.01, 0.2]


def test_far_worse_is_by_the_direction_of_the_metric():
    assert far_worse(ERRORS, [], None, ParetoLabels()) == [4]
    assert far_worse(ERRORS, [], None, ERROR) == []  # 0.2 is the best
    errors = [1.0, 1.02, 0.98, 1.01, 9.0]
    assert far_worse(errors, [0.9], None, ERROR) == [4]
    assert far_worse(errors, [0.9], 4, ERROR) == []  # the chosen one has its own mark
    assert far_worse(errors, [], None, ParetoLabels()) == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_is_far_does_not_depend_on_the_unit(scale):
    errors = [value * scale for value in (1.0, 1.001, 0.999, 1.3)]
    assert far_worse(errors, [], None, ERROR) == [3]


@pytest.mark.parametrize(("labels", "sign"), [(ParetoLabels(), 1), (ERROR, -1)])
def test_a_file_that_is_far_worse_is_marked_at_the_worse_edge(labels, sign):
    rows = [(0.5 + sign * (value - 0.5), *rest) for value, *rest in [*ROWS, GUESSES]]
    pixels = drawn(rows, [0, 1, 2, 3], 0, labels=labels)
    blue = places(pixels[: int(0.8 * len(pixels))], BLUE)  # without the legend
    slow = blue[:, 1] > 0.7 * pixels.shape[1]
    others, far = blue[~slow, 0], blue[slow, 0]
    assert min(len(others), len(far)) > 20
    assert sign * far.mean() > (sign * others).max()  # pixels are counted downwards


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_values_of_any_size_fill_the_picture(scale):
    rows = [(value * scale, *rest) for value, *rest in ROWS]
    assert height(drawn(rows, [0, 1, 2], 0)) > 0.8 * height(drawn(ROWS, [0, 1, 2], 0))


def test_the_limit_of_an_error_is_above_it():
    rows = [(1 - value, *rest) for value, *rest in ROWS]
    pixels = drawn(rows, [0, 1, 2], 1, labels=ERROR, limits={"quality": 0.15})
    lines = np.bincount(places(pixels, ORANGE)[:, 0])
    assert lines.max() > 150  # dashed
    assert lines.argmax() < places(pixels, BLUE)[:, 0].min()


def test_values_below_zero_are_drawn():
    rows = [(value - 0.86, *rest) for value, *rest in ROWS]
    assert drawn(rows, [0, 1, 2], 0, limits={"quality": -0.01}).size
    assert near(-0.01, [row[0] for row in rows])
    assert not near(-9.0, [0.1, 0.9])


def test_the_axis_says_which_direction_is_better():
    assert ParetoLabels().upward == "accuracy of the file, validation part"
    assert ERROR.upward == "error of the file, validation part (lower is better)"


def test_the_budget_and_what_it_is_seen_beside():
    plain = drawn(ROWS, [0, 1], 1)
    limits = {"quality": 0.86, "latency": 0.3, "bytes": 49_000}
    others = {"original": (0.872, 1.0, 320_000)}
    full = drawn(ROWS, [0, 1], 1, others=others, errors=[0.004] * 3, limits=limits)
    assert not len(places(plain, PURPLE))
    assert len(places(full, PURPLE)) > 20
    rows, columns = np.bincount(places(full, ORANGE)[:, 0]), places(full, ORANGE)[:, 1]
    assert rows.max() > 150  # a line across, dashed
    assert np.bincount(columns).max() > 100  # and one upwards


def test_limits_that_are_far_away_squeeze_nothing():
    near = drawn(ROWS, [0, 1, 2], 0, limits={"quality": 0.85})
    for limits in ({"quality": 0.1}, {"latency": 9.0}, {"bytes": 2_000_000}):
        far = drawn(ROWS, [0, 1, 2], 0, limits=limits, over=("latency", "bytes"))
        assert height(far) > 0.8 * height(near)
        assert np.ptp(places(far, BLUE)[:, 1]) > 0.5 * far.shape[1]


def test_panels_side_by_side():
    one, two = drawn(ROWS, [0]), drawn(ROWS, [0], over=("latency", "bytes"))
    assert one.shape[0] == two.shape[0]
    assert two.shape[1] > 1.3 * one.shape[1]
    halves = np.array_split(two, 2, axis=1)
    assert all(len(places(half, BLUE)) > 20 for half in halves)


@pytest.mark.parametrize("rows", [[], ROWS[:1], [GUESSES] * 3])
def test_few_files(rows):
    assert drawn(rows, list(range(len(rows)))).size
