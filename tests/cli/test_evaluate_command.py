"""`tfnas evaluate`: the numbers of `tfnas.evaluate`, on the part that was asked for."""

import json

import keras
import numpy as np
import pytest

import tfnas

POSTPROCESS = """
def reversed_classes(outputs):
    return outputs[:, ::-1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of two classifiers, one with two inputs and outputs, and their data."""
    folder = tmp_path_factory.mktemp("evaluate")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
    tfnas.to_tflite(model).save(folder / "one.tflite")
    x = rng.normal(size=(120, 4)).astype("float32")
    y, speaker = rng.integers(0, 2, 120), rng.integers(0, 3, 120)
    np.savez(
        folder / "parts.npz",
        **{"x": x[:80], "y": y[:80], "x_test": x[80:], "y_test": y[80:]},
        **{"who": speaker[:80], "who_test": speaker[80:]},
    )
    np.savez(folder / "whole.npz", x=x, y=y)
    model.set_weights([-w for w in model.get_weights()])
    tfnas.to_tflite(model).save(folder / "other.tflite")
    city = keras.layers.StringLookup(vocabulary=["paris", "rome"], name="lookup")
    given = keras.Input((), dtype="string", name="city")
    place = keras.layers.Embedding(3, 2)(city(given))
    text = keras.Model(given, keras.layers.Dense(1, "sigmoid", name="bought")(place))
    text.save(folder / "text.keras")
    tfnas.to_tflite(text).save(folder / "text.tflite")
    rows = [f"{('paris', 'rome')[i % 2]},{i % 2}" for i in range(20)]
    (folder / "text.csv").write_text("\n".join(["city,bought", *rows]))
    inputs = [keras.Input((1,), name=name) for name in ("rooms", "age")]
    both = keras.layers.Concatenate()(inputs)
    outputs = {
        "price": keras.layers.Dense(1, name="price")(both),
        "sold": keras.layers.Dense(1, "sigmoid", name="sold")(both),
    }
    tfnas.to_tflite(keras.Model(inputs, outputs)).save(folder / "house.tflite")
    rows = [f"{a:.3f},{b:.3f},{a + b:.3f},{i % 2}" for i, (a, b) in enumerate(x[:40, :2])]
    (folder / "house.csv").write_text("\n".join(["rooms,age,price,sold", *rows]))
    return folder


