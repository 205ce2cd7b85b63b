import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.measure.measurement import (
    Latency,
    Measurement,
    Score,
    dominates,
    hypervolume,
    pareto_front,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
scores = st.builds(Score, st.text(), numbers, numbers, numbers, counts)
latencies = st.builds(
    Latency,
    *[numbers] * 7,
    reference=st.text(),
    rounds=counts,
    threads=counts,
    xnnpack=st.booleans(),
)
measurements = st.builds(
    Measurement,
    size_bytes=counts,
    gzip_bytes=st.none() | counts,
    sha256=st.none() | st.text(),
    mode=st.none() | st.text(),
    score=st.none() | scores,
    latency=st.none() | latencies,
    parameters=st.none() | counts,
    macs=st.none() | counts,
    peak_activation_bytes=st.none() | counts,
    architecture=st.none() | st.text(),
    provenance=st.dictionaries(st.text(), st.text() | counts | st.lists(counts)),
)
LATENCY = Latency(2.0, 1.5, 3.0, 0.25, 0.24, 0.26, 8.0, "ab", 50, 1, True)


@settings(max_examples=10)  # each draws some seventy values
@given(measurements)
def test_json_round_trip(measurement):
    assert Measurement.from_json(measurement.to_json()) == measurement
    assert Measurement.from_dict(measurement.to_dict()) == measurement
    assert json.loads(measurement.to_json(indent=1)) == measurement.to_dict()


def test_json_text_round_trip():
    fields = {
        "size_bytes": 7,
        "score": dataclasses.asdict(Score("accuracy", 0.5, 0.4, 0.6, 100)),
        "latency": dataclasses.asdict(LATENCY),
        "provenance": {"cpu": "x"},
    }
    measurement = Measurement.from_json(json.dumps(fields))
    assert measurement.score == Score("accuracy", 0.5, 0.4, 0.6, 100)
    assert measurement.latency == LATENCY
    written = json.loads(measurement.to_json())
    assert {name: written[name] for name in fields} == fields
    assert {name for name, value in written.items() if value is not None} == set(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size_bytes": 1, "speed": 2, "age": 3}, "unknown key in Measurement: age, speed"),
        ({}, "missing key in Measurement: size_bytes"),
        ({"size_bytes": 1, "score": {"n": 1}}, "unknown key in Score: n"),
        (
            {"size_bytes": 1, "score": {"name": "accuracy", "value": 1.0}},
            "missing key in Score: low, high, examples",
        ),
        ({"size_bytes": 1, "latency": {"ms": 1}}, "unknown key in Latency: ms"),
        ({"size_bytes": 1, "latency": 3}, "Latency must be a JSON object, got 3"),
    ],
)
def test_wrong_keys_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Measurement.from_json(json.dumps(fields))


def test_text_that_is_no_json_object_is_refused():
    with pytest.raises(ValueError, match="measurement is not valid JSON"):
        Measurement.from_json("")
    with pytest.raises(ValueError, match="measurement must be a JSON object, got int"):
        Measurement.from_json("1")


def test_records_as_text():
    assert str(LATENCY) == "2 ms, 0.250x reference [0.240, 0.260]"
    assert str(Score("f1", 0.12344, 0, 1, 3)) == "f1 0.1234 [0.0000, 1.0000] n=3"


@st.composite
def ranked(draw, dimensions, high=4):
    directions = draw(st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=dimensions))
    row = st.tuples(*[st.integers(0, high)] * len(directions))
    return draw(st.lists(row, max_size=9)), directions


def better_or_equal(a, b, direction):
    return a >= b if direction == "max" else a <= b


def brute_dominates(a, b, directions):
    pairs = list(zip(a, b, directions, strict=True))
    return all(better_or_equal(*p) for p in pairs) and any(
        not better_or_equal(y, x, d) for x, y, d in pairs
    )


@settings(deadline=None)
@given(ranked(4))
def test_dominates_and_pareto_front_against_brute_force(case):
    rows, directions = case
    for a, b in itertools.product(rows, repeat=2):
        assert dominates(a, b, directions) == brute_dominates(a, b, directions)
    expected = [
        i
        for i, row in enumerate(rows)
        if not any(brute_dominates(other, row, directions) for other in rows)
    ]
    assert pareto_front(rows, directions) == expected


