"""Post-training quantization as a technique and in `compress`: integers without training."""

import dataclasses
import types

import keras
import numpy as np
import pytest
from fake_device import FakeDevice
from keras import layers

import tfnas
from tfnas.compression import candidate_store
from tfnas.compression.candidate_store import CandidateStore
from tfnas.compression.device_costs import Target
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.post_training_file import post_training_file
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.post_training_quantization import PtqSettings
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import NotPossible
from tfnas.measure.elsewhere import timing_device
from tfnas.measure.elsewhere.timing_device import DeviceLost, FileRefused
from tfnas.tasks.image_classes import ImageClasses
from tfnas.tflite.file_weights import read_kernels


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, use_bias=False, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(32, 3, activation="relu", name="middle"),
            layers.Flatten(),
            layers.Dense(10, "softmax", name="head"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    network.fit(digits.x_train, digits.y_train, epochs=3, batch_size=32, verbose=0)
    return network


@pytest.fixture(scope="module")
def context(model, digits):
    return Context(model, ImageClasses(), digits, FineTuneSettings(epochs=2))


@pytest.fixture(scope="module")
def store(context, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return CandidateStore(context, folder, gzipped=False, target=Target(), timed=False)


def test_latencies_of_candidates_are_those_of_the_device(context, tmp_path, monkeypatch):
    monkeypatch.setattr(timing_device, "PAUSES", ())
    monkeypatch.setattr(candidate_store, "ROUNDS", 6)

    def store_on(device):
        return CandidateStore(context, tmp_path, False, Target(measure_on=device), timed=True)

    recipe, device = Recipe((), "float16"), FakeDevice()
    assert store_on(device).make(recipe).costs.latency == 3 / 2  # the original is file 1
    [(files, plan)] = device.calls
    assert (len(files), plan.rounds) == (3, 6)
    assert store_on(FakeDevice()).make(recipe).costs.latency == 3 / 2  # read from its record
    here = store_on(None)
    assert here.make(recipe).costs.latency != 3 / 2  # of this machine: measured again
    refusing = store_on(FakeDevice([FileRefused("no kernel")]))
    assert refusing.make(recipe) is None
    assert refusing.failures == {"float16": "no kernel"}
    with pytest.raises(RuntimeError, match=r"float32 file of the original, .* refusal: no POW"):
        store_on(FakeDevice([FileRefused("no POW"), FileRefused("no POW")])).make(recipe)
    with pytest.raises(DeviceLost, match="measure_on 'fake:1' was lost"):
        store_on(FakeDevice([DeviceLost("off")])).make(recipe)


def change(file, model, x):
    expected = model.predict(x, verbose=0)
    return float(np.square(file.predict(x) - expected).mean() / expected.var())


def test_compress_rounds_4_bits_better_than_to_nearest(store, context, model, digits):
    candidate = store.make(Recipe((), "int8x4"))
    nearest = tfnas.to_tflite(model, "int8x4", context.calibration())
    assert change(candidate.file, model, digits.x_test) < 0.5 * change(
        nearest, model, digits.x_test
    )
    assert store.failures == {}
    dtypes = {kernel.layer: kernel.tensor.dtype for kernel in read_kernels(candidate.file)}
    assert set(dtypes.values()) == {"int4", "int8"}
    # Its model is that of the other formats without training: the float one.
    assert store.model_of(Recipe((), "int8x4")).get_config() == model.get_config()


def test_it_is_a_step_of_a_recipe(store):
    recipe = Recipe((RecipeStep("ptq", 4),), "int8x4")
    assert str(recipe) == "ptq 4, int8x4"
    candidate, plain = store.make(recipe), store.make(Recipe((), "int8x4"))
    assert candidate.file.content == plain.file.content


def test_a_model_without_a_layer_for_4_bits_is_refused_and_ends_no_job(context):
    upsampled = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2DTranspose(2, 3)])
    with pytest.raises(NotPossible, match="must give 4 bits to the kernel of some layer"):
        post_training_file(upsampled, "int8x4", context)


@pytest.fixture(scope="module")
def result(model, digits, tmp_path_factory):
    """A job that prunes without training, then quantizes."""
    row = [("prune", {"sparsity": 0.5, "sparse": False}), ("ptq", {"mode": "int8x4"})]
    settings = tfnas.FineTuneSettings(epochs=0)
    folder = tmp_path_factory.mktemp("row") / "job"
    return tfnas.run_techniques(model, row, digits, directory=folder, settings=settings)


