"""A search on a hundred and fifty digits: the folder, resuming, interruption."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil

import keras
import numpy as np
import pytest
from folder_contents import contents
from PIL import Image

import tfnas
from tfnas.compression.progress import Progress
from tfnas.graph.finite_loss import Diverged
from tfnas.jobs import search_job as job_module
from tfnas.jobs import search_work
from tfnas.nas import trial_runner
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.search_config import SearchConfig
from tfnas.search_space import mobilenet_v2 as spaces

SETTINGS = {
    "preset": "microcontroller",
    "max_trials": 2,
    "epochs": 1,
    "final_epochs": 1,
    "batch_size": 32,
    "population_size": 2,
    "tournament_size": 1,
    "target_latency_ratio": 0.05,
    "random_candidates": 0,
    "seed": 0,
}
TEST_PHASE = "measuring on the test part"


class Watch(Progress):
    """Records phases and trials; can interrupt a trial."""

    def __init__(self, interrupt_at=None):
        self.phases, self.trials, self.ended, self.left = [], [], [], []
        self.notes = []
        self.interrupt_at = interrupt_at

    def phase(self, text):
        self.phases.append(text)

    def note(self, text):
        self.notes.append(text)

    def trial_began(self, number, total):
        self.trials.append((number, total))
        if number == self.interrupt_at:
            raise KeyboardInterrupt

    def trial_ended(self, news):
        self.ended.append(news)

    def time_left(self, seconds):
        self.left.append((self.phases[-1], seconds))


class Uses:
    """Records each use of images, and whether an image of the test part was among them."""

    def __init__(self, x_test, watch, patch):
        self.secret = {image.tobytes() for image in x_test}
        self.watch, self.seen = watch, []
        artifact = tfnas.Artifact
        patch.setattr(artifact, "predict", self.wrapped("predict", artifact.predict, 1))
        patch.setattr(keras.Model, "fit", self.wrapped("fit", keras.Model.fit, 1))
        for module in (job_module, trial_runner):
            patch.setattr(module, "to_tflite", self.wrapped("convert", module.to_tflite, 2))

    def wrapped(self, what, function, index):
        def noting(*args, **kwargs):
            images = args[index] if len(args) > index else kwargs.get("x")
            touched = any(image.tobytes() in self.secret for image in np.asarray(images))
            self.seen.append((what, self.watch.phases[-1], touched))
            return function(*args, **kwargs)

        return noting


def small_baseline(input_shape, num_classes, width, *, include_rescaling):
    """In place of MobileNetV2, whose training would take most of the time."""
    assert width == 0.35
    stages = (tfnas.BlockSpec(filters=8, expansion=1),)
    return tfnas.Architecture(
        input_shape,
        num_classes,
        stages,
        stem_filters=8,
        head_filters=16,
        include_rescaling=include_rescaling,
    )


@pytest.fixture(scope="module", autouse=True)
def _fast():
    """A small baseline, and the preset without its deep half."""
    preset = spaces.PRESETS["microcontroller"]
    stages = [dataclasses.replace(s, repeats=(1,), kernels=(3, 5)) for s in preset.stages[:2]]
    small = dataclasses.replace(preset, stages=tuple(stages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_work, "mobilenet_v2", small_baseline)
        patch.setitem(spaces.PRESETS, "microcontroller", small)
        yield


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    split = tfnas.data.load("digits").limited(150)
    path = tmp_path_factory.mktemp("data") / "few_digits.npz"
    np.savez(
        path,
        x_train=split.x_train,
        y_train=split.y_train,
        x_test=split.x_test[:60],
        y_test=split.y_test[:60],
    )
    return path


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
    """(result, progress, uses of images) of a finished search."""
    watch = Watch()
    with np.load(npz) as file, pytest.MonkeyPatch.context() as patch:
        uses = Uses(file["x_test"], watch, patch)
        output = tmp_path_factory.mktemp("run") / "out"
        result = tfnas.search(str(npz), directory=output, progress=watch, **SETTINGS)
    return result, watch, uses


def lines(output):
    return [json.loads(line) for line in (output / "trials.jsonl").read_text().splitlines()]


def test_the_folder_holds_everything(finished):
    output = finished[0].directory
    assert {path.name for path in output.iterdir()} == {
        *("config.json", "trials.jsonl", "pareto.csv", "pareto.png", "results.json", "report.md"),
        *("best.keras", "best_float32.tflite", "best_int8.tflite", "search", "final"),
        "report.html",
    }


def test_config_json(finished, npz):
    record = json.loads((finished[0].directory / "config.json").read_text())
    assert record["config"].items() >= SETTINGS.items()
    assert record["config"]["dataset"] == str(npz)
    assert record["provenance"]["tfnas"] == tfnas.__version__


def test_one_json_line_a_trial(finished):
    result, watch, _ = finished
    records = lines(result.directory)
    assert [record["trial"] for record in records] == ["0", "1"]
    for record, candidate in zip(records, result.candidates, strict=True):
        assert record["status"] == "COMPLETED"
        assert record["failure"] is None
        assert record["objective"] == candidate.objective
        assert record["seconds"] > 0
        assert tfnas.Architecture.from_dict(record["architecture"]) == candidate.architecture
        assert tfnas.Measurement.from_dict(record["measurement"]) == candidate.measurement
    assert watch.trials == [(1, 2), (2, 2)]
    assert [(news.number, news.total) for news in watch.ended] == [(1, 2), (2, 2)]
    assert watch.ended[0].best.startswith("reward ")
    assert watch.ended[0].best.endswith("(in search/trial_0)")


def test_the_winner_has_the_best_reward(finished):
    result = finished[0]
    assert result.winner.objective == max(c.objective for c in result.candidates)
    m = result.winner.measurement
    expected = m.score.value * (m.latency.ratio / 0.05) ** -0.07
    assert result.winner.objective == pytest.approx(expected, rel=1e-12)


def test_pareto_csv_and_picture(finished):
    result = finished[0]
    rows = list(csv.DictReader(io.StringIO((result.directory / "pareto.csv").read_text())))
    assert [row["trial"] for row in rows] == [c.trial_id for c in result.front]
    for row, candidate in zip(rows, result.front, strict=True):
        accuracy, ratio, size = candidate.objectives()
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=5e-5)
        assert float(row["latency_ratio"]) == pytest.approx(ratio, abs=5e-5)
        assert int(row["size_bytes"]) == size
        assert row["key"] == candidate.architecture.key
    content = (result.directory / "pareto.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert min(picture.size) > 200


def test_the_files_are_the_best_model(finished, npz):
    output = finished[0].directory
    model = keras.saving.load_model(output / "best.keras")
    with np.load(npz) as file:
        x = file["x_test"]
    float32 = tfnas.Artifact.load(output / "best_float32.tflite")
    np.testing.assert_allclose(float32.predict(x), model.predict(x, verbose=0), atol=1e-4)
    int8 = tfnas.Artifact.load(output / "best_int8.tflite")
    assert np.dtype(int8.inputs[0].dtype) == np.int8
    assert int8.size < float32.size


def test_the_comparison_is_of_the_files_on_the_test_part(finished, npz):
    result = finished[0]
    labels = ["tfnas, int8", "tfnas, float32", "MobileNetV2 0.35, int8"]
    assert [row.label for row in result.rows] == labels
    assert result.randoms == []
    assert result.interrupted is False
    with np.load(npz) as file:
        x, y = file["x_test"], file["y_test"]
    for row, mode in zip(result.rows, ("int8", "float32"), strict=False):
        artifact = tfnas.Artifact.load(result.directory / f"best_{mode}.tflite")
        right = artifact.predict(x).argmax(axis=1) == y
        np.testing.assert_array_equal(row.right, right)
        assert row.measurement.score.value == right.mean()
        assert row.measurement.sha256 == artifact.sha256
        assert row.measurement.provenance["part"] == "test"
    for row in result.rows:
        m = row.measurement
        assert row.reward == pytest.approx(m.score.value * (m.latency.ratio / 0.05) ** -0.07)


def test_results_json(finished):
    result = finished[0]
    record = json.loads((result.directory / "results.json").read_text())
    assert record["interrupted"] is False
    assert record["target_ratio"] == 0.05
    assert record["winner"]["trial"] == result.winner.trial_id
    assert record["front"] == [c.trial_id for c in result.front]
    assert [row["label"] for row in record["test"]] == [row.label for row in result.rows]
    for kept, row in zip(record["test"], result.rows, strict=True):
        assert kept["reward"] == row.reward
        assert kept["sha256"] == row.measurement.sha256


def test_report_holds_the_tables(finished):
    result = finished[0]
    text = (result.directory / "report.md").read_text()
    for heading in (
        "# Search on few_digits",
        "## The best, on the test part",
        "## Settings and environment",
    ):
        assert heading in text
    for row in result.rows:
        cells = [row.label, f"{row.measurement.score.value:.4f}", f"{row.measurement.size_bytes:,}"]
        assert any(all(cell in line for cell in cells) for line in text.splitlines())
    assert "against MobileNetV2 0.35, int8: " in text
    for candidate in result.front:
        assert candidate.architecture.key in text
    assert "| max_trials" in text
    assert "tfnas, int8" in str(result)


def test_the_trials_are_drawn(finished):
    result = finished[0]
    latency, size = result.plot(over=["latency", "bytes"]).axes
    assert latency.get_ylim() == size.get_ylim()
    assert latency.get_ylabel() == "accuracy of the file, validation part"
    plot = result.pareto_plot(["latency"])
    assert plot.chosen == [c.trial_id for c in result.candidates].index(result.winner.trial_id)
    assert len(plot.front) == len(result.front)
    assert result.best_file == "best_int8.tflite"
    assert (result.directory / result.best_file).exists()


def test_a_missed_target_comes_first(finished):
    result, met = finished[0], dataclasses.replace(finished[0], target_ratio=1e9)
    missed = dataclasses.replace(result, target_ratio=1e-9)
    assert str(met).startswith("The target latency is met: ")
    assert str(missed).startswith("The target latency is missed: ")
    assert "0 of 2 trials are as fast" in missed.target_verdict()
    assert not missed.meets_target
    text = (result.directory / "report.md").read_text()
    first = text.split("\n\n")[1]
    if result.meets_target:
        assert " on the test part, " in first
        assert "The target latency is met: " in first
    else:
        assert first.startswith("The target latency is missed: ")
    without = dataclasses.replace(result, target_ratio=None)
    assert without.meets_target
    assert str(without).startswith("The best of the 2 trials that ended well, on the validation pa")
    assert str(without).index("is in search/trial_") < str(without).index("Test part")


def test_the_line_of_a_trial_says_whether_it_meets_the_target(finished):
    result, watch, _ = finished
    for news, candidate in zip(watch.ended, result.candidates, strict=True):
        met = candidate.metrics["latency_ratio"] <= 0.05
        assert news.text.endswith(f"; target latency 0.05x {'met' if met else 'missed'}")
        assert news.front is None  # of one objective


@pytest.mark.parametrize(
    ("settings", "objectives"),
    [
        ({}, ("file_accuracy", "latency_ratio")),
        ({"target_latency_ratio": 0.1}, ("reward",)),
        ({"target_latency_ms": 0.1}, ("reward",)),
        ({"hypermodel": "m:build"}, ("val_loss",)),
        ({"objectives": ("macs",)}, ("macs",)),
    ],
)
def test_what_is_searched_for_by_default(settings, objectives):
    assert SearchConfig("digits", **settings).objectives == objectives


def test_the_result_fits_a_terminal_and_a_notebook(finished):
    result = finished[0]
    several = Objectives.of(objective_of(["file_accuracy", "latency_ratio"]))
    result = dataclasses.replace(result, objectives=several)
    tables = [line for line in str(result).splitlines() if line.count("  ") > 4]
    assert len(tables) >= 2 * 2 + len(result.rows) + len(result.front)
    assert max(map(len, tables)) <= 80
    assert repr(result) == (
        f"<SearchResult: 2 candidates, {len(result.front)} on the front, "
        f"winner trial {result.winner.trial_id}, in {str(result.directory)!r}>"
    )
    page = result._repr_html_()
    assert page.count("<table>") == 2
    assert page.count("<tr>") == 2 + len(result.rows) + len(result.front)


def test_the_test_part_is_touched_at_the_end_only(finished):
    _, watch, uses = finished
    kinds = {what for what, _, _ in uses.seen}
    assert kinds == {"fit", "convert", "predict"}
    touching = [(what, phase) for what, phase, touched in uses.seen if touched]
    assert touching == [("predict", TEST_PHASE)] * 3
    assert watch.phases.index(TEST_PHASE) == len(watch.phases) - 2
    assert watch.phases[-1] == "measuring the Pareto front side by side"


def test_the_same_call_again_has_nothing_left_to_try(finished, npz, tmp_path):
    result = finished[0]
    copy = shutil.copytree(result.directory, tmp_path / "out")  # final files are measured again
    watch = Watch()
    again = tfnas.search(str(npz), directory=copy, progress=watch, **SETTINGS)
    assert watch.trials == []
    assert watch.notes == ["2 of 2 trials ended before"]
    assert [(c.trial_id, c.architecture, c.objective) for c in again.candidates] == [
        (c.trial_id, c.architecture, c.objective) for c in result.candidates
    ]
    assert [line["trial"] for line in lines(copy)] == ["0", "1"]
    assert [row.measurement.score for row in again.rows] == [
        row.measurement.score for row in result.rows
    ], "the same seed trains the same models"


def test_a_finished_search_in_a_read_only_folder_is_opened(finished, npz, monkeypatch):
    result = finished[0]
    before = contents(result.directory)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    again = tfnas.search(str(npz), directory=result.directory, **SETTINGS)
    assert contents(result.directory) == before
    assert again.winner.architecture == result.winner.architecture
    assert [row.measurement.score for row in again.rows] == [
        row.measurement.score for row in result.rows
    ]
    message = r"must be a folder that can be written, got .*, which can't: "
    for settings, reason in (
        ({"max_trials": 3}, "trials are left to run"),
        ({"overwrite": True}, "overwrite removes files"),
    ):
        with pytest.raises(ValueError, match=message + reason):
            tfnas.search(str(npz), directory=result.directory, **{**SETTINGS, **settings})
    assert contents(result.directory) == before


def test_a_search_that_has_not_ended_needs_a_folder_to_write(npz, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="which can't: it holds no search that has ended"):
        tfnas.search(str(npz), directory=tmp_path, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_last_training_that_diverges_keeps_the_search(finished, npz, tmp_path, monkeypatch):
    shutil.copytree(finished[0].directory, tmp_path / "out")
    for marker in (tmp_path / "out" / "final").glob("*.best"):
        marker.unlink()
    diverging = lambda run, examples, epochs: np.inf  # noqa: E731
    monkeypatch.setattr(job_module._Run, "_schedule", diverging)
    settings = {**SETTINGS, "final_epochs": 2}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    config["config"]["final_epochs"] = 2
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    watch = Watch()
    message = r"must stay finite, got (nan|inf) in epoch \d of 2.*; the search is kept"
    with pytest.raises(Diverged, match=message):
        tfnas.search(str(npz), directory=tmp_path / "out", progress=watch, **settings)
    assert watch.trials == []
    assert [line["trial"] for line in lines(tmp_path / "out")] == ["0", "1"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["test"] == []
    model = tfnas.load_model(tmp_path / "out" / "best.keras")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not list((tmp_path / "out" / "final").glob("*.best"))


@pytest.mark.slow
def test_a_search_with_rungs_and_predicted_latencies(npz, tmp_path):
    """Three trials, the third is a promotion; the report has the epochs and the predictions."""
    settings = {
        **SETTINGS, "max_trials": 3, "epochs": 2, "halving": 2, "latency_seconds": 0.5,
        "final_epochs": 0, "baseline": False, "objectives": ("file_accuracy", "latency_ratio"),
    }  # fmt: skip
    watch = Watch()
    result = tfnas.search(str(npz), directory=tmp_path / "out", progress=watch, **settings)
    assert watch.phases[1] == "measuring operators for 0.5 s, to predict latencies"
    assert sorted(c.metrics["epochs"] for c in result.candidates) == [1.0, 2.0]
    assert result.prediction.trials.networks == 2
    record = json.loads((result.directory / "results.json").read_text())
    assert record["latency_prediction"] == dataclasses.asdict(result.prediction)
    keys = [str(line["architecture"]) for line in lines(result.directory)]
    assert (len(keys), len(set(keys))) == (3, 2)
    assert [line["epochs"] for line in lines(result.directory)] == [1.0, 1.0, 2.0]
    for text in (str(result), (result.directory / "report.md").read_text()):
        assert "Successive halving: 2 trained 1 epochs, 1 trained 2 epochs; 3 epochs" in text
        assert re.search(r"Predicted latencies: \d+% of \d+ networks within 10% .* Of the 2", text)
        assert "rung" in text


def test_another_setting_in_the_same_folder_is_an_error(finished, npz):
    output = finished[0].directory
    before = (output / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds a search with another epochs, seed: choose"):
        tfnas.search(str(npz), directory=output, **{**SETTINGS, "epochs": 2, "seed": 1})
    assert (output / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_trails": 3}, r"unknown setting: max_trails"),
        ({"zeal": 1, "dataset": "mnist"}, r"unknown setting: dataset, zeal"),
        ({"max_trials": 0}, r"max_trials must be a whole number >= 1, got 0"),
        ({"train_limit": 0}, r"train_limit must be a whole number >= 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be a whole number >= 1, got 1\.5"),
        ({"learning_rate": -1.0}, r"learning_rate must be above 0, got -1\.0"),
        ({"algorithm": "magic"}, r"algorithm must be one of evolution, .*, got 'magic'"),
        ({"trial_timeout": 9.0}, r"trial_timeout must be above 0 s and needs workers, got 9"),
        ({"halving": 3, "epochs": 2}, r"epochs must be a whole number >= 3, got 2"),
        (
            {"halving": 2, "epochs": 8, "max_trials": 12},
            r"max_trials must be at least 15 for one .*, got 12",
        ),
        ({"halving": 1}, r"halving must be a whole number >= 2, got 1"),
        ({"min_epochs": 2}, r"min_epochs needs halving, got 2 without it"),
        ({"latency_seconds": -1.0}, r"latency_seconds must be a finite number above 0, got -1"),
        ({"workers": -1}, r"workers must be a whole number >= 0, got -1"),
        ({"supernet_epochs": 9}, r"supernet_epochs needs the algorithm 'supernet', got 9"),
        (
            {"algorithm": "supernet", "halving": 2},
            r"halving must not be given with the algorithm 'supernet', got 2",
        ),
        (
            {"algorithm": "supernet", "compression": tfnas.CompressionSpace()},
            r"compression must not be given with the algorithm 'supernet'",
        ),
        (
            {"algorithm": "supernet", "hypermodel": "m:build"},
            r"hypermodel must not be given with the algorithm 'supernet'",
        ),
        (
            {"algorithm": "supernet", "supernet_seconds": 0.0},
            r"supernet_seconds must be above 0, got 0",
        ),
        (
            {"algorithm": "supernet", "rank_networks": 2},
            r"rank_networks must be 0 or at least 3, got 2",
        ),
    ],
)
def test_wrong_settings(npz, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tfnas.search(str(npz), directory=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"tournament_size": 9},
        {"target_latency_ms": 1.0, "target_latency_ratio": 1.0},
        {"latency_exponent": 1.0},
    ],
)
def test_settings_that_the_tuner_refuses_do_not_claim_the_folder(npz, tmp_path, settings):
    """Otherwise the corrected call is refused: the folder holds another search."""
    with pytest.raises(ValueError, match="must"):
        tfnas.search(str(npz), directory=tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.slow
def test_an_interrupted_search_leaves_a_finished_folder(npz, tmp_path, monkeypatch):
    watch = Watch(interrupt_at=2)
    with np.load(npz) as file:
        uses = Uses(file["x_test"], watch, monkeypatch)
    split = tfnas.data.load(npz)
    result = tfnas.search(split, directory=tmp_path, progress=watch, **SETTINGS)
    assert result.interrupted is True
    assert result.rows == result.randoms == []
    assert [c.trial_id for c in result.candidates] == ["0"]
    assert [line["trial"] for line in lines(tmp_path)] == ["0"]
    assert not any(touched for *_, touched in uses.seen)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["interrupted"] is True
    assert record["test"] == []
    assert "the test part was not touched" in (tmp_path / "report.md").read_text()
    assert "the test part was not touched" in str(result)
    for name in ("best.keras", "best_int8.tflite", "pareto.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert watch.phases == [watch.phases[0]], "no training, conversion, measurement after Ctrl-C"
    kept = (tmp_path / "search" / "trial_0" / "model.tflite").read_bytes()
    assert (tmp_path / "best_int8.tflite").read_bytes() == kept


@pytest.mark.slow
def test_ctrl_c_in_more_trials_keeps_the_final_files_of_the_same_winner(npz, tmp_path):
    tfnas.search(str(npz), directory=tmp_path, **SETTINGS)
    final = ["best.keras", "best_int8.tflite", "best_float32.tflite"]
    before = [(tmp_path / name).read_bytes() for name in final]
    more = {**SETTINGS, "max_trials": SETTINGS["max_trials"] + 1}
    watch = Watch(interrupt_at=more["max_trials"])
    assert tfnas.search(str(npz), directory=tmp_path, progress=watch, **more).interrupted
    assert [(tmp_path / name).read_bytes() for name in final] == before
    assert len(list((tmp_path / "final").glob("*.best"))) == 1


def test_after_ctrl_c_nothing_is_trained_converted_or_measured(
    finished, npz, tmp_path, monkeypatch
):
    """In the final part of a search whose trials have ended, with files of an earlier winner."""

    class Impatient(Watch):
        def phase(self, text):
            super().phase(text)
            if text.startswith("training the best again"):
                raise KeyboardInterrupt

    folder, watch = tmp_path / "out", Impatient()
    shutil.copytree(finished[0].directory, folder)
    for marker in (folder / "final").glob("*.best"):
        marker.unlink()
    for name in ("to_tflite", "benchmark"):
        monkeypatch.setattr(job_module, name, lambda *args, **kwargs: pytest.fail("too late"))
    result = tfnas.search(str(npz), directory=folder, progress=watch, **SETTINGS)
    assert result.interrupted is True
    assert watch.phases[-1].startswith("training the best again")
    kept = result.winner.path.read_bytes()
    assert (folder / "best_int8.tflite").read_bytes() == kept
    assert not (folder / "best_float32.tflite").exists()
    model = keras.saving.load_model(folder / "best.keras")
    assert model.count_params() == result.winner.measurement.parameters
    assert json.loads((folder / "results.json").read_text())["interrupted"] is True
    text = (
        "Interrupted: the same call, or command, goes on from here; the test part was not touched"
    )
    assert str(result).count(text) == str(result).count("goes on") == 1


def test_interrupted_before_any_trial_ended(npz, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt, match="no trial has ended well yet; the same call goes"):
        tfnas.search(str(npz), directory=tmp_path, progress=Watch(interrupt_at=1), **SETTINGS)
    assert lines(tmp_path) == []
    assert capsys.readouterr().out == ""


def series_file(path, shape):
    """Series, or images that are no pixels, of four classes that a network can tell apart."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 80), ("test", 20)):
        y = np.arange(number) % 4
        arrays[f"y_{part}"] = y
        arrays[f"x_{part}"] = rng.normal(
            y.reshape(-1, *(1 for _ in shape)) - 2.0, 0.3, (number, *shape)
        )
    np.savez(path, **arrays)


