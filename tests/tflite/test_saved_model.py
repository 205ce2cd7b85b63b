"""tfnas.to_saved_model: export for servers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas

X = np.random.default_rng(0).normal(size=(100, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def small():
    layers = keras.layers
    body = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm")]
    ends = [layers.ReLU(), layers.Flatten(), layers.Dense(10, "softmax", name="head")]
    return keras.Sequential([keras.Input((8, 8, 1)), *body, *ends], name="small")


def served(folder, x):
    loaded = tf.saved_model.load(
        str(folder)
    )  # kept in a name, since its variables live only as long as it does
    return np.asarray(loaded.serve(x))


def test_it_computes_as_the_model_does_and_replaces_itself(small, tmp_path):
    x = X[:20]
    folder = tfnas.to_saved_model(small, tmp_path / "served")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    expected = small.predict(x, verbose=0)
    np.testing.assert_allclose(served(folder, x), expected, atol=1e-5)
    (folder / "left").write_text("of before")
    tfnas.to_saved_model(small, folder)
    assert not (folder / "left").exists()


def test_a_quantization_aware_model_keeps_its_rounding(small, tmp_path):
    x = X[:20]
    aware = tfnas.quantize_aware(small, "int8", data=X)
    folder = tfnas.to_saved_model(aware, tmp_path / "served")
    expected = aware.predict(x, verbose=0)
    np.testing.assert_allclose(served(folder, x), expected, atol=1e-5)
    assert np.abs(expected - small.predict(x, verbose=0)).max() > 1e-5


def test_other_files_are_not_removed(small, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder must be new, empty or a SavedModel"):
        tfnas.to_saved_model(small, tmp_path)
    with pytest.raises(ValueError, match="model must be a built Keras 3 model, got str"):
        tfnas.to_saved_model("model.keras", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command(small, tmp_path, tfnas_command):
    small.save(tmp_path / "m.keras")
    folder = tmp_path / "served"
    code, out, _ = tfnas_command("export", tmp_path / "m.keras", f"--saved_model={folder}")
    assert code == 0
    assert f"{folder}: a SavedModel of " in out
    assert (folder / "saved_model.pb").exists()
    code, _, err = tfnas_command("export", tmp_path / "m.keras", f"--saved_model={tmp_path}")
    assert code == 2
    assert "folder must be new, empty or a SavedModel" in err
