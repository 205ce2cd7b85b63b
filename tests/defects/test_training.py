"""Known defects of compression and training on the user's own data, loss and loop."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.candidate_store import Candidate, best_for_budget, front
from tfnas.compression.recipe import Recipe


def candidate(name, **costs):
    costs = CandidateCosts(**{"latency": 0.5, "macs": 0.5, "memory": 1000, **costs})
    return Candidate(Recipe((), name), None, costs, (costs.drop,) * 3, np.ones(4, bool))


@pytest.mark.parametrize(
    ("limit", "over", "within"),
    [
        ("max_macs", {"macs": 0.88}, {"macs": 0.57}),
        ("max_memory", {"memory": 900}, {"memory": 500}),
    ],
)
def test_compress_chooses_a_file_that_keeps_the_budget(limit, over, within):
    limits = {"max_drop": 3.0, "max_bytes": 9000, "max_macs": 0.6, "max_memory": 600}
    budget = Budget.of({name: limits[name] for name in ("max_drop", "max_bytes", limit)})
    # The first is better in accuracy, bytes and time, but over the limit.
    dominating = candidate("over", drop=1.0, bytes=6000, gzip_bytes=6000, **over)
    keeping = candidate("within", drop=2.0, bytes=6700, gzip_bytes=6700, latency=0.6, **within)
    assert not budget.excesses(keeping.costs)
    best = best_for_budget(front([dominating, keeping], gzipped=False), budget)
    assert best is keeping
    assert keeping in front([dominating, keeping], gzipped=False, budget=budget)
    assert best_for_budget([dominating, keeping], budget) is keeping


@pytest.fixture(scope="module")
def dict_model():
    """A model of two named inputs, and data for it."""
    inputs = {name: keras.Input((3,), name=name) for name in ("b", "a")}
    outputs = layers.Dense(1)(layers.Concatenate()([inputs["b"], inputs["a"]]))
    rng = np.random.default_rng(0)
    data = {name: rng.normal(size=(20, 3)).astype("float32") for name in ("b", "a")}
    return keras.Model(inputs, outputs), data


@pytest.mark.parametrize("mode", ["float32", "dynamic", "int8"])
def test_dict_inputs_convert_in_any_order(dict_model, mode):
    model, data = dict_model
    file = tfnas.to_tflite(model, mode, data if mode == "int8" else None)
    expected = model.predict(data, verbose=0)
    tolerance = {"float32": 1e-5, "dynamic": 0.05, "int8": 0.1}[mode] * np.abs(expected).max()
    np.testing.assert_allclose(file.predict(data, reference=True), expected, atol=tolerance)


def test_clustering_callback_takes_a_partial_batch():
    model = keras.Sequential(
        [
            keras.Input((8, 16)),
            layers.Dense(64, "relu"),
            layers.Dense(32),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    x, y = np.random.default_rng(0).random((20, 8, 16)), np.arange(20) % 2
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[tfnas.ClusteringCallback(16)])
    assert len(np.unique(model.layers[0].kernel)) <= 16


def regression_network():
    return keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(2)])


@pytest.fixture(scope="module")
def regression():
    """Inputs, two standardized targets, and a network trained on them with mean squared error."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 10)).astype("float32")
    y = x @ rng.normal(size=10)
    y = ((y - y.mean()) / y.std()).astype("float32")
    targets = np.stack([y, -y], axis=1)
    teacher = regression_network()
    teacher.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    teacher.fit(x, targets, epochs=10, verbose=0)
    return x, targets, teacher


def distill(student, teacher, x, targets):
    """Returns the loss of each epoch."""
    distiller = tfnas.Distiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.01), metrics=["mae"], jit_compile=False)
    return distiller.fit(x, targets, epochs=10, verbose=0).history["loss"]


def test_a_regression_is_distilled_as_one(regression):
    x, targets, teacher = regression
    student = regression_network()
    assert min(distill(student, teacher, x, targets)) >= 0
    error = np.mean((student.predict(x, verbose=0) - targets) ** 2)
    assert error < 0.5  # predicting the mean has 1


def test_an_output_whose_kind_is_unknown_is_refused_before_training(regression):
    x, targets, _ = regression
    with pytest.raises(ValueError, match="loss"):
        distill(regression_network(), regression_network(), x, targets)


class Scale(layers.Layer):
    """A layer that is not registered."""

    def call(self, x):
        return x / 255.0


@pytest.fixture(scope="module")
def few_digits(digits):
    """A quarter of the digits."""
    x, y = digits.x_train, digits.y_train
    parts = (x[:300], y[:300], x[300:360], y[300:360], digits.x_test[:100], digits.y_test[:100])
    return tfnas.data.DataSplit("few digits", *parts, class_names=digits.class_names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(lambda: layers.Lambda(lambda x: x / 255.0), id="Lambda"),
        pytest.param(Scale, id="unregistered", marks=pytest.mark.slow),
    ],
)
def test_compress_takes_a_model_with_layers_of_the_users_own(few_digits, scale, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Dense(10, "softmax")(layers.Flatten()(scale()(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(few_digits.x_train, few_digits.y_train, epochs=1, verbose=0)
    result = tfnas.compress(
        model, few_digits, {"max_drop": 5.0}, effort="quick", directory=tmp_path / "job"
    )
    assert result.best.file.predict(few_digits.x_test).shape == (100, 10)


class OwnStep(Exception):
    """A model's own training step ran."""


class OwnTraining(keras.Model):
    def train_step(self, data):
        raise OwnStep


@pytest.mark.parametrize(
    "rebuild",
    [
        lambda model: tfnas.quantize_aware(model, "int8"),
        lambda model: tfnas.factorize(model, target_macs=0.5)[0],
        lambda model: tfnas.prune_channels(model, target_macs=0.5)[0],
    ],
    ids=["quantize_aware", "factorize", "prune_channels"],
)
def test_a_models_own_train_step_is_kept_or_refused(rebuild):
    inputs = keras.Input((16,))
    model = OwnTraining(inputs, layers.Dense(2)(layers.Dense(32, "relu")(inputs)))
    try:
        rebuilt = rebuild(model)
    except ValueError as refusal:
        if "train_step" in str(refusal):
            return
        raise
    rebuilt.compile("adam", "mse", run_eagerly=True)
    with pytest.raises(OwnStep):
        rebuilt.fit(np.zeros((8, 16)), np.zeros((8, 2)), verbose=0)


def unbuilt_classifier(hp):
    """keras_tuner's first example: a Sequential model without `keras.Input`."""
    units = hp.Int("units", 8, 64, 8)
    model = keras.Sequential(
        [layers.Flatten(), layers.Dense(units, "relu"), layers.Dense(3, "softmax")]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("tuner", [tfnas.RandomTuner, tfnas.EvolutionTuner])
def test_get_best_models_takes_models_that_their_first_batch_builds(tuner, tmp_path):
    x, y = np.random.default_rng(0).random((12, 4, 4), np.float32), np.arange(12) % 3
    search = tuner(unbuilt_classifier, objective="val_accuracy", max_trials=1, directory=tmp_path)
    search.search(x, y, epochs=1, validation_data=(x, y), verbose=0)
    [best] = search.get_best_models(1)
    assert best.predict(x, verbose=0).shape == (12, 3)
