"""`compress`: budget, files on disk, report."""

import dataclasses
import html.parser
import io
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from chromium import NoBrowser, browser, chromium
from keras import layers
from PIL import Image
from planning import FORMATS, candidate

import tfnas
from tfnas.cli import app
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.candidate_store import beaten, best_for_budget, front
from tfnas.compression.progress import Progress
from tfnas.jobs import compress_folder, job_folder
from tfnas.tasks.assessment import ACCURACY, Assessment

# --- the budget


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "budget must hold at least one of max_drop, .*, quality_limit, max_bytes"),
        ({"max_drop": -1}, "max_drop must be a finite number >= 0, got -1"),
        ({"max_bytes": 0}, "max_bytes must be a finite number above 0, got 0"),
        ({"max_macs": 1.5}, "max_macs must be a fraction up to 1, got 1.5"),
        (
            {"max_latency_ratio": float("nan")},
            "max_latency_ratio must be a finite number above 0, got nan",
        ),
        ({"max_bytes": True}, "max_bytes must be a finite number above 0, got True"),
        ({"max_speed": 3}, "budget must hold limits of max_drop, .*, got max_speed"),
        ({"max_byte": 3}, "got max_byte; did you mean 'max_bytes'?"),
        (7, "budget must be a Budget or a dictionary, got 7"),
    ],
)
def test_bad_budgets_are_named(limits, message):
    with pytest.raises(ValueError, match=message):
        Budget.of(limits)


def test_excesses():
    budget = Budget(max_drop=1.0, max_bytes=100, max_latency_ratio=0.5)
    assert budget.excesses(CandidateCosts(1.0, 100, 1, 0.5, 1.0, 1)) == {}
    over = budget.excesses(CandidateCosts(1.5, 150, 1, 0.4, 1.0, 1))
    assert over == {"max_drop": 0.5, "max_bytes": 0.5}
    assert Budget(max_drop=0).excesses(CandidateCosts(0.0, 1, 1, 1, 1, 1)) == {}


# --- the best candidate


def test_the_smallest_and_fastest_that_is_accurate_enough():
    rows = [candidate(drop=0.1, size=100), candidate(drop=0.8, size=50), candidate(drop=2, size=9)]
    assert best_for_budget(rows, Budget(max_drop=1.0)) is rows[1]
    assert (
        best_for_budget(rows, Budget(max_bytes=60)) is rows[1]
    )  # the most accurate of the small ones
    assert best_for_budget(rows, Budget(max_drop=0.5, max_bytes=60)) is rows[1]  # the nearest


def test_front_and_beaten_candidates():
    rows = [candidate(drop=0.1), candidate(drop=0.1, latency=0.6), candidate(drop=1, size=10)]
    assert front(rows, gzipped=False) == [rows[0], rows[2]]
    assert front([], gzipped=False) == []
    wrong = np.zeros(200, bool)
    other = candidate(right=~wrong)
    bad = Assessment(ACCURACY, wrong)
    assert beaten(bad, (50.0, 100, 0.5), [other], gz=False)
    assert not beaten(bad, (50.0, 99, 0.5), [other], gz=False)  # smaller
    near = ~wrong.copy()
    near[0] = False
    assert not beaten(Assessment(ACCURACY, near), (0.5, 100, 0.5), [other], gz=False)  # by chance


def test_without_a_limit_on_time_no_measured_time_decides_what_is_beaten():
    wrong = np.zeros(200, bool)
    one = candidate(drop=50.0, macs=0.5, right=wrong)
    for latency in (0.4, 0.6):
        other = candidate(latency=latency, macs=0.5, right=~wrong)
        bad, untimed = one.assessment, one.row(False, timed=False)
        assert beaten(bad, untimed, [other], gz=False, timed=False)
        assert beaten(bad, one.row(False), [other], gz=False) == (latency < 0.5)
    more = candidate(macs=0.6, right=~wrong)
    assert not beaten(one.assessment, one.row(False, timed=False), [more], gz=False, timed=False)


# --- a complete job


class Recorded(Progress):
    def __init__(self, stop_after=None):
        self.phases, self.stop_after = [], stop_after

    def phase(self, text):
        self.phases.append(text)
        if self.stop_after and sum(text.startswith("  ") for text in self.phases) > self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(tiny_model, digits, tmp_path_factory):
    """A job that was interrupted after two files, and continued."""
    folder = tmp_path_factory.mktemp("compress") / "job"
    arguments = (tiny_model, digits, {"max_drop": 100.0})
    options = {"effort": "quick", "directory": folder}
    with pytest.raises(KeyboardInterrupt):
        tfnas.compress(*arguments, **options, progress=Recorded(stop_after=1))
    progress = Recorded()
    return folder, progress, tfnas.compress(*arguments, **options, progress=progress)


