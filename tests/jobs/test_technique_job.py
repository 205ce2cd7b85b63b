"""Jobs of techniques: rows, folders and finished trainings. The network is small."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.compression.progress import Progress
from tfnas.compression.techniques import registry
from tfnas.compression.techniques.technique import ReportSection

SETTINGS = tfnas.FineTuneSettings(epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def few(digits):
    return digits.limited(300)


@pytest.fixture(scope="module")
def model(few):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.Flatten(),
            layers.Dense(10, "softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(few.x_train, few.y_train, epochs=3, batch_size=32, verbose=0)
    return model


class Recorded(Progress):
    def __init__(self):
        self.phases, self.epochs = [], 0

    def phase(self, text):
        self.phases.append(text)

    def epoch_ended(self, epoch, epochs):
        self.epochs += 1


def kernels(model):
    return [np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]


def contents(folder):
    """The weights and files of a job, without its times."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.tflite"))}
    return files, tfnas.load_model(folder / "model.keras").get_weights()


def test_what_a_technique_achieved_is_kept_through_the_next(model, few, tmp_path):
    before = [weights.copy() for weights in model.get_weights()]
    row = [("prune", {"sparsity": 0.5}), ("cluster", {"clusters": 8})]
    progress = Recorded()
    result = tfnas.run_techniques(
        model, row, few, directory=tmp_path, settings=SETTINGS, progress=progress
    )
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for kernel in kernels(tfnas.load_model(tmp_path / "model.keras")):
        assert (kernel == 0).mean() >= 0.49
        assert len(np.unique(kernel)) <= 8
    assert [outcome.technique for outcome in result.outcomes] == ["prune", "cluster"]
    assert [outcome.training.learning_rate for outcome in result.outcomes] == pytest.approx(
        [1e-3, 1e-3 / 3]
    )
    assert result.rows[0].label == "original, float32"
    assert "clustered, int8" in result.files
    assert progress.epochs == 2
    assert f"pruning while training, 1 epochs on {len(few.x_train)} examples" in progress.phases
    names = {path.name for path in tmp_path.iterdir()}
    assert {"kernels.csv", "clustering.json", "report.md"} <= names
    report = (tmp_path / "report.md").read_text()
    for text in (
        "zeros",
        "values",
        "prune: sparsity",
        "cluster: clusters",
        "time of the reference",
    ):
        assert text in report
    assert "zeros" in str(result)


@pytest.mark.slow  # tests/compression/test_resumed_training.py reads finished trainings
def test_the_same_call_again_reads_the_finished_training(model, few, tmp_path):
    calls = [Recorded(), Recorded()]
    found = []
    for progress in calls:
        tfnas.run_techniques(
            model,
            [("cluster", {"clusters": 8, "renew": 2})],
            few,
            directory=tmp_path,
            settings=SETTINGS,
            progress=progress,
        )
        found.append((*contents(tmp_path), (tmp_path / "clustering.json").read_text()))
    assert [progress.epochs for progress in calls] == [1, 0]
    assert found[0][0] == found[1][0]
    assert found[0][2] == found[1][2]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def finished(model, few, tmp_path_factory):
    """The arguments of a job that has ended, and a folder that holds it."""
    folder = tmp_path_factory.mktemp("finished") / "job"
    arguments = {
        "model": model,
        "techniques": [("prune", {"sparsity": 0.5})],
        "train_data": few,
        "settings": tfnas.FineTuneSettings(epochs=0),
    }
    tfnas.run_techniques(**arguments, directory=folder)
    return arguments, folder


CHANGES = ("row", "settings", "data", "model")


@pytest.fixture
def another(finished, model, few, tmp_path):
    """What is changed -> the arguments of another job in a folder that holds the finished one."""
    shutil.copytree(finished[1], tmp_path / "job")
    (tmp_path / "job" / "mine.csv").write_text("mine")
    changes = {
        "row": {"techniques": [("prune", {"sparsity": 0.5, "sparse": False})]},
        # Another seed may split the data in another way, which is not what the user changed.
        "settings": {
            "settings": tfnas.FineTuneSettings(epochs=0, seed=1),
            "train_data": few.limited(200),
        },
        "data": {"train_data": few.limited(200)},
        "model": {"model": keras.models.clone_model(model)},
    }
    arguments = {**finished[0], "directory": tmp_path / "job"}
    return {change: {**arguments, **changes[change]} for change in CHANGES}