def brute_hypervolume(rows, reference, directions):
    """Counts the unit cells between the reference and any row; all values are whole."""
    signs = [-1 if direction == "max" else 1 for direction in directions]
    losses = [[s * v for s, v in zip(signs, row, strict=True)] for row in rows]
    corner = [s * v for s, v in zip(signs, reference, strict=True)]
    lows = [min([row[k] for row in losses], default=corner[k]) for k in range(len(corner))]
    cells = itertools.product(*[range(a, b) for a, b in zip(lows, corner, strict=True)])
    return sum(
        any(all(v <= c for v, c in zip(row, cell, strict=True)) for row in losses) for cell in cells
    )


@settings(deadline=None, max_examples=300)
@given(ranked(3, high=6), st.data())
def test_hypervolume_against_counted_cells(case, data):
    rows, directions = case
    reference = data.draw(st.tuples(*[st.integers(0, 6)] * len(directions)))
    volume = hypervolume(rows, reference, directions)
    assert volume == brute_hypervolume(rows, reference, directions)
    front = [rows[i] for i in pareto_front(rows, directions)]
    assert hypervolume(front, reference, directions) == volume


def test_hypervolume_known_values():
    assert hypervolume([[1, 1, 1], [0, 2, 2]], [3, 3, 3], ["min"] * 3) == 8 + 3 - 2
    assert hypervolume([[0.5, 10.0]], [0.0, 20.0], ["max", "min"]) == 5.0
    assert hypervolume([[3, 0]], [3, 3], ["min", "min"]) == 0.0
    assert hypervolume([], [3, 3], ["min", "min"]) == 0.0


def sliced_volume(points, corner):
    """Slices by the last objective, as in While et al. (2012)."""
    if not points:
        return 0.0
    if len(corner) == 1:
        return corner[0] - min(point[0] for point in points)
    points = sorted(points, key=lambda point: point[-1])
    edges = [point[-1] for point in points[1:]] + [corner[-1]]
    return sum(
        (edge - point[-1]) * sliced_volume([p[:-1] for p in points[: i + 1]], corner[:-1])
        for i, (point, edge) in enumerate(zip(points, edges, strict=True))
        if edge > point[-1]
    )


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_hypervolume_of_many_rows(objectives):
    rows = np.random.default_rng(objectives).integers(0, 12, (20, objectives)).tolist()
    volume = hypervolume(rows, [12] * objectives, ["min"] * objectives)
    assert volume == sliced_volume(rows, [12] * objectives)


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ([-math.inf, 0.0, 0.0], [1.0, 1.0, 1.0]),
        ([0.0, 0.0, 0.0], [1.0, math.inf, 1.0]),
        ([-1e160, -1e160, 0.0], [1e160, 1e160, 1.0]),
    ],
)
def test_hypervolume_without_a_limit(row, reference):
    assert hypervolume([row, [0.5, 0.5, 0.5]], reference, ["min"] * 3) == math.inf
    assert hypervolume([[math.inf, 0.0, 0.0]], reference, ["min"] * 3) == 0.0


def test_equal_rows_all_stay():
    assert pareto_front([[1, 1], [0, 0], [1, 1]], ["max", "max"]) == [0, 2]
    assert pareto_front([], ["max"]) == []
    assert not dominates([1, 1], [1, 1], ["max", "min"])


@pytest.mark.parametrize("bad", [float("nan"), pytest.param(None, id="short"), "direction"])
@pytest.mark.parametrize("call", ["dominates", "pareto_front", "hypervolume", "reference"])
def test_rows_that_cannot_be_compared_are_refused(call, bad):
    row, directions = [1.0, 2.0], ["max", "min"]
    if bad == "direction":
        directions, message = ["max", "lower"], "directions must be 'max' or 'min', got 'lower'"
    elif bad is None:
        row, message = [1.0], r"must hold 2 values, one per direction, got \[1.0\]"
    else:
        row, message = [1.0, bad], r"must hold no NaN, got \[1.0, nan\]"
    good = [0.0, 0.0]
    calls = {
        "dominates": lambda: dominates(good, row, directions),
        "pareto_front": lambda: pareto_front([good, row], directions),
        "hypervolume": lambda: hypervolume([row], good, directions),
        "reference": lambda: hypervolume([good], row, directions),
    }
    with pytest.raises(ValueError, match=message):
        calls[call]()
