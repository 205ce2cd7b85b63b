"""Throughput over batch sizes and numbers of threads."""

import keras
import numpy as np
import pytest

import tfnas
from tfnas.measure import throughput as module
from tfnas.measure.throughput import Throughput


def test_every_file_at_every_setting(artifacts, digits):
    files = [artifacts["float32"], artifacts["int8"]]
    found = tfnas.throughput(files, digits.x_test, (1, 4), (1, 2), rounds=6, sample_ms=0.5)
    settings = [(each.threads, each.batch_size, each.file) for each in found]
    assert settings == [(t, b, f) for t in (1, 2) for b in (1, 4) for f in (0, 1)]
    for each in found:
        assert 0 < each.low <= each.per_second <= each.high
        assert each.ratio_low <= each.ratio <= each.ratio_high
        assert each.rounds == 6
        assert not each.note
    assert all(each.ratio == 1 for each in found if each.file == 0)


def test_examples_per_second_count_the_batch(artifacts, monkeypatch):
    """With a simulated clock: a batch takes 10 ms plus 1 ms per example."""

    def run(runner, repeats):
        for _ in range(repeats):
            runner.invoke()
        return repeats * (10 + runner.batch) / 1000

    monkeypatch.setattr(module._Runner, "_run", run)
    found = tfnas.throughput(artifacts["float32"], None, [1, 64], [1], rounds=6, sample_ms=50.0)
    assert [each.per_second for each in found] == pytest.approx([1000 / 11, 64_000 / 74])


def test_a_batch_that_the_file_does_not_take_is_reported():
    layers = keras.layers
    inputs = keras.Input((4,), batch_size=1)
    fixed = tfnas.to_tflite(keras.Model(inputs, layers.Reshape((2, 2))(layers.Dense(4)(inputs))))
    free = tfnas.to_tflite(keras.Sequential([keras.Input((4,)), layers.Dense(4)]))
    found = tfnas.throughput([fixed, free], None, [1, 2], [1], rounds=6, sample_ms=0.2)
    refused = [each for each in found if each.note]
    assert [(each.file, each.batch_size) for each in refused] == [(0, 2)]
    assert refused[0].per_second is None
    assert "takes no batch of 2" in str(refused[0])
    beside = next(each for each in found if (each.file, each.batch_size) == (1, 2))
    assert beside.per_second > 0
    assert beside.ratio is None  # there is nothing to compare with
    assert beside.row("free")[-1] == ""


def test_rows_fit_the_headers(artifacts):
    [found] = tfnas.throughput(artifacts["int8"], None, [2], [1], rounds=6, sample_ms=0.2)
    row = found.row("small")
    assert len(row) == len(Throughput.headers())
    assert row[:3] == ["small", "1", "2"]
    assert row[-1] == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": []}, "files must hold at least one file, got none"),
        ({"files": [7]}, "files must be a file or a list of files, each a tfnas.Artifact or"),
        ({"batch_sizes": []}, "batch_sizes must hold different whole numbers >= 1"),
        ({"batch_sizes": (1, 1)}, "batch_sizes must hold different whole numbers >= 1"),
        ({"threads": (0,)}, r"threads must hold different whole numbers >= 1, got \(0,\)"),
        ({"threads": 2}, "threads must hold different whole numbers >= 1, got 2"),
        ({"rounds": 5}, "rounds must be a whole number >= 6, got 5"),
        ({"sample_ms": 0}, "sample_ms must be above 0, got 0"),
        ({"x": np.zeros((3, 8, 8))}, r"x must hold examples of shape \(8, 8, 1\)"),
        ({"x": {"other": np.zeros((3, 8, 8, 1))}}, "x must hold the inputs"),
    ],
)
def test_bad_arguments_are_named(change, message, artifacts):
    with pytest.raises(ValueError, match=message):
        tfnas.throughput(**{"files": artifacts["int8"], **change})


def test_the_command(artifacts, tmp_path, tfnas_command):
    path = artifacts["int8"].save(tmp_path / "small.tflite")
    line = ["bench", path, "--rounds=6", "--throughput"]
    code, out, _ = tfnas_command(*line, "--batch_sizes=1,3", "--thread_counts=1")
    assert code == 0
    assert "examples/s" in out
    rows = [row.split()[:3] for row in out.splitlines() if row.startswith("small.tflite")]
    assert ["small.tflite", "1", "3"] in rows
    code, _, err = tfnas_command(*line, "--batch_sizes=0,x")
    assert code == 2
    assert "batch_sizes must hold whole numbers >= 1, got '0,x'" in err
    code, _, err = tfnas_command("bench", path, "--thread_counts=2")
    assert code == 2
    assert "thread_counts needs throughput" in err
