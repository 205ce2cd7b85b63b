"""Tables as text, Markdown, CSV and HTML, and the records that print as tables."""

import csv
import dataclasses
import io
from html import escape

import numpy as np
import pytest

from tfnas.measure.elsewhere.benchmark_tool import PhoneOperator
from tfnas.measure.latency_model.profiling import LatencyFit
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.measure.measurement import Latency, Measurement, Score
from tfnas.measure.profile import LayerProfile, Profile
from tfnas.measure.throughput import Throughput
from tfnas.table import (
    Tabular,
    TextTable,
    csv_table,
    fit_table,
    fit_text,
    html_table,
    markdown_table,
    short_repr,
    table,
)
from tfnas.targets.android import PhoneLatency


def test_table_is_aligned():
    assert table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "layer  MACs",
        "-----  ----",
        "stem   1200",
        "a|b       7",
    ]
    assert table(["a", "b"], [["x", ""], ["", 10]], right=2) == "a  b\n-  --\nx\n   10"
    assert table(["a", "b"], []) == "a  b\n-  -"


def test_characters_of_two_columns_and_brackets_are_aligned():
    assert table(["layer", "MACs"], [["層", 1200], ["[bold]x[/]", 7], [":smile:", 0]]) == (
        "layer       MACs\n----------  ----\n層          1200\n[bold]x[/]     7\n:smile:        0"
    )


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


# --- tables that fit a terminal


WIDE = ["layer", "kind", *(f"column {n}" for n in range(8))]
ROWS = [
    ["blocks/block_1/expand/conv", "Conv2D", *(f"{n},000,000" for n in range(8))],
    ["blocks/block_2/expand/conv", "Conv2D", *(f"{n},500,000" for n in range(8))],
]


def test_a_table_that_fits_is_not_changed():
    assert fit_table(["layer", "MACs"], [["stem", 1200]]) == table(
        ["layer", "MACs"], [["stem", 1200]]
    )
    assert fit_table(["a"], []) == table(["a"], [])


def test_a_wide_table_is_split_and_keeps_every_column_and_cell():
    text = fit_table(WIDE, ROWS, right=2)
    assert max(map(len, text.splitlines())) <= 80
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert len(parts) == 2
    for part in parts:
        assert part[0].startswith("layer ")
        names = [line.split()[0] for line in part[2:]]
        assert names == ["...ock_1/expand/conv", "...ock_2/expand/conv"]
    for cell in (*WIDE[1:], *ROWS[0][1:], *ROWS[1][1:]):
        assert cell in text


def test_names_are_shortened_from_the_left_where_that_suffices():
    name = "encoder/" * 12 + "conv"
    text = fit_table(["layer", "MACs"], [[name, 7], ["head", 8]])
    lines = text.splitlines()
    assert len(lines) == 4
    assert len(lines[2]) == 80
    assert lines[2].startswith("...")
    assert lines[2].endswith("encoder/conv     7")


def test_names_that_would_look_alike_are_wrapped():
    names = ["a" + "/block" * 20, "b" + "/block" * 20]
    text = fit_table(["layer", "MACs"], [[name, 7] for name in names])
    assert "..." not in text
    assert max(map(len, text.splitlines())) <= 80
    starts = [line for line in text.splitlines() if line.startswith(("a/", "b/"))]
    assert len(starts) == 2


def test_prose_is_wrapped_and_not_cut():
    reason = "the layer has no kernel that the converter could store sparsely, " * 3
    text = fit_table(["layer", "why", "MACs"], [["stem", reason, 7]], right=2)
    assert max(map(len, text.splitlines())) <= 80
    column = [line[6:].removesuffix("     7") for line in text.splitlines()[2:]]
    assert " ".join(" ".join(column).split()) == reason.strip()


def test_text_is_wrapped_with_an_indent():
    lines = fit_text("word " * 30 + "\nlast", width=40)
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("  word")
    assert lines[-1] == "last"
    assert fit_text("") == []


# --- records


@dataclasses.dataclass(frozen=True, repr=False)
class Sizes(Tabular):
    """A record with everything that `repr` shortens."""

    name: str
    bytes: tuple[int, ...] = tuple(range(100))
    weights: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((3, 4)))
    pair: tuple[float, float] = (0.5, 1.0)
    parts: tuple[object, ...] = ({},)
    metadata: dict[str, int] = dataclasses.field(default_factory=lambda: {"a": 1})
    hidden: str = dataclasses.field(default="?", repr=False)

    def headers(self):
        return ["layer", "<bytes>"]

    def rows(self):
        return [[self.name, 1200], ["head", 7]]

    def notes(self):
        return ["1 < 2 " * 20]


def test_a_record_prints_its_table_and_notes():
    lines = str(Sizes("stem")).splitlines()
    assert lines[:4] == ["layer  <bytes>", "-----  -------", "stem      1200", "head         7"]
    assert lines[4].startswith("1 < 2 1 < 2")
    assert max(map(len, lines)) <= 80


def test_the_repr_of_a_record_is_one_short_line():
    assert repr(Sizes("stem\nb")) == (
        r"Sizes(name='stem\nb', bytes=<100 items>, weights=<array of shape (3, 4)>, "
        "pair=(0.5, 1.0), parts=<1 item>, metadata=<1 item>)"
    )
    assert "Tabular object" in short_repr(Tabular())


