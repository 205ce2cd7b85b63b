"""One call: budget, plan, what is kept on disk, report."""

import dataclasses
import html.parser
import json
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from planning import walked

import tfnas
from tfnas.cli import app
from tfnas.pipeline.budget import Budget, Costs
from tfnas.pipeline.candidates import Candidate, beaten, front
from tfnas.pipeline.compress import chosen
from tfnas.pipeline.effort import EFFORTS, Effort
from tfnas.pipeline.planner import plan
from tfnas.pipeline.progress import Progress
from tfnas.pipeline.recipes import Recipe, Step


def candidate(recipe=None, drop=0.0, size=100, latency=0.5, gz=None, macs=1.0, right=None):
    costs = Costs(drop, size, size if gz is None else gz, latency, macs, 10)
    right = np.ones(10, bool) if right is None else right
    return Candidate(recipe or Recipe((), "int8"), None, costs, (drop, drop - 1, drop + 1), right)


# --- the budget


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "budget must hold at least one of max_drop, max_bytes"),
        ({"max_drop": -1}, "max_drop must be a finite number >= 0, got -1"),
        ({"max_bytes": 0}, "max_bytes must be a finite number above 0, got 0"),
        ({"max_macs": 1.5}, "max_macs must be a share up to 1, got 1.5"),
        ({"max_latency": float("nan")}, "max_latency must be a finite number above 0, got nan"),
        ({"max_bytes": True}, "max_bytes must be a finite number above 0, got True"),
        ({"max_speed": 3}, "budget must hold limits of max_drop, .*, got max_speed"),
        (7, "budget must be a Budget or a dictionary, got 7"),
    ],
)
def test_bad_budgets_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Budget.of(given)


def test_excesses():
    budget = Budget(max_drop=1.0, max_bytes=100, max_latency=0.5)
    assert budget.excesses(Costs(1.0, 100, 1, 0.5, 1.0, 1)) == {}
    over = budget.excesses(Costs(1.5, 150, 1, 0.4, 1.0, 1))
    assert over == {"max_drop": 0.5, "max_bytes": 0.5}
    assert Budget(max_drop=0).excesses(Costs(0.0, 1, 1, 1, 1, 1)) == {}


# --- what is chosen


def test_the_smallest_and_fastest_that_is_accurate_enough():
    rows = [candidate(drop=0.1, size=100), candidate(drop=0.8, size=50), candidate(drop=2, size=9)]
    assert chosen(rows, Budget(max_drop=1.0)) is rows[1]
    assert chosen(rows, Budget(max_bytes=60)) is rows[1]  # the most accurate of the small ones
    assert chosen(rows, Budget(max_drop=0.5, max_bytes=60)) is rows[1]  # the nearest


def test_front_and_what_is_beaten():
    rows = [candidate(drop=0.1), candidate(drop=0.1, latency=0.6), candidate(drop=1, size=10)]
    assert front(rows, gzipped=False) == [rows[0], rows[2]]
    assert front([], gzipped=False) == []
    wrong = np.zeros(200, bool)
    other = candidate(right=~wrong)
    assert beaten(wrong, (50.0, 100, 0.5), [other], gz=False)
    assert not beaten(wrong, (50.0, 99, 0.5), [other], gz=False)  # smaller
    near = ~wrong.copy()
    near[0] = False
    assert not beaten(near, (0.5, 100, 0.5), [other], gz=False)  # within chance


# --- the plan


def tried(budget, effort, outcomes):
    """Names of the recipes that are tried where `outcomes(recipe)` gives what comes of them."""
    return walked(plan(Budget.of(budget), EFFORTS.get(effort, effort)), outcomes)


FORMATS = ["float16", "dynamic", "int8", "int8x4"]


def test_quick_is_formats_alone():
    assert tried({"max_drop": 1}, "quick", candidate) == FORMATS