def test_a_job_continues_where_it_was_stopped(run):
    folder, progress, result = run
    found = [text for text in progress.phases if text.endswith("read, built before")]
    assert found == ["float16: read, built before", "dynamic: read, built before"]
    assert [str(found.recipe) for found in result.candidates] == FORMATS
    for found in result.candidates:
        record = json.loads((folder / "candidates" / found.recipe.key / "record.json").read_text())
        assert record["costs"]["bytes"] == found.file.size
        # These follow from the metric's values, so that records of before have them too.
        assert not {"quality", "relative_loss", "higher_is_better"} & set(record["costs"])
        value, original = found.assessment.score.value, result.original[0]
        assert found.costs.quality == value
        assert found.costs.relative_loss == pytest.approx((original - value) / original)


def test_the_result_is_measured_on_other_images(run, digits):
    folder, _, result = run
    assert result.meets
    assert result.best in result.front
    assert len(result.rows) == 1 + len(result.front)
    final = digits.for_given_model()
    assert len(result.candidates[0].assessment.values) == len(final.y_val)
    row = next(row for row in result.rows if row.label == str(result.best.recipe))
    right = row.file.predict(final.x_test).argmax(-1) == final.y_test
    np.testing.assert_array_equal(row.assessment.values, right)
    assert tfnas.Artifact.load(folder / "best.tflite").content == result.best.file.content


def test_the_plan_is_reported_and_saved(run):
    folder, progress, result = run
    lines = [text.removeprefix("plan: ") for text in progress.phases if text.startswith("plan: ")]
    assert tuple(lines) == result.plan.reasons
    assert lines
    kept = json.loads((folder / "model_analysis.json").read_text())
    assert [layer["name"] for layer in kept["layers"]] == [
        n.name for n in result.model_analysis.layers
    ]
    assert {row.layer for row in result.layers} <= {
        layer.name for layer in result.model_analysis.layers
    }


def test_the_best_file_has_a_saved_model(run, digits):
    folder, _, result = run
    assert result.saved_model == folder / "saved_model"
    x = digits.x_test[:20].astype("float32")
    loaded = tf.saved_model.load(str(result.saved_model))  # its variables live as long as it does
    served = np.asarray(loaded.serve(x))
    model = tfnas.load_model(folder / "candidates" / result.best.recipe.key / "model.keras")
    np.testing.assert_allclose(served, model.predict(x, verbose=0), atol=1e-5)


def test_throughput_of_the_original_and_the_best_file(run):
    _, _, result = run
    assert {found.file for found in result.throughput} == {0, 1}
    assert {found.batch_size for found in result.throughput} == {1, 8, 32}


def test_the_halves_share_no_image(digits):
    split = digits.for_given_model()
    assert len(split.x_val) + len(split.x_test) == len(digits.x_test)
    both = np.concatenate([split.x_val, split.x_test]).reshape(len(digits.x_test), -1)
    flat = digits.x_test.reshape(len(digits.x_test), -1)
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(flat, axis=0))
    assert len(split.x_train) == len(digits.x_train) + len(digits.x_val)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            assert attrs["alt"]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_result_prints_for_terminals_and_notebooks(run):
    folder, _, result = run
    text = str(result)
    assert all(len(line) <= 80 for line in text.split("\n\n")[0].split("\n"))
    assert "keeps the budget (max_drop 100.0)" in text
    assert f"Everything is in {folder}" in text
    assert "\n" not in repr(result)
    assert repr(result).startswith(f"CompressResult({result.best.recipe}: ")
    assert result._repr_html_().count("<tr>") == 1 + len(result.rows)


def test_the_result_is_drawn(run):
    _, _, result = run
    figure = result.plot()
    latency, size = figure.axes
    assert latency.get_xlabel().startswith("latency")
    assert size.get_xlabel().startswith("size")
    assert latency.get_ylim() == size.get_ylim()
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    assert len(result.plot(over=["bytes"]).axes) == 1
    with pytest.raises(ValueError, match="over must be a list"):
        result.plot(over="bytes")


