"""Whether two files compute the same, example by example."""

import numpy as np
import pytest

from tfnas.tflite.gpu_forms.equal_outputs import _difference

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[4.0, 2.0]], [[4.0, 3.0]], 0.25),
        ([[1.0, 0.0], [1e6, 0.0]], [[1.5, 0.0], [1e6, 0.0]], 0.5),  # hidden by no large example
        ([[0.0], [1.0]], [[0.5], [1.0]], 0.5),  # nothing to be a fraction of
        ([[1.0, INF], [NAN, NAN]], [[1.0, INF], [NAN, NAN]], 0.0),
        ([[1.0, INF]], [[1.0, -INF]], INF),
        ([[1.0, INF]], [[1.0, NAN]], INF),
        ([[1.0, 2.0]], [[1.0, NAN]], INF),
        ([[NAN], [INF]], [[NAN], [INF]], INF),  # nothing was compared
        ([[1.0]], [[1.0, 1.0]], INF),
    ],
)
def test_each_example_is_compared_by_itself(one, other, expected):
    assert _difference(np.array(one), np.array(other)) == expected
