"""Formats that the converter does not have: 4 bits, formats of single layers, recipes."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_cases import slow_but

import tfnas
from tfnas.tflite import mixed_precision
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.quantizer_recipes import layers_of_file


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    shared = layers.Dense(16, activation="relu", name="shared")
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(16, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(16, 3, 2, padding="same", name="up")(x)
    x = shared(layers.GlobalAveragePooling2D()(x))
    x = shared(layers.Dense(16, name="dense")(x))
    inside = keras.Sequential([keras.Input((16,)), layers.Dense(32, name="inside")], name="nested")
    return keras.Model(inputs, layers.Dense(10, name="head")(inside(x)))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def float_file(model):
    return tfnas.to_tflite(model)


def formats(model, file):
    """Layer -> element types of its kernels in the file."""
    layers = layers_of_file(model, file)
    return {name: {k.tensor.dtype for k in kernels} for name, (_, kernels) in layers.items()}


def noise(file, float_file, x):
    expected, got = float_file.predict(x), file.predict(x)
    return float(((got - expected) ** 2).sum() / (expected**2).sum())


def test_layers_are_found_under_all_names_in_the_file(model, float_file):
    kinds = {name: kind for name, (kind, _) in layers_of_file(model, float_file).items()}
    assert kinds == {
        "stem": "Conv2D",
        "separable": "SeparableConv2D",
        "up": "Conv2DTranspose",
        "shared": "Dense",
        "dense": "Dense",
        "inside": "Dense",
        "head": "Dense",
    }


@pytest.mark.parametrize("mode", ["int4", "weights4"])
def test_four_bits_where_tflite_has_them_and_eight_elsewhere(model, float_file, x, mode):
    file = tfnas.to_tflite(model, mode)
    assert file.mode == mode
    found = formats(model, file)
    assert found["stem"] == found["shared"] == found["inside"] == found["head"] == {"int4"}
    assert found["separable"] == {"int4", "int8"}
    assert found["up"] == {"int8"}
    assert file.size < float_file.size
    assert noise(file, float_file, x) < 0.1


def test_weights_alone_are_unpacked_and_computed_with_in_floats(model, float_file, x):
    file = tfnas.to_tflite(model, "weights8")
    assert all(found == {"int8"} for found in formats(model, file).values())
    assert "DEQUANTIZE" in {op.name for op in file.graph.operators}
    assert noise(file, float_file, x) < 1e-3
    kernels = {k.layer: k for k in read_kernels(file)}
    # Symmetric, a scale a channel: the dequantized kernel is within half a step.
    stem = next(k for k in read_kernels(file) if k.layer == "stem")
    exact = next(k for k in read_kernels(float_file) if k.layer == "stem").values
    steps = np.abs(exact).max(axis=(1, 2, 3), keepdims=True) / 127
    assert np.abs(stem.values * steps - exact).max() <= 0.5001 * steps.max()
    assert kernels


def test_dynamic_for_dense_layers_alone_saves_loads_and_runs(model, float_file, x, tmp_path):
    spec = tfnas.QuantSpec("int8", "float32", layers={"Dense": "int8", "*": "float32"})
    file = tfnas.to_tflite(model, spec)
    found = formats(model, file)
    dense = {name for name, types in found.items() if types == {"int8"}}
    assert dense == {"shared", "dense", "inside", "head"}
    assert found["stem"] == {"float32"}
    again = tfnas.Artifact.load(file.save(tmp_path / "dense.tflite"))
    np.testing.assert_array_equal(again.predict(x), file.predict(x))
    assert noise(again, float_file, x) < 1e-3


def test_integer_activations_with_formats_of_single_layers(model, x):
    spec = tfnas.QuantSpec("int8", "int8", layers={"head": "int4", "inside": "float32"})
    file = tfnas.to_tflite(model, spec, x)
    types = {t.dtype for op in file.graph.operators for t in op.inputs}
    assert {"int4", "int8", "float32"} <= types
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"


def test_int8_with_four_bit_weights_needs_no_training(model, float_file, x):
    file = tfnas.to_tflite(model, "int8x4", x)
    assert file.mode == "int8x4"
    assert not file.origin["quantization_aware"]
    assert file.origin["calibration_examples"] == len(x)
    types = {t.dtype for op in file.graph.operators for t in (*op.inputs, *op.outputs)}
    assert "int4" in types
    assert not any(t.startswith("float") for t in types)
    assert file.size < tfnas.to_tflite(model, "int8", x).size


@pytest.mark.parametrize("recipe", ["dynamic_wi8_afp32", "static_wi8_ai8", "weight_only_wi4_afp32"])
def test_recipes_by_name(float_file, x, recipe, capfd):
    file = tfnas.apply_recipe(float_file, recipe, x)
    assert file.mode == recipe
    assert file.size < float_file.size
    assert noise(file, float_file, x) < (0.05 if "wi4" in recipe else 0.01)
    assert "Calibration" not in capfd.readouterr().err


def test_a_recipe_from_a_file_and_as_a_list(float_file, tmp_path):
    by_name = tfnas.apply_recipe(float_file, "dynamic_wi8_afp32")
    steps = by_name.origin["recipe"]
    assert tfnas.apply_recipe(float_file, steps).content == by_name.content
    import json

    path = tmp_path / "own.json"
    path.write_text(json.dumps(steps))
    assert tfnas.apply_recipe(float_file, path).content == by_name.content


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        ("nonsense", "recipe must be one of dynamic_"),
        ("missing.json", "must be a JSON file"),
        (3, "recipe must be a name"),
        ([{"regex": ".*"}], "recipe must be one of ai-edge-quantizer's"),
        ("static_wi8_ai8", "calibration must hold typical inputs"),
    ],
)
def test_bad_recipes(float_file, recipe, match):
    with pytest.raises(ValueError, match=match):
        tfnas.apply_recipe(float_file, recipe)


def test_a_recipe_with_calibration_observes_the_range_of_every_input_and_output():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((32,), name="second"), keras.Input((16,), name="first")
    x = layers.Concatenate()([layers.Dense(32, activation="relu")(one) for one in inputs])
    model = keras.Model(inputs, layers.Dense(1)(x))  # one number an example
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(64, 32)), 10 * rng.normal(size=(64, 16))]
    float_file = tfnas.to_tflite(model)
    assert noise(tfnas.apply_recipe(float_file, "static_wi8_ai8", data), float_file, data) < 1e-3


@pytest.fixture(scope="module")
def tokens():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((12,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(40, 32)(x))
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Dense(64, name="mid")(x)))


@pytest.mark.parametrize("mode", slow_but(["int4", "weights8"], "int4"))
def test_models_of_tokens(tokens, mode):
    x = np.random.default_rng(0).integers(0, 40, (64, 12))
    file, float_file = tfnas.to_tflite(tokens, mode), tfnas.to_tflite(tokens)
    expected = {"int4": "int4", "weights8": "int8"}[mode]
    found = formats(tokens, file)
    assert (found["mid"], found["head"]) == ({expected}, {expected})
    tables = [op.inputs[0] for op in file.graph.operators if op.name == "GATHER"]
    assert expected in {table.dtype for table in tables}
    assert file.inputs[0].dtype == "int32"
    assert noise(file, float_file, x) < 0.1
    static = tfnas.apply_recipe(float_file, "static_wi8_ai8", x)
    assert noise(static, float_file, x) < 1e-3


def test_kernels_inside_a_loop():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((10, 8))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.LSTM(32)(inputs)))
    x = np.random.default_rng(0).normal(size=(16, 10, 8))
    float_file, file = tfnas.to_tflite(model), tfnas.to_tflite(model, "weights8")
    assert formats(model, file) == {"head": {"int8"}, "lstm_cell": {"int8"}}
    assert noise(file, float_file, x) < 1e-3
    file, found = tfnas.mixed_precision(model, 0.7, x)
    assert file.size <= 0.7 * float_file.size
    assert {layer.name for layer in found.layers} == {"head", "lstm_cell"}


def test_layers_of_tf_keras_have_no_counters():
    tf_keras = pytest.importorskip("tf_keras")
    dense = tf_keras.layers.Dense
    names = "dense", "dense_1"
    layers = [dense(32, name=name) for name in names]
    model = tf_keras.Sequential([tf_keras.layers.Input((32,)), *layers])
    spec = tfnas.QuantSpec("int8", "float32", layers={"dense": "int4", "dense_1": "int8"})
    file = tfnas.to_tflite(model, spec)
    assert formats(model, file) == {"dense": {"int4"}, "dense_1": {"int8"}}
    x = np.zeros((4, 32))
    with pytest.raises(ValueError, match="must be a Keras 3 model for 4-bit weights"):
        tfnas.to_tflite(model, "int8x4", x)
    with pytest.raises(ValueError, match="Keras 3 model"):
        tfnas.mixed_precision(model, 0.5, x, activations="int8")


def test_a_model_is_no_file(model):
    with pytest.raises(ValueError, match=r"artifact must be a .*Artifact, got Functional"):
        tfnas.apply_recipe(model, "dynamic_wi8_afp32")


def test_four_bits_for_no_kernel_at_all_are_refused(model, x):
    spec = tfnas.QuantSpec("int4", "int8", layers={"*": "int8"})
    with pytest.raises(ValueError, match="must give 4 bits to the kernel of some layer"):
        tfnas.to_tflite(model, spec, x)


def test_a_recipe_that_matches_nothing_is_refused(float_file):
    steps = tfnas.apply_recipe(float_file, "dynamic_wi8_afp32").origin["recipe"]
    with pytest.raises(tfnas.ConversionError, match="changed nothing"):
        tfnas.apply_recipe(float_file, [{**steps[0], "regex": "no such tensor"}])


def test_a_quantized_file_takes_no_recipe(model, x):
    with pytest.raises(ValueError, match="must be a float32 file"):
        tfnas.apply_recipe(tfnas.to_tflite(model, "int8", x), "dynamic_wi8_afp32")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"layers": {"nothing": "int8"}}, "layers must name layers with a kernel"),
        ({"layers": {"*": "float32"}}, "must quantize the kernel of some layer"),
    ],
)
def test_specifications_that_quantize_nothing(model, spec, match):
    with pytest.raises(ValueError, match=match):
        tfnas.to_tflite(model, tfnas.QuantSpec("int8", "float32", **spec))


def test_float16_is_one_format_for_all(model):
    with pytest.raises(ValueError, match="layers must be empty for mode 'float16'"):
        tfnas.to_tflite(model, tfnas.QuantSpec("float16", "float32", layers={"head": "int8"}))


def test_mixed_precision_meets_the_size_and_keeps_the_sensitive_layer_fine(x):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(64, activation="relu", name="hurt"),
            layers.Dense(64, activation="relu", name="third"),
            layers.Dense(10, name="head"),
        ]
    )
    kernel = np.array(model.get_layer("hurt").kernel)
    kernel[0] *= 50  # a large scale for every output
    model.get_layer("hurt").kernel.assign(kernel)
    file, found = tfnas.mixed_precision(model, 30_000, x)
    assert file.size == found.size <= 30_000
    chosen = {layer.name: layer.chosen for layer in found.layers}
    assert chosen["first"] == "int4"
    assert chosen["hurt"] != "int4"
    assert formats(model, file) == {name: {kind} for name, kind in chosen.items()}
    assert mixed_precision.MixedPrecision.from_json(found.to_json()) == found
    assert found.rows()[0][0] == "hurt"
    uniform = tfnas.to_tflite(model, "int4")
    float_file = tfnas.to_tflite(model)
    assert noise(file, float_file, x) < noise(uniform, float_file, x)
    assert tfnas.to_tflite(model, found.spec).content == file.content


def test_mixed_precision_with_integer_activations(x):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    hidden = [layers.Dense(32, activation="relu", name=name) for name in ("one", "two")]
    body = [layers.GlobalAveragePooling2D(), *hidden, layers.Dense(10, name="head")]
    model = keras.Sequential([keras.Input((12, 12, 3)), *body], name="small")
    largest = tfnas.to_tflite(model, tfnas.QuantSpec("int8", "int8", layers={"*": "int8"}), x)
    file, found = tfnas.mixed_precision(model, largest.size - 300, x, activations="int8")
    assert file.size <= largest.size - 300
    assert {layer.chosen for layer in found.layers} == {"int4", "int8"}
    types = {t.dtype for op in file.graph.operators for t in op.inputs}
    assert {"int4", "int8"} <= types
    assert not any(t.startswith("float") for t in types)


def test_a_large_budget_keeps_the_floats(model, float_file, x):
    file, found = tfnas.mixed_precision(model, float_file.size, x)
    assert file.content == float_file.content
    assert found.measured == 0.0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size": 0}, "size must be bytes, or a fraction"),
        ({"size": 0.01}, "size must be at least about"),
        ({"size": float("inf")}, "size must be bytes, or a fraction"),
        ({"size": 0.5, "activations": "int16"}, "activations must be"),
        ({"size": 0.5, "activations": "int8", "weight_only": True}, "weight_only goes with"),
        ({"size": 0.5, "formats": ["int8"]}, "formats must be two or more of"),
        ({"size": 0.5, "formats": ["int8", "int2"]}, "formats must be two or more of"),
        ({"size": 0.5, "data": np.zeros((0, 12, 12, 3))}, "data must hold"),
    ],
)
def test_bad_arguments_of_mixed_precision(model, x, arguments, match):
    with pytest.raises(ValueError, match=match):
        tfnas.mixed_precision(model, **{"data": x, **arguments})


def test_mixed_precision_refuses_models_without_inputs_and_trained_ones(x):
    layers = keras.layers
    with pytest.raises(ValueError, match="model"):
        tfnas.mixed_precision(keras.Sequential([]), 0.5, x)
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(4)])
    trained = tfnas.quantize_aware(model, "int8", x)
    with pytest.raises(ValueError, match="must be a float one for activations 'int8'"):
        tfnas.mixed_precision(trained, 0.5, x, activations="int8")


def test_mixed_precision_skips_layers_that_stay_float_with_integer_activations():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((4, 4, 4, 2))
    x = layers.Conv3D(4, 2)(inputs)  # no integer kernel
    model = keras.Model(inputs, layers.Dense(64, name="head")(layers.Flatten()(x)))
    data = np.random.default_rng(0).normal(size=(64, 4, 4, 4, 2))
    size = np.int64(tfnas.to_tflite(model, "int8x4", data).size + 100)
    file, found = tfnas.mixed_precision(model, size, data, activations="int8")
    assert file.size <= size
    assert [layer.name for layer in found.layers] == ["head"]


@st.composite
def options(draw):
    layers = []
    for number in range(draw(st.integers(1, 6))):
        count = draw(st.integers(1, 3))
        savings = sorted(draw(st.sets(st.integers(1, 50), min_size=count, max_size=count)))
        effects = sorted(draw(st.lists(st.integers(0, 100), min_size=count, max_size=count)))
        layers.append(
            mixed_precision.LayerFormats(
                str(number),
                "Dense",
                1,
                formats=tuple("abcd"[: count + 1]),
                savings=(0, *savings),
                effects=(0.0, *map(float, effects)),
                chosen="a",
            )
        )
    return layers


@settings(max_examples=100, deadline=None)
@given(options(), st.floats(0, 1))
def test_the_choice_saves_enough_and_is_near_the_best(layers, fraction):
    most = sum(layer.savings[-1] for layer in layers)
    missing = round(fraction * most)
    chosen = mixed_precision._choose(layers, missing, 1000, 1000 - missing)

    def total(values):
        return sum(getattr(one, values)[one.formats.index(one.chosen)] for one in chosen)

    assert total("savings") >= missing
    best = best_effect(layers, missing)
    # The Lagrangian's solution is optimal but for one step.
    largest = max((one.effects[-1] for one in layers), default=0.0)
    assert best <= total("effects") <= best + largest


def best_effect(layers, missing):
    """Smallest effect of all combinations of formats that save enough."""
    reached = {0: 0.0}
    for layer in layers:
        new = {}
        for saved, effect in reached.items():
            for saving, cost in zip(layer.savings, layer.effects, strict=True):
                key = saved + saving
                new[key] = min(new.get(key, np.inf), effect + cost)
        reached = new
    return min(effect for saved, effect in reached.items() if saved >= missing)


class Doubled(keras.Model):
    """A functional model whose class overrides call()."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, keras.layers.Dense(3, dtype="mixed_float16")(inputs))

    def call(self, x, training=None):
        return super().call(x) * 2


