"""Limits of a budget as flags of `tfnas compress`."""

import dataclasses

import keras
import numpy as np
import pytest
from absl import flags

from tfnas.cli import compress_command
from tfnas.compression.budget import Budget


def test_each_limit_is_a_flag_with_its_first_sentence():
    values = compress_command.define(flags.FlagValues())
    texts = {field.name: values[field.name].help for field in dataclasses.fields(Budget)}
    assert "a limit" not in texts.values()
    assert texts["max_bytes"] == "most bytes of the file"
    assert texts["max_drop"].startswith("most that may be lost, in points for shares")
    assert texts["max_relative_loss"].startswith("most that may be lost, as a fraction")
    assert texts["quality_limit"].startswith("worst value of the metric")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--max_relative_loss=0", "max_relative_loss must be a finite number above 0, got 0"),
        ("--quality_limit=much", "--quality_limit must be a number, got 'much'"),
    ],
)
def test_bad_limits_end_the_command_before_any_work(flag, message):
    values = compress_command.define(flags.FlagValues())
    values(["tfnas", flag])
    with pytest.raises(ValueError, match=message):
        compress_command.check(["model.keras"], values)


def test_a_limit_on_the_value_may_be_below_zero():
    values = compress_command.define(flags.FlagValues())
    values(["tfnas", "--quality_limit=-0.5"])
    with pytest.raises(ValueError, match="data must be given"):  # the budget was taken
        compress_command.check(["model.keras"], values)


def test_class_names_and_groups_of_a_table(tmp_path, tfnas_command):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    labels = (x[:, 0] > 0).astype(int)
    names = np.array(["owl", "wren"])[labels]
    rows = [f"{a},{b},{row % 2},{n}" for row, ((a, b), n) in enumerate(zip(x, names, strict=True))]
    (tmp_path / "birds.csv").write_text("\n".join(["a,b,site,bird", *rows]))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.fit(x, labels, verbose=0)
    model.save(tmp_path / "birds.keras")
    line = [f"--data={tmp_path}/birds.csv", "--targets=bird", "--groups=site", "--max_drop=5"]
    code, out, err = tfnas_command(
        "compress", tmp_path / "birds.keras", *line, "--effort=quick", f"--directory={tmp_path}/job"
    )
    assert code == 0, err
    numbered = "class names of the targets are numbered in sorted order: 0 owl, 1 wren"
    assert numbered in out + err
    text = (tmp_path / "job" / "report.md").read_text().replace("\\", "")
    assert "Accuracy by group, on the final examples" in text
    assert numbered in text
    assert "The worst group is" in text
