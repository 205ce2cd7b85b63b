"""Tables whose rows are looked up, in integers: Keras and the file agree."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.quantization.embedding_forms import QuantizedTable, table_bits

WORDS, WIDTH, LENGTH = 200, 16, 6


def lookup(width=WIDTH):
    keras.utils.set_random_seed(0)
    ids = keras.Input((LENGTH,), batch_size=1, dtype="int32")
    x = layers.Flatten()(layers.Embedding(WORDS, width, name="words")(ids))
    model = keras.Model(ids, layers.Dense(4, name="head")(x))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(WORDS, width)) * rng.uniform(0.02, 1.0, (WORDS, 1))
    rows[7] = 0.0
    model.get_layer("words").set_weights([rows])
    return model


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(0, WORDS, (40, LENGTH)).astype("int32")


@pytest.fixture(scope="module", params=["int8", "int4"])
def converted(request, ids):
    """(bits, the float model, the quantization-aware one, its file)."""
    model = lookup()
    spec = tfnas.QuantSpec(layers={"Embedding": request.param})
    aware = tfnas.quantize_aware(model, spec, data=ids)
    return int(request.param[3:]), model, aware, tfnas.to_tflite(aware, "int8")


def test_file_and_keras_agree(converted, ids):
    _, _, aware, file = converted
    expected = aware.predict(ids, batch_size=1, verbose=0)
    steps = np.abs(file.predict(ids, reference=True) - expected) / file.outputs[0].scale
    assert np.median(steps) < 0.5
    assert steps.max() <= 2.001  # two roundings: of the row, and of the product
    assert not tfnas.unquantized_layers(aware)


def test_file_holds_integers_alone_and_runs_on_microcontrollers(converted, ids):
    bits, _, _, file = converted
    tensors = [t for op in file.graph.operators for t in (*op.inputs, *op.outputs)]
    assert not any(tensor.dtype.startswith("float") for tensor in tensors)
    tables = {t.index: t for t in tensors if t.constant is not None and t.shape[:1] == (WORDS,)}
    halves = [len(table.constant) for table in tables.values() if table.shape[1] > 1]
    assert min(halves) == WORDS * WIDTH * bits // 8
    tfnas.check_micro(file)
    if bits == 4:
        expected = file.predict(ids[:3], reference=True)
        steps = (tfnas.run_micro(file, ids[:3]) - expected) / file.outputs[0].scale
        assert np.abs(steps).max() < 1.5


def test_rows_of_4_bits_are_within_half_a_step_of_their_own(converted, ids):
    bits, model, aware, _ = converted
    if bits == 8:
        pytest.skip("one step for the table")
    table = np.asarray(model.get_layer("words").embeddings)
    wrapper = next(layer for layer in aware.layers if isinstance(layer, QuantizedTable))
    rows = np.asarray(wrapper(np.arange(WORDS)[None]))[0]
    ends = np.abs(table).max(axis=1, keepdims=True)
    step = (ends + np.abs(table).max() / 255) / 7  # scales are rounded up
    assert (np.abs(rows - table) <= step / 2 + 1e-6).all()
    assert (rows[7] == 0.0).all()


def test_strip_and_save(converted, ids, tmp_path):
    _, model, aware, _ = converted
    stripped = tfnas.strip_quantization(aware)
    np.testing.assert_array_equal(stripped.predict(ids, verbose=0), model.predict(ids, verbose=0))
    aware.save(tmp_path / "aware.keras")
    loaded = tfnas.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), aware.predict(ids, verbose=0))


def test_tables_learn_through_the_rounding(ids):
    aware = tfnas.quantize_aware(lookup(), tfnas.QuantSpec(layers={"words": "int4"}), data=ids)
    before = np.array(aware.get_layer("quantized_words").layer.embeddings)
    aware.compile("sgd", "mse", run_eagerly=True)
    aware.fit(ids, np.ones((len(ids), 4)), epochs=1, verbose=0)
    after = np.array(aware.get_layer("quantized_words").layer.embeddings)
    assert np.abs(after - before).max() > 0


def test_a_table_of_an_odd_width_keeps_8_bits():
    assert table_bits(layers.Embedding(5, 3), 4) == 8
    assert table_bits(layers.Embedding(5, 4), 4) == 4


def test_a_table_of_4_bits_is_looked_up_twice(ids):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((LENGTH,), dtype="int32")
    words = layers.Embedding(WORDS, WIDTH, name="words")
    x = layers.Multiply()([words(inputs), words(WORDS - 1 - inputs)])
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    aware = tfnas.quantize_aware(model, "int8x4", data=ids)
    file = tfnas.to_tflite(aware, "int8x4")
    steps = np.abs(file.predict(ids, reference=True) - aware.predict(ids, verbose=0))
    assert steps.max() <= 3.01 * file.outputs[0].scale


def test_16_bit_files_rescale_the_rows_that_they_find(ids):
    model = lookup()
    file = tfnas.to_tflite(tfnas.quantize_aware(model, "int16x8", data=ids), "int16x8")
    assert [op.name for op in file.graph.operators][:2] == ["GATHER", "QUANTIZE"]
    expected = model.predict(ids, batch_size=1, verbose=0)
    assert np.abs(file.predict(ids) - expected).max() < 0.02 * np.abs(expected).max()


class WithPlaces(keras.Model):
    """Adds a row of a table for each place, as vision transformers do."""

    def __init__(self):
        super().__init__(name="with_places")
        self.wide = layers.Dense(8, name="wide")
        self.places = layers.Embedding(6, 8, name="places")
        self.head = layers.Dense(3, name="head")

    def call(self, x):
        return self.head(self.wide(x) + self.places(keras.ops.arange(6)))


def test_rows_at_constant_places_are_integers_of_8_bits():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    model = WithPlaces()
    expected = np.array(model(x))
    file = tfnas.to_tflite(model, "int8", x)
    assert not file.origin.get("unquantized_layers")
    assert not [t for t in file.graph.tensors if t.dtype.startswith("float")]
    np.testing.assert_allclose(file.predict(x), expected, atol=0.03 * np.ptp(expected))
    fine = tfnas.to_tflite(model, "int16x8", x)
    np.testing.assert_allclose(fine.predict(x), expected, atol=0.01 * np.ptp(expected))


def test_16_bits_name_what_reads_rows_at_constant_places():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    model = WithPlaces()
    expected = np.array(model(x))
    with pytest.raises(
        ValueError, match=r"add.*: no 16-bit form of Add with rows at const"
    ) as info:
        tfnas.quantize_aware(model, "int16x8", x)
    line = '"Constant": "float32", "Add": "float32"'
    assert line in str(info.value)
    spec = tfnas.QuantSpec("int8", "int16", layers={"Constant": "float32", "Add": "float32"})
    file = tfnas.to_tflite(tfnas.quantize_aware(model, spec, x), spec)
    np.testing.assert_allclose(file.predict(x), expected, atol=0.01 * np.ptp(expected))


def language_model(**options):
    """Returns a model that scores each word at each place, with the table that it looks up."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    options = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=0.5), **options}
    table = layers.ReversibleEmbedding(WORDS, WIDTH, name="words", **options)
    x = layers.Dense(WIDTH, activation="relu", name="hidden")(table(ids))
    return keras.Model(ids, table(x, reverse=True))


