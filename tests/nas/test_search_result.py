"""What the result of a search prints, without what it has nothing to say of."""

import dataclasses

import pytest
import recorded_results

from tfnas.nas.search_result import SearchResult


@pytest.fixture
def result(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        recorded_results.search_report, "write", lambda result, *rest: found.append(result)
    )
    recorded_results.write_report("search", tmp_path, "layer")
    [result] = found
    assert isinstance(result, SearchResult)
    return result


def test_a_result_without_a_baseline_has_no_empty_paragraph(result):
    alone = dataclasses.replace(result, rows=result.rows[:1], randoms=[])
    assert "against " in str(result)
    assert "against " not in str(alone)
    for each in (result, alone):
        assert "\n\n\n" not in str(each)
        assert "<p></p>" not in each._repr_html_()
