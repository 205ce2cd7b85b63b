"""A trial traces its training step once and skips validation that nothing reads."""

import collections
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow_but
from tensorflow.python.framework.func_graph import FuncGraph

import tfnas
from tfnas.graph.tracing import TraceOnce
from tfnas.nas.fit_arguments import SaveUsedEpochs

EXAMPLES = 12
pytestmark = pytest.mark.usefixtures("traced_by_keras")


@pytest.fixture
def traces(monkeypatch):
    """Counts how often Keras' steps run in Python, that is, how often they are traced."""
    counts = collections.Counter()
    for name in ("train_step", "test_step"):
        step = getattr(keras.Model, name)

        def counted(model, data, name=name, step=step):
            counts[name] += 1
            return step(model, data)

        monkeypatch.setattr(keras.Model, name, counted)
    return counts


def compiled(**arguments):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    settings = {"optimizer": keras.optimizers.Adam(0.1), "jit_compile": False}
    settings |= {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**{**settings, **arguments})
    return model


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, 4)).astype("float32"), np.arange(EXAMPLES) % 3


def weights_after(model, callbacks, **kwargs):
    x, y = data()
    options = {"epochs": 2, "verbose": 0, **kwargs}
    history = model.fit(x, y, callbacks=callbacks, **options)
    return model.get_weights() + [v.numpy() for v in model.optimizer.variables], history.history


@pytest.mark.parametrize(
    ("steps", "batch_size"),  # 5: the last batch is smaller
    slow_but([(steps, size) for steps in (1, 3) for size in (4, 5)], (1, 5), (3, 4)),
)
def test_the_step_is_traced_once_with_the_same_result(traces, batch_size, steps):
    expected = weights_after(
        compiled(steps_per_execution=steps), [], batch_size=batch_size, shuffle=True
    )
    assert traces["train_step"] > 1, "Keras itself traces only once: remove TraceOnce"
    traces.clear()
    got = weights_after(compiled(steps_per_execution=steps), [TraceOnce()], batch_size=batch_size)
    assert traces["train_step"] == 1
    assert got[1] == expected[1]
    for actual, reference in zip(got[0], expected[0], strict=True):
        np.testing.assert_array_equal(actual, reference)


@pytest.mark.parametrize(
    "kind",
    slow_but(
        ["data set", "generator", "weights", "two outputs", "again"],
        *("generator", "two outputs", "again"),
    ),
)
def test_traced_once_with_all_data_formats(traces, kind):
    (x, y), model = data(), compiled()
    arguments = {"x": x, "y": y, "batch_size": 5, "shuffle": False}
    if kind == "data set":
        arguments = {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(5), "shuffle": False}
    elif kind == "generator":
        batches = ((x[i : i + 3], y[i : i + 3]) for i in (0, 3, 6))
        arguments = {"x": batches, "steps_per_epoch": 3, "shuffle": False}
    elif kind == "weights":
        arguments["sample_weight"] = np.ones(EXAMPLES)
    elif kind == "two outputs":
        hidden = model.layers[0].output
        outputs = [keras.layers.Dense(3, name=name)(hidden) for name in "ab"]
        model = keras.Model(model.inputs, outputs)
        model.compile("adam", ["mse", "mse"], metrics=[["mae"], ["mae"]], jit_compile=False)
        arguments["y"] = [np.eye(3)[y], np.eye(3)[y]]
    if kind == "again":
        model.fit(**arguments, verbose=0, callbacks=[TraceOnce()])
    model.fit(**arguments, verbose=0, callbacks=[TraceOnce()])
    assert traces["train_step"] == 1


class OwnStep(keras.Model):
    """Overrides `train_step`: learns without labels and without Keras' loss."""

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - x) ** 2)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


def test_a_custom_train_step_is_not_changed():
    inputs = keras.Input((4,))
    model = OwnStep(inputs, keras.layers.Dense(4)(inputs))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    before = model.get_weights()[0]
    model.fit(data()[0], epochs=2, verbose=0, callbacks=[TraceOnce()])
    assert (model.get_weights()[0] != before).all()


def test_eager_and_unbuilt_models_train():
    x, y = data()
    for model in (compiled(run_eagerly=True), keras.Sequential([keras.layers.Dense(3)])):
        if not model.built:
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        assert len(model.fit(x, y, verbose=0, callbacks=[TraceOnce()]).history["loss"]) == 1


# ---- a trial


@pytest.fixture(scope="module")
def images():
    split = tfnas.data.load("digits").limited(100)
    return split.x_train, split.y_train, split.x_val[:40], split.y_val[:40]


