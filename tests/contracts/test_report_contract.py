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
from package_source import PackageSource

import tfnas
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.pruning.pruning_report import PruningReport
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.reports import html as page_parts
from tfnas.table import Printable, csv_table, markdown_table

SOURCE = PackageSource(pathlib.Path(tfnas.__file__).parent)
HOSTILE = """<script>alert("1 & 2")</script> 'größe' | = \\ end"""
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


UNKNOWN_KEYS_ARE_IGNORED = {"ChannelPruningReport"}  # this list may only shrink
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
    if kind.__name__ in UNKNOWN_KEYS_ARE_IGNORED:
        assert back({**fields, "color": 1}) == record
    else:
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
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parts():
    """Function of reports.html -> its HTML of HOSTILE, and how often HOSTILE stands in it."""
    image = np.zeros((2, 3, 1))
    png = page_parts.png(image)
    return {
        "text": (page_parts.text(HOSTILE), 1),
        "section": (page_parts.section(HOSTILE, "<p>a</p>"), 1),
        "note": (page_parts.note(HOSTILE, good=False), 1),
        "listing": (page_parts.listing([HOSTILE, HOSTILE]), 2),
        "table": (
            page_parts.table(
                [HOSTILE, "n", HOSTILE],
                [[HOSTILE, 1, HOSTILE], [HOSTILE, None, HOSTILE]],
                chosen=0,
                bars=[1],
                prose=[2],
            ),
            6,
        ),
        "picture": (page_parts.picture(png, HOSTILE), 1),
        "beside": (page_parts.beside([page_parts.picture(png, HOSTILE)] * 2), 2),
        "tiles": (page_parts.tiles([image], [HOSTILE]), 2),
        "page": (page_parts.page(HOSTILE, ["<p>a</p>"]), 2),
    }


def test_parts_are_all_public_functions_that_return_html():
    tree = SOURCE.trees["reports.html"]
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"}
    assert set(parts()) == names - {"png"}


@pytest.mark.parametrize("name", parts())
def test_any_text_stays_text_in_html(name):
    markup, times = parts()[name]
    page = Reader(markup)
    assert page.open == []
    assert "script" not in page.tags
    texts = [*page.texts, *(value for _, value in page.attributes)]
    assert texts.count(HOSTILE) == times


def test_a_page_needs_nothing_but_itself():
    page = page_parts.page(
        "title", [markup for name, (markup, _) in parts().items() if name != "page"]
    )
    read = Reader(page)
    assert read.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(read.tags)
    for name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("data:")
    assert "http" not in page
    assert "url(" not in page


REPORTS = [name for name in SOURCE.modules if name.startswith("reports.") and "html" not in name]


@pytest.mark.parametrize("name", REPORTS)
def test_reports_put_plain_values_into_html_by_its_functions_alone(name):
    pasted = []
    for node in ast.walk(SOURCE.trees[name]):
        if not isinstance(node, ast.JoinedStr):
            continue
        constants = [part.value for part in node.values if isinstance(part, ast.Constant)]
        if not any(re.search(r"</?[a-z]+[^<>]*>", text) for text in constants):
            continue
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                form = ast.unparse(part.format_spec) if part.format_spec else ""
                number = re.fullmatch(r"f'[,.0-9]*[defg%]'", form)
                called = ast.unparse(part.value.func) if isinstance(part.value, ast.Call) else ""
                if not number and not called.startswith("html."):
                    pasted.append(ast.unparse(part))
    assert pasted == []


@pytest.mark.parametrize("name", REPORTS)
def test_reports_replace_their_files_whole(name):
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(SOURCE.trees[name])
        if isinstance(node, ast.Call)
    }
    assert not {"open", "write_text", "write_bytes"} & called
