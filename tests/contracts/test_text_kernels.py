"""Zeros and clusters of embeddings, attention and recurrent kernels stay in any training."""

import pathlib
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import tfnas

WORDS, STEPS = 20, 6


def text_network(policy="float32", **compiled):
    """An embedding, attention, an LSTM and a Dense layer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(WORDS, 8, name="words", dtype=policy)(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention", dtype=policy)(x, x)
    x = layers.LSTM(6, name="memory", dtype=policy)(x)
    model = keras.Model(inputs, layers.Dense(2, "softmax", name="head", dtype="float32")(x))
    model.compile("adam", "sparse_categorical_crossentropy", **{"jit_compile": False, **compiled})
    return model


def data(count=32):
    x = np.random.default_rng(0).integers(0, WORDS, (count, STEPS)).astype("int32")
    return x, (x < WORDS // 2).mean(axis=1).round().astype("int32")


def large_kernels(model):
    """Path -> values of the variables with two axes or more."""
    return {
        v.path: np.asarray(v)
        for v in model.trainable_variables
        if len(v.shape) > 1 and "bias" not in v.name
    }


def test_prune_takes_embeddings_attention_and_recurrent_kernels():
    model = text_network()
    pruned, report = tfnas.prune(model, 0.5)
    assert not report.skipped
    found = large_kernels(pruned)
    assert len(found) == 8  # the table, four projections, two kernels of the LSTM, the head
    for path, kernel in found.items():
        assert (kernel == 0).mean() == pytest.approx(0.5, abs=0.05), path


def test_cluster_takes_embeddings_attention_and_recurrent_kernels():
    clustered, report = tfnas.cluster(text_network(), 4)
    assert not report.skipped
    for path, kernel in large_kernels(clustered).items():
        assert len(np.unique(kernel)) <= 4, path


def test_channel_granularity_leaves_an_embedding_to_its_rows():
    pruned, report = tfnas.prune(text_network(), 0.5, granularity="filter")
    assert {"words", "memory/lstm_cell"} <= {
        each.name.rsplit("/kernel")[0].rsplit("/recurrent")[0] for each in report.skipped
    }
    assert np.count_nonzero(large_kernels(pruned)["words/embeddings"]) == WORDS * 8


SETTINGS = [
    pytest.param({"run_eagerly": True}, id="eager"),
    pytest.param({"jit_compile": True}, id="jit_compile", marks=pytest.mark.slow),
    pytest.param({"policy": "mixed_float16"}, id="mixed_float16", marks=pytest.mark.slow),
    pytest.param({"policy": "mixed_bfloat16"}, id="mixed_bfloat16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_zeros_stay_in_training(settings):
    model, (x, y) = text_network(**settings), data()
    before = large_kernels(model)
    pruning = tfnas.PruningCallback(tfnas.schedules.constant(0.5))
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[pruning])
    for path, kernel in large_kernels(model).items():
        assert (kernel == 0).mean() == pytest.approx(0.5, abs=0.05), path
        assert np.abs(kernel - before[path])[kernel != 0].max() > 1e-4, path


@pytest.mark.parametrize("settings", SETTINGS)
def test_clusters_stay_in_training(settings):
    model, (x, y) = text_network(**settings), data()
    clustering = tfnas.ClusteringCallback(4)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[clustering])
    for path, kernel in large_kernels(model).items():
        assert len(np.unique(kernel)) <= 4, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "settings"), [("float32", {"jit_compile": True}), ("mixed_float16", {})]
)
def test_fake_quantization_trains(policy, settings):
    trainable = tfnas.quantize_aware(text_network(policy))
    x, y = data()
    trainable.compile(
        "adam", "sparse_categorical_crossentropy", **{"jit_compile": False, **settings}
    )
    history = trainable.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_masks_and_clusters_are_equal_on_two_devices(python):
    done = python(
        textwrap.dedent(
            """
            import tensorflow as tf
            cpu = tf.config.list_physical_devices("CPU")[0]
            two = [tf.config.LogicalDeviceConfiguration()] * 2
            tf.config.set_logical_device_configuration(cpu, two)
            import numpy as np, tfnas
            from test_text_kernels import data, text_network

            strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
            x, y = data()
            for callback, check in (
                (tfnas.PruningCallback(tfnas.schedules.constant(0.5)),
                 lambda kernel: abs((kernel == 0).mean() - 0.5) < 0.05),
                (tfnas.ClusteringCallback(4), lambda kernel: len(np.unique(kernel)) <= 4),
            ):
                with strategy.scope():
                    model = text_network()
                model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
                for variable in model.trainable_variables:
                    if len(variable.shape) < 2 or "bias" in variable.name:
                        continue
                    one, other = (v.numpy() for v in variable.value.values)
                    assert (one == other).all() and check(one), variable.path
            print("equal")
            """
        ),
        paths=[pathlib.Path(__file__).parent],
        timeout=600,
    )
    assert "equal" in done.stdout, done.stderr[-2000:]