def tuner_of(directory, objective="reward", compression=None):
    stage = tfnas.StageChoices((8,), (1,), 1, ("inverted_residual",), (3,), (1,))
    space = tfnas.MobileNetV2Space(
        (8, 8, 1),
        10,
        "microcontroller",
        stages=[stage],
        width_multipliers=(1.0,),
        fixed=tfnas.FixedLayers(stem_filters=8, head_filters=8),
        compression=compression,
    )
    return tfnas.RandomTuner(
        space,
        objective,
        max_trials=1,
        seed=0,
        config=tfnas.TunerConfig(rounds=6, target_latency_ratio=0.02),
        directory=str(directory),
        project_name="p",
    )


def search(tuner, images, batch_size=32, **kwargs):
    """Runs a search; returns the trial's metrics and the number of validated epochs."""
    x, y, x_val, y_val = images
    validated = []
    evaluate = keras.Model.evaluate

    def counted(model, *args, **options):
        validated.append(model)
        return evaluate(model, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "evaluate", counted)
        tuner.search(
            x,
            y,
            validation_data=(x_val, y_val),
            **{"epochs": 3, "batch_size": batch_size, "verbose": 0, **kwargs},
        )
    [candidate] = tuner.candidates()
    return dict(candidate.metrics), len(validated)


@pytest.mark.parametrize("batch_size", [pytest.param(20, marks=pytest.mark.slow), 32])
def test_a_trial_traces_its_step_once_and_saves_its_weights_once(
    traces, images, tmp_path, batch_size, monkeypatch
):
    assert len(images[0]) % 20 == 0
    assert len(images[0]) % 32 != 0
    written = []
    save = keras.Model.save_weights

    def counted(model, path, *args, **kwargs):
        written.append([w.copy() for w in model.get_weights()])
        return save(model, path, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "save_weights", counted)
    tuner = tuner_of(tmp_path)
    metrics, validated = search(tuner, images, batch_size)
    assert traces["train_step"] == 1
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(metrics)
    assert (traces["test_step"], validated) == (1, 1), "only the last epoch is reported"
    assert len(written) == 1, "where the file is measured"
    model = tuner.load_model(tuner.oracle.get_trial("0"))
    for kept, saved in zip(model.get_weights(), written[0], strict=True):
        np.testing.assert_array_equal(kept, saved)


@pytest.mark.slow
def test_every_epoch_is_validated_where_a_callback_or_objective_reads_it(images, tmp_path):
    seen = []
    reader = keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: seen.append(dict(logs)))
    metrics, validated = search(tuner_of(tmp_path / "a"), images, callbacks=[reader])
    assert validated == len(seen) == 3
    assert all("val_accuracy" in logs for logs in seen)
    silent, _ = search(tuner_of(tmp_path / "b"), images)
    names = {"loss", "accuracy", "val_loss", "val_accuracy", "file_accuracy", "size_bytes"}
    assert {name: metrics[name] for name in names} == {name: silent[name] for name in names}
    _, validated = search(tuner_of(tmp_path / "c", "val_accuracy"), images)
    assert validated == 3


@pytest.mark.slow
def test_a_compressed_trial_validates_only_the_reported_model(traces, images, tmp_path):
    space = tfnas.CompressionSpace(sparsity=(0.5,))
    metrics, validated = search(tuner_of(tmp_path, compression=space), images)
    assert {"val_loss", "val_accuracy"} <= set(metrics)
    assert traces["train_step"] == 2, "one for the network, one for its pruned copy"
    assert (traces["test_step"], validated) == (1, 1)


def step_graphs():
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, FuncGraph) and "one_step" in o.name]


def test_no_graph_of_a_step_stays_after_trials(images, tmp_path):
    TraceOnce().on_train_end()  # what other tests left
    before = step_graphs()  # of other tests; some may go meanwhile
    search(tuner_of(tmp_path), images)
    assert [graph for graph in step_graphs() if not any(graph is other for other in before)] == []


class RecordingCheckpoint:
    """A checkpoint that records its epochs."""

    def __init__(self):
        self.epochs = []
        self.objective = self

    def has_value(self, logs):
        return "score" in logs

    def set_model(self, model):
        """Keras' hook."""

    def on_epoch_end(self, epoch, logs):
        self.epochs.append(epoch)


@pytest.mark.parametrize(
    ("params", "stops", "logs", "expected"),
    [
        ({"epochs": 3}, False, {}, [2]),
        ({"epochs": 3}, False, {"score": 1.0}, [0, 1, 2]),
        ({"epochs": 9}, True, {}, [0, 1, 2]),  # stopped early: any epoch may be the last
        (None, False, None, [0, 1, 2]),  # a custom training loop
    ],
)
def test_a_checkpoint_is_saved_where_it_may_be_the_last(params, stops, logs, expected):
    checkpoint, model = RecordingCheckpoint(), compiled()
    model.stop_training = stops
    callback = SaveUsedEpochs(checkpoint)
    callback.set_model(model)
    callback.set_params(params)
    for epoch in range(3):
        callback.on_epoch_end(epoch, logs)
    assert checkpoint.epochs == expected
