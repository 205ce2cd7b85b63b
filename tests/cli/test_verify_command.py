import json

import keras
import numpy as np
import pytest

import tfnas


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, its int8 file, a file of another one, and data."""
    folder = tmp_path_factory.mktemp("verify")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="head")])
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    np.savez(folder / "data.npz", x=x)
    model.save(folder / "model.keras")
    tfnas.to_tflite(model, "int8", x).save(folder / "int8.tflite")
    model.set_weights([w + 0.5 for w in model.get_weights()])
    tfnas.to_tflite(model, "int8", x).save(folder / "stale.tflite")
    return folder


def test_a_verified_file_ends_with_0(tfnas_command, folder):
    code, out, err = tfnas_command(
        "verify",
        folder / "model.keras",
        f"--file={folder / 'int8.tflite'}",
        f"--data={folder / 'data.npz'}",
    )
    assert (code, err) == (0, "")
    assert out.startswith("verified: the int8 file computes what")


def test_a_file_that_is_not_verified_ends_with_3_and_is_repaired(tfnas_command, folder, tmp_path):
    code, out, _ = tfnas_command(
        "verify",
        folder / "model.keras",
        f"--file={folder / 'stale.tflite'}",
        f"--data={folder / 'data.npz'}",
        f"--repair={tmp_path / 'repaired.tflite'}",
        f"--json={tmp_path / 'result.json'}",
    )
    assert code == 3
    assert out.startswith("not verified: output")
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is False
    model = keras.saving.load_model(folder / "model.keras")
    x = np.load(folder / "data.npz")["x"]
    assert tfnas.verify(model, tmp_path / "repaired.tflite", x).passed


def test_wrong_flags_are_one_line(tfnas_command, folder):
    code, _, err = tfnas_command(
        "verify",
        folder / "model.keras",
        f"--file={folder / 'int8.tflite'}",
        f"--data={folder / 'data.npz'}",
        "--bound=-1",
    )
    assert code == 2
    assert "bound must be a number of at least 0, got -1.0" in err


def test_a_part_of_the_data_is_run(tfnas_command, folder, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 6)).astype("float32")
    far = {"x_train": x, "y_train": x[:, :3], "x_test": 20 * x, "y_test": x[:, :3]}
    np.savez(tmp_path / "parts.npz", **far)
    line = ["verify", folder / "model.keras", f"--file={folder / 'int8.tflite'}"]
    line += [f"--data={tmp_path / 'parts.npz'}"]
    assert tfnas_command(*line, "--part=train")[0] == 0
    code, out, _ = tfnas_command(*line, "--part=test")  # beyond the ranges of the file
    assert code == 3
    assert out.startswith("not verified: output 'head' of the int8 file differs from ")
    code, _, err = tfnas_command(*line, f"--data={folder / 'data.npz'}", "--part=test")
    assert code == 2
    assert "y" in err
