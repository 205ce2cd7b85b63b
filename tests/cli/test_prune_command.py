"""`tfnas prune`, from a saved model to files and a report."""

import json
import re

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(digits.input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(16, 3, activation="relu", name="body"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits.x_train, digits.y_train, epochs=4, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def prune(saved, tmp_path, capsys):
    def call(*flags, output="out"):
        folder = tmp_path / output
        argv = ["prune", str(saved), "--dataset=digits", f"--directory={folder}", *flags]
        code = app.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err, folder

    return call


def zeros(folder):
    report = tfnas.file_sparsity(tfnas.Artifact.load(folder / "model_float32.tflite"))
    return {kernel.layer: kernel.sparsity for kernel in report.kernels}


def test_without_training_the_kept_weights_are_adjusted(prune):
    code, out, err, folder = prune("--sparsity=0.7", "--exclude=last")
    assert (code, err) == (0, "")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.keras", "model_float32.tflite", "model_int8.tflite", "report.md", "report.html"),
        *("kernels.csv", "model_float32_sparse.tflite", "job.json"),
    }
    assert "original, float32" in out
    assert "fitted" in out
    found = zeros(folder)
    assert found.pop("head", 0.0) < 0.01
    assert all(abs(share - 0.7) < 0.01 for share in found.values())
    accuracy = re.search(r"^pruned, float32 +([0-9.]+)", out, re.MULTILINE)
    assert float(accuracy[1]) > 0.8


@pytest.mark.slow
def test_while_training_a_sensitive_layer_keeps_more(prune, digits):
    flags = ["--sparsity=0.8", "--epochs=1", "--scope=sensitivity", "--batch_size=32"]
    code, out, err, folder = prune(*flags)
    assert (code, err) == (0, "")
    assert "layer's sensitivity on" in out
    found = tfnas.pruning.sensitivity.Sensitivity.from_json(
        (folder / "sensitivity.json").read_text()
    )
    assert found.names == ("stem", "body", "head")
    assert (folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    model = tfnas.load_model(folder / "model.keras")
    kernels = [np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    total = sum(k.size for k in kernels)
    assert abs(sum((k == 0).sum() for k in kernels) - round(0.8 * total)) <= len(kernels)
    assert "Sensitivity" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_a_second_run_replaces_the_first_on_request(prune):
    _, _, _, folder = prune("--sparsity=0.9")
    before = contents(folder)
    code, _, err, _ = prune("--sparsity=0.1", "--noreconstruct")
    assert code == 2
    assert "holds a job of another techniques" in err
    assert "choose another folder, or overwrite it" in err
    assert contents(folder) == before
    code, _, _, folder = prune("--sparsity=0.1", "--noreconstruct", "--overwrite")
    assert code == 0
    assert not (folder / "model_float32_sparse.tflite").exists()
    assert "no sparse file" in (folder / "report.md").read_text()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_scope_by_output_goes_with_obs(prune):
    code, _, err, folder = prune("--sparsity=0.6", "--criterion=obs", "--scope=output")
    assert (code, err) == (0, "")
    model = tfnas.load_model(folder / "model.keras")
    kernels = [np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    share = sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)
    assert share == pytest.approx(0.6, abs=0.002)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sparsity=1.5"], "sparsity must be in [0, 1), got 1.5"),
        (["--sparsity=0.5", "--exclude=nothing"], "exclude must name layers with a kernel"),
        (["--sparsity=0.5", "--exclude=depthwise"], "exclude must name layers with a kernel"),
        (["--sparsity=0.5", "--granularity=2:4"], "must divide the kernel's innermost axis"),
        (["--sparsity=0.5", "--granularity=3"], "granularity must be"),
        (["--sparsity=0.5", "--scope=output"], "goes with criterion 'obs'"),
        (["--sparsity=0.5", "--criterion=obs", "--epochs=1"], "goes with epochs 0"),
        (["--sparsity=0.5", "--learning_rate=0"], "learning_rate must be above 0"),
    ],
)
def test_bad_input_is_one_line_before_any_work(prune, flags, message):
    code, _, err, folder = prune(*flags)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()


def test_an_output_that_is_a_file_is_an_error_before_training(prune, tmp_path):
    (tmp_path / "taken").write_text("")
    code, out, err, _ = prune("--sparsity=0.5", "--epochs=1", output="taken")
    assert code == 2
    assert "taken" in err
    assert "training" not in out


def test_a_model_of_other_images_is_refused(prune, tmp_path, capsys):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(
        path
    )
    code = app.main(["prune", str(path), "--dataset=digits", "--sparsity=0.5"])
    assert code == 2
    assert "model must take the images of 'digits', (8, 8, 1), got (4, 4, 3)" in (
        capsys.readouterr().err
    )
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["other.keras"]'
