"""LatencyModel.fit: costs of operators fitted to random networks of a space."""

import copy
import dataclasses
import json
import types

import keras
import numpy as np
import pytest
from keras import layers
from simulated_latency import time_by_size
from slow_cases import slow_but

import tfnas
from tfnas.measure import latency as timing
from tfnas.measure.latency_model import latency_model, profiling
from tfnas.measure.latency_model.features import macs, network_features, operator_features
from tfnas.measure.latency_model.regression import (
    LatencyErrors,
    cross_validated,
    fit_costs,
    predicted_ratio,
)
from tfnas.tflite.network_operators import Operator, operators_of, operators_of_architecture

SPACE = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")


@pytest.fixture
def measured(monkeypatch):
    """Simulates latencies by file size; returns the settings of each measurement."""
    calls = []
    monkeypatch.setattr(profiling, "benchmark", time_by_size(calls))
    return calls


@pytest.fixture(scope="module")
def fitted_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "benchmark", time_by_size([]))
        patch.setattr(profiling, "MIN_NETWORKS", 80)
        return tfnas.LatencyModel().fit(SPACE, seconds=1e-9)


@pytest.fixture
def fitted(fitted_once):
    model = copy.copy(fitted_once)
    model.table = {}
    return model


def sampled(count, seed=5, space=SPACE):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


# --- the fit


def test_linear_costs_are_recovered():
    rng = np.random.default_rng(0)
    true = {"inference": 0.3, "macs": 2e-6, "layers": 0.01, "unused": 0.0}
    rows = [
        {"inference": 1, "macs": rng.uniform(1e5, 1e7), "layers": n, "unused": rng.uniform()}
        for n in rng.integers(5, 60, 40)
    ]
    ratios = [predicted_ratio(row, true) for row in rows]
    costs = fit_costs(rows, ratios)
    assert costs == pytest.approx(true, rel=1e-4, abs=1e-6)
    assert cross_validated(rows, ratios).within_10 == 1


def test_outliers_have_no_weight():
    rows = [{"inference": 1.0, "macs": float(n)} for n in range(1, 31)]
    ratios = [1 + 0.5 * n for n in range(1, 31)]
    for i in (3, 11, 17, 26):
        ratios[i] *= 4
    assert fit_costs(rows, ratios) == pytest.approx({"inference": 1, "macs": 0.5}, rel=1e-3)


def test_no_cost_is_negative():
    rows = [{"a": float(n), "b": float(30 - n)} for n in range(1, 30)]
    costs = fit_costs(rows, [0.1 + 1.0 * n for n in range(1, 30)])
    assert min(costs.values()) >= 0


def test_errors_by_hand():
    errors = LatencyErrors.of([1.0, 2.1, 4.0, 6.0], [1.0, 2.0, 4.0, 8.0])
    assert errors.within_10 == 0.75
    assert errors.median == pytest.approx(0.025)
    assert errors.spearman == pytest.approx(1)
    assert errors.r2 == pytest.approx(1 - (0.01 + 4) / (2.75**2 + 1.75**2 + 0.25**2 + 4.25**2))
    assert "75% within 10%" in str(errors)
    with pytest.raises(ValueError, match="one ratio per network, of at least 2 networks"):
        LatencyErrors.of([1.0], [1.0])


def test_simulated_latencies_are_predicted_from_operators(fitted):
    assert fitted.fitted.errors.networks >= 80
    assert fitted.fitted.errors.within_10 > 0.9
    assert fitted.fitted.direct
    arch = sampled(1)[0]
    network = operators_of_architecture(arch)
    truth = 1 + profiling.write(network, "float32").size / 10_000
    assert fitted(arch) == pytest.approx(truth, rel=0.1)
    assert fitted(SPACE.build(arch)) == pytest.approx(fitted(arch), rel=1e-9)


