"""--data, --inputs and --targets: files of arrays and tables for models of any kind."""

import keras
import numpy as np
import pytest
from absl import flags

import tfnas
from tfnas.cli import common

ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with the inputs "size" and "age", one of series of open length, and their data."""
    place = tmp_path_factory.mktemp("data")
    keras.utils.set_random_seed(0)
    inputs = {"size": keras.Input((1,), name="size"), "age": keras.Input((1,), name="age")}
    joined = keras.layers.Concatenate()([inputs["size"], inputs["age"]])
    hidden = keras.layers.Dense(4, "relu")(joined)
    keras.Model(inputs, keras.layers.Dense(1, name="price")(hidden)).save(place / "model.keras")
    series = keras.Sequential([keras.Input((None, 4)), keras.layers.Conv1D(8, 3)])
    series.save(place / "series.keras")
    n = np.arange(ROWS, dtype=np.float32)
    np.savez(place / "train.npz", age=n, size=n + 1, price=2 * n)
    np.savez(place / "inputs.npz", a=n, s=n + 1)
    np.savez(place / "series.npz", x=np.zeros((3, 10, 4)))
    lines = [f"{i},{i + 1},{2 * i}" for i in range(ROWS)]
    (place / "table.csv").write_text("\n".join(["age,size,price", *lines]))
    return place


@pytest.mark.parametrize(
    "line",
    [
        ["--data={folder}/train.npz"],
        ["--data={folder}/inputs.npz", "--inputs=s,a"],
        ["--data={folder}/table.csv"],
        ["--dataset={folder}/table.csv", "--targets=price"],
    ],
)
def test_export_calibrates_on_inputs_of_any_kind(line, folder, tmp_path, tfnas_command):
    line = [word.format(folder=folder) for word in line]
    target = tmp_path / "file.tflite"
    model = folder / "model.keras"
    code, out, err = tfnas_command("export", model, "--mode=int8", f"--output={target}", *line)
    assert code == 0, err
    assert "test part" not in out
    n = np.arange(ROWS, dtype=np.float32)[:, None]
    expected = tfnas.to_tflite(tfnas.load_model(model), "int8", {"size": n + 1, "age": n})
    assert target.read_bytes() == expected.content


def test_profile_takes_sizes_from_data(folder, tfnas_command):
    code, _, err = tfnas_command("profile", folder / "series.keras")
    assert code == 2
    assert "model must have inputs of known shape" in err
    code, out, err = tfnas_command(
        "profile", folder / "series.keras", f"--data={folder}/series.npz", "--nolayers"
    )
    assert code == 0, err
    assert "104 parameters, 768 MACs" in out


def values_of(*line):
    values = flags.FlagValues()
    common.define_data({"flag_values": values, "module_name": __name__})
    common.define_loading({"flag_values": values, "module_name": __name__})
    values(["tfnas", *line])
    return values


def test_commands_load_data_for_the_model(folder):
    for line in (
        ["--data={folder}/train.npz"],
        ["--dataset={folder}/table.csv", "--targets=price"],
        ["--data={folder}/table.csv", "--targets=price", "--inputs=age,size"],
    ):
        values = values_of(*(word.format(folder=folder) for word in line), "--train_limit=20")
        model, parts = common.load_inputs(folder / "model.keras", values)
        assert {each.name for each in model.inputs} == {"size", "age"}
        assert [len(each) for each in (parts.train, parts.validation, parts.test)] == [20, 6, 6]
        np.testing.assert_array_equal(parts.train.x["size"], parts.train.x["age"] + 1)
        np.testing.assert_array_equal(parts.train.y, 2 * parts.train.x["age"][:, 0])


def test_data_is_required_where_nothing_else_gives_it():
    with pytest.raises(flags.IllegalFlagValueError, match="flag --data"):
        values_of()
    assert values_of("--dataset=digits")["data"].value == "digits"


@pytest.mark.parametrize("command", ["export", "profile"])
def test_bad_data_is_one_line(command, folder, tfnas_command):
    model = folder / "model.keras"
    for line, message in (
        ([f"--data={folder}/none.csv"], "--data must be a file or a folder that exists"),
        ([f"--data={folder}/series.npz"], "must hold an array for each input of the model"),
        ([f"--data={folder}/table.csv", "--inputs=age,prise"], "did you mean 'price'"),
    ):
        code, out, err = tfnas_command(command, model, *line)
        assert (code, out) == (2, "")
        assert err.startswith(f"tfnas {command}: error: ")
        assert err.count("\n") == 1
        assert message in err