def test_series_are_searched_as_images_are(tmp_path):
    series_file(tmp_path / "sensor.npz", (16, 3))
    settings = {"preset": "microcontroller", "max_trials": 1, "epochs": 1, "baseline": False}
    result = tfnas.search(tmp_path / "sensor.npz", directory=tmp_path / "out", **settings)
    arch = result.winner.architecture
    assert (arch.input_shape, arch.include_rescaling) == ((16, 3), False)
    assert len(result.candidates) == 1
    file = tfnas.Artifact.load(tmp_path / "out" / "best_int8.tflite")
    assert file.inputs[0].shape[1:] == (16, 3)
    tfnas.check_micro(file)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "20 test series of 16x3, 4 classes" in report
    assert "trained on the same series" in report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "shape"),
    [("supernet", (16, 3)), ("random", (16, 3)), ("reinforce", (20, 5, 1))],
)
def test_every_algorithm_searches_values_that_are_no_pixels(tmp_path, algorithm, shape):
    series_file(tmp_path / "f.npz", shape)
    settings = {"supernet_epochs": 2, "evaluations": 8} if algorithm == "supernet" else {}
    result = tfnas.search(
        tmp_path / "f.npz",
        directory=tmp_path / "out",
        algorithm=algorithm,
        preset="microcontroller",
        max_trials=2,
        epochs=1,
        objectives=("file_accuracy", "size_bytes"),
        include_rescaling=False,
        baseline=len(shape) == 3,
        **settings,
    )
    archs = [candidate.architecture for candidate in result.candidates]
    assert {arch.input_shape for arch in archs} == {shape}
    assert not any(arch.include_rescaling for arch in archs)
    assert len(result.rows) == 2 + (len(shape) == 3)  # MobileNetV2 0.35 takes the same input


