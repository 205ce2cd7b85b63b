"""Files of JSON lines: what a kill cut short is dropped, the rest stays."""

from tfnas.runtime.json_lines import append_json_line, read_json_lines


def test_lines_are_read_as_they_were_added(tmp_path):
    path = tmp_path / "x.jsonl"
    for number in range(3):
        append_json_line(path, {"number": number, "text": "ä"})
    assert [line["number"] for line in read_json_lines(path)] == [0, 1, 2]


def test_a_line_that_was_cut_short_is_removed(tmp_path):
    path = tmp_path / "x.jsonl"
    append_json_line(path, {"number": 0})
    for half in ('{"number": 1', '{"number": 1}', "[1]\n", "\ufffd"):
        with path.open("a") as file:
            file.write(half)
        assert read_json_lines(path) == [{"number": 0}]
        assert path.read_text() == '{"number": 0}\n'
    append_json_line(path, {"number": 1})
    assert len(read_json_lines(path)) == 2


def test_a_file_that_is_missing_has_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "none.jsonl") == []
