"""Titles and cells of tables of files, in the words and the decimals of the metric."""

import types

import numpy as np
import pytest

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import file_rows, headers, short_headers, short_rows
from tfnas.tasks.assessment import ACCURACY, Assessment, Metric

ERROR = Metric("error in points", higher_is_better=False, unit="kWh")
FILE = types.SimpleNamespace(size=1234, gzip_size=567)


def test_titles_in_the_words_of_the_metric():
    assert headers()[:4] == ["file", "accuracy", "95% interval", "points to the first [95%]"]
    named = headers("time of the accuracy points", metric=ERROR)
    assert named[:4] == ["file", "error in points", "95% interval", "kWh to the first [95%]"]
    assert named[4:] == ["time of the accuracy points", "bytes", "gzip"]  # as they are
    assert short_headers()[:3] == ["file", "accuracy", "points [95%]"]
    assert short_headers(metric=ERROR)[:3] == ["file", "error in points", "kWh [95%]"]
    assert short_headers(metric=Metric("score"))[2] == "difference [95%]"


@pytest.mark.parametrize(
    ("metric", "cell"),
    [
        (ACCURACY, "-5.00 [-6.00, -4.00]"),
        (Metric("recall", scale=100.0, unit="%"), "-5.00 [-6.00, -4.00]"),
        (Metric("error", unit="points"), "-0.0500 [-0.0600, -0.0400]"),
        (Metric("error", scale=1000.0, unit="mm"), "-50.0 [-60.0, -40.0]"),
    ],
)
def test_differences_have_the_decimals_of_the_metrics_scale(metric, cell):
    assessment = Assessment(metric, np.array([0.25, 0.75]))
    rows = [
        FileRow("first", FILE, assessment),
        FileRow("other", FILE, assessment, (-0.05, -0.06, -0.04)),
    ]
    assert [row[3] for row in file_rows(rows)] == ["", cell]
    assert short_rows(rows)[1] == ["other", "0.5000", cell, "1,234", "567"]
