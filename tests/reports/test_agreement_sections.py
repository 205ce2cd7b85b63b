"""What a report says of how outputs changed."""

import types

import numpy as np

from tfnas.data.examples import ArrayParts, Examples
from tfnas.measure.agreement import PLAIN, Agreement, MetricPair
from tfnas.measure.output_agreement import OutputAgreement, OutputChange
from tfnas.reports.agreement_sections import agreement_sections, group_sections
from tfnas.reports.content import Paragraph, Table, Warnings, Words
from tfnas.tasks.assessment import ACCURACY, Assessment
from tfnas.tasks.judged_parts import evaluation_of, members_of

WORDS = Words("hours", "mse", "differences")


def result(agreement):
    best = types.SimpleNamespace(file=types.SimpleNamespace(predict=lambda x: np.eye(3)[[1, 2]]))
    return types.SimpleNamespace(agreement=agreement, best=best)


def parts(x, y):
    return ArrayParts("own", *[Examples(x, y)] * 3)


def test_outputs_that_are_numbers():
    outputs = (
        OutputChange("load", 2.0, 0.1, 0.05, 1.25, 0.02),
        OutputChange("wind", 1.0, 0.3, 0.3, 2.5, 0.4),
    )
    found = OutputAgreement(
        200, 0.1, (0.4, 0.33, 0.47), outputs, np.array([7, 3]), np.array([1.5, 0.75])
    )
    data = parts(np.zeros((8, 2)), np.zeros(8))
    [section] = agreement_sections(result(found), data, WORDS)
    assert section.title == "Is it still the same model?"
    first, warned, table, last = section.blocks
    assert isinstance(first, Paragraph)
    assert "Of 200 hours 40.0% [33.0, 47.0] change their answer by more than 10%" in first.text
    assert isinstance(warned, Warnings)
    assert warned.lines == found.warnings()
    assert len(warned.lines) == 2
    assert isinstance(table, Table)
    assert table.rows[1] == ["wind", "1", "0.3", "30.00", "2.5", "40.0"]
    assert "7 (1.50), 3 (0.75)" in last.text


def test_no_agreement_is_no_section():
    assert agreement_sections(result(None), parts(np.zeros((8, 2)), np.zeros(8)), WORDS) == []


def test_classes_of_series_show_no_pictures_and_those_of_images_do():
    same = MetricPair(0.9, 0.9, (0.0, -0.1, 0.1))
    found = Agreement(
        *(8, (0.25, 0.1, 0.4), 2, 0, {PLAIN: same}, {"0": same}, (0.1, 0.1)), np.array([4, 7])
    )
    y = np.arange(8) % 3
    assert len(agreement_sections(result(found), parts(np.zeros((8, 12)), y), WORDS)) == 1
    images = np.zeros((8, 4, 4, 1), np.float32)
    for labels in (y, np.eye(3)[y]):
        _, wrong = agreement_sections(result(found), parts(images, labels), WORDS)
        assert [each.caption for each in wrong.blocks[0].pictures] == ["1, now 1", "1, now 2"]


def test_quality_by_group():
    right = np.arange(200) % 10 > 0
    now = right & (np.arange(200) % 2 > 0)
    members = members_of(np.array(["even", "odd"])[np.arange(200) % 2])
    found = evaluation_of([Assessment(ACCURACY, now), Assessment(ACCURACY, right)], members)
    [section] = group_sections(found, Words("recordings"))
    assert section.title == "Accuracy by group, on the final recordings"
    text, warned, table = section.blocks
    assert text.text == (
        "The worst group is even; the best and the worst are 100.00 points apart. even changes "
        "worst, by -80.00 points."
    )
    assert warned.lines == ["even loses 80.00 points of accuracy, more than overall"]
    assert table.headers == ["group", "recordings", "original", "best", "points [95%]"]
    assert table.rows[0][:4] == ["even", "100", "0.8000", "0.0000"]
    assert table.rows[1][:4] == ["odd", "100", "1.0000", "1.0000"]
    assert group_sections(None, Words()) == []
