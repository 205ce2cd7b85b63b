"""Files of hypermodels are judged by what their models were compiled with."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.nas.trial_quality import check_accuracy, quality_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
NUMBERS = X[:, :1] - X[:, 1:2]
KINDS = (NUMBERS[:, 0] > 0).astype(int)
CLASSES = "sparse_categorical_crossentropy"


def one(units, loss, activation=None, **arguments):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation)])
    model.compile("sgd", loss, jit_compile=False, **arguments)
    return model


def two(losses, **arguments):
    inputs = keras.Input((4,))
    heads = [layers.Dense(1, name="size"), layers.Dense(2, "softmax", name="kind")]
    model = keras.Model(inputs, [head(inputs) for head in heads])
    model.compile("sgd", losses, jit_compile=False, **arguments)
    return model


def own_error(y_true, y_pred):
    return keras.ops.abs(y_true - y_pred)


LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
CASES = {
    "number": (lambda: one(1, "mse", metrics=["mae"]), "mae", False),
    "number by its loss": (lambda: one(3, "mse"), "mse", False),
    "metric of the user's": (lambda: one(1, "mae", metrics=[own_error]), "mae", False),
    "classes": (lambda: one(2, CLASSES, "softmax"), "accuracy", True),
    "one-hot by squares": (lambda: one(2, "mse", metrics=["accuracy"]), "accuracy", True),
    "classes by AUC": (lambda: one(1, LOGITS, metrics=["auc"]), "accuracy", True),
    "two outputs": (lambda: two(["mse", CLASSES]), "accuracy of kind", True),
    "two outputs by names": (
        lambda: two({"size": "mse", "kind": "mse"}, metrics={"kind": ["acc"]}),
        "accuracy of kind",
        True,
    ),
    "two numbers": (lambda: two(["mse", "mae"]), "mse of size", False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_judged_by_what_its_model_was_compiled_with(case):
    make, name, is_accuracy = CASES[case]
    found = quality_of(make())
    assert (found.metric.name, found.is_accuracy) == (name, is_accuracy)


def test_logits_are_classes_above_0():
    found = quality_of(one(1, LOGITS))
    outputs = np.array([[0.2], [-0.2]])  # a threshold of 0.5 would have both of class 0
    assert found.metric.values(np.array([1, 0]), outputs).all()


def tuner(build, objective, folder, **arguments):
    settings = {"max_trials": 1, "seed": 0, "directory": folder, **arguments}
    found = tfnas.RandomTuner(build, objective, **settings)
    found.oracle.verbose = 0
    return found


@pytest.mark.parametrize("arguments", [{}, {"limits": {"file_accuracy": 0.5}}])
def test_an_accuracy_of_numbers_is_refused_before_any_training(tmp_path, arguments):
    def build(hp):
        hp.Choice("rate", [0.1, 0.2])
        return one(1, "mse")

    objective = "size_bytes" if arguments else "reward"
    found = tuner(build, objective, tmp_path, **arguments)
    with pytest.raises(ValueError, match=r"needs models that give classes.* judged by its mse"):
        found.search(X, NUMBERS, validation_data=(X, NUMBERS), verbose=0)
    assert not found.oracle.trials


def test_a_model_without_shapes_is_checked_later():
    check_accuracy(["reward"], lambda: keras.Sequential([layers.Dense(1)]))


def test_trials_of_numbers_report_the_error_of_the_file(tmp_path):
    def build(hp):
        hp.Choice("rate", [0.1, 0.2])
        return one(1, "mse", metrics=["mae"])

    found = tuner(build, ["val_loss", "size_bytes"], tmp_path)
    found.search(X, NUMBERS, validation_data=(X, NUMBERS), verbose=0)
    [trial] = found.pareto_front()
    error = np.abs(trial.artifact().predict(X) - NUMBERS).mean()
    assert trial.measurement.score.name == "mae"
    assert trial.measurement.score.value == pytest.approx(error)
    assert not {"file_accuracy", "reward"} & set(trial.metrics)
    assert trial.directions == ("min", "min", "min")
    assert "mae" in found.plot().axes[0].get_ylabel()


def test_trials_of_several_outputs_end_well(tmp_path):
    def build(hp):
        hp.Choice("rate", [0.1, 0.2])
        return two(["mse", CLASSES])

    found, targets = tuner(build, ["val_loss", "size_bytes"], tmp_path), [NUMBERS, KINDS]
    found.search(X, targets, validation_data=(X, targets), verbose=0)
    [trial] = found.pareto_front()
    right = trial.artifact().predict(X)[1].argmax(axis=1) == KINDS
    assert trial.metrics["file_accuracy"] == right.mean()
