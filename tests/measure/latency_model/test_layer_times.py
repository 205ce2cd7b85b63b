"""Latencies of models as sums over their layers."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.measure.latency_model import latency_model


def network(width=16):
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    x = stem = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Add()([layers.Conv2D(width, 3, padding="same", name="body")(x), stem])
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x * 2.0))
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


@pytest.fixture
def counted(monkeypatch):
    """Simulates latencies by file size; returns the number of files of each measurement."""
    calls = []

    class Time:
        def __init__(self, file):
            self.ratio = file.size / 1000

    def measure(files, **settings):
        calls.append(len(files))
        return [Time(file) for file in files]

    monkeypatch.setattr(latency_model, "benchmark", measure)
    return calls


def test_each_distinct_layer_is_measured_once(counted):
    latency = tfnas.LatencyModel(rounds=6)
    first = latency(network())
    kinds = sorted(key.split()[0] for key in latency.table)
    assert kinds == sorted(
        ["Conv2D", "Conv2D", "Add", "Multiply", "GlobalAveragePooling2D", "Dense", "nothing"]
    )
    assert latency(network()) == first
    assert counted == [7]
    wider = latency(network(24))
    assert wider > first
    assert counted == [7, 6]


def test_operations_over_other_axes_are_other_layers(counted):
    inputs = keras.Input((8, 8, 4))
    rows, columns = (keras.ops.mean(inputs, axis=axis) for axis in (1, 2))
    again = keras.ops.mean(inputs, axis=1)
    latency = tfnas.LatencyModel(rounds=6)
    latency(keras.Model(inputs, [rows, columns, again]))
    assert counted == [3]


def test_the_sum_is_over_calls(counted):
    shared = layers.Dense(8, name="shared")
    x = inputs = keras.Input((8,))
    once = keras.Model(inputs, shared(x))
    twice = keras.Model(inputs, shared(shared(x)))
    latency = tfnas.LatencyModel(rounds=6)
    one, two = latency(once), latency(twice)
    assert two - one == pytest.approx(one - latency.table["nothing"])


def test_the_table_is_stored_and_refused_for_other_settings(counted, tmp_path):
    path = tmp_path / "table.json"
    first = tfnas.LatencyModel(rounds=6, file=path)(network())
    assert tfnas.LatencyModel(rounds=6, file=path)(network()) == first
    assert len(counted) == 1
    with pytest.raises(ValueError, match="must hold latencies of"):
        tfnas.LatencyModel(rounds=6, threads=2, file=path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="must be a table of latencies"):
        tfnas.LatencyModel(rounds=6, file=path)


def test_a_real_measurement_gives_a_time_for_every_layer():
    model = keras.Sequential([keras.Input((16, 16, 8)), layers.Conv2D(8, 3)])
    latency = tfnas.LatencyModel("int8", rounds=6)
    assert latency(model) > 0
    assert sorted(key.split()[0] for key in latency.table) == ["Conv2D", "nothing"]
    assert all(ratio > 0 for ratio in latency.table.values())


@pytest.mark.slow
def test_channels_are_pruned_where_latency_is_saved(counted):
    model = network(32)
    latency = tfnas.LatencyModel(rounds=6)
    smaller, _ = tfnas.prune_channels(
        model, target_latency_ratio=0.7, latency=latency, round_to=8, criterion="random"
    )
    assert latency(smaller) <= 0.7 * latency(model)
    assert np.isfinite(smaller.predict(np.zeros((1, 16, 16, 3)), verbose=0)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 2}, "rounds must be a whole number >= 6"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"mode": "int3"}, "mode must be one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfnas.LatencyModel(**arguments)


def test_an_open_input_is_refused(counted):
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="inputs of known shape"):
        tfnas.LatencyModel(rounds=6)(model)
