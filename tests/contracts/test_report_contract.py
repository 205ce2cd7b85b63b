"""What every record and every report must do, whatever it is about. Nothing is run or measured."""

import ast
import collections.abc
import csv
import dataclasses
import html.parser
import importlib
import json
import pathlib
import re
import types
import typing

import numpy as np
import pytest
import recorded_results
from package_source import PackageSource

import tfnas
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.pruning.pruning_report import PruningReport
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.reports import content, pages
from tfnas.reports.chart import chart_of
from tfnas.reports.parallel import parallel_of
from tfnas.reports.training_tiles import Tile, TrainingTiles
from tfnas.table import Printable, csv_table, markdown_table

SOURCE = PackageSource(pathlib.Path(tfnas.__file__).parent)
HOSTILE = """<script>alert("1 & 2")</script> 'größe' | = \\ end"""
TEMPLATES = SOURCE.modules["reports.pages"].parent / "templates"
SCRIPT = (TEMPLATES / "report.js").read_text("utf-8")
FORMS = (("to_json", "from_json"), ("to_dict", "from_dict"), ("as_dict", "of"))


# --- records


def records():
    """Yields (class, method that writes, method that reads) of each record of tfnas."""
    for name in SOURCE.modules:
        if name.endswith("__main__") or not any(
            f"def {read}" in SOURCE.modules[name].read_text("utf-8") for _, read in FORMS
        ):
            continue
        module = importlib.import_module(f"tfnas.{name}" if name else "tfnas")
        for value in vars(module).values():
            if not dataclasses.is_dataclass(value) or value.__module__ != module.__name__:
                continue
            for write, read in FORMS:
                if hasattr(value, write) and hasattr(value, read):
                    yield pytest.param(value, write, read, id=f"{value.__name__}.{write}")


def example(kind):
    """A value of an annotated type; texts hold what HTML, Markdown and JSON must escape."""
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return arms[0]
    if origin in (typing.Union, types.UnionType):
        return example(next(arm for arm in arms if arm is not type(None)))
    if origin is tuple:
        return tuple(map(example, arms[:1] * 2 if arms[-1] is ... else arms))
    if origin in (list, collections.abc.Sequence):
        return [example(arms[0])]
    if origin in (dict, collections.abc.Mapping):
        return {example(arms[0]): example(arms[1])}
    if dataclasses.is_dataclass(kind):
        return record_of(kind)
    return {str: HOSTILE, int: 3, float: 0.25, bool: True, typing.Any: 1}[kind]


def record_of(kind):
    if kind in OF_THEIR_OWN:
        return OF_THEIR_OWN[kind]()
    hints = typing.get_type_hints(kind)
    return kind(**{f.name: example(hints[f.name]) for f in dataclasses.fields(kind) if f.init})


# Records whose values have rules.
OF_THEIR_OWN = {
    tfnas.Architecture: lambda: tfnas.mobilenet_v2((32, 32, 3), 10),
    tfnas.Compression: lambda: tfnas.Compression(mode="int8", low_rank=0.5, clusters=16),
}


@pytest.mark.parametrize(("kind", "write", "read"), list(records()))
def test_a_record_comes_back_from_json(kind, write, read):
    record = record_of(kind)
    written = getattr(record, write)()
    text = written if isinstance(written, str) else json.dumps(written, allow_nan=False)
    fields = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def back(fields):
        return getattr(kind, read)(json.dumps(fields) if isinstance(written, str) else fields)

    assert back(fields) == record
    with pytest.raises(ValueError, match="color"):
        back({**fields, "color": 1})
    if isinstance(written, str):
        for nonsense in ("", "{", "[]", "3"):
            with pytest.raises(ValueError, match=r"JSON|object"):
                getattr(kind, read)(nonsense)


def test_records_are_found():
    found = {values.values[0] for values in records()}
    assert len(found) >= 9
    assert {tfnas.Architecture, tfnas.Compression, tfnas.Measurement} <= found