def test_a_model_of_mixed_precision_with_a_call_of_its_own_is_opened():
    model, x = Doubled(), np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    expected = np.asarray(model(x), np.float32)
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(x), expected, atol=0.02)


@pytest.fixture(scope="module")
def shifting():
    """A network whose inputs are all positive, so that rounding a kernel moves its outputs."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((12, 12, 8))
    for number in range(3):
        x = layers.Conv2D(16, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"norm{number}")(x))
    model = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, size=(96, 12, 12, 8)).astype("float32")
    tfnas.recalibrate_batchnorm(model, x)
    return model, x


@pytest.mark.parametrize("mode", slow_but(["int8x4", "int8"], "int8x4"))
def test_correcting_the_shift_lowers_the_noise(shifting, mode):
    model, x = shifting
    float_file = tfnas.to_tflite(model)
    spec = tfnas.QuantSpec.of(mode)
    # Through fake quantization too, but not corrected.
    uncorrected = dataclasses.replace(spec, layers={"*": spec.weights})
    before = noise(tfnas.to_tflite(model, uncorrected, x), float_file, x)
    corrected = tfnas.to_tflite(model, dataclasses.replace(spec, correct=True), x)
    assert noise(corrected, float_file, x) < (0.3 if mode == "int8x4" else 0.9) * before
    assert corrected.inputs[0].dtype == corrected.outputs[0].dtype == "int8"


def test_correction_moves_nothing_but_the_statistics(shifting):
    model, x = shifting
    quantized = tfnas.quantize_aware(model, "int8x4", data=x)
    before = {v.path: np.array(v) for v in quantized.variables}
    assert tfnas.correct_bias(quantized, model, x) == 3
    moved = {v.path for v in quantized.variables if not np.array_equal(before[v.path], v)}
    assert {path.split("/")[-1] for path in moved} == {"moving_mean", "moving_variance"}
    with pytest.raises(ValueError, match="model must be quantization-aware"):
        tfnas.correct_bias(model, model, x)


def test_correction_needs_integer_activations():
    with pytest.raises(ValueError, match="correct goes with integer activations"):
        tfnas.QuantSpec("int8", "float32", correct=True)


def test_a_model_with_a_call_of_its_own_is_opened():
    class Doubled(keras.Model):
        def call(self, inputs, training=None):
            return 2.0 * super().call(inputs, training=training)

    inputs = keras.Input((4,))
    model = Doubled(inputs, keras.layers.Dense(3)(inputs))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(x), expected, atol=1e-5)
    file = tfnas.to_tflite(model, "int8x4", x)
    np.testing.assert_allclose(file.predict(x), expected, atol=0.2 * np.abs(expected).max())


@pytest.mark.parametrize("left", slow_but(["d1", "d?"], "d?"))
def test_outputs_of_float_layers_can_be_concatenated(left, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    parts = [keras.layers.Dense(6, activation="relu", name=f"d{n}")(inputs) for n in (1, 2)]
    joined = keras.layers.Concatenate(name="joined")(parts)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(joined))
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    spec = tfnas.QuantSpec(layers={left: "float32"})
    file = tfnas.to_tflite(model, spec, x)
    assert noise(file, tfnas.to_tflite(model), x) < 1e-3
    quantized = tfnas.quantize_aware(model, spec, data=x)
    reasons = {skipped.name: skipped.reason for skipped in tfnas.unquantized_layers(quantized)}
    assert reasons["joined"] == "joins numbers of a layer that stays float"
    np.testing.assert_allclose(
        tfnas.strip_quantization(quantized).predict(x), model.predict(x), atol=1e-5
    )
    quantized.save(tmp_path / "model.keras")
    assert tfnas.load_model(tmp_path / "model.keras").count_params() == quantized.count_params()