def test_shares_follow_the_budget_and_the_accuracy():
    def good(recipe):
        return candidate(recipe, drop=0.1, size=1000)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", good)
    assert found == [
        *FORMATS,
        *("shrink 0.5, int8", "shrink 0.5, int8 trained"),
        *("shrink 0.35, int8", "shrink 0.35, int8 trained"),  # the accuracy allows more
    ]
    found = tried({"max_drop": 1, "max_bytes": 500}, "normal", good)
    assert found[4] == "shrink 1 weights 0.47, int8"  # nothing is said of costs
    found = tried({"max_drop": 1, "max_macs": 0.5, "max_bytes": 500}, "normal", good)
    assert found[4] == "shrink 0.5 weights 0.47, int8"
    assert tried({"max_bytes": 10}, "normal", good)[4] == "shrink 1 weights 0.05, int8"

    def bad(recipe):
        return candidate(recipe, drop=5.0 if recipe.steps else 0.1)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", bad)
    assert found[4:] == ["shrink 0.5, int8", "shrink 0.5, int8 trained"]  # the limit forbids more
    found = tried({"max_drop": 1}, "normal", bad)
    assert found[6:] == ["shrink 0.75, int8", "shrink 0.75, int8 trained"]


def test_what_meets_the_budget_is_enough_unless_the_effort_is_thorough():
    def halved(recipe):
        return candidate(recipe, drop=0.1, macs=0.5 if recipe.steps else 1.0)

    budget = {"max_drop": 1, "max_macs": 0.5}
    halves = ["shrink 0.5, int8", "shrink 0.5, int8 trained"]
    milder = ["shrink 0.75, int8", "shrink 0.75, int8 trained"]  # what the limit costs
    assert tried(budget, "normal", halved)[4:] == halves + milder
    thorough = tried(budget, "thorough", halved)
    assert thorough[5:9] == halves + milder
    assert "shrink 0.35, int8" in thorough


def test_training_goes_on_where_the_accuracy_is_nearly_enough():
    def outcome(drops):
        return lambda r: candidate(r, drops(r) if r.steps else 0.1, macs=0.5 if r.steps else 1.0)

    def longer(recipe):
        return any(step.technique == "train" for step in recipe.steps)

    budget = {"max_drop": 1, "max_macs": 0.5}
    found = tried(budget, "normal", outcome(lambda r: 0.9 if longer(r) else 2.5))
    more = ["shrink 0.5, train 5, int8", "shrink 0.5, train 5, int8 trained"]
    assert found[4:7] == ["shrink 0.5, int8", *more]
    found = tried(budget, "normal", outcome(lambda r: 1.2))  # rounding may be all that it lacks
    assert found[4:7] == ["shrink 0.5, int8", "shrink 0.5, int8 trained", more[1]]
    found = tried(budget, "normal", outcome(lambda r: 5.0))
    assert not any("train 5" in name for name in found)
    found = tried(budget, "normal", outcome(lambda r: 5.0 if not r.aware else 2.0 - longer(r)))
    assert found[4:7] == ["shrink 0.5, int8", "shrink 0.5, int8 trained", more[1]]
    found = tried(budget, "normal", outcome(lambda r: -0.5))
    assert found[4:] == ["shrink 0.5, int8", "shrink 0.75, int8"]  # rounding costs nothing


def test_training_for_integers_comes_first_where_the_whole_model_needed_it():
    def outcome(recipe):
        return candidate(recipe, drop=0.5 if recipe.aware else 3.0, macs=0.5)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", outcome)
    assert found[4:7] == ["int8 trained", "shrink 0.5, int8", "shrink 0.5, int8 trained"]
    assert not any("train 5" in name for name in found)


