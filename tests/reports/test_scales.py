"""Places along an axis and its round numbers."""

import pytest

from tfnas.reports.scales import AxisScale, around, number


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.91, 0.962, ["0.92", "0.94", "0.96"]),
        (-0.03, 0.02, ["-0.03", "-0.02", "-0.01", "0", "0.01", "0.02"]),
        (12000, 61000, ["20000", "30000", "40000", "50000", "60000"]),
    ],
)
def test_round_numbers_along_an_axis(low, high, texts):
    assert [text for _, text in AxisScale(low, high, 0.0, 1.0).ticks()] == texts


def test_equal_ratios_are_equally_far_apart():
    scale = around([0.1, 10.0], 0.0, 100.0, logarithmic=True)
    one, two, four = (scale.place(value) for value in (1.0, 2.0, 4.0))
    assert two - one == pytest.approx(four - two, abs=0.2)
    assert [text for _, text in scale.ticks()] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [-3.0, -3.0], [1e-9, 2e-9], [1e9, 1e9]])
def test_any_values_are_on_the_axis(values):
    scale = around(values, 0.0, 100.0)
    assert scale.low < scale.high
    assert all(0 <= scale.place(value) <= 100 for value in values)
    assert len(scale.ticks()) >= 1


def test_an_upward_axis_is_counted_from_the_top():
    scale = AxisScale(0.0, 1.0, 200.0, 0.0)
    assert (scale.place(0.0), scale.place(1.0)) == (200.0, 0.0)


def test_numbers_say_enough():
    assert [number(v) for v in (0.5, 12.0, 1234.5, float("inf"))] == ["0.500", "12.0", "1,234", ""]
