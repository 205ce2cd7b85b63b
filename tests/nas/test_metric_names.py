"""Objectives are checked before the first trial, results of `fit` after it."""

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.nas.fit_results import check_results, epochs_of_results
from tfnas.nas.metric_names import check_objective_names, fit_metrics
from tfnas.nas.objectives import Objectives, objective_of

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype("float32"), np.arange(12) % 3


def build(hp=None, cls=keras.Model, metrics=("accuracy",)):
    inputs = keras.Input((4,))
    model = cls(inputs, layers.Dense(3, "softmax")(inputs))
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=list(metrics), jit_compile=False)
    return model


def two_outputs(hp=None):
    inputs = keras.Input((4,), name="x")
    outputs = {
        "kind": layers.Dense(3, "softmax", name="kind")(inputs),
        "size": layers.Dense(1, name="size")(inputs),
    }
    model = keras.Model({"x": inputs}, outputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    own = keras.metrics.MeanAbsoluteError(name="own")
    model.compile("adam", losses, metrics={"kind": ["accuracy"], "size": [own]}, jit_compile=False)
    return model


def unbuilt(hp=None):
    model = keras.Sequential([layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"], jit_compile=False)
    return model


BOTH = {"kind": Y, "size": Y[:, None].astype("float32")}
CASES = {
    "arrays": (build, {"x": X, "y": Y}),
    "built by data": (unbuilt, {"x": X, "y": Y}),
    "several outputs": (two_outputs, {"x": {"x": X}, "y": BOTH}),
    "weights": (build, {"x": X, "y": Y, "sample_weight": np.ones(12)}),
    "dataset": (build, {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("validated", slow_but([False, True], True))
def test_names_are_those_that_fit_reports(case, validated):
    make, data = CASES[case]
    if validated and "y" in data:
        data = {**data, "validation_data": (data["x"], data["y"])}
    elif validated:
        data = {**data, "validation_data": data["x"]}
    history = make().fit(**data, shuffle=False, verbose=0).history
    assert fit_metrics(make, data) == set(history)


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"other": 1.0}


def generator():
    while True:
        yield X, Y


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: build(cls=OwnStep), {"x": X, "y": Y}),
        (build, {"x": generator()}),
        (build, {"x": X, "y": Y, "callbacks": [type("Own", (keras.callbacks.Callback,), {})()]}),
        (build, {"x": X[:, :3], "y": Y}),
        (build, {}),
    ],
    ids=["train_step", "generator", "callback", "wrong shape", "no data"],
)
def test_names_that_cannot_be_known_are_not_refused(make, data):
    assert fit_metrics(make, data) is None


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("val_acc=max", {"validation_data": (X, Y)}, "did you mean 'val_accuracy'"),
        ("val_accuracy", {}, "objective 'val_accuracy' needs validation_data"),
        ("size_byte=min", {"validation_split": 0.5}, "did you mean 'size_bytes'"),
        (None, {}, "objective must be given unless HyperModel.fit or run_trial is overridden"),
    ],
)
def test_an_unknown_objective_is_refused_before_the_first_trial(
    objective, options, message, tmp_path
):
    tuner = tfnas.RandomTuner(build, objective, max_trials=1, directory=tmp_path)
    with pytest.raises(ValueError, match=message):
        tuner.search(X, Y, verbose=0, **options)
    assert not tuner.oracle.trials


class Custom(kt.HyperModel):
    """Its `fit` returns what it is told."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def build(self, hp):
        hp.Boolean("flag")
        return build()

    def fit(self, hp, model, *args, **kwargs):
        return self.results


def test_the_objective_of_an_own_fit_is_checked_after_the_first_trial(tmp_path):
    check_objective_names(["f1"], Custom({}), build, (X, Y), {})
    for results, error, message in (
        ({"f1_score": 1.0}, kt.errors.FatalValueError, "got 'f1': the known ones are f1_score"),
        (None, kt.errors.FatalTypeError, "is None"),
        ("high", kt.errors.FatalTypeError, "to be one of float, dict"),
        ({"f1": "high"}, kt.errors.FatalTypeError, "metric 'f1' must be a number, got 'high'"),
    ):
        tuner = tfnas.RandomTuner(
            Custom(results), "f1=max", max_trials=2, directory=tmp_path, overwrite=True
        )
        with pytest.raises(error, match=message):
            tuner.search(X, Y, verbose=0)


@pytest.mark.parametrize("results", [0.5, {"f1": np.float32(0.5)}, [{"f1": 0.25}, {"f1": 0.75}]])
def test_results_of_every_kind_of_keras_tuner_are_taken(results, tmp_path):
    tuner = tfnas.RandomTuner(Custom(results), "f1=max", max_trials=2, directory=tmp_path)
    tuner.search(X, Y, verbose=0)
    assert [trial.score for trial in tuner.oracle.completed()] == [0.5, 0.5]
    assert tuner.get_best_models(1)[0].predict(X, verbose=0).shape == (12, 3)  # the last weights


def test_results_where_the_file_is_measured():
    objectives = Objectives.of(objective_of(["reward", "f1=max"]))
    assert epochs_of_results({"f1": np.float32(0.5)}, objectives) == {"f1": [0.5]}
    with pytest.raises(kt.errors.FatalTypeError, match=r"must return a keras\.callbacks\.History"):
        epochs_of_results(0.5, objectives)
    with pytest.raises(kt.errors.FatalValueError, match="got 'f1'"):
        epochs_of_results({"f2": 0.5}, objectives)


def test_a_history_without_the_objective_is_refused():
    history = keras.callbacks.History()
    history.history = {"val_loss": [1.0]}
    with pytest.raises(kt.errors.FatalValueError, match="got 'val_los': did you mean 'val_loss'"):
        check_results(history, kt.Objective("val_los", "min"), ["val_los"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("val_acuracy", "did you mean 'val_accuracy'"),
        ("size_byte", "did you mean 'size_bytes'"),
        ("f1=most", "objective must be a name, name=min or name=max, got 'f1=most'"),
    ],
)
def test_an_objective_of_unknown_direction_is_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        objective_of(name)