def test_one_class_is_refused(tmp_path):
    images, label = np.zeros((20, 8, 8, 1), np.uint8), np.zeros(20, int)
    split = tfnas.data.DataSplit.from_arrays(images, label)
    with pytest.raises(ValueError, match=r"must have at least 2 classes .* only the label 0"):
        tfnas.search(split, directory=tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_pixels_that_are_scaled_already_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, 8, 8, 1)), np.arange(40) % 2
    np.savez(tmp_path / "f.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(ValueError, match=r"pixels from 0 to 255, got .*--noinclude_rescaling"):
        tfnas.search(tmp_path / "f.npz", directory=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_several_objectives_by_reinforcement_with_limits(npz, tmp_path):
    watch = Watch()
    settings = {**SETTINGS, "final_epochs": 0, "baseline": False, "algorithm": "reinforce"}
    settings |= {"objectives": ("file_accuracy", "size_bytes"), "limits": {"macs": 1e9}}
    result = tfnas.search(str(npz), directory=tmp_path / "out", progress=watch, **settings)
    assert len(result.candidates) == 2
    assert result.winner in result.candidates
    for news in watch.ended:
        front = r"Pareto front, file_accuracy / size_bytes: [\d.]+ / [\d,]+"
        assert re.match(front, news.front)
        assert re.search(r"; macs [\d,]+ keeps <= 1,000,000,000$", news.text)
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["config"]
    assert kept["limits"] == {"macs": 1e9}
    more = tfnas.search(str(npz), directory=tmp_path / "out", **{**settings, "max_trials": 3})
    assert len(more.candidates) == 3


@pytest.mark.slow
def test_weights_that_networks_share(npz, tmp_path):
    settings = {**SETTINGS, "algorithm": "supernet", "supernet_epochs": 2, "evaluations": 6}
    for name in ("population_size", "tournament_size"):
        del settings[name]
    settings |= {"latency_seconds": 3.0, "baseline": False, "rank_networks": 3}
    watch = Watch()
    result = tfnas.search(str(npz), directory=tmp_path / "out", progress=watch, **settings)
    assert watch.phases.index("training the shared weights") < watch.phases.index(
        "scoring networks with the shared weights"
    )
    known = [(phase, seconds) for phase, seconds in watch.left if seconds is not None]
    assert all(seconds >= 0 for _, seconds in known)
    expected = ("training the shared weights", "scoring networks with the shared weights")
    assert {phase for phase, _ in known} >= {
        *expected,
        TEST_PHASE,
        "training 3 random networks alone",
    }
    assert known[0][1] > known[-1][1]
    assert len(result.candidates) == 2
    assert all("supernet_accuracy" in each.metrics for each in result.candidates)
    [paragraph] = [note for note in result.notes() if "Shared weights" in note]
    assert "trained for 2 epochs" in paragraph
    assert "6 networks scored" in paragraph
    assert "Kendall's tau" in paragraph
    assert "on 3 networks" in paragraph
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Kendall" in report
    assert "supernet_accuracy" in report
    again = tfnas.search(str(npz), directory=tmp_path / "out", **settings)
    assert again.notes()[0] == paragraph
    with pytest.raises(ValueError, match="another supernet_epochs"):
        tfnas.search(str(npz), directory=tmp_path / "out", **{**settings, "supernet_epochs": 3})


class Halved(keras.layers.Layer):
    """A layer that is not registered."""

    def call(self, inputs):
        return inputs / 2


def test_a_teacher_with_a_layer_of_the_users_own(digits, tmp_path):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(Halved()(inputs))
    keras.Model(inputs, keras.layers.Dense(10)(flat)).save(tmp_path / "teacher.keras")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")  # of something else: ends the search
    call = {"directory": tmp_path / "run", "teacher": str(tmp_path / "teacher.keras")}
    call["compression"] = tfnas.CompressionSpace(distill=(False, True))
    with pytest.raises(ValueError, match="custom_objects"):
        tfnas.search(digits, **call)
    with pytest.raises(ValueError, match=r"which holds results.json of something else"):
        tfnas.search(digits, custom_objects={"Halved": Halved}, **call)