def test_the_page_needs_nothing_but_itself(run):
    folder, _, result = run
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert '<figure class="chart">' in text  # the plot, drawn in the page
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    words = " ".join(page.words)
    parts = ("Why this was tried", "Examples a second", "layer by layer", *result.plan.reasons)
    for expected in ("keeps the budget", "Is it still the same model?", "float16", "blur", *parts):
        assert expected in words
    for found in result.candidates:
        assert str(found.recipe) in words
    for name in ("pareto.png", "pareto_bytes.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "| float16 |" in (folder / "report.md").read_text().replace("  ", " ")


@pytest.mark.skipif(browser() is None, reason="no Chromium: the page is not rendered")
def test_the_page_in_a_browser(run):
    """The plot's and the frames' colors are there, on dark text over a light page."""
    folder, _, _ = run
    try:
        with chromium() as page:
            page.open(folder / "report.html", 390)
            shot = page.screenshot(1500)
    except NoBrowser as error:
        pytest.skip(f"Chromium does not run here: {error}")
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    assert pixels.shape[1] == 390
    for color in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):  # front, chosen, kept
        near = np.abs(pixels - color).max(axis=-1) < 80
        assert near.sum() > 20, color
    assert (pixels.min(axis=-1) > 230).mean() > 0.5
    assert (pixels.max(axis=-1) < 90).mean() > 0.005


def test_results_of_an_earlier_call_are_moved_aside(run, tiny_model, digits, tmp_path):
    """A call that is stopped leaves no report of another budget where its own would be."""
    folder, _, result = run
    job = tmp_path / "job"
    shutil.copytree(folder, job)
    report = (job / "report.md").read_text()
    assert "| effort" in report
    arguments = (tiny_model, digits, {"max_drop": 3.0})
    options = {"effort": "quick", "directory": job}
    with pytest.raises(KeyboardInterrupt):
        tfnas.compress(*arguments, **options, progress=Recorded(stop_after=1))
    assert not (job / "report.html").exists()
    assert (job / "earlier" / "report.md").read_text() == report
    kept = tfnas.Artifact.load(job / "earlier" / "best.tflite")
    assert kept.content == result.best.file.content