def tables():
    """Yields each record that can be shown as a table of headers and rows."""
    kinds = {values.values[0] for values in records()}
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        if hasattr(kind, "rows"):
            yield pytest.param(kind, id=kind.__name__)


@pytest.mark.parametrize("kind", list(tables()))
def test_a_record_of_any_texts_is_a_table(kind):
    record = record_of(kind)
    assert HOSTILE in str(record)
    if isinstance(record, Printable):
        shown = [(table.headers, table.rows) for table in record.tables()]
    else:
        headers = record.headers() if hasattr(record, "headers") else record.HEADERS
        shown = [(headers, record.rows())]
    for headers, rows in shown:
        check_table(list(headers), rows)


def check_table(headers, rows):
    """Text, Markdown and CSV hold every cell of a table."""
    assert rows
    assert all(len(row) == len(headers) for row in rows)
    lines = markdown_table(headers, rows).splitlines()
    assert len(lines) == len(rows) + 2
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert {len(row) for row in cells} == {len(headers) + 2}
    [_, *read] = csv.reader(csv_table(headers, rows).splitlines())
    assert read == [list(map(str, row)) for row in rows]


# Records that users print; this list may only grow.
PRINTED = [
    ChannelPruningReport,
    ClusteringReport,
    FactorizationReport,
    PruningReport,
    Sensitivity,
]


@pytest.mark.parametrize("kind", PRINTED, ids=lambda kind: kind.__name__)
def test_a_printed_record_fits_a_terminal_and_a_notebook(kind):
    record = record_of(kind)
    assert isinstance(record, Printable)
    lines = str(record).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    line = repr(record)
    assert line.startswith(f"{kind.__name__}(")
    assert "\n" not in line
    page = Reader(record._repr_html_())
    assert page.open == []
    assert "script" not in page.tags
    cells = [str(cell) for table in record.tables() for row in table.rows for cell in row]
    assert HOSTILE in cells
    assert set(filter(None, cells)) <= set(page.texts)


# --- HTML


class Reader(html.parser.HTMLParser):
    """Collects the tags, attributes and texts of a page as a browser reads them."""

    def __init__(self, page):
        super().__init__()
        page = page.replace(f"<script>\n{SCRIPT}</script>", "", 1)  # our own
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.shown = []  # texts of the page itself
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "input", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        # A drawing holds what a table says too, and the texts of its controls.
        if not {"title", "style", "figure"} & set(self.open):
            self.shown.append(data)


PNG = pages.png_of(np.zeros((2, 3, 1)))
PICTURE = content.Picture("a.png", PNG, HOSTILE, HOSTILE)
BLOCKS = {  # kind -> (a block of HOSTILE, how often HOSTILE stands on its page)
    "paragraph": (content.Paragraph(HOSTILE, code=HOSTILE), 2),
    "verdict": (content.Verdict(HOSTILE, good=False), 1),
    "warnings": (content.Warnings([HOSTILE]), 1),
    "listing": (content.Listing([HOSTILE, HOSTILE]), 2),
    "table": (
        content.Table(
            [HOSTILE, "n", HOSTILE],
            [[HOSTILE, 1, HOSTILE], [HOSTILE, None, HOSTILE]],
            chosen=0,
            bars=[1],
            prose=[2],
        ),
        6,
    ),
    "pictures": (content.Pictures([PICTURE, PICTURE], small=True), 4),
    "chart": (
        chart_of(
            ParetoPlot(
                *([(0.9, 0.5, 900), (0.8, 0.4, 800)], [0, 1], 1, HOSTILE),
                ParetoLabels(HOSTILE),
                names=[HOSTILE] * 2,
                others={HOSTILE: (0.95, 1.0, 2000)},
                more={HOSTILE: [1.0, None]},
            )
        ),
        None,
    ),
    "curves": (TrainingTiles([(5.0, "1")], [Tile(HOSTILE, "M0 0", [(1.0, 2.0)], 1)]), 1),
    "parallel": (
        parallel_of(HOSTILE, {HOSTILE: [1, "x"]}, {"a": [1, 2]}, [HOSTILE] * 2, ["front"] * 2),
        4,
    ),
}