@pytest.mark.parametrize("effort", ["normal", "thorough"])
@pytest.mark.parametrize(
    "budget", [{"max_macs": 0.97}, {"max_macs": 0.92}, {"max_bytes": 990}, {"max_latency": 0.49}]
)
@pytest.mark.parametrize("drop", [-1.0, 0.5, 1.2, 2.0, 9.0])
def test_no_recipe_is_tried_twice(budget, effort, drop):
    def outcome(recipe):
        step = next(iter(recipe.steps), None)
        share = 1.0 if step is None else min(step.amount, step.weights or 1.0)
        return candidate(recipe, drop if step else 0.0, int(1000 * share), 0.5 * share, macs=share)

    found = tried({"max_drop": 1.0, **budget}, effort, outcome)
    assert len(found) == len(set(found))


def test_what_is_accurate_but_not_small_enough_goes_on_smaller():
    """Not to more weights at 4 bits, which could not be faster."""

    def outcome(recipe):
        share = next((s.amount for s in recipe.steps), 1.0)
        return candidate(recipe, -0.1, int(1000 * share), 0.5 * share**0.5)

    found = tried({"max_drop": 1, "max_latency": 0.35, "max_bytes": 900}, "normal", outcome)
    shares = list(dict.fromkeys(name.split(",")[0] for name in found[4:]))
    assert shares[0].startswith("shrink 0.66 weights 0.85")
    assert shares[1].startswith("shrink 0.46 weights 0.59")


def test_four_bits_are_trained_for_where_bytes_alone_are_short():
    def outcome(recipe):
        share = next((s.weights or s.amount for s in recipe.steps), 1.0)
        size = int(1000 * share * (0.6 if recipe.mode == "int8x4" else 1.0))
        drop = 30.0 if recipe.mode == "int8x4" and not recipe.aware else 0.1
        return candidate(recipe, drop=drop, size=size)

    found = tried({"max_drop": 1, "max_bytes": 650}, "normal", outcome)
    assert found == [*FORMATS, "int8x4 trained"]

    def lost(recipe):
        made = outcome(recipe)
        narrow = any(step.weights == 0.38 for step in recipe.steps)
        costs = dataclasses.replace(made.costs, drop=9.0 if narrow else made.costs.drop)
        return dataclasses.replace(made, costs=costs)

    found = tried({"max_drop": 1, "max_bytes": 400}, "normal", lost)
    # 0.95 of 400 by the 1000 bytes of int8, which lose too much, then by 600.
    assert found[4:6] == ["shrink 1 weights 0.38, int8", "shrink 1 weights 0.38, int8 trained"]
    asked = "shrink 1 weights 0.63"
    assert found[6:9] == [f"{asked}, {how}" for how in ("int8", "int8 trained", "int8x4 trained")]
    found = tried({"max_drop": 1, "max_gzip_bytes": 1}, "normal", outcome)
    assert "int8x4 trained" not in found


def test_integers_are_trained_for_where_they_cost():
    found = tried({"max_drop": 0.5}, "normal", lambda r: candidate(r, drop=1.0))
    assert found[4] == "int8 trained"


def test_what_is_beaten_is_not_worked_on():
    def outcome(recipe):
        return dataclasses.replace(candidate(recipe), beaten=bool(recipe.steps))

    assert "shrink 0.5, int8 trained" not in tried({"max_drop": 1}, "normal", outcome)


def test_gzipped_bytes_ask_for_zeros_and_few_values():
    def outcome(recipe):
        zeros = next((s.amount for s in recipe.steps if s.technique == "prune"), 0)
        return candidate(recipe, gz=int(100 * (1 - zeros)))

    found = tried({"max_gzip_bytes": 30}, Effort(("int8",), 1), outcome)
    assert found == [
        "int8",
        "prune 0.6, cluster 16, int8 trained",
        "prune 0.75, cluster 16, int8 trained",
    ]


def test_low_rank_stands_in_for_channels_that_can_not_go():
    def outcome(recipe):
        shrunk = any(s.technique == "shrink" for s in recipe.steps)
        return None if shrunk else candidate(recipe, drop=0.1)

    effort = dataclasses.replace(EFFORTS["thorough"], rounds=1, ladder=(0.5,))
    found = tried({"max_drop": 1}, effort, outcome)
    assert found[5:] == ["shrink 0.5, int8", "factorize 0.5, int8", "factorize 0.5, int8 trained"]


