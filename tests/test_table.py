"""Tables as text, Markdown and CSV."""

import csv
import io

from tfnas.table import csv_table, html_table, markdown_table, table


def test_table_is_aligned():
    assert table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "layer  MACs",
        "-----  ----",
        "stem   1200",
        "a|b       7",
    ]
    assert table(["a", "b"], [["x", ""], ["", 10]], right=2) == "a  b\n-  --\nx\n   10"
    assert table(["a", "b"], []) == "a  b\n-  -"


def test_wide_tables_wrap_their_first_column():
    text = table(["file", "bytes"], [["prune_channels 0.5, int8", "1,234"], ["a", "5"]], width=24)
    assert text.split("\n") == [
        "file            bytes",
        "--------------  -----",
        "prune_channels  1,234",
        "0.5, int8",
        "a                   5",
    ]
    assert table(["word"], [["unbreakable"]], width=5) == "word\n-----------\nunbreakable"
    assert table(["a", "b"], [], width=1) == "a  b\n-  -"


def test_html_table_escapes_its_cells():
    text = html_table(["a<b", "MACs"], [["x & y", 7]])
    assert text.count("<tr>") == 2
    assert "a&lt;b" in text
    assert "x &amp; y" in text


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