@pytest.mark.parametrize("change", CHANGES)
def test_another_job_is_refused(another, tmp_path, change):
    job = (tmp_path / "job" / "job.json").read_text()
    assert json.loads(job)["format"] == ["job of techniques", 4]
    name = {"row": "techniques", "settings": r"settings.seed: 0, got 1"}.get(change, change)
    with pytest.raises(ValueError, match=f"holds a job of another {name}"):
        tfnas.run_techniques(**another[change])
    assert (tmp_path / "job" / "job.json").read_text() == job


@pytest.mark.parametrize(
    "change", [pytest.param(c, marks=() if c == "row" else pytest.mark.slow) for c in CHANGES]
)
def test_another_job_overwrites_on_request(another, tmp_path, change):
    tfnas.run_techniques(**another[change], overwrite=True)
    assert (tmp_path / "job" / "mine.csv").read_text() == "mine"
    sparse = tmp_path / "job" / "model_float32_sparse.tflite"
    assert not sparse.exists() or change != "row"


def test_files_of_others_are_refused_before_the_work(model, few, tmp_path):
    (tmp_path / "mine.keras").write_text("mine")
    progress = Recorded()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"directory must be new, empty .* holds mine\.keras$"):
            tfnas.run_techniques(
                model,
                [("prune", {"sparsity": 0.5})],
                few,
                directory=tmp_path,
                overwrite=overwrite,
                progress=progress,
            )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.keras"]
    assert progress.phases == []


PRUNE = ("prune", {"sparsity": 0.5})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([PRUNE, ("qat", {"start_epoch": 2})], "start_epoch must be below epochs 2, got 2"),
        (
            [PRUNE, ("qat", {"start_epoch": 1, "freeze_epoch": 0})],
            "freeze_epoch must not be before",
        ),
        (
            [("prune_channels", {"macs": 0.5}), ("prune", {"sparsity": 0.5, "criterion": "obs"})],
            "criterion 'obs' goes with epochs 0",
        ),
        ([PRUNE, ("cluster", {"clusters": 1})], "clusters must be a whole number"),
        ([("prune", {"sparsity": 0.5, "exclude": ("none",)})], "exclude must name layers"),
    ],
)
def test_every_step_is_checked_before_the_first_is_trained(model, few, tmp_path, row, message):
    progress, folder = Recorded(), tmp_path / "job"
    settings = dataclasses.replace(SETTINGS, epochs=2)
    with pytest.raises(ValueError, match=message):
        tfnas.run_techniques(
            model, row, few, directory=folder, settings=settings, progress=progress
        )
    assert (progress.phases, progress.epochs) == ([], 0)
    assert not (tmp_path / "job").exists()


def test_a_technique_of_ones_own_reports_its_picture_and_products(
    model, few, tmp_path, monkeypatch
):
    class Own(type(registry.technique("prune"))):
        def products(self, outcome, files):
            return {"own.txt": "text of its own"}

        def sections(self, outcome, files):
            return [ReportSection("Own section", ["a"], [["cell of its own"]])]

        def remarks(self, outcome, files):
            return ["a remark of its own"]

    monkeypatch.setitem(registry._TECHNIQUES, "prune", Own())
    folder = tmp_path / "job"
    result = tfnas.run_techniques(
        model,
        [("prune", {"sparsity": 0.5, "sparse": False})],
        few,
        directory=folder,
        settings=tfnas.FineTuneSettings(epochs=0),
    )
    assert (folder / "own.txt").read_text() == "text of its own"
    report = (folder / "report.md").read_text()
    for text in ("Own section", "cell of its own", "a remark of its own"):
        assert text in report
    assert "a remark of its own" in str(result)
    written = set(json.loads((folder / "job.json").read_text())["files"])
    there = {path.name for path in folder.iterdir()}
    assert there - written <= {"job.json", "report.md", "report.html", "training"}
    assert written <= there


@pytest.mark.parametrize(
    ("techniques", "settings", "message"),
    [
        (("prune", {"sparsity": 0.5}), None, r"must be a list of .*: \[\('prune', .*holds one"),
        ("cluster", None, "techniques must be a list of names .*, got 'cluster'"),
        (
            [("cluster", {"clusters": 4})],
            {"epochs": 1},
            "settings must be a tfnas.FineTuneSettings",
        ),
    ],
)
def test_arguments_of_another_kind_are_refused(techniques, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tfnas.run_techniques(None, techniques, None, directory=tmp_path, settings=settings)