def test_the_same_seed_gives_the_same_costs(measured, monkeypatch):
    monkeypatch.setattr(profiling, "MIN_NETWORKS", 12)
    first, second = (tfnas.LatencyModel().fit(SPACE, seconds=1e-9, seed=3) for _ in range(2))
    assert first.fitted.costs == second.fitted.costs
    assert first.fitted.space == second.fitted.space
    other = tfnas.MobileNetV2Space((8, 8, 1), 10, "mobile")
    assert profiling.fingerprint(other) != first.fitted.space


def test_threads_and_seed_reach_the_measurement(measured):
    tfnas.LatencyModel(threads=2).fit(SPACE, seconds=1e-9, seed=7)
    assert measured[0]["threads"] == 2
    assert measured[0]["seed"] == 7
    assert measured[0]["rounds"] >= 6


def test_a_space_without_architectures_is_built(measured):
    class Other:
        built = 0

        def sample(self, rng):
            return int(rng.integers(1, 30))

        def build(self, width):
            self.built += 1
            inputs = keras.Input((6, 6, 1))
            return keras.Model(inputs, layers.Conv2D(width, 3)(inputs))

    space = Other()
    latency = tfnas.LatencyModel().fit(space, seconds=1e-9)
    assert not latency.fitted.direct
    assert space.built >= 10
    assert latency(space.build(8)) < latency(space.build(28))
    with pytest.raises(ValueError, match=r"got the architecture .* pass space\.build"):
        latency(sampled(1)[0])


@pytest.mark.slow
def test_a_real_fit_ranks_small_before_large(monkeypatch):
    """Files run in LiteRT, but the clock is simulated: it counts elements."""

    def run(timer, repeats):
        for _ in range(repeats):
            timer.interpreter.invoke()
        tensors = timer.interpreter.get_tensor_details()
        return repeats * 1e-6 * sum(int(np.prod(tensor["shape"])) for tensor in tensors)

    monkeypatch.setattr(timing.Timer, "run", run)
    latency = tfnas.LatencyModel("int8").fit(SPACE, seconds=1e-9)
    archs = sorted(sampled(40), key=lambda a: macs(operators_of_architecture(a)))
    assert 0 < latency(archs[0]) < latency(archs[-1])
    assert "cross-validated" in str(latency.fitted)


# --- models outside the space


def test_a_layer_of_two_operators_is_counted_once(fitted, monkeypatch):
    """A dense layer with a softmax unknown to the fit is measured with both operators."""
    inputs = keras.Input((16,))
    network = keras.Model(inputs, layers.Dense(10, activation="softmax")(inputs))
    operators = fitted._operators(network)
    assert [operator.kind for operator in operators.operators] == ["dense", "softmax"]
    costs = {name: cost for name, cost in fitted.fitted.costs.items() if "softmax" not in name}
    assert len(costs) < len(fitted.fitted.costs)
    fitted.fitted = dataclasses.replace(fitted.fitted, costs=costs)
    fitted.table = {"nothing": 0.5, latency_model._key(operators.calls[0]): 0.75}
    monkeypatch.setattr(latency_model, "benchmark", None)  # nothing is left to measure
    rest = dataclasses.replace(operators, operators=(), calls={})
    assert fitted(network) == pytest.approx(fitted._by_fit(rest, fitted.fitted) + 0.25)


def test_a_layer_unknown_to_the_fit_is_measured_alone(fitted, monkeypatch):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    plain = keras.Model(inputs, x)
    odd = keras.Model(inputs, layers.LeakyReLU()(layers.MaxPooling2D()(x)))
    alone = []

    def measure(files, **settings):
        alone.extend(files)
        return [types.SimpleNamespace(ratio=0.5) for _ in files]

    monkeypatch.setattr(latency_model, "benchmark", measure)
    assert fitted(odd) == pytest.approx(fitted(plain))  # each as long as the empty model
    assert len(alone) == 3
    fitted.table = {key: 0.5 if key == "nothing" else 0.75 for key in fitted.table}
    assert fitted(odd) == pytest.approx(fitted(plain) + 0.5)
    assert len(alone) == 3


