"""Patches: the same numbers in less memory, whatever the windows, strides and borders."""

import importlib.util

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.tflite.patches.patch_plan import plan, stages
from tfnas.tflite.patches.patch_writer import write_patches
from tfnas.tflite.patches.windows import NotLocal, Span, Window, windows


def network():
    """Returns a network of odd sizes with strides, a sum, a concatenation, and explicit padding."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, 33, 30, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", activation="relu")(x)])
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    x = layers.DepthwiseConv2D((3, 5), strides=1, padding="valid", name="deep")(x)
    x = layers.Concatenate()([x, layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x)])
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, 1, strides=2, name="narrow")(x)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(24, 33, 30, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module", params=slow_but(["float32", "int8", "int16x8"], "int8"))
def file(request, model, images):
    calibration = None if request.param == "float32" else images
    return tfnas.to_tflite(model, request.param, calibration)


@pytest.fixture(scope="module")
def large(images):
    """An int8 file whose first images need most of the memory."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, 64, 64, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    x = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype("float32")
    return tfnas.to_tflite(model, "int8", x), x


def test_each_stage_and_grid_computes_the_same(file, images):
    expected = file.predict(images[:3], batch_size=1, reference=True)
    for last in stages(file.graph):
        for grid in ((2, 1), (1, 3), (3, 2)):
            content = write_patches(file.content, plan(file.graph, last, *grid))
            found = tfnas.Artifact(content).predict(images[:3], batch_size=1, reference=True)
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_plan_of_least_memory_is_that_of_tflite_micro(large):
    file, _ = large
    smaller, report = tfnas.patch_based(file)
    assert report.arena_after == tfnas.planned_arena(smaller) < 0.5 * tfnas.planned_arena(file)
    assert report.arena_before == tfnas.planned_arena(file)
    assert 1 <= report.macs_after / report.macs_before <= 1.5
    assert report.macs_after == tfnas.profile(smaller).macs
    assert "patches of" in str(report)


def test_of_the_plans_within_a_limit_the_one_with_fewest_macs_is_taken(large):
    file, _ = large
    limit = int(0.8 * tfnas.planned_arena(file))
    smaller, report = tfnas.patch_based(file, limit)
    assert tfnas.planned_arena(smaller) <= limit
    assert report.macs_after <= tfnas.patch_based(file)[1].macs_after


def test_tflite_micro_runs_the_patches_and_needs_as_much_as_planned(large):
    pytest.importorskip("tflite_micro")
    file, x = large
    smaller, report = tfnas.patch_based(file)
    assert tfnas.micro_memory(smaller).non_persistent == report.arena_after
    np.testing.assert_array_equal(tfnas.run_micro(smaller, x[:2]), tfnas.run_micro(file, x[:2]))


