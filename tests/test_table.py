"""Tables as text, Markdown and CSV."""

import csv
import io

from tfnas.table import csv_table, markdown_table, table


def test_table_is_aligned():
    assert table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "layer  MACs",
        "-----  ----",
        "stem   1200",
        "a|b       7",
    ]
    assert table(["a", "b"], [["x", ""], ["", 10]], right=2) == "a  b\n-  --\nx\n   10"
    assert table(["a", "b"], []) == "a  b\n-  -"


def test_markdown_table():
    assert markdown_table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "| layer | MACs |",
        "| --- | ---: |",
        "| stem | 1200 |",
        "| a\\|b | 7 |",
    ]


def test_csv_table_reads_back():
    rows = [["a,b", 'say "x"'], ["two\nlines", "é"]]
    text = csv_table(["name", "note"], rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["name", "note"], *rows]
    assert csv_table(["a"], [[1]]) == "a\n1\n"