@pytest.mark.slow
def test_channels_are_pruned_by_the_fit(fitted, monkeypatch):
    monkeypatch.setattr(latency_model, "benchmark", None)  # nothing is left to measure
    model = SPACE.build(max(sampled(20), key=lambda a: macs(operators_of_architecture(a))))
    smaller, _ = tfnas.prune_channels(
        model, target_latency_ratio=0.8, latency=fitted, round_to=8, criterion="random"
    )
    assert fitted(smaller) <= 0.8 * fitted(model)


# --- operators


@pytest.mark.parametrize("preset", slow_but(["microcontroller", "mobile"], "microcontroller"))
def test_an_architecture_has_the_operators_of_its_model(preset):
    space = tfnas.MobileNetV2Space((32, 32, 3), 10, preset, resolutions=(32, 24))
    for arch in sampled(2, space=space):
        model = space.build(arch)
        network = operators_of(model, str)
        assert operators_of_architecture(arch) == network
        assert macs(network) == tfnas.profile(model).macs


@pytest.mark.parametrize("mode", slow_but(["float32", "int8"], "int8"))
def test_a_written_file_has_the_operators_of_the_converters(mode):
    space = tfnas.MobileNetV2Space((16, 16, 3), 10, "microcontroller", resolutions=(16, 12))
    arch = next(a for a in sampled(9, space=space) if a.working_resolution == (12, 12))
    model = space.build(arch)
    noise = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    converted = tfnas.to_tflite(model, mode, noise if mode == "int8" else None)
    written = profiling.write(operators_of_architecture(arch), mode)

    def seen(file):
        return [
            (op.name, [(t.shape, t.dtype) for t in (op.inputs[0], *op.outputs)])
            for op in file.graph.operators
        ]

    assert seen(written) == seen(converted)
    assert np.isfinite(written.predict(noise)).all()


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_every_kind_of_operator_is_written_and_runs(mode):
    x = inputs = keras.Input((12, 12, 4))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    pooled = layers.MaxPooling2D()(x)
    mean = layers.AveragePooling2D(2)(x)
    x = layers.Multiply()([layers.Add()([pooled, mean]), pooled])
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3)(layers.ZeroPadding2D(1)(x)))
    x = layers.Resizing(6, 6)(layers.Rescaling(0.5, 0.1)(x))
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(x))
    network = operators_of(model, str)
    kinds = [operator.kind for operator in network.operators]
    assert kinds == [
        *("scale", "convolution", "max_pool", "average_pool", "add", "multiply", "pad"),
        *("depthwise", "scale", "resize", "reshape", "dense", "softmax"),
    ]
    assert [o.clip for o in network.operators if o.clip] == ["relu", "relu", "relu6"]
    file = profiling.write(network, mode)
    assert file.predict(np.ones((2, 12, 12, 4))).shape == (2, 5)


def test_folding_depends_on_other_consumers_of_the_value():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(2, 1)(inputs)
    both = layers.Add()([layers.ReLU()(x), x])
    kinds = [o.kind for o in operators_of(keras.Model(inputs, both), str).operators]
    assert kinds == ["convolution", "clip", "add"]
    model = keras.Model(inputs, layers.ReLU()(layers.Dropout(0.5)(x)))
    [only] = operators_of(model, str).operators
    assert only.clip == "relu"


