"""tfnas.quantize_aware: training, schedules, what survives it, and other ways to train."""

import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from aware_checks import (
    WithoutConfig,
    assert_agree,
    assert_near,
    classifier,
    fit,
    floats_in,
    predict,
    ranges_of,
    small,
    sorted_weights,
    three_layers,
)
from aware_kinds import IMAGE, SEQUENCE, VECTOR, L, examples
from keras import ops

import tfnas
from tfnas.graph.batchnorm import layers_of
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.float32_model import to_float32
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.quantization.quantized_kernel import QuantizedKernel, dilated_conv2d

# --- training


@pytest.fixture(scope="module")
def trained(digits):
    model = classifier()
    fit(model, digits, 8)
    trainable = tfnas.quantize_aware(model, data=digits.x_train[:200])
    before = ranges_of(trainable)
    history = fit(trainable, digits)
    return types.SimpleNamespace(
        model=model,
        trainable=trainable,
        before=before,
        losses=history.history["loss"],
        file=tfnas.to_tflite(trainable, "int8"),
    )


def test_training_changes_weights_and_ranges(trained):
    kernels = [w for w in trained.trainable.weights if w.name == "kernel"]
    originals = [w for w in trained.model.weights if w.name == "kernel"]
    for kernel, original in zip(kernels, originals, strict=True):
        assert np.abs(np.asarray(kernel) - np.asarray(original)).max() > 1e-4
    after = ranges_of(trained.trainable)
    fixed = np.array([q.fixed is not None for q in fake_quants(trained.trainable)])
    np.testing.assert_array_equal(after[fixed], trained.before[fixed])
    moved = ~fixed
    moved[0] = False  # of the input: every batch has the same range
    assert (after[moved, 1] != trained.before[moved, 1]).all()
    assert np.isfinite(trained.losses).all()
    assert trained.losses[-1] < 0.5


def test_model_and_file_choose_the_same_class(trained, digits):
    x = np.concatenate([digits.x_test, digits.x_train])[:1000]
    expected = trained.trainable.predict(x, verbose=0)
    found = trained.file.predict(x)
    top = np.sort(expected, axis=1)
    separated = top[:, -1] - top[:, -2] > 2 * trained.file.outputs[0].scale
    assert separated.mean() > 0.8
    same = found.argmax(1) == expected.argmax(1)
    assert same[separated].mean() >= 0.995
    assert (
        expected.argmax(1) == np.concatenate([digits.y_test, digits.y_train])[:1000]
    ).mean() > 0.85
    assert np.median(np.abs(found - expected)) <= 1.001 * trained.file.outputs[0].scale


def test_the_stripped_model_has_the_trained_weights(trained, digits):
    float_model = tfnas.strip_quantization(trained.trainable)
    kernels = [np.asarray(w) for w in trained.trainable.weights if w.name == "kernel"]
    for a, b in zip(kernels, [w for w in float_model.weights if w.name == "kernel"], strict=True):
        np.testing.assert_array_equal(a, b)
    x = digits.x_test[:200]
    assert_near(predict(float_model, x), predict(trained.trainable, x), 0.2)
    assert [type(layer).__name__ for layer in float_model.layers[1:]] == [
        type(layer).__name__ for layer in trained.model.layers
    ]
    again = tfnas.quantize_aware(float_model, data=x)
    assert floats_in(tfnas.to_tflite(again, "int8")) == []


def test_a_trained_model_is_saved_with_its_ranges_and_trains_on(trained, digits, tmp_path):
    trained.trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ranges_of(loaded), ranges_of(trained.trainable))
    assert tfnas.to_tflite(loaded, "int8").sha256 == trained.file.sha256
    fit(loaded, digits, 1, count=200)
    assert (ranges_of(loaded) != ranges_of(trained.trainable)).any()


