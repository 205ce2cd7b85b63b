"""Pictures, tested by their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tfnas.reports.plots import BLUE, ORANGE, PURPLE, pareto_picture

ROWS = [(0.871, 0.36, 92_000), (0.855, 0.22, 48_000), (0.870, 0.31, 90_000)]
GUESSES = (0.1, 1.2, 52_000)


def drawn(*args, **kwargs):
    png = pareto_picture(*args, **kwargs)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


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


def test_the_budget_and_what_it_is_seen_beside():
    plain = drawn(ROWS, [0, 1], 1)
    limits = {"accuracy": 0.86, "latency": 0.3, "bytes": 49_000}
    others = {"original": (0.872, 1.0, 320_000)}
    full = drawn(ROWS, [0, 1], 1, others=others, errors=[0.004] * 3, limits=limits)
    assert not len(places(plain, PURPLE))
    assert len(places(full, PURPLE)) > 20
    rows, columns = np.bincount(places(full, ORANGE)[:, 0]), places(full, ORANGE)[:, 1]
    assert rows.max() > 150  # a line across, dashed
    assert np.bincount(columns).max() > 100  # and one upwards


def test_limits_that_are_far_away_squeeze_nothing():
    near = drawn(ROWS, [0, 1, 2], 0, limits={"accuracy": 0.85})
    for limits in ({"accuracy": 0.1}, {"latency": 9.0}, {"bytes": 2_000_000}):
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