def page_of(*blocks, title="title"):
    report = content.Report(title, [content.Section(title, blocks)])
    return pages.as_markdown(report), pages.as_html(report)


def test_all_kinds_of_blocks_are_here():
    kinds = {kind.kind: kind for kind in typing.get_args(content.Block)}
    assert {name: type(block) for name, (block, _) in BLOCKS.items()} == kinds


@pytest.mark.parametrize("name", BLOCKS)
def test_any_text_stays_text_in_html(name):
    block, times = BLOCKS[name]
    page = Reader(page_of(block)[1])
    assert page.open == []
    assert "script" not in page.tags
    texts = [text.strip() for text in (*page.texts, *(value or "" for _, value in page.attributes))]
    if times is None:  # among other words
        assert sum(HOSTILE in text for text in texts) > 5
    else:
        assert texts.count(HOSTILE) == times


def test_any_title_stays_text_in_html():
    page = Reader(page_of(title=HOSTILE)[1])
    assert page.texts.count(HOSTILE) == 3  # of the window, the page and the section


@pytest.mark.parametrize("name", BLOCKS)
def test_any_text_stays_text_in_markdown(name):
    block, _ = BLOCKS[name]
    text = pages.as_markdown(content.Report(HOSTILE, [content.Section(HOSTILE, [block])]))
    text = re.sub("`[^`]+`", "", text)  # code
    assert not re.search(r"(?<!\\)<", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} <= {5}
    assert text.endswith("\n")


def test_a_page_needs_nothing_but_itself():
    page = page_of(*(block for block, _ in BLOCKS.values()))[1]
    read = Reader(page)
    assert read.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(read.tags)
    for name, value in read.attributes:
        assert not name.startswith("on")
        assert value is None or "javascript:" not in value
        if name in ("src", "href"):
            assert value.startswith("data:")
    assert "http" not in page
    assert "url(" not in page


REPORTS = [name for name in SOURCE.modules if name.startswith("reports.")]


@pytest.mark.parametrize("name", REPORTS)
def test_reports_write_no_html_but_by_templates(name):
    constants = [n.value for n in ast.walk(SOURCE.trees[name]) if isinstance(n, ast.Constant)]
    docstrings = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(SOURCE.trees[name])
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    texts = [text for text in constants if isinstance(text, str) and text not in docstrings]
    assert [text for text in texts if re.search(r"</?[a-z]+[^<>]*>", text)] == []
    assert not {"Markup", "markupsafe"} & {
        getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(SOURCE.trees[name])
    }


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*")), ids=lambda path: path.name)
def test_templates_escape_all_that_they_print(path):
    assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text("utf-8"))