@pytest.mark.slow
def test_ranges_that_are_learned_have_gradients(digits):
    model = classifier()
    trainable = tfnas.quantize_aware(
        model, tfnas.QuantSpec(ranges="learned"), data=digits.x_train[:100]
    )
    before = ranges_of(trainable)
    fit(trainable, digits, 2)
    after = ranges_of(trainable)
    fixed = np.array([q.fixed is not None for q in fake_quants(trainable)])
    fixed[0] = True  # of the input: a training step is tiny compared with 255
    assert (before[~fixed, 1] != after[~fixed, 1]).all()
    relu = np.array([q.relu is not None for q in fake_quants(trainable)])
    assert (after[relu, 0] == 0).all()
    assert (after[:, 1] > after[:, 0]).all()
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.slow
def test_ranges_are_found_in_training_without_any_data_before(digits):
    trainable = tfnas.quantize_aware(classifier())
    with pytest.raises(ValueError, match="model must have seen data before it is exported"):
        tfnas.to_tflite(trainable, "int8")
    fit(trainable, digits, 1, count=400)
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


# --- schedules


@pytest.mark.slow
def test_before_the_start_epoch_training_is_that_of_a_float_model(digits):
    model = classifier()
    trainable = tfnas.quantize_aware(model)
    schedule = tfnas.QuantizationSchedule(start_epoch=5)
    losses = {}
    for name, m, callbacks in (("float", model, ()), ("later", trainable, (schedule,))):
        keras.utils.set_random_seed(6)
        losses[name] = fit(m, digits, 2, callbacks, count=300).history["loss"]
    np.testing.assert_allclose(losses["later"], losses["float"], rtol=1e-4)
    assert all(q.observed for q in fake_quants(trainable))
    with pytest.raises(ValueError, match=r"model must round its activations, got '.*' inactive"):
        tfnas.to_tflite(trainable, "int8")


@pytest.mark.slow
def test_a_schedule_starts_rounding_and_then_freezes_the_ranges(digits):
    trainable = tfnas.quantize_aware(classifier())
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            (fake_quants(trainable)[0].active, ranges_of(trainable))
        )
    )
    schedule = tfnas.QuantizationSchedule(start_epoch=1, freeze_epoch=2)
    fit(trainable, digits, 4, [schedule, watch], count=200)
    assert [active for active, _ in seen] == [False, True, True, True]
    assert (seen[0][1] != seen[1][1]).any()
    np.testing.assert_array_equal(seen[1][1], seen[2][1])
    np.testing.assert_array_equal(seen[2][1], seen[3][1])
    assert all(layer.frozen for layer in fake_quants(trainable))
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.parametrize("ranges", ["learned", pytest.param("percentile", marks=pytest.mark.slow)])
def test_frozen_ranges_do_not_move(ranges, digits):
    spec = tfnas.QuantSpec(ranges=ranges)
    trainable = tfnas.quantize_aware(classifier(), spec, data=digits.x_train[:100])
    before = ranges_of(trainable)
    fit(trainable, digits, 1, [tfnas.QuantizationSchedule(freeze_epoch=0)], count=200)
    np.testing.assert_array_equal(ranges_of(trainable), before)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"start_epoch": -1}, "start_epoch must be a whole number from 0 on, got -1"),
        ({"start_epoch": 1.5}, "start_epoch must be a whole number from 0 on, got 1.5"),
        ({"start_epoch": None}, "start_epoch must be a whole number from 0 on, got None"),
        ({"freeze_epoch": -2}, "freeze_epoch must be a whole number from 0 on, got -2"),
        ({"start_epoch": 3, "freeze_epoch": 2}, "freeze_epoch must not be before start_epoch 3"),
    ],
)
def test_schedules_that_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        tfnas.QuantizationSchedule(**settings)


def test_a_schedule_needs_a_quantization_aware_model(digits):
    with pytest.raises(ValueError, match="model must be quantization-aware, got 'sequential"):
        fit(classifier(), digits, 1, [tfnas.QuantizationSchedule()], count=50)


# --- zeros and few values survive


@pytest.mark.slow  # tests/graph/test_compatibility.py has zeros in a file after training
def test_zeros_survive_training_and_reach_the_file(digits):
    model = classifier()
    fit(model, digits, 1, count=300)
    pruned, report = tfnas.prune(model, 0.6)
    trainable = tfnas.quantize_aware(pruned, data=digits.x_train[:100])
    assert tfnas.keep_zeros(trainable) == report.zeros
    fit(trainable, digits, 2, count=500)
    zeros = tfnas.file_sparsity(tfnas.to_tflite(trainable, "int8"))
    assert zeros.weights == report.weights
    assert zeros.zeros >= report.zeros
    kernels = [
        np.asarray(w) for w in tfnas.strip_quantization(trainable).weights if w.name == "kernel"
    ]
    assert sum(int((k == 0).sum()) for k in kernels) == report.zeros