def test_layers_without_a_writer_keep_their_names():
    inputs = keras.Input((6, 6, 4))
    calls = (
        layers.Conv2D(4, 3, groups=2),
        layers.Conv2D(4, 3, dilation_rate=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.Conv2D(4, 1, activation="gelu"),
        layers.LeakyReLU(),
        layers.Dense(3),
    )
    for layer in calls:
        network = operators_of(keras.Model(inputs, layer(inputs)), lambda call: call.kind)
        [operator] = network.operators
        assert operator.layer == type(layer).__name__
        assert operator_features(operator, "float32") == {operator.layer: 1}
        assert not profiling.writable(network)


def test_a_kernel_size_has_costs_of_its_own():
    names = {}
    for kernel in (3, 5):
        inputs = keras.Input((8, 8, 4))
        model = keras.Model(inputs, layers.DepthwiseConv2D(kernel)(inputs))
        names[kernel] = set(network_features(operators_of(model, str), "int8"))
    assert names[3] & names[5] == {"inference"}


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "stride"), [(7, 1), (7, 2), (5, 2), (3, 3), (2, 1)])
def test_products_outside_the_input_are_not_counted(padding, size, stride):
    inputs = keras.Input((9, 8, 4))
    layer = layers.DepthwiseConv2D(size, stride, padding=padding, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.ones_like(weight) for weight in layer.get_weights()])
    inside = float(np.sum(model(np.ones((1, 9, 8, 4)))))
    [operator] = operators_of(model, str).operators
    features = operator_features(operator, "int8")
    name = f"depthwise {size}x{size} stride {stride}x{stride}"
    assert features[f"{name} inside"] == inside
    assert features[f"{name} inside taps"] == inside / 4


def test_integer_products_are_counted_in_tiles_of_amx_too():
    operator = Operator("convolution", (-1,), ((5, 5, 70),), (5, 5, 65))
    features = operator_features(operator, "int8")
    assert features["pointwise matrix tiles"] == 32 * 128 * 128
    assert features["pointwise matrix weights"] == 128 * 72
    assert not any("matrix" in name for name in operator_features(operator, "float32"))


def test_costs_of_an_older_fit_still_predict(fitted, monkeypatch):
    newer = [name for name in fitted.fitted.costs if name.endswith(("inside", "inside taps"))]
    assert newer
    older = {name: cost for name, cost in fitted.fitted.costs.items() if name not in newer}
    monkeypatch.setattr(fitted, "fitted", dataclasses.replace(fitted.fitted, costs=older))
    assert fitted(sampled(1)[0]) > 0


def test_a_fit_says_what_it_holds_for(fitted):
    assert "depthwise 3x3 5x5" in str(fitted.fitted)


# --- on disk


def test_round_trip_through_a_file(fitted, tmp_path):
    path = fitted.save(tmp_path / "new" / "here.json")
    loaded = tfnas.LatencyModel.load(path, mode="float32", threads=1)
    assert loaded.fitted == fitted.fitted
    assert loaded.provenance == fitted.provenance
    assert {"cpu", "cores", "ai-edge-litert", "date", "seed"} <= loaded.provenance.keys()
    for arch in sampled(3):
        assert loaded(arch) == fitted(arch)


@pytest.mark.parametrize(("name", "value"), [("mode", "int8"), ("threads", 2)])
def test_another_mode_or_thread_count_is_refused(fitted, tmp_path, name, value):
    path = fitted.save(tmp_path / "here.json")
    with pytest.raises(ValueError, match=f"{name} must be .*got {value!r}; anywhere=True"):
        tfnas.LatencyModel.load(path, **{name: value})
    assert tfnas.LatencyModel.load(path, anywhere=True, **{name: value})(sampled(1)[0]) > 0


def test_another_machine_is_refused_unless_allowed(fitted, tmp_path, monkeypatch):
    path = fitted.save(tmp_path / "here.json")
    arch = sampled(1)[0]
    before = fitted(arch)
    here = latency_model._here()
    monkeypatch.setattr(latency_model, "_here", lambda: {**here, "cpu": "another one"})
    with pytest.raises(ValueError, match=r"the machine must be .* cpu 'another one', fitted on"):
        tfnas.LatencyModel.load(path)(arch)
    loaded = tfnas.LatencyModel.load(path, anywhere=True)
    assert loaded(arch) == before
    inputs = keras.Input((4, 4, 2))
    with pytest.raises(ValueError, match="operators that the fit knows, got layer"):
        loaded(keras.Model(inputs, layers.LeakyReLU()(inputs)))


