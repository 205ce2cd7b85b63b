import csv
import io
import math
import os
import stat

import keras
import pytest

from tfnas import files
from tfnas.files import write_atomically
from tfnas.quantization.spec import MODES, QuantSpec
from tfnas.table import csv_table, markdown_table, table
from tfnas.tuners.reward import mnasnet_reward


def test_reward_at_the_target_is_the_accuracy():
    assert mnasnet_reward(0.83, 0.4, 0.4) == 0.83
    assert mnasnet_reward(0.83, 123.0, None) == 0.83
    assert mnasnet_reward(0.83, 0.1, 0.4, exponent=0) == 0.83


def test_reward_is_the_weighted_product_of_the_paper():
    assert mnasnet_reward(0.8, 0.2, 0.1) == pytest.approx(0.8 * math.exp(-0.07 * math.log(2)))
    assert mnasnet_reward(0.8, 0.1, 0.4, exponent=-0.5) == pytest.approx(1.6)
    # Halving the latency is worth 5% of the accuracy, on both sides of the target.
    for latency in (0.02, 5.0):
        gain = mnasnet_reward(0.8, latency / 2, 0.3) / mnasnet_reward(0.8, latency, 0.3)
        assert gain == pytest.approx(1.05, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.8, 0.0, 0.1), "latency_ratio must be above 0, got 0.0"),
        ((0.8, float("nan"), 0.1), "latency_ratio must be above 0, got nan"),
        ((0.8, float("inf"), 0.1), "latency_ratio must be above 0, got inf"),
        ((0.8, 0.1, -1.0), "target_ratio must be above 0, got -1.0"),
        ((0.8, 0.1, 0.1, 0.07), "exponent must be at most 0, got 0.07"),
        ((0.8, 0.1, None, float("nan")), "exponent must be at most 0, got nan"),
    ],
)
def test_reward_errors_name_argument_and_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        mnasnet_reward(*arguments)


@pytest.mark.parametrize(
    ("mode", "weights", "activations", "calibrated"),
    [
        ("float32", "float32", "float32", False),
        ("float16", "float16", "float32", False),
        ("dynamic", "int8", "float32", False),
        ("int8", "int8", "int8", True),
        ("int16x8", "int8", "int16", True),
    ],
)
def test_quant_spec_of_a_mode(mode, weights, activations, calibrated):
    spec = QuantSpec.of(mode)
    assert spec == QuantSpec(weights, activations)
    assert spec.mode == mode
    assert spec.needs_calibration is calibrated
    assert QuantSpec.of(spec) is spec


def test_quant_spec_refuses_what_no_mode_is():
    known = ", ".join(MODES)
    with pytest.raises(ValueError, match=f"mode must be one of {known}, got 'int3'"):
        QuantSpec.of("int3")
    with pytest.raises(ValueError, match=r"one of float32/float32, .*, got float16/int8"):
        QuantSpec("float16", "int8")


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    assert write_atomically(path, "é") == path
    assert path.read_bytes() == "é".encode()
    write_atomically(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["os", "ctrl-c"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, step, error
):
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = write_atomically(tmp_path / "file", b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_model_is_the_same_however_it_was_compiled(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = [
        keras.models.load_model(tmp_path / "model.keras", compile=given) for given in (True, False)
    ]
    digests = {files.model_digest(each) for each in (model, *loaded)}
    assert len(digests) == 1
    model.layers[-1].bias.assign([0.0, 1.0])
    assert files.model_digest(model) not in digests


def test_table_is_aligned():
    assert table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "layer  MACs",
        "-----  ----",
        "stem   1200",
        "a|b       7",
    ]
    assert table(["a", "b"], [["x", ""], ["", 10]], right=2) == "a  b\n-  --\nx\n   10"
    assert table(["a", "b"], []) == "a  b\n-  -"


def test_markdown_table():
    assert markdown_table(["layer", "MACs"], [["stem", 1200], ["a|b", 7]]).split("\n") == [
        "| layer | MACs |",
        "| --- | ---: |",
        "| stem | 1200 |",
        "| a\\|b | 7 |",
    ]


def test_csv_table_reads_back():
    rows = [["a,b", 'say "x"'], ["two\nlines", "é"]]
    text = csv_table(["name", "note"], rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["name", "note"], *rows]
    assert csv_table(["a"], [[1]]) == "a\n1\n"