def test_recipes_keep_the_order_of_techniques():
    steps = Step("cluster", 16), Step("prune", 0.5)
    with pytest.raises(ValueError, match="order shrink, factorize, thin, train, prune"):
        Recipe(steps, "int8")
    assert Recipe(steps[::-1], "int8", aware=True).key == "prune_0.5-cluster_16-int8_trained"


# --- the whole


class Told(Progress):
    def __init__(self, stop_after=None):
        self.phases, self.stop_after = [], stop_after

    def phase(self, text):
        self.phases.append(text)
        if self.stop_after and sum(text.startswith("  ") for text in self.phases) > self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(tiny_model, digits, tmp_path_factory):
    """A job that was interrupted after two files, and went on."""
    folder = tmp_path_factory.mktemp("compress") / "job"
    given = (tiny_model, digits, {"max_drop": 100.0}, "quick", folder)
    with pytest.raises(KeyboardInterrupt):
        tfnas.compress(*given, progress=Told(stop_after=1))
    told = Told()
    return folder, told, tfnas.compress(*given, progress=told)


def test_a_job_goes_on_where_it_was_stopped(run):
    folder, told, result = run
    found = [text for text in told.phases if text.endswith("found, made before")]
    assert found == ["float16: found, made before", "dynamic: found, made before"]
    assert [str(made.recipe) for made in result.candidates] == FORMATS
    for made in result.candidates:
        record = json.loads((folder / "candidates" / made.recipe.key / "record.json").read_text())
        assert record["costs"]["bytes"] == made.file.size


def test_the_result_is_measured_on_other_images(run, digits):
    folder, _, result = run
    assert result.meets
    assert result.best in result.front
    assert len(result.rows) == 1 + len(result.front)
    final = digits.for_given_model()
    assert len(result.candidates[0].right) == len(final.y_val)
    row = next(row for row in result.rows if row.label == str(result.best.recipe))
    right = row.file.predict(final.x_test).argmax(-1) == final.y_test
    np.testing.assert_array_equal(row.right, right)
    assert tfnas.Artifact.load(folder / "best.tflite").content == result.best.file.content


def test_the_plan_is_told_and_kept(run):
    folder, told, result = run
    lines = [text.removeprefix("plan: ") for text in told.phases if text.startswith("plan: ")]
    assert tuple(lines) == result.decisions.told
    assert lines
    kept = json.loads((folder / "survey.json").read_text())
    assert [layer["name"] for layer in kept["layers"]] == [n.name for n in result.survey.layers]
    assert {row.layer for row in result.layers} <= {layer.name for layer in result.survey.layers}


def test_the_best_one_serves_from_a_saved_model_too(run, digits):
    folder, _, result = run
    assert result.saved_model == folder / "saved_model"
    x = digits.x_test[:20].astype("float32")
    loaded = tf.saved_model.load(str(result.saved_model))  # its variables live as long as it does
    served = np.asarray(loaded.serve(x))
    twin = tfnas.load_model(folder / "candidates" / result.best.recipe.key / "model.keras")
    np.testing.assert_allclose(served, twin.predict(x, verbose=0), atol=1e-5)


def test_throughput_of_the_original_and_the_best_one(run):
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
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(run):
    folder, _, result = run
    page = Page((folder / "report.html").read_text())
    assert not page.open
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    words = " ".join(page.words)
    parts = ("Why this was tried", "Examples a second", "layer by layer", *result.decisions.told)
    for wanted in ("keeps the budget", "Is it still the same model?", "float16", "blur", *parts):
        assert wanted in words
    for made in result.candidates:
        assert str(made.recipe) in words
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "| float16 |" in (folder / "report.md").read_text().replace("  ", " ")