def test_an_open_batch_stays_open(images):
    inputs = keras.Input((33, 30, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.Conv2D(4, 3, strides=4)(x)
    file = tfnas.to_tflite(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    smaller, _ = tfnas.patch_based(file)
    expected = file.predict(images, reference=True)
    np.testing.assert_allclose(smaller.predict(images, reference=True), expected, atol=1e-5)


def test_what_can_not_be_cut_is_refused_with_the_reason(large):
    file, _ = large
    inputs = keras.Input(batch_shape=(1, 8))
    dense = tfnas.to_tflite(keras.Model(inputs, layers.Dense(4)(inputs)))
    with pytest.raises(ValueError, match="FULLY_CONNECTED: no images in and out"):
        tfnas.patch_based(dense)
    with pytest.raises(ValueError, match=r"max_ram_bytes must be at least [\d,]+, the least found"):
        tfnas.patch_based(file, 16)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="max_ram_bytes must be a whole number"):
            tfnas.patch_based(file, wrong)
    with pytest.raises(ValueError, match="max_macs_ratio must be a number of at least 1"):
        tfnas.patch_based(file, max_macs_ratio=0.5)


def test_patches_that_save_nothing_are_refused(large):
    file, _ = large
    arena = tfnas.planned_arena(file)
    with pytest.raises(ValueError, match=f"got {arena:,}, which it keeps already"):
        tfnas.patch_based(file, arena)
    first = [
        keras.Input(batch_shape=(1, 32, 32, 3)),
        layers.Rescaling(0.5),
        layers.Resizing(16, 16),
    ]
    model = keras.Sequential([*first, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    x = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)).astype("float32")
    with pytest.raises(ValueError, match=r"file must take less memory in patches, got .* records"):
        tfnas.patch_based(tfnas.to_tflite(model, "int8", x))


def test_the_ratio_of_macs_is_named_only_where_it_is_in_the_way(large):
    file, _ = large
    with pytest.raises(ValueError, match=r"got none that does within max_macs_ratio 1; one needs"):
        tfnas.patch_based(file, max_macs_ratio=1)
    wide = [keras.Input(batch_shape=(1, 16, 16, 2)), layers.Conv2D(2, 3), layers.Flatten()]
    model = keras.Sequential([*wide, layers.Dense(4000)])  # its output takes most of the memory
    with pytest.raises(ValueError, match=r"got none that does whatever max_macs_ratio is"):
        tfnas.patch_based(tfnas.to_tflite(model))


def test_pooling_whose_padding_no_operator_can_add_ends_the_stage():
    inputs = keras.Input(batch_shape=(1, 9, 9, 2))
    x = layers.AveragePooling2D(3, strides=2, padding="same")(layers.Conv2D(4, 3)(inputs))
    graph = tfnas.to_tflite(keras.Model(inputs, x)).graph
    with pytest.raises(NotLocal, match="AVERAGE_POOL_2D: padding"):
        windows(graph.operators[1])


@pytest.mark.parametrize(
    ("mode", "interpolation", "size"),
    slow_but(
        [
            *(("int8", "bilinear", (12, 12)), ("float32", "bilinear", (9, 12))),
            *(("int16x8", "bilinear", (18, 9)), ("int8", "nearest", (18, 12))),
        ],
        ("int8", "bilinear", (12, 12)),
    ),
)
def test_an_image_that_shrinks_by_whole_numbers_is_cut(mode, interpolation, size):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, 36, 36, 2))
    x = layers.Resizing(*size, interpolation=interpolation)(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(x)))
    x = np.random.default_rng(0).uniform(0, 255, (8, 36, 36, 2)).astype("float32")
    file = tfnas.to_tflite(model, mode, None if mode == "float32" else x)
    runs = [lambda each: each.predict(x, batch_size=1, reference=True)]
    if mode != "int16x8" and importlib.util.find_spec("tflite_micro"):
        runs.append(lambda each: tfnas.run_micro(each, x))
    for last in stages(file.graph):
        cut = tfnas.Artifact(write_patches(file.content, plan(file.graph, last, 3, 2)))
        for run in runs:
            np.testing.assert_array_equal(run(cut), run(file))


def test_an_image_that_shrinks_by_other_ratios_ends_the_stage():
    inputs = keras.Input(batch_shape=(1, 8, 8, 2))
    for size in (6, 16):
        x = layers.Conv2D(4, 3)(layers.Resizing(size, size)(inputs))
        graph = tfnas.to_tflite(keras.Model(inputs, x)).graph
        with pytest.raises(NotLocal, match=rf"from \(8, 8\) to \({size}, {size}\), not a whole"):
            windows(graph.operators[0])


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(5, 30), st.data())
def test_a_window_needs_what_a_convolution_reads(kernel, stride, dilation, size, data):
    reach = (kernel - 1) * dilation + 1
    padding = max((-(-size // stride) - 1) * stride + reach - size, 0)
    window = Window(kernel, stride, dilation, padding // 2, size)
    length = -(-size // stride)
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    read = {
        place * stride - padding // 2 + tap * dilation
        for place in range(start, stop)
        for tap in range(kernel)
    }
    try:
        inside, pads = window.needs(Span(start, stop))
    except NotLocal:
        assert not any(0 <= place < size for place in range(min(read), max(read) + 1))
        return
    assert (inside.start - pads[0], inside.stop + pads[1] - 1) == (min(read), max(read))
    assert 0 <= inside.start < inside.stop <= size


def test_the_command_writes_a_file_of_patches(tfnas_command, large, tmp_path):
    path = large[0].save(tmp_path / "model.tflite")
    target = tmp_path / "patches.tflite"
    code, out, err = tfnas_command("patches", path, f"--output={target}")
    assert (code, err) == (0, "")
    assert "arena of activations" in out
    assert tfnas.planned_arena(target) < tfnas.planned_arena(path)