@pytest.mark.parametrize("mode", ["int8", "int16x8", "int8x4"])
def test_the_product_with_a_table_has_integers_and_the_file_one_table(mode, ids):
    model = language_model()
    expected = model.predict(ids, verbose=0)
    file = tfnas.to_tflite(model, mode, ids)
    tensors = [t for op in file.graph.operators for t in (*op.inputs, *op.outputs)]
    assert not any(tensor.dtype.startswith("float") for tensor in tensors)
    error = np.abs(file.predict(ids) - expected).max() / np.abs(expected).max()
    assert error < (0.2 if mode == "int8x4" else 0.03)
    tables = [t.constant for t in tensors if tuple(t.shape) == (WORDS, WIDTH)]
    assert len(tables) == 2
    assert file.content.count(bytes(tables[0])) == 1
    assert tfnas.profile(model).macs == LENGTH * (WIDTH * WIDTH + WIDTH * WORDS)


@pytest.mark.parametrize(
    "options", [{}, {"tie_weights": False}, {"logit_soft_cap": 3.0, "reverse_dtype": "float32"}]
)
def test_a_model_of_one_table_for_words_and_scores_is_trained_saved_and_converted(
    options, ids, tmp_path
):
    model = language_model(**options)
    aware = tfnas.quantize_aware(model)
    assert tfnas.unquantized_layers(aware) == []
    assert tfnas.profile(aware).macs == tfnas.profile(model).macs
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(ids, ids, verbose=0)
    outputs = aware.predict(ids, verbose=0)
    aware.save(tmp_path / "aware.keras")
    again = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(again.predict(ids, verbose=0), outputs)
    file = tfnas.to_tflite(aware)
    steps = np.abs(file.predict(ids, reference=True) - outputs) / file.outputs[0].scale
    # A bound of scores is three operators behind the product, each of which rounds.
    assert steps.max() <= (3.01 if "logit_soft_cap" in options else 1.01)
    floats = tfnas.strip_quantization(aware).predict(ids, verbose=0)
    assert np.abs(floats - outputs).max() < 0.03 * np.abs(outputs).max()


def test_the_mask_of_a_table_that_also_scores_is_not_lost(ids):
    """Keras shows this mask when it computes alone: integer files attended to padding."""

    def predicted(kind):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((LENGTH,), dtype="int32")
        x = kind(WORDS, WIDTH, mask_zero=True, name="words")(inputs)
        x = layers.LSTM(4)(x + layers.MultiHeadAttention(2, 4, name="look")(x, x))
        model = keras.Model(inputs, layers.Dense(2)(x))
        padded = np.where(np.arange(LENGTH) < 3, ids, 0)
        return tfnas.to_tflite(model, "int8", padded).predict(padded)

    np.testing.assert_array_equal(
        predicted(layers.ReversibleEmbedding), predicted(layers.Embedding)
    )
