"""Text, one line and HTML of a result."""

import dataclasses
import pathlib

from tfnas.compression.results.printed_result import PrintedResult


@dataclasses.dataclass(frozen=True, repr=False)
class Example(PrintedResult):
    directory: pathlib.Path

    def _headline(self):
        return "2 files"

    def _details(self):
        return ["a <report>"]

    def _table(self):
        return ["file", "bytes"], [["original, float32", "1,234"], ["word " * 30, "5"]]

    def _remarks(self):
        return ["- smaller"]


def test_a_result_prints_as_text_as_one_line_and_as_html():
    result = Example(pathlib.Path("out"))
    lines = str(result).split("\n")
    assert lines[0] == "a <report>"
    assert lines[-2:] == ["- smaller", "Everything is in out"]
    assert max(map(len, lines)) <= 80
    assert repr(result) == "Example(2 files, directory='out')"
    page = result._repr_html_()
    assert "<pre>a &lt;report&gt;</pre>" in page
    assert "<li>smaller</li><li>Everything is in out</li>" in page
    assert page.count("<tr>") == 3