def test_html_escapes_everything():
    html = Sizes("<script>")._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "&lt;bytes&gt;" in html
    assert "<p>1 &lt; 2" in html
    assert html.count("<tr>") == 3
    assert html.count("text-align: right") == 3


def test_several_tables_with_titles():
    class Two(Tabular):
        def tables(self):
            return [
                TextTable(["a"], [["x"]], title="first & only"),
                TextTable(["b", "c"], [["y", 1]], right=2),
            ]

    assert str(Two()) == "first & only\na\n-\nx\n\nb  c\n-  -\ny  1"
    assert "<p>first &amp; only</p>" in Two()._repr_html_()
    assert html_table(["b"], [["y"]]).startswith("<table>\n<tr><th")


def test_a_record_without_rows_says_what_to_define():
    with pytest.raises(NotImplementedError, match=r"Tabular must define headers\(\) or tables\(\)"):
        str(Tabular())
    with pytest.raises(NotImplementedError, match=r"Tabular must define rows\(\) or tables\(\)"):
        Tabular().rows()


# --- the records of measurements


LATENCY = Latency(1.23456, 1.1, 1.9, 0.25, 0.24, 0.26, 5.0, "ab" * 32, 50, 1, True)
ERRORS = LatencyErrors(0.0123, 0.0456, 0.987, 0.991, 0.9876, 1200)
LAYERS = tuple(
    LayerProfile(f"encoder/stage_{n}/block/expand/conv", "DepthwiseConv2D", (112, 112, 64), n, None)
    for n in range(100, 104)
)
PHONE = PhoneLatency(
    *(1.5, 1.2, 1.1, 2.0, 1.0, 3.0, 9.0, 2.5, 4.5),
    (PhoneOperator("CONV_2D", "model/" * 20 + "<conv>", 0.75),),
    50,
    *("Pixel 6", "arm64-v8a", 1, True, "ab" * 32, (2.0, 2.1)),
)
RECORDS = {
    "latency": LATENCY,
    "latency errors": ERRORS,
    "latency fit": LatencyFit({"macs": 1.0}, ERRORS, {"macs": 1.0}, ERRORS, "ab", 60.0, True),
    "measurement": Measurement(
        12_345,
        score=Score("accuracy", 0.9, 0.88, 0.92, 1000),
        latency=LATENCY,
        macs=1_000_000,
        sha256="ab" * 32,
        provenance={"cpu": "a processor", "versions": {"keras": "3"}},
        phone=PHONE.to_dict(),
    ),
    "phone": PHONE,
    "profile": Profile("net", LAYERS, 1_000, 2_000, 3_000),
    "throughput": Throughput(1, 8, 2, 1234.5, 1200.0, 1300.0, 1.5, 1.4, 1.6, 20),
    "refused throughput": Throughput(0, 8, 2, note="takes no batch of 8"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_fit_a_terminal_and_a_notebook(name):
    record = RECORDS[name]
    assert max(map(len, str(record).splitlines())) <= 80
    assert "\n" not in repr(record)
    assert len(repr(record)) < 1000
    assert repr(record).startswith(f"{type(record).__name__}(")
    html = record._repr_html_()
    for each in record.tables():
        for cell in (*each.headers, *(cell for row in each.rows for cell in row)):
            assert f">{escape(str(cell))}</t" in html


def test_a_measurement_shows_what_is_known():
    text = str(RECORDS["measurement"])
    for part in ("12,345 bytes", "accuracy 0.9000", "1.235 ms", "1,000,000", "a processor"):
        assert part in text
    assert "Pixel 6" in text
    assert "gzipped" not in text
    assert "CONV_2D" not in text


# --- texts of others


@pytest.mark.parametrize(
    "cell", ["=1+1", "@SUM(1)", "+cmd|' /C calc'!A0", "-2+3+A1", " =1", "\n=1", "\uff1d1", "-x"]
)
def test_no_cell_of_csv_is_a_formula(cell):
    assert csv_table(["a"], [[cell]]).split("\n", 1)[1].startswith(("'", "\"'"))


@pytest.mark.parametrize(
    "cell", [-1.5, 3, "-1.5", "+0.10", "-1.30 [-2.00, +0.10]", "-3.2%", "-1e-5", "-inf", "a=b", "-"]
)
def test_numbers_and_intervals_stay_in_csv(cell):
    [_, [found]] = csv.reader(io.StringIO(csv_table(["a"], [[cell]])))
    assert found == str(cell)


def test_control_characters_become_visible_everywhere():
    cell = "a\x1b[31mb\u202ec\udce9\x00d\x9b"
    shown = r"a\x1b[31mb\u202ec\udce9\x00d\x9b"
    assert shown in table(["a"], [[cell]])
    assert shown in fit_table(["a"], [[cell]])
    assert shown in csv_table(["a"], [[cell]])
    assert shown in html_table(["a"], [[cell]])
    assert shown.replace("\\", "\\\\") in markdown_table(["a"], [[cell]])


def test_a_markdown_table_escapes_html_and_keeps_its_rows():
    text = markdown_table(["<script>"], [["a\nb"], ["*x* [y](z)"]])
    assert text == "| \\<script> |\n| --- |\n| a b |\n| \\*x\\* [y\\](z) |"