def test_few_values_of_a_kernel_stay_few():
    model = three_layers()
    rng = np.random.default_rng(0)
    for name in ("first", "second", "last"):
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.choice([-0.7, -0.1, 0.0, 0.2, 0.5], kernel.shape))
    trainable = tfnas.quantize_aware(model, data=examples(IMAGE))
    file = tfnas.to_tflite(trainable, "int8")
    for op in file.graph.operators:
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            kernel = np.frombuffer(op.inputs[1].constant, np.int8).reshape(op.inputs[1].shape)
            axis = op.inputs[1].channel_axis
            for i in range(kernel.shape[axis]):
                assert len(np.unique(np.take(kernel, i, axis))) <= 5
    assert sorted_weights(tfnas.strip_quantization(trainable)) == sorted_weights(model)


# --- other ways to train


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_per_execution": 4},
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True, "ranges": "percentile"}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True, "ranges": "learned"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ways_to_run_the_training_step(settings, digits):
    settings = dict(settings)
    spec = tfnas.QuantSpec(ranges=settings.pop("ranges", "moving_average"))
    trainable = tfnas.quantize_aware(classifier(), spec)
    losses = fit(trainable, digits, 2, count=200, **settings).history["loss"]
    assert losses[1] < losses[0]
    assert all(q.observed for q in fake_quants(trainable))
    assert_agree(trainable, tfnas.to_tflite(trainable, "int8"), digits.x_test[:200])


@pytest.mark.slow
def test_the_compiled_step_computes_what_the_plain_one_does(digits):
    found = []
    for jit in (False, True):
        trainable = tfnas.quantize_aware(classifier(), data=digits.x_train[:100])
        keras.utils.set_random_seed(7)
        found.append(fit(trainable, digits, 1, count=200, jit_compile=jit).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(policy, digits):
    keras.config.set_dtype_policy(policy)
    try:
        trainable = tfnas.quantize_aware(classifier(), data=digits.x_train[:100])
        losses = fit(trainable, digits, 2, count=300).history["loss"]
        assert losses[1] < losses[0]
        assert {w.dtype for w in trainable.trainable_weights} == {"float32"}
        assert {w.dtype for q in fake_quants(trainable) for w in q.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in trainable.layers[1:]} == {policy[6:]}
    x = digits.x_test[:300]
    file, single = tfnas.to_tflite(trainable, "int8"), to_float32(trainable)
    assert floats_in(file) == []
    assert_agree(single, file, x)
    found, expected = file.predict(x), np.asarray(trainable(x), np.float32)
    assert np.median(np.abs(found - expected)) <= file.outputs[0].scale
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert [q.name for q in fake_quants(single)] == [q.name for q in fake_quants(trainable)]
    np.testing.assert_array_equal(ranges_of(single), ranges_of(trainable))
    np.testing.assert_allclose(tfnas.to_tflite(trainable, "float32").predict(x), expected, atol=0.1)


def test_a_layer_of_half_precision_that_cannot_be_rebuilt_is_named():
    model = keras.Sequential(
        [
            keras.Input(VECTOR),
            L.Dense(3, dtype="mixed_float16"),
            WithoutConfig(ops.abs, dtype="mixed_float16", name="odd"),
        ]
    )
    trainable = quantize_aware_partly(model, data=examples(VECTOR))
    with pytest.raises(ValueError, match="must compute in float32 to be exported, got 'odd'"):
        tfnas.to_tflite(trainable, "int8")


def test_a_dilated_convolution_has_the_gradient_of_keras():
    """TensorFlow's one operation for it has none on CPUs without oneDNN."""
    layer = L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same", use_bias=False)
    x = ops.convert_to_tensor(examples(IMAGE, 6))
    layer.build(x.shape)
    kernel, rates = layer.kernel.value, [2, 1]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        expected = ops.sum(layer(x) ** 2)
        found = ops.sum(dilated_conv2d(x, kernel, [1, 1], "SAME", rates) ** 2)
    for of in (x, kernel):
        np.testing.assert_allclose(
            tape.gradient(found, of), tape.gradient(expected, of), rtol=1e-4, atol=1e-4
        )


def test_a_dilated_convolution_trains():
    model = keras.Sequential([keras.Input(SEQUENCE), L.Conv1D(4, 3, dilation_rate=2)])
    x = examples(SEQUENCE, 16)
    trainable = tfnas.quantize_aware(model, data=x)
    before = np.array(model.layers[0].kernel)
    trainable.compile("sgd", "mse", run_eagerly=True)
    trainable.fit(x, np.ones((16, 6, 4)), epochs=1, verbose=0)
    [kernel] = layers_of(trainable, QuantizedKernel)
    assert (np.array(kernel.layer.kernel) != before).any()


def test_a_dilated_depthwise_convolution_is_refused_by_name():
    chain = [L.DepthwiseConv2D(3, dilation_rate=2, name="wide"), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input(IMAGE), *chain])
    with pytest.raises(ValueError, match=r'wide: no integer form .*\{"wide": "float32"\}'):
        tfnas.quantize_aware(model)
    spec = tfnas.QuantSpec("int8", layers={"wide": "float32"})
    x = examples(IMAGE)
    file = tfnas.to_tflite(tfnas.quantize_aware(model, spec, data=x), "int8")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(file.predict(x), expected, atol=0.05 * np.ptp(expected))