def set_in(state, path, value):
    *parents, last = path.split(".")
    for name in parents:
        state = state[name]
    state[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "tfnas latency model 9", "format must be"),
        ("mode", 3, "mode must be one of"),
        ("mode", "int3", "mode must be one of"),
        ("threads", 0, "threads must be a whole number"),
        ("threads", True, "threads must be a whole number"),
        ("provenance", [], "provenance must be a JSON object"),
        ("fit", [], "LatencyFit must be a JSON object"),
        ("fit.costs", {}, "costs must hold at least one feature"),
        ("fit.costs.inference", float("nan"), r"costs\['inference'\] must be a finite number"),
        ("fit.costs.inference", -1, "must be >= 0"),
        ("fit.costs.inference", 10**400, "must be a finite number"),
        ("fit.costs.inference", "1", "must be a finite number"),
        ("fit.macs_costs", None, "macs_costs must be a JSON object"),
        ("fit.errors.median", None, "errors.median must be a finite number"),
        ("fit.errors.more", 1, "unknown key in LatencyErrors: more"),
        ("fit.space", 1, "space must be a fingerprint"),
        ("fit.direct", 1, "direct must be true or false"),
        ("table", {"nothing": "x"}, "must be a finite number"),
        ("more", 1, "unknown key in StoredModel: more"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_rule(fitted, tmp_path, path, value, message):
    file = fitted.save(tmp_path / "here.json")
    state = json.loads(file.read_text())
    set_in(state, path, value)
    file.write_text(json.dumps(state))
    with pytest.raises(ValueError, match=f"here.json.*{message}"):
        tfnas.LatencyModel.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "must be UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"{}", "format must be"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    file = tmp_path / "here.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"here.json.*{message}"):
        tfnas.LatencyModel.load(file)
    with pytest.raises(FileNotFoundError):
        tfnas.LatencyModel.load(tmp_path / "none.json")


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": 3}, "space must be a search space with sample"),
        ({"seconds": 0}, "seconds must be a finite number above 0"),
        ({"seconds": float("inf")}, "seconds must be a finite number above 0"),
        ({"seconds": "60"}, "seconds must be a finite number above 0"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"seed": True}, "seed must be a whole number >= 0"),
    ],
)
def test_bad_arguments(measured, arguments, message):
    with pytest.raises(ValueError, match=message):
        tfnas.LatencyModel().fit(**{"space": SPACE, **arguments})
    assert measured == []


def test_formats_per_layer_are_refused(measured):
    spec = tfnas.QuantSpec(layers={"stem": "int4"})
    with pytest.raises(ValueError, match="mode must have one format for all layers"):
        tfnas.LatencyModel(spec).fit(SPACE, seconds=1)


def test_a_space_of_few_networks_is_refused(measured):
    stage = tfnas.StageChoices((8,), (1,), 1, ("inverted_residual",), (3, 5), (1,))
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, stages=(stage,), width_multipliers=(1.0,))
    with pytest.raises(ValueError, match="space must have at least 10 different networks, got 2"):
        tfnas.LatencyModel().fit(space, seconds=1e-9)


def test_an_unfitted_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="must be fitted"):
        tfnas.LatencyModel().save(tmp_path / "here.json")


def test_a_compressed_architecture_is_refused(fitted):
    arch = sampled(1)[0]
    if not any(field.name == "compression" for field in dataclasses.fields(arch)):
        pytest.skip("architectures have no compression")
    compressed = dataclasses.replace(arch, compression=tfnas.Compression())
    assert operators_of_architecture(compressed) is None
    for latency in (fitted, tfnas.LatencyModel()):
        with pytest.raises(ValueError, match="model must be a built model, got the architecture"):
            latency(compressed)
