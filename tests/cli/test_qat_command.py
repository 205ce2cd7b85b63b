"""`tfnas qat` and `tfnas export`'s formats, from a saved model to files and a report."""

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app
from tfnas.measure.quantization_debugger.error_report import QuantizationError


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
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="body"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits.x_train, digits.y_train, epochs=4, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def command(saved, capsys):
    def call(name, *flags):
        code = app.main([name, str(saved), *flags])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.slow
def test_qat_writes_models_file_report_and_picture(command, tmp_path, digits):
    folder = tmp_path / "out"
    flags = ["--dataset=digits", "--epochs=1", "--mode=int8x4", "--layers=head=int8"]
    code, out, err = command("qat", *flags, f"--directory={folder}")
    assert (code, err) == (0, "")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.keras", "model_float.keras", "model_int8x4.tflite"),
        *("report.md", "report.html", "errors.json", "errors.png", "job.json", "training"),
        "training_curves.json",
    }
    assert "original, float32" in out
    assert "The layers of the trained file, the worst first:" in out
    assert "post-training, int8x4" in out
    assert "Every layer computes in integers." in out
    file = tfnas.Artifact.load(folder / "model_int8x4.tflite")
    types = {t.dtype for op in file.graph.operators for t in op.inputs}
    assert {"int4", "int8"} <= types
    assert not any(name.startswith("float") for name in types)
    trained = tfnas.load_model(folder / "model.keras")
    expected, found = trained.predict(digits.x_test, verbose=0), file.predict(digits.x_test)
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    sure = first - second > 0.2  # 51 steps of the output; which way a kernel rounds moves few
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(found[sure].argmax(axis=1), expected[sure].argmax(axis=1))
    assert tfnas.load_model(folder / "model_float.keras").get_layer("head")
    errors = QuantizationError.from_json((folder / "errors.json").read_text())
    assert errors.headers()
    report = (folder / "report.md").read_text()
    assert "float32" in report
    assert "errors.png" in report


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs=1", "--layers=nothing=int8"], "layers must name layers with a kernel"),
        (["--epochs=1", "--layers=head"], "layers must hold NAME=FORMAT, got 'head'"),
        (["--epochs=1", "--layers=head=int3"], "layers must map to int8, int4 or float32"),
        (["--epochs=2", "--start_epoch=2"], "start_epoch must be below epochs 2"),
        (["--epochs=2", "--start_epoch=1", "--freeze_epoch=0"], "freeze_epoch must not be before"),
        (["--epochs=1", "--learning_rate=0"], "learning_rate must be above 0"),
    ],
)
def test_bad_input_of_qat_is_one_line_before_any_work(command, tmp_path, flags, message):
    folder = tmp_path / "out"
    code, _, err = command("qat", "--dataset=digits", f"--directory={folder}", *flags)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("name", ["model_float.keras", "model.keras", "other.keras"])
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_qat_does_not_write_over_its_model(saved, tmp_path, capsys, name, more):
    source = tmp_path / name
    source.write_bytes(saved.read_bytes())
    flags = ["--dataset=digits", "--epochs=1", f"--directory={tmp_path}", *more]
    assert app.main(["qat", str(source), *flags]) == 2
    assert "must not be that of the model" in capsys.readouterr().err
    assert source.exists()


def test_the_default_folder_is_beside_the_model(saved, monkeypatch):
    found = {}

    def run(model, row, split, *, directory, **options):
        found[row[0].technique] = directory
        return "done"

    monkeypatch.setattr("tfnas.jobs.technique_job.run_techniques", run)
    flags = {"prune": "--sparsity=0.5", "prune-channels": "--macs=0.5", "factorize": "--macs=0.5"}
    for name in ("prune", "prune-channels", "factorize", "cluster", "qat"):
        flag = [flags[name]] if name in flags else []
        assert app.main([name, str(saved), "--dataset=digits", *flag]) == 0
    names = {name: folder.name for name, folder in found.items()}
    assert names == {
        "prune": "model_pruned",
        "prune_channels": "model_small",
        "factorize": "model_low_rank",
        "cluster": "model_clustered",
        "qat": "model_qat",
    }
    assert {folder.parent for folder in found.values()} == {saved.parent}


def test_export_of_dense_layers_alone(command, tmp_path):
    path = tmp_path / "dense.tflite"
    code, out, err = command(
        "export", "--mode=dynamic", "--layers=Dense=int8,*=float32", f"--output={path}"
    )
    assert (code, err) == (0, "")
    kinds = {k.layer: k.tensor.dtype for k in tfnas.tflite.file_weights.read_kernels(_load(path))}
    assert kinds == {"stem": "float32", "body": "int8", "head": "int8"}
    assert str(path) in out


def test_export_mixed_meets_the_size_and_gives_the_reasons(command, tmp_path):
    path = tmp_path / "mixed.tflite"
    code, out, err = command(
        "export", "--mode=mixed", "--size=0.2", "--dataset=digits", f"--output={path}"
    )
    assert (code, err) == (0, "")
    assert "effect of int4" in out
    plain = tmp_path / "plain.tflite"
    assert command("export", f"--output={plain}")[0] == 0
    assert path.stat().st_size <= 0.2 * plain.stat().st_size


def test_export_by_a_recipe(command, tmp_path):
    path = tmp_path / "recipe.tflite"
    code, _, err = command(
        "export", "--recipe=static_wi8_ai8", "--dataset=digits", f"--output={path}"
    )
    assert (code, err) == (0, "")
    assert {k.tensor.dtype for k in tfnas.tflite.file_weights.read_kernels(_load(path))} == {"int8"}


def test_export_prints_and_plots_the_error_of_each_layer(command, tmp_path):
    path = tmp_path / "int8.tflite"
    code, out, err = command(
        "export", "--mode=int8", "--dataset=digits", "--errors", f"--output={path}"
    )
    assert (code, err) == (0, "")
    assert "stem" in out
    assert (tmp_path / "int8.errors.png").read_bytes().startswith(b"\x89PNG")
    QuantizationError.from_json((tmp_path / "int8.errors.json").read_text())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode=mixed", "--dataset=digits"], "size must be given with mode 'mixed'"),
        (["--mode=int8", "--size=1000"], "size must be given with mode 'mixed'"),
        (["--mode=mixed", "--size=1000"], "data must be given for mode 'mixed'"),
        (["--mode=int8", "--activations=int8"], "activations needs mode 'mixed'"),
        (["--errors", "--dataset=digits"], "errors needs a mode that quantizes"),
        (["--mode=int8", "--recipe=static_wi8_ai8"], "recipe excludes mode"),
        (
            ["--mode=mixed", "--size=9", "--layers=a=int8"],
            "layers must not be given with",
        ),
        (["--mode=mixed", "--size=9", "--dataset=digits", "--correct"], "correct needs a mode"),
        (["--mode=dynamic", "--correct"], "correct goes with integer activations"),
        (["--recipe=none_of_these"], "recipe must be one of"),
        (["--mode=float16", "--layers=head=int8"], "layers must be empty for mode 'float16'"),
        (["--mode=int8", "--sparse", "--layers=head=int4"], "sparse must be False"),
    ],
)
def test_flags_of_export_that_do_not_go_together(command, tmp_path, flags, message):
    path = tmp_path / "file.tflite"
    code, _, err = command("export", *flags, f"--output={path}")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not path.exists()


def _load(path):
    assert np.frombuffer(path.read_bytes()[4:8], np.uint8).tobytes() == b"TFL3"
    return tfnas.Artifact.load(path)