def test_the_script_makes_no_markup_of_texts():
    """What names of files may hold goes into the page as text."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function", SCRIPT
    )
    assert not re.search(r"fetch|XMLHttp|import|https?:", SCRIPT)


# --- the report of each kind of result


PATHS = "/home/somebody/models/teacher.keras"


@pytest.fixture(scope="module", params=recorded_results.KINDS)
def written(request, tmp_path_factory):
    """(folder of a report whose names are hostile, a name that is none of these)."""
    folder = tmp_path_factory.mktemp(request.param)
    recorded_results.write_report(request.param, folder, "<b>|x", teacher=PATHS)
    return folder, request.param


def test_reports_are_found():
    found = {name.removeprefix("reports.") for name in REPORTS if name.endswith("_report")}
    kinds = {"compress_report", "hypermodel_report", "search_report", "technique_report"}
    assert found == kinds


def test_each_kind_has_both_forms(written):
    folder, _ = written
    for name in (pages.MARKDOWN, pages.HTML):
        text = (folder / name).read_text("utf-8")
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


def test_names_stay_text_in_each_report(written):
    folder, _ = written
    markdown = (folder / pages.MARKDOWN).read_text("utf-8")
    assert r"\<b>\|x" in markdown
    assert not re.search(r"(?<!\\)<b>", re.sub("`[^`\n]+`", "", markdown))  # but in code
    page = Reader((folder / pages.HTML).read_text("utf-8"))
    assert page.open == []
    assert "b" not in page.tags
    assert "<b>|x" in " ".join(page.texts)


def test_the_tables_of_a_report_are_whole(written):
    folder, _ = written
    for block in (folder / pages.MARKDOWN).read_text("utf-8").split("\n\n"):
        if block.startswith("|"):
            widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1
    page = (folder / pages.HTML).read_text("utf-8")
    alone = '<div class="wide" tabindex="0"><table>'  # scrolls in its box, by keys too
    assert page.count("<table>") == page.count(alone) > 0
    assert '<meta name="viewport"' in page


def test_both_forms_hold_the_same_texts(written):
    """The same words and numbers in the same order; small pictures are on the page alone."""
    folder, _ = written
    markdown = (folder / pages.MARKDOWN).read_text("utf-8")
    markdown = re.sub(r"!\[.*?\]\(.*?\)", "", markdown)
    markdown = re.sub(r"^\|( ---:? \|)+$|^#+ |^- ", "", markdown, flags=re.M)
    # Code is as it is; elsewhere characters are escaped.
    parts = re.split(r"(?<!\\)`([^`\n]+)`", markdown)
    parts[::2] = [re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)\|", " ", text)) for text in parts[::2]]
    page = (folder / pages.HTML).read_text("utf-8")
    page = page.replace(f"<script>\n{SCRIPT}</script>", "")
    small = r'<h2>[^<]*</h2>\s*<div class="tiles">.*?</div>'
    shown = Reader(re.sub(small, "", page, flags=re.S)).shown
    assert " ".join(parts).split() == " ".join(shown).split()


def test_reports_hold_no_path(written):
    folder, kind = written
    for name in (pages.MARKDOWN, pages.HTML):
        text = (folder / name).read_text("utf-8")
        for path in (folder, pathlib.Path.home(), pathlib.Path.cwd(), PATHS):
            assert str(path) not in text
        assert "teacher.keras" in text or kind != "search"


def test_pictures_of_a_report_are_files_and_on_the_page(written):
    folder, _ = written
    names = re.findall(r"!\[.*?\]\((.*?)\)", (folder / pages.MARKDOWN).read_text("utf-8"))
    page = (folder / pages.HTML).read_text("utf-8")
    for name in names:
        # A plot of files is a drawing there, which answers the mouse.
        is_drawn = name.startswith("pareto") and '<figure class="chart">' in page
        assert is_drawn or pages.data_uri((folder / name).read_bytes()) in page
    assert {path.name for path in folder.glob("*.png")} == set(names)


def test_a_report_speaks_in_the_words_of_its_data(tmp_path):
    words = content.Words("windows", "mean error", "kWh")
    for kind in recorded_results.KINDS:
        recorded_results.write_report(kind, tmp_path, words=words)
        text = (tmp_path / pages.MARKDOWN).read_text("utf-8")
        assert kind != "compress" or "exceeds max_drop by 0.60 kWh:" in text.replace("\\", "")
        table = text.split("## The ")[1]
        titles = table.split("\n|", 1)[1].splitlines()[0]
        assert "mean error" in titles
        assert not re.search("accuracy|points", titles)


@pytest.mark.parametrize("name", REPORTS)
def test_reports_replace_their_files_whole(name):
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(SOURCE.trees[name])
        if isinstance(node, ast.Call)
    }
    assert not {"open", "write_text", "write_bytes"} & called