def test_zeros_stay_in_the_file(result):
    labels = ["original, float32", "rounded to nearest, int8x4", "quantized, int8x4"]
    assert list(result.files) == labels
    kernels = {kernel.layer: kernel.values for kernel in read_kernels(result.files[labels[2]])}
    assert len(kernels) == 3
    assert all((values == 0).mean() > 0.45 for values in kernels.values())


def test_the_report_has_the_errors_of_the_layers(result):
    report = (result.directory / "report.md").read_text()
    assert "int8x4 without training, rounding second_order" in report
    assert "error to nearest" in report
    assert "Every layer computes in integers." in report
    assert [layer.name for layer in result.report.layers] == ["first", "middle", "head"]
    for layer in result.report.layers:
        assert layer.bits == 8 or layer.error < layer.nearest


def test_its_models_convert_to_the_same_file_again(result, digits):
    model = tfnas.load_model(result.directory / "model.keras")
    again = tfnas.to_tflite(model, "int8x4")
    file = result.files["quantized, int8x4"]
    np.testing.assert_array_equal(again.predict(digits.x_test), file.predict(digits.x_test))
    assert tfnas.load_model(result.directory / "model_float.keras").get_layer("head")


@pytest.mark.slow  # tests/tflite/test_quantizer_recipes.py corrects biases
def test_biases_are_corrected_where_each_weight_goes_to_its_nearest_step(model, context, digits):
    own, x = technique("ptq"), digits.x_test
    settings = PtqSettings(mode="int8x4", rounding="nearest", layers={"first": "int8"})
    outcome = own.run(model, settings, context)
    assert outcome.reports == [None]
    plain = own.run(model, dataclasses.replace(settings, correct=False), context)
    errors = [change(tfnas.to_tflite(each.model, "int8x4"), model, x) for each in (outcome, plain)]
    assert errors[0] != errors[1]
    assert own.remarks(outcome, {}) == ["Every layer computes in integers."]


def test_channels_are_evened_first_and_ranges_are_chosen(model, context, digits):
    own = technique("ptq")
    settings = PtqSettings(equalize=True, ranges="percentile", calibration_copies=2)
    outcome = own.run(model, settings, context)
    assert (
        own.remarks(outcome, {})[0] == "2 pairs of layers are equalized, 1 layer is left as it is"
    )
    first = tfnas.strip_quantization(outcome.model).get_layer("first").kernel
    assert not np.allclose(first, model.get_layer("first").kernel)
    assert change(tfnas.to_tflite(outcome.model, "int8"), model, digits.x_test) < 0.01
    with pytest.raises(ValueError, match=r"smooth needs a normalization .*, got none"):
        own.run(model, PtqSettings(smooth=0.5), context)


def test_what_it_refuses(model, context, digits, tmp_path):
    with pytest.raises(ValueError, match="technique 'qat' must be the last, since its model"):
        tfnas.run_techniques(model, [("qat", {}), ("ptq", {})], digits, directory=tmp_path / "out")
    with pytest.raises(ValueError, match="bits of ptq must be 4 or 8, got 6"):
        technique("ptq").for_amount(6)
    with pytest.raises(ValueError, match=r"eight_bit_share must be in \[0, 1\], got 2"):
        PtqSettings(eight_bit_share=2)
    with pytest.raises(ValueError, match=r"calibration_copies must be .* 1, got 0"):
        PtqSettings(calibration_copies=0)
    with pytest.raises(ValueError, match="layers must name layers with a kernel, got 'none'"):
        technique("ptq").check(model, PtqSettings(layers={"none": "int8"}), context)
    aware = tfnas.quantize_aware(model, "int8", digits.x_train[:32])
    with pytest.raises(ValueError, match="model must not be quantized yet"):
        technique("ptq").run(aware, PtqSettings(), context)


@pytest.mark.parametrize("name", ["ptq", "qat"])
def test_a_user_is_asked_about_float_layers_and_a_planned_step_is_not(name):
    inputs = keras.Input((4,))
    squares = keras.layers.Lambda(lambda x: x * x + 1.0, name="squares")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(squares))
    own = technique(name)
    context = types.SimpleNamespace(calibration=lambda: np.ones((8, 4), "float32"))
    with pytest.raises(ValueError, match=r'layers=\{"squares": "float32"\}\) leaves them float'):
        own.check(model, own.settings(), context)
    own.check(model, own.for_amount(8), context)
    own.check(model, own.settings(layers=(("squares", "float32"),)), context)
