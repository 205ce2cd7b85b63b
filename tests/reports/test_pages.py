"""Markdown and HTML of single blocks."""

import pytest

from tfnas.reports.content import Listing, Paragraph, Picture, Pictures, Report, Section, Table
from tfnas.reports.pages import (
    as_html,
    as_markdown,
    markdown_code,
    markdown_sentences,
    markdown_text,
)


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a <b> & c", r"a \<b> & c"),
        ("&lt; | *x*", r"\&lt; \| \*x\*"),
        (r"C:\models", r"C:\\models"),
        ("prune_channels 0.5", "prune_channels 0.5"),
        ("__init__ and _x", r"\_\_init\_\_ and \_x"),
        ("a__b_", r"a__b\_"),
        ("-1.30 [-2.00, +0.10]", "-1.30 [-2.00, +0.10]"),
        ("[a](http) [a][b] [a]: b", r"[a\](http) [a\][b] [a\]: b"),
        ("# no title", r"\# no title"),
        ("- no list", r"\- no list"),
        ("---", r"\---"),
        ("1. no list", r"1\. no list"),
        ("two\n\nlines", "two lines"),
        ("`code", r"\`code"),
        ("a\x1b[31m \u202e \udce9", r"a\\x1b[31m \\u202e \\udce9"),
        (0.5, "0.5"),
    ],
)
def test_markdown_shows_the_text_itself(text, markdown):
    assert markdown_text(text) == markdown


def test_code_stands_between_enough_backticks():
    assert markdown_code("a*b") == "`a*b`"
    assert markdown_code("a`b") == "`` a`b ``"
    assert markdown_sentences("`tfnas bench` and *x*") == r"`tfnas bench` and \*x\*"
    assert markdown_sentences("a ` b") == r"a \` b"


def test_a_whole_report():
    table = Table(["layer", "MACs", "why"], [["stem", 1200, "a|b"], ["head", None, ""]], prose=[2])
    picture = Picture("a.png", b"png", "A picture")
    report = Report(
        "Title",
        [
            Section("", [Paragraph("Some text.")]),
            Section("First", [table, Listing(["one", "two"])]),
            Section("Small", [Pictures([Picture("", b"x", "d", "caption")], small=True)], True),
            Section("Second", [Pictures([picture, picture]), Paragraph("(x)", code="a b")]),
        ],
    )
    assert as_markdown(report) == (
        "# Title\n\nSome text.\n\n## First\n\n"
        "| layer | MACs | why |\n| --- | ---: | ---: |\n"
        "| stem | 1,200 | a\\|b |\n| head |  |  |\n\n"
        "- one\n- two\n\n## Second\n\n"
        "![A picture](a.png) ![A picture](a.png)\n\n`a b` (x)\n"
    )
    page = as_html(report)
    assert '<td class="right">1,200</td><td class="prose">a|b</td>' in page
    assert "<figcaption>caption</figcaption>" in page
    assert "<p><code>a b</code> (x)</p>" in page


def test_bars_are_as_long_as_their_numbers():
    table = Table(["layer", "MACs"], [["a", 50], ["b", 200], ["c", None]], bars=[1])
    page = as_html(Report("Title", [Section("", [table])]))
    assert 'style="width:1.00rem"' in page
    assert 'style="width:4.00rem"' in page
    assert page.count('class="bar"') == 2


def test_control_characters_become_visible():
    report = Report("a\x1b", [Section("b\u202e", [Table(["c\x00"], [["d\udce9"]])])])
    for text in (as_html(report), as_markdown(report).replace("\\\\", "\\")):
        text.encode()
        for shown in (r"a\x1b", r"b\u202e", r"c\x00", r"d\udce9"):
            assert shown in text