def test_a_file_of_one_frame_gets_the_sequences_of_a_file(tfnas_command, tmp_path):
    rng = np.random.default_rng(1)
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(2)])
    file = tfnas.to_tflite(model, streaming=True)
    file.save(tmp_path / "frame.tflite")
    x, y = rng.normal(size=(20, 5, 3)).astype("float32"), rng.integers(0, 2, 20)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    arguments = (tmp_path / "frame.tflite", f"--data={tmp_path / 'data.npz'}", "--part=all")
    code, out, err = tfnas_command("evaluate", *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == str(tfnas.evaluate(file, x, y))


def test_the_test_part_with_several_metrics(tfnas_command, folder, tmp_path):
    code, out, err = tfnas_command(
        "evaluate",
        folder / "one.tflite",
        f"--data={folder / 'parts.npz'}",
        "--metric=accuracy,f1",
        f"--json={tmp_path / 'found.json'}",
    )
    assert (code, err) == (0, "")
    assert "the test part, 40 of 120 examples" in out.splitlines()[0]
    data = np.load(folder / "parts.npz")
    expected = tfnas.evaluate(
        folder / "one.tflite", data["x_test"], data["y_test"], ["accuracy", "f1"]
    )
    assert out.splitlines()[1:] == [str(each) for each in expected.values()]
    written = json.loads((tmp_path / "found.json").read_text())
    assert {name: each["value"] for name, each in written.items()} == {
        name: each.value for name, each in expected.items()
    }


def test_all_examples_of_a_file_without_parts(tfnas_command, folder):
    arguments = ("evaluate", folder / "one.tflite", f"--data={folder / 'whole.npz'}")
    _, out, _ = tfnas_command(*arguments, "--part=all")
    data = np.load(folder / "whole.npz")
    expected = tfnas.evaluate(folder / "one.tflite", data["x"], data["y"])
    assert out.splitlines()[1] == str(expected)
    _, out, _ = tfnas_command(*arguments)
    assert "the test part, 12 of 120 examples" in out


def test_groups_beside_a_baseline(tfnas_command, folder):
    _, out, _ = tfnas_command(
        *("evaluate", folder / "one.tflite", f"--data={folder / 'parts.npz'}", "--groups=who"),
        f"--baseline={folder / 'other.tflite'}",
    )
    data = np.load(folder / "parts.npz")
    expected = tfnas.evaluate(
        *(folder / "one.tflite", data["x_test"], data["y_test"]),
        groups=data["who_test"],
        baseline=folder / "other.tflite",
    )
    assert out.splitlines()[1:] == str(expected).splitlines()
    _, out, _ = tfnas_command(
        "evaluate", folder / "one.tflite", f"--data={folder / 'parts.npz'}", "--groups=class"
    )
    assert "  0: accuracy" in out
    assert "  1: accuracy" in out


def test_outputs_of_a_table_by_name(tfnas_command, folder):
    code, out, err = tfnas_command(
        *("evaluate", folder / "house.tflite", f"--data={folder / 'house.csv'}", "--part=all"),
        *("--targets=price,sold", "--metric=price=mae,sold=auc"),
    )
    assert (code, err) == (0, "")
    first, price, sold = out.splitlines()
    assert "all 40 examples" in first
    assert price.startswith("price: mae ")
    assert sold.startswith("sold: AUC ")


def test_lookups_in_front_of_the_model_read_the_data(tfnas_command, folder):
    arguments = ("evaluate", folder / "text.tflite", f"--data={folder / 'text.csv'}", "--part=all")
    arguments = (*arguments, "--targets=bought", "--metric=auc")
    code, _, err = tfnas_command(*arguments)
    assert code == 2
    assert "--model=MODEL.keras runs them" in err
    code, out, _ = tfnas_command(*arguments, f"--model={folder / 'text.keras'}")
    assert code == 0
    model = keras.saving.load_model(folder / "text.keras")
    paris, rome = model.predict(np.array(["paris", "rome"], object), verbose=0).ravel()
    assert out.splitlines()[1].startswith(f"AUC {float(rome > paris):.4f}")


def test_outputs_are_decoded_by_a_function_of_ones_own(
    tfnas_command, folder, tmp_path, monkeypatch
):
    (tmp_path / "my_decoding.py").write_text(POSTPROCESS)
    monkeypatch.chdir(tmp_path)
    arguments = ("evaluate", folder / "one.tflite", f"--data={folder / 'parts.npz'}")
    _, out, _ = tfnas_command(*arguments, "--postprocess=my_decoding:reversed_classes")
    data = np.load(folder / "parts.npz")
    plain = tfnas.evaluate(folder / "one.tflite", data["x_test"], data["y_test"])
    assert out.splitlines()[1].startswith(f"accuracy {1 - plain.value:.4f}")
    code, _, err = tfnas_command(*arguments, "--postprocess=my_decoding:reversed_class")
    assert code == 2
    assert "did you mean 'reversed_classes'?" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--baseline=none.tflite"], "baseline must be a .tflite file"),
        (["--metric=price=mae,accuracy"], "--metric must be a name, or OUTPUT=NAME"),
        (["--metric=acuracy"], "did you mean 'accuracy'?"),
        (["--groups=whom"], "groups must name an array"),
        (["--part=some"], "part"),
        (["--postprocess=decode"], "--postprocess must be MODULE:FUNCTION"),
    ],
)
def test_wrong_flags_are_one_line(tfnas_command, folder, flags, message):
    code, _, err = tfnas_command(
        "evaluate", folder / "one.tflite", f"--data={folder / 'parts.npz'}", *flags
    )
    assert code in (1, 2)
    assert message in err
    assert len(err.strip().splitlines()) <= 2