def browser():
    names = "chromium", "chromium-browser", "google-chrome"
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.mark.skipif(browser() is None, reason="no Chromium: the page is not looked at")
@pytest.mark.parametrize("width", [1100, 390], ids=["screen", "phone"])
def test_the_page_in_a_browser(run, width, tmp_path):
    """The picture's and the frames' colours are there, on dark text over a light page."""
    folder, _, _ = run
    shot, page = tmp_path / "shot.png", (folder / "report.html").as_uri()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options.append("--disable-dev-shm-usage")  # small in containers
    size = [f"--window-size={width},1500", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser(), *options, *size, f"--screenshot={shot}", page]
    try:
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"Chromium does not run here: {error}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):  # front, chosen, kept
        near = np.abs(pixels - colour).max(axis=-1) < 80
        assert near.sum() > 20, colour  # a star on a phone is small
    assert (pixels.min(axis=-1) > 230).mean() > 0.5
    assert (pixels.max(axis=-1) < 90).mean() > 0.005


def test_another_job_in_the_folder_is_refused(run, tiny_model, digits):
    folder, _, _ = run
    with pytest.raises(ValueError, match=r"holds a job of another settings"):
        tfnas.compress(tiny_model, digits, {"max_drop": 1.0}, "quick", folder, seed=3)


@pytest.mark.slow
def test_a_job_is_overwritten_where_that_is_asked_for(tiny_model, digits, tmp_path):
    given = (tiny_model, digits, {"max_memory": 4000}, "quick")  # leaves integers alone
    (tmp_path / "mine.txt").write_text("not a job")
    with pytest.raises(ValueError, match="workdir must be a job's folder to overwrite it"):
        tfnas.compress(*given, tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").exists()
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.json").write_text('{"model": "another"}')
    (folder / "left").write_text("")
    result = tfnas.compress(*given, folder, overwrite=True)
    assert result.meets
    assert not (folder / "left").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effort": "hard"}, "effort must be one of quick, normal, thorough, got 'hard'"),
        ({"budget": {}}, "budget must hold at least one"),
        ({"augment": ("turn",)}, "augment must hold some of"),
        ({"epochs": -1}, "epochs must be a whole number >= 0"),
    ],
)
def test_bad_arguments_are_named_before_any_work(change, message, tiny_model, digits, tmp_path):
    given = {"budget": {"max_drop": 1.0}, "workdir": tmp_path / "job", **change}
    with pytest.raises(ValueError, match=message):
        tfnas.compress(tiny_model, digits, **given)
    assert not (tmp_path / "job").exists()


@pytest.mark.slow
def test_the_command(tiny_model, tmp_path, capsys):
    tiny_model.save(tmp_path / "m.keras")
    line = ["compress", str(tmp_path / "m.keras"), "--dataset=digits", "--max_bytes=1"]
    assert app.main([*line, "--effort=quick", f"--output={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert "No file keeps the budget (max_bytes 1). The nearest," in out
    assert (tmp_path / "out" / "report.html").exists()
    assert app.main(line[:-1]) == 1
    assert "budget must hold at least one" in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_channels_zeros_and_few_values(tiny_model, digits, tmp_path):
    budget = {"max_drop": 2.0, "max_macs": 0.7, "max_gzip_bytes": 20_000}
    result = tfnas.compress(tiny_model, digits, budget, workdir=tmp_path, epochs=2)
    names = {str(made.recipe): made for made in result.candidates}
    shrunk = names["shrink 0.7, int8"]
    assert shrunk.costs.macs <= 0.7
    assert shrunk.file.size < names["int8"].file.size
    packed = next(made for name, made in names.items() if "cluster" in name)
    assert packed.costs.gzip_bytes < names["int8"].costs.gzip_bytes


def test_the_report_tells_where_other_images_say_otherwise(run):
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
    assert ("more accurate than the original by 0.50 points" in text) == recipe.trains
