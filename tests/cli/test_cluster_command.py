"""`tfnas cluster`, from a saved model to files and a report."""

import json

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.techniques.weight_clustering import ClusterSettings, count_values


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 12)),
            layers.Conv2D(16, 3, use_bias=False, name="body"),
            layers.BatchNormalization(),
        ],
        name="block",
    )
    model = keras.Sequential(
        [
            keras.Input(digits.input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            inner,
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits.x_train, digits.y_train, epochs=3, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def cluster(saved, tmp_path, capsys):
    def call(*flags):
        folder = tmp_path / "out"
        argv = ["cluster", str(saved), "--dataset=digits", f"--directory={folder}", *flags]
        code = app.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err, folder

    return call


def kernels(folder, mode="float32"):
    return {
        kernel.layer: kernel
        for kernel in count_values(tfnas.Artifact.load(folder / f"model_{mode}.tflite"))
    }


def test_values_are_trained_and_counted_in_the_files(cluster):
    code, out, err, folder = cluster(
        *("--clusters=8", "--epochs=1", "--layers=block/*=5,stem=12", "--batch_size=32"),
        "--distill=0.5",
    )
    assert (code, err) == (0, "")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.keras", "model_float32.tflite", "model_int8.tflite"),
        *("clustering.json", "report.md", "report.html", "job.json", "training"),
        "training_curves.json",
    }
    found = kernels(folder)
    assert [found[name].values for name in ("stem", "body", "head")] == [12, 5, 8]
    small = {k.operator: k.channel for k in kernels(folder, "int8").values()}
    assert max(small.values()) <= 12
    model = keras.models.load_model(folder / "model.keras")
    assert [len(np.unique(w)) for w in model.get_weights() if w.ndim > 1] == [12, 5, 8]
    report = ClusteringReport.of(json.loads((folder / "clustering.json").read_text()))
    assert [k.name for k in report.kernels] == ["stem", "block/body", "head"]
    assert report.folded == ("stem", "block/body")
    text = (folder / "report.md").read_text()
    assert "| clustered, float32 | head | FULLY_CONNECTED | 2,560 | 8 |" in text
    accuracy = [float(line.split("|")[2]) for line in text.splitlines() if ", float32 | 0." in line]
    assert accuracy[1] > accuracy[0] - 0.1
    assert "with a Huffman code" in out


@pytest.mark.slow
def test_without_training_and_renewed(cluster):
    code, _, err, folder = cluster("--clusters=4", "--epochs=0", "--exclude=first")
    assert (code, err) == (0, "")
    found = kernels(folder)
    assert found["stem"].values > 4
    assert found["body"].values == found["head"].values == 4
    again = ("--clusters=4", "--epochs=1", "--renew=1", "--exclude=block")
    code, _, err, folder = cluster(*again)
    assert code == 2
    assert "holds a job of another techniques" in err
    assert kernels(folder)["stem"].values > 4  # it stayed as it was
    code, _, err, folder = cluster(*again, "--overwrite")
    assert (code, err) == (0, "")
    assert kernels(folder)["stem"].values == kernels(folder)["head"].values == 4
    assert kernels(folder)["body"].values > 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clusters=300"], "clusters must be a whole number from 2 to 256"),
        (["--layers=head"], "layers must hold NAME=K, got 'head'"),
        (["--layers=head=²"], "layers must hold NAME=K, got 'head=²'"),
        (["--layers=nothing=4"], "clusters must name layers with a kernel, got 'nothing'"),
        (["--exclude=nothing"], "exclude must name layers with a kernel, got 'nothing'"),
        (["--exclude=*"], "clusters and exclude must leave a kernel"),
        (["--learning_rate=0"], "learning_rate must be above 0"),
        (["--dataset=nowhere"], "dataset must be one of"),
    ],
)
def test_bad_input_is_one_line_before_any_work(cluster, flags, message):
    code, _, err, folder = cluster(*flags)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (FineTuneSettings, "epochs", -1),
        (FineTuneSettings, "batch_size", 0),
        (ClusterSettings, "renew", -1),
        (ClusterSettings, "clusters", 1),
        (ClusterSettings, "clusters", 257),
    ],
)
def test_settings_are_checked_at_once(kind, name, value):
    needed = {"epochs": 1} if kind is FineTuneSettings else {}
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        kind(**{**needed, name: value})
