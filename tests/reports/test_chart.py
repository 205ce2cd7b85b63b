"""What the plot of a page says and where it draws it."""

import dataclasses

import pytest

from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot
from tfnas.reports.chart import chart_of

ROWS = [(0.91, 0.5, 20_480), (0.90, 0.3, 10_240), (0.90, 0.6, 30_720), (0.10, 0.2, 9_000)]
PLOT = ParetoPlot(
    *(ROWS, [0, 1, 3], 1, "Title"),
    over=["latency", "bytes"],
    others={"original": (0.92, 1.0, 40_960)},
    errors=[0.01] * 4,
    limits={"quality": 0.89, "bytes": 15_000},
    names=list("abcd"),
    more={"RAM, KiB": [1.0, 2.0, None, 4.0]},
)


def test_each_file_has_the_shape_of_its_kind():
    chart = chart_of(PLOT)
    kinds = {item.name: item.kind for item in chart.items}
    expected = {"a": "front", "b": "chosen", "c": "dominated", "d": "far", "original": "other"}
    assert kinds == expected
    assert [kind for kind, _ in chart.key] == [*dict.fromkeys(chart_kinds()), "limit"]
    assert len(set(chart.shapes.values())) == len(chart.shapes)


def chart_kinds():
    return ["chosen", "front", "dominated", "far", "other"]


def test_a_file_says_what_was_measured():
    chart = chart_of(PLOT)
    names = [field.name for field in chart.fields]
    assert names == ["accuracy", "latency, ratio", "size, KiB", "RAM, KiB"]
    assert [field.limit for field in chart.fields][:2] == [
        "accuracy at least",
        "latency, ratio at most",
    ]
    assert chart.items[2].texts == ["0.900 ± 0.01", "0.600x", "30.0", ""]
    assert chart.items[2].plain_values == "0.9 0.6 30 nan"


def test_panels_share_the_axis_of_quality():
    first, second = chart_of(PLOT).panels
    heights = [{mark.item: mark.y for mark in panel.marks} for panel in (first, second)]
    assert heights[0] == heights[1]
    assert heights[0][4] < heights[0][0] < heights[0][1] < heights[0][3]  # from the top
    left = {mark.item: mark.x for mark in second.marks}
    assert left[3] < left[1] < left[0] < left[2] < left[4]
    assert first.limit is None
    assert left[1] < second.limit < left[0]
    assert first.marks[-1].item == 1  # the chosen one lies on top


@pytest.mark.parametrize("higher", [True, False])
def test_limits_are_by_the_direction_of_the_metric(higher):
    labels = ParetoLabels("error", higher_is_better=higher)
    chart = chart_of(dataclasses.replace(PLOT, labels=labels))
    assert chart.fields[0].limit == f"error at {'least' if higher else 'most'}"


def test_a_plot_must_have_an_axis():
    for over in ("latency", [], ["bytes", "speed"]):
        with pytest.raises(ValueError, match='over must be a list of "latency" and "bytes", got'):
            ParetoPlot(ROWS, [], over=over)
