"""The documents: links and paths lead somewhere, decisions have their form."""

import inspect
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
SECTIONS = ["Context", "Decision", "Alternatives", "Evidence", "Status"]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "BUILD_NOTES", "CHANGELOG", "CONTRIBUTING")),
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
each = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix()
)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@each
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [ROOT / "BUILD_NOTES.md", *DECISIONS], ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    """Paths in code font: from the root, or from the package."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*\.(?:py|tflite|sh|txt|md|json))`", text)
    missing = [path for path in named if not any((ROOT / a / path).exists() for a in ("", "tfnas"))]
    assert [path for path in missing if not path.startswith(("runs/", "benchmarks/results/"))] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_form(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= 40
    table = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    assert f"]({page.name}) |" in table


def test_decisions_are_numbered_without_gaps():
    assert [int(page.stem[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_build_notes_are_a_way_in():
    assert len((ROOT / "BUILD_NOTES.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_modules_have_the_names_that_the_map_of_renames_says():
    text = (ROOT / "docs" / "renamed.md").read_text(encoding="utf-8")
    _, modules = text.split("\n## Modules\n")
    now = re.findall(r"^\| `[^`]+` \| `([^`]+)` \|", modules, re.MULTILINE)
    paths = [ROOT / (name if "/" in name else name.replace(".", "/")) for name in now]
    missing = [path for path in paths if not path.exists() and not path.with_suffix(".py").exists()]
    assert len(now) > 100
    assert missing == []


def test_the_examples_of_the_page_on_training_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names = {"__name__": "training"}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, "training.md", "exec"), names)
    assert capsys.readouterr().out == "0.75\n[0.25, 0.5]\n['epoch', 'loss', 'sparsity']\n"


@pytest.mark.slow
def test_the_examples_of_the_page_on_integers_without_training_run(capsys):
    text = (ROOT / "docs" / "post_training.md").read_text(encoding="utf-8")
    rounding, *others = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"__name__": "post_training"}
    exec(compile(rounding, "post_training.md", "exec"), names)
    assert names["layer"]["name"] in capsys.readouterr().out
    for code in others:  # two ways side by side, the better one last
        exec(compile(code, "post_training.md", "exec"), names)
        errors = [float(e) for e in re.findall(r"error (\S+) of", capsys.readouterr().out)]
        assert errors == sorted(errors, reverse=True)


@pytest.mark.slow
def test_the_example_of_the_page_on_streams_runs():
    text = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"__name__": "streaming"}
    exec(compile(code, "streaming.md", "exec"), names)
    assert names["outputs"].shape == (20, 2)


@pytest.mark.slow
def test_the_code_of_any_task_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "any_task.md").read_text(encoding="utf-8")
    whole, own_training = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "any_task"}
    exec(compile(whole, "any_task.md", "exec"), names)
    assert names["result"].meets
    assert names["result"].best.costs.bytes <= 6000

    def compress(model, *arguments, **options):  # no second job: arguments, and one epoch
        inspect.signature(tfnas_compress).bind(model, *arguments, **options)
        options["fit"](model, 1, [])
        return model.optimizer.iterations

    tfnas_compress = names["tfnas"].compress
    monkeypatch.setattr(names["tfnas"], "compress", compress)
    before = int(names["model"].optimizer.iterations)
    exec(compile(own_training, "any_task.md", "exec"), names)
    assert int(names["result"]) > before
