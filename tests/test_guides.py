"""README, the guides and the pages beside them: blocks run, names, flags and numbers are right."""

import ast
import importlib.util
import inspect
import json
import pathlib
import re
import shlex
import types

import pytest
from package_source import syntax_tree
from page_blocks import ROOT, beginning, blocks_of, run

DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
BY_TASK_OR_DEVICE = sorted(
    page for name in ("tasks", "devices") for page in (DOCS / name).glob("*.md")
)
SECTIONS = [
    *("Overview", "When to use it", "Example", "How it works", "Settings"),
    *("Command", "Results", "Pitfalls"),
]
QUICK = [
    DOCS / f"{name}.md"
    for name in (
        *(
            "accelerators",
            "contributing",
            "models",
            "patches",
            "search_algorithms",
        ),
        *("troubleshooting", "verify", "tasks/text"),
        *("devices/microcontroller", "devices/npu", "devices/phone", "devices/board"),
    )
]
LONG = [
    ROOT / "README.md",
    *(
        DOCS / f"{name}.md"
        for name in ("start", "channels", "integer_forms", "reports", "text_models")
    ),
    *GUIDES,
    *(page for page in BY_TASK_OR_DEVICE if page not in QUICK),
]
# Their blocks are run by tests of the packages that they are about, and of tests/test_docs.py.
TESTED_ELSEWHERE = {
    *("add_a_technique", "any_task", "distillation", "post_training", "streaming", "training"),
    "your_own_layer",
}
# Fragments, and what needs a cluster or an hour.
NOT_RUN = {"large_searches", "metrics", "supernet"}
WRITTEN = [
    page
    for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *GUIDES, *BY_TASK_OR_DEVICE]
    if page.stem not in ("renamed", "benchmarks", "coverage")
]
BENCHMARKS = (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def name_of(page):
    return page.relative_to(ROOT).with_suffix("").as_posix()


def check_blocks(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for block, printed in run(page):
        if block.output is not None:
            assert beginning(printed) == beginning(block.output), f"line {block.line}: {printed}"


@pytest.mark.parametrize("page", QUICK, ids=name_of)
def test_blocks_run(page, tmp_path, monkeypatch):
    check_blocks(page, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", LONG, ids=name_of)
def test_long_blocks_run(page, tmp_path, monkeypatch):
    check_blocks(page, tmp_path, monkeypatch)


def test_each_page_with_blocks_is_run():
    with_blocks = {page for page in WRITTEN if blocks_of(page.read_text(encoding="utf-8"))}
    elsewhere = {DOCS / f"{name}.md" for name in TESTED_ELSEWHERE | NOT_RUN}
    assert with_blocks - {*QUICK, *LONG, *elsewhere} == set()


def test_an_output_belongs_to_the_block_before_it(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n2 b\n```\n")
    (first, nothing), (second, printed) = run(page)
    assert (first.output, nothing, second.output, printed) == (None, "", "2 b\n", "1\n")
    assert beginning("\nlayer  0.5 [0.1, 0.9]\n-----\ndense") == ["layer"]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_has_its_form(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == SECTIONS
    assert blocks_of(text)


@pytest.mark.parametrize("page", BY_TASK_OR_DEVICE, ids=name_of)
def test_a_page_of_a_task_or_device_says_what_to_call_and_what_it_costs(page):
    text = page.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert sections[-2:] == ["What it costs", "Pitfalls"]
    assert "benchmarks.md" in text.split("\n## What it costs\n")[1]
    assert blocks_of(text)
    assert commands_of(text)


def test_the_index_has_all_pages():
    text, own = (DOCS / "README.md").read_text(encoding="utf-8"), ("README.md", "index.md")
    pages = [
        page.relative_to(DOCS).as_posix()
        for page in [*DOCS.glob("*.md"), *GUIDES, *BY_TASK_OR_DEVICE]
    ]
    assert [page for page in pages if page not in own and f"]({page})" not in text] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_names_of_the_library_exist(page):
    import tfnas

    named = set(re.findall(r"`tfnas\.([A-Za-z]\w*)(?!\w|\.)", page.read_text(encoding="utf-8")))
    modules = {path.stem for path in (ROOT / "tfnas").iterdir()}
    assert named - {*tfnas.__all__} - modules == set()


def commands_of(text):
    """The lines of a page that call the command with flags, split; lines that go on are one."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"^(?:    )?tfnas ([a-z][a-z-]+ .*--\w.*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_flags_of_commands_exist(page):
    from tfnas.cli.command_table import command_of, commands, flags_of

    unknown = []
    for name, *arguments in commands_of(page.read_text(encoding="utf-8")):
        if name not in commands():  # a technique of the reader's own
            assert page.stem == "add_a_technique"
            continue
        known = flags_of(command_of(name))
        for flag in re.findall(r"--([\w-]+)", " ".join(a for a in arguments if a[:2] == "--")):
            if flag not in known and flag.removeprefix("no") not in known:
                unknown.append(f"{name} --{flag}")
    assert unknown == []


def numbers_of(text):
    """Numbers with a point or a comma, such as 0.8719, -1.05, 48,624 and 1.40x."""
    return re.findall(r"[-+]?\d[\d,]*(?:\.\d+|(?<=\d),\d{3})x?", text)


def test_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150


def test_results_of_readme_are_those_of_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Results\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| \[json\]\((.*)\) \|$", section, re.MULTILINE)
    assert len(rows) == 5
    for cells, path in rows:
        record = (ROOT / path).read_text(encoding="utf-8")
        json.loads(record)
        numbers = numbers_of(cells)
        assert numbers
        assert [number for number in numbers if number not in record] == []


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_results_of_a_guide_are_those_of_the_benchmarks(page):
    section = page.read_text(encoding="utf-8").split("\n## Results\n")[1].split("\n## ")[0]
    assert "benchmarks.md#" in section
    section = re.sub(r"MobileNetV2 0\.35", "", section)
    assert [number for number in numbers_of(section) if number not in BENCHMARKS] == []


@pytest.fixture(scope="module")
def site():
    """docs/conf.py, which needs no Sphinx until it is used."""
    spec = importlib.util.spec_from_file_location("site_configuration", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_site_has_all_names(site):
    import tfnas

    page = site._reference()
    listed = re.findall(r"^   (\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(tfnas.__all__)  # each in one group
    described = re.findall(r"^\.\. auto(?:class|function)?(?:module)?:: tfnas\.(\S+)$", page, re.M)
    assert len(described) == len(listed)
    for group in site.GROUPS:
        assert group.purpose.endswith(".")
        assert f"\n## {group.title}\n\n{group.purpose}\n" in page


def test_each_public_name_says_in_a_sentence_what_it_does():
    import tfnas

    found = {name: inspect.getdoc(getattr(tfnas, name)) or "" for name in tfnas.__all__}
    first = {name: text.partition("\n\n")[0] for name, text in found.items()}
    # The table of the reference shows what stands before the first period.
    assert [name for name, text in first.items() if not re.search(r"[.:]( |$)", text)] == []


def test_the_site_has_all_messages_with_what_raises_them(site):
    rows = [line for line in site.message_tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 1000
    # Three cells: a pipe within one is escaped.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    granularity = [row for row in rows if "must divide the kernel's innermost axis" in row]
    assert len(granularity) == 1
    assert "| `masks.NOfM.check` |" in granularity[0]
    assert "*Raised:* The group does not divide the innermost axis." in granularity[0]


def test_the_site_keeps_links_to_its_pages_alone(site):
    env = types.SimpleNamespace(doc2path=lambda name: str(DOCS / f"{name}.md"))
    app = types.SimpleNamespace(env=env, srcdir=str(DOCS))
    source = [
        "[a](start.md#install) [b](../README.md) [c](#here) [d](guides/search.md) ![e](../x.png) "
        "[f](README.md#by-task)"
    ]
    site._site_source(app, "choose", source)
    kept = "[a](start.md#install) b [c](#here) [d](guides/search.md) ![e](../x.png)"
    assert source == [f"{kept} [f](index.md#by-task)"]


def test_the_navigation_of_the_site_has_the_sections_of_the_index(site):
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    captions = re.findall(r"^:caption: (.*)$", site._toctrees(), re.MULTILINE)
    assert captions == ["Begin", *re.findall(r"^## (.*)$", text, re.MULTILINE)]
    listed = re.findall(r"^([a-z_]+(?:/\w+)?)$", site._toctrees(), re.MULTILINE)
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    numbered = {page for page in pages if page.startswith("decisions/0")}
    assert sorted(listed) == sorted(pages - numbered - {"README", "index"})


def test_the_page_of_commands_is_made_from_the_flags():
    from tfnas.cli.command_table import command_of, commands, flags_of

    spec = importlib.util.spec_from_file_location("command_page", DOCS / "command_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert text == module.page(), "run python docs/command_page.py"
    for name in commands():
        for flag in flags_of(command_of(name)):
            assert re.search(rf"^\| `--(\[no\])?{flag}[=`]", text, re.MULTILINE)


def strings_of_the_source():
    """All strings in tfnas/, with \\0 for what an f-string fills in; implicit joins are joined."""
    found = set()
    for path in sorted((ROOT / "tfnas").rglob("*.py")):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_messages_of_the_troubleshooting_page_are_those_of_the_source():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    errors = text.split("\n## No error, ")[0]
    messages = re.findall(r"^\| `([^`]+)` \| ", errors, re.MULTILINE)
    assert len(messages) >= 30
    source = strings_of_the_source()
    gone = []
    for message in messages:
        parts = [re.escape(part) for part in message.split("...") if part]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        if not any(pattern.search(string) for string in source):
            gone.append(message)
    assert gone == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *GUIDES, *BY_TASK_OR_DEVICE], ids=name_of)
def test_a_page_reads_easily(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    readability = importlib.import_module("readability")
    assert readability.reading_ease(page.read_text(encoding="utf-8")) >= 60


def test_readability_is_flesch(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    readability = importlib.import_module("readability")
    text = "# Not counted\n\nThe cat sat on the mat. It ate a big apple.\n\n    code here\n"
    expected = 206.835 - 1.015 * 11 / 2 - 84.6 * 12 / 11
    assert readability.reading_ease(text) == pytest.approx(expected)
    assert pathlib.Path(readability.__file__).parent == ROOT / "benchmarks"