def test_a_float32_model_is_returned_as_it_is():
    trainable = tfnas.quantize_aware(small())
    assert to_float32(trainable) is trainable


MIRRORED = """
import keras, numpy as np, tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpus[0], two)
import tfnas
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
x = rng.normal(size=(128, 6)).astype("float32")
with strategy.scope():
    model = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(8), keras.layers.BatchNormalization(),
        keras.layers.ReLU(), keras.layers.Dense(3),
    ])
    trainable = tfnas.quantize_aware(model)
    trainable.compile("adam", "mse", jit_compile=False)
trainable.fit(x, x[:, :3], batch_size=32, epochs=2, verbose=0)
file = tfnas.to_tflite(trainable, "int8")
assert file.inputs[0].dtype == "int8"
assert abs(file.inputs[0].scale * 255 - (x.max() - x.min())) < 0.5 * (x.max() - x.min())
error = np.abs(file.predict(x) - np.asarray(trainable(x))) / file.outputs[0].scale
assert np.median(error) <= 1.001, np.median(error)

def trained(sparse, shared):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(32), keras.layers.ReLU(), keras.layers.Dense(3),
    ])
    model = tfnas.prune(model, 0.5)[0] if sparse else tfnas.cluster(model, 4)[0]
    trainable = tfnas.quantize_aware(model)
    if shared:
        tfnas.keep_clusters(trainable)
    trainable.compile("sgd", "mse", jit_compile=False)
    trainable.fit(x, x[:, :3], batch_size=32, epochs=2, verbose=0, shuffle=False)
    return trainable

for sparse, check in (
    (True, lambda kernel: (kernel == 0).mean() == 0.5),
    (False, lambda kernel: len(np.unique(kernel)) == 4),
):
    with strategy.scope():
        mirrored = trained(sparse, not sparse)
    for one, other in zip(mirrored.variables, trained(sparse, not sparse).variables):
        first, second = (replica.numpy() for replica in one.value.values)
        np.testing.assert_array_equal(first, second, err_msg=one.path)
        np.testing.assert_allclose(first, other.numpy(), atol=1e-4, err_msg=one.path)
        assert one.name != "kernel" or check(first), one.path
print("done")
"""


def test_a_schedule_in_a_mirrored_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        trainable = tfnas.quantize_aware(keras.Sequential([keras.Input((6,)), L.Dense(3)]))
        trainable.compile("adam", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    schedule = tfnas.QuantizationSchedule(start_epoch=1, freeze_epoch=1)
    history = trainable.fit(x, x[:, :3], epochs=2, verbose=0, callbacks=[schedule]).history
    assert history["range_change"][0] > 0 == history["range_change"][1]


@pytest.mark.slow
def test_a_mirrored_strategy():
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("done\n")