def test_kills_lose_no_result_of_an_earlier_call(tmp_path, monkeypatch):
    def end_with(text, *names):
        for name in names:
            (tmp_path / name).write_text(text)

    def earlier():
        return {path.name: path.read_text() for path in (tmp_path / "earlier").iterdir()}

    names = {name for name in compress_folder.PRODUCTS if name != "saved_model"}
    end_with("one", *names)
    compress_folder.set_aside(tmp_path)
    end_with("two", "best.tflite", "report.md")  # killed before its report was there
    compress_folder.set_aside(tmp_path)
    assert earlier() == dict.fromkeys(names, "one")
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
    end_with("three", *names)
    replace, moved = pathlib.Path.replace, []

    def killed(path, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(replace(path, target))

    monkeypatch.setattr(pathlib.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        compress_folder.set_aside(tmp_path)
    monkeypatch.undo()
    compress_folder.set_aside(tmp_path)
    assert earlier() == dict.fromkeys(names, "three")
    compress_folder.set_aside(tmp_path)
    assert earlier() == dict.fromkeys(names, "three")


def test_another_job_in_the_folder_is_refused(run, tiny_model, digits, monkeypatch, tmp_path):
    folder, _, _ = run
    budget, quick = {"max_drop": 1.0}, {"effort": "quick"}
    arguments = (tiny_model, digits, budget)
    with pytest.raises(ValueError, match=r"holds a job of another settings"):
        tfnas.compress(*arguments, **quick, directory=folder, seed=3)
    other = dataclasses.replace(digits, y_test=digits.y_test[::-1])
    with pytest.raises(ValueError, match=r"holds a job of another data"):
        tfnas.compress(tiny_model, other, budget, **quick, directory=folder)
    monkeypatch.setattr(job_folder, "FORMAT", 0)
    with pytest.raises(ValueError, match=r"a job of compress of another version of tfnas"):
        tfnas.compress(*arguments, **quick, directory=folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"directory must be a folder, got .*, which is a file"):
        tfnas.compress(*arguments, **quick, directory=tmp_path / "file")
    (tmp_path / "report.md").write_text("of a search")
    with pytest.raises(ValueError, match=r"must be new, empty or .* holds file, report\.md$"):
        tfnas.compress(*arguments, **quick, directory=tmp_path)
    assert (tmp_path / "report.md").read_text() == "of a search"


def doubled(x):
    return 2.0 * x


def test_a_limit_on_macs_that_can_not_be_counted_is_refused_first(digits, tmp_path):
    parts = [layers.Lambda(doubled, name="own"), layers.Flatten(), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
    with pytest.raises(ValueError, match=r"max_macs must be left out .* got own"):
        tfnas.compress(model, digits, {"max_macs": 0.5}, directory=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("end", "size", "message"),
    [
        ({"units": 1}, 8, "must end in a sigmoid where it has one unit, got logits"),
        ({"units": 10, "activation": "sigmoid"}, 8, "got a sigmoid of 10 units"),
        ({"units": 10}, None, r"must take inputs of one size, got \(None, None, 1\)"),
    ],
)
def test_models_that_no_step_could_take_are_refused_first(digits, tmp_path, end, size, message):
    model = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Conv2D(2, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(**end),
        ]
    )
    split = digits
    if end["units"] == 1:
        labels = {
            f"y_{part}": getattr(digits, f"y_{part}") % 2 for part in ("train", "val", "test")
        }
        split = dataclasses.replace(digits, class_names=("even", "odd"), **labels)
    with pytest.raises(ValueError, match=message):
        tfnas.compress(model, split, {"max_drop": 1.0}, directory=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_job_is_overwritten_on_request(tiny_model, digits, tmp_path):
    arguments = (tiny_model, digits, {"max_memory": 4000})  # only integers remain
    (tmp_path / "mine.txt").write_text("not a job")
    with pytest.raises(ValueError, match="directory must be new, empty or the folder of a job"):
        tfnas.compress(*arguments, effort="quick", directory=tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").exists()
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.json").write_text('{"model": "another", "settings": {}, "data": "other"}')
    (folder / "model_analysis.json").write_text("of another model")
    (folder / "mine.txt").write_text("no file of a job")
    result = tfnas.compress(*arguments, effort="quick", directory=folder, overwrite=True)
    assert result.meets
    assert "layers" in json.loads((folder / "model_analysis.json").read_text())
    assert (folder / "mine.txt").read_text() == "no file of a job"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effort": "hard"}, "effort must be one of quick, normal, thorough, got 'hard'"),
        ({"effort": "quik"}, "got 'quik'; did you mean 'quick'?"),
        ({"budget": {}}, "budget must hold at least one"),
        ({"augment": ("turn",)}, "augment must hold some of"),
        ({"epochs": -1}, "epochs must be a whole number >= 0"),
    ],
)
def test_bad_arguments_are_named_before_any_work(change, message, tiny_model, digits, tmp_path):
    arguments = {"budget": {"max_drop": 1.0}, "directory": tmp_path / "job", **change}
    with pytest.raises(ValueError, match=message):
        tfnas.compress(tiny_model, digits, **arguments)
    assert not (tmp_path / "job").exists()


@pytest.mark.slow
def test_the_command(tiny_model, tmp_path, capsys):
    tiny_model.save(tmp_path / "m.keras")
    line = ["compress", str(tmp_path / "m.keras"), "--dataset=digits", "--max_bytes=1"]
    assert app.main([*line, "--effort=quick", f"--directory={tmp_path / 'out'}"]) == 3
    out = capsys.readouterr().out
    assert "No file keeps the budget (max_bytes 1). The nearest," in out
    assert (tmp_path / "out" / "report.html").exists()
    assert app.main(line[:-1]) == 2
    assert "budget must hold at least one" in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_channels_zeros_and_few_values(tiny_model, digits, tmp_path):
    budget = {"max_drop": 2.0, "max_macs": 0.7, "max_gzip_bytes": 20_000}
    result = tfnas.compress(tiny_model, digits, budget, directory=tmp_path, epochs=2)
    names = {str(found.recipe): found for found in result.candidates}
    pruned = names["prune_channels 0.7, int8"]
    assert pruned.costs.macs <= 0.7
    assert pruned.file.size < names["int8"].file.size
    packed = next(found for name, found in names.items() if "cluster" in name)
    assert packed.costs.gzip_bytes < names["int8"].costs.gzip_bytes


def test_the_report_says_where_the_final_images_disagree(run):
    _, _, result = run
    first, *others = result.rows
    worse = [dataclasses.replace(row, difference=(-0.05, -0.06, -0.04)) for row in others]
    costs = dataclasses.replace(result.best.costs, drop=-0.5)
    recipe = dataclasses.replace(result.best.recipe)
    best = dataclasses.replace(result.best, costs=costs)
    changed = dataclasses.replace(
        result, rows=[first, *worse], best=best, budget=Budget(max_drop=1.0), excesses={}
    )
    text = str(changed)
    assert "loses 5.00 points, more than max_drop 1" in text
    assert ("better than the original by 0.50 points" in text) == recipe.trains
