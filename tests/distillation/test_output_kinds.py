"""What an output means: inferred from losses, activations and targets, or refused."""

import doctest
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.distillation.output_kinds import kind_by_targets, loss_facts

N = 24


def mlp(activation=None, classes=3, loss=None, units=4):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(units, "relu"), layers.Dense(classes, activation)]
    )
    if loss is not None:
        model.compile("adam", loss, jit_compile=False)
    return model


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(N, 8)).astype("float32")


@pytest.mark.parametrize(
    "module",
    ["output_kinds", "output_structure", "output_losses", "training_objective", "target_checks"],
)
def test_examples_are_true(module):
    assert doctest.testmod(importlib.import_module(f"tfnas.distillation.{module}")).failed == 0


def found_kind(student, teacher, **arguments):
    config = tfnas.Distiller(teacher, student, **arguments).get_config()
    return config["outputs"]["config"]["kind"]


LOGITS = keras.losses.CategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ({"activation": "softmax"}, {}, "softmax"),
        ({"activation": "sigmoid"}, {}, "sigmoid"),
        ({}, {"activation": "softmax"}, "logits"),
        ({}, {"activation": "sigmoid"}, "sigmoid_logits"),
        ({"loss": "mse"}, {}, "regression"),
        ({"loss": keras.losses.Huber()}, {}, "regression"),
        ({}, {"loss": "mae"}, "regression"),
        ({"loss": LOGITS}, {}, "logits"),
        ({"loss": BINARY}, {}, "sigmoid_logits"),
        ({}, {"loss": BINARY}, "sigmoid_logits"),
        # The loss counts before the last activation: an autoencoder of pixels from 0 to 1.
        ({"activation": "sigmoid", "loss": "mse"}, {"activation": "sigmoid"}, "regression"),
        ({"activation": "sigmoid"}, {"activation": "sigmoid", "loss": "mse"}, "regression"),
        # The student's loss counts before the teacher's.
        ({"loss": LOGITS}, {"loss": "mse"}, "logits"),
        # A linear layer never gives probabilities, whatever the default of a loss.
        ({"loss": "sparse_categorical_crossentropy"}, {}, "logits"),
        ({}, {}, None),
        ({"loss": "hinge"}, {}, None),
        ({"classes": 1}, {"classes": 1}, None),
        ({"classes": 1, "loss": "crossentropy"}, {"classes": 1}, "sigmoid_logits"),
    ],
)
def test_the_kind_is_inferred(student, teacher, expected):
    assert found_kind(mlp(**student), mlp(**teacher, units=16)) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"outputs": "regression"}, "regression"),
        ({"outputs": "sigmoid_logits"}, "sigmoid_logits"),
        ({"outputs": ["logits"]}, "logits"),
        ({"student_loss": "mse"}, "regression"),
        ({"student_loss": LOGITS}, "logits"),
        ({"student_gives": "logits"}, "logits"),
        ({"student_gives": "probabilities"}, "softmax"),
        ({"multi_label": True}, "sigmoid_logits"),
        ({"multi_label": False}, "logits"),
        ({"outputs": "huber"}, "regression"),
    ],
)
def test_arguments_say_the_kind(arguments, expected):
    assert found_kind(mlp(), mlp(units=16), **arguments) == expected
    if "student_loss" in arguments or arguments.get("outputs") == "regression":
        assert found_kind(mlp(loss=BINARY), mlp(units=16), **arguments) == expected


def test_an_opaque_end_is_read_from_the_loss():
    def model(**options):
        inside = mlp(**options)
        end = layers.Lambda(keras.ops.softmax)
        found = keras.Sequential([*inside.layers, end])
        found.build((None, 8))
        return found

    student = model()
    student.compile("adam", "categorical_crossentropy")
    assert found_kind(student, mlp(units=16)) == "softmax"
    teacher = model(units=16)
    teacher.compile("adam", "categorical_crossentropy")
    distiller = tfnas.Distiller(teacher, mlp())
    assert distiller.get_config()["teacher_gives"] == "probabilities"  # a saved one has no loss


def test_losses_say_what_they_are_for():
    class Mine(keras.losses.MeanSquaredError):
        pass

    assert loss_facts(Mine()).family == "values"
    assert loss_facts(lambda y, p: y - p).family is None
    smooth = loss_facts(keras.losses.CategoricalCrossentropy(label_smoothing=0.2))
    assert (smooth.plain_family, smooth.label_smoothing) == ("classes", 0.2)
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    assert loss_facts(ignoring).plain_family is None
    assert loss_facts(keras.losses.BinaryFocalCrossentropy()).plain_family is None


@pytest.mark.parametrize(
    ("targets", "classes", "expected"),
    [
        (np.arange(6) % 3, 3, "logits"),
        ((np.arange(6) % 3)[:, None].astype("float32"), 3, "logits"),
        (np.eye(3)[np.arange(6) % 3], 3, "logits"),
        (np.full((6, 3), 1 / 3), 3, "logits"),  # soft labels
        (np.zeros((6, 3)), 3, None),
        (np.arange(18).reshape(6, 3), 3, None),  # whole numbers of a regression
        (np.array([[1.0, -1.0], [0.5, 0.5]]), 2, None),
        (np.arange(6) % 2, 1, "sigmoid_logits"),
        (np.linspace(0, 1, 6), 1, None),
        (np.arange(6), 1, None),
        (None, 3, None),
        (tf.TensorSpec((None,), "int64"), 3, "logits"),
        (tf.TensorSpec((None, 3), "float32"), 3, None),
        (tf.TensorSpec(None, "float32"), 3, None),
    ],
)
def test_targets_say_whether_a_linear_output_is_of_classes(targets, classes, expected):
    assert kind_by_targets(targets, (None, classes)) == expected


def regression_targets():
    return np.random.default_rng(1).normal(size=(N, 3)).astype("float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return tuple(array[8 * index : 8 * index + 8] for array in self.arrays)


@pytest.mark.parametrize("form", ["arrays", "dataset", "py_dataset", "generator", "none"])
def test_unknown_outputs_are_refused_before_training(x, form):
    y = regression_targets()
    data = {
        "arrays": (x, y),
        "dataset": (tf.data.Dataset.from_tensor_slices((x, y)).batch(8),),
        "py_dataset": (Batches(x, y),),
        "generator": ((batch for batch in [(x, y)]),),
        "none": (x,),
    }[form]
    student = mlp()
    before = student.get_weights()
    distiller = tfnas.Distiller(mlp(units=16), student, student_loss_weight=float(form != "none"))
    distiller.compile("adam", jit_compile=False)
    with pytest.raises(ValueError, match=r"outputs must say the kind of the output .*outputs='reg"):
        distiller.fit(*data, verbose=0)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("form", ["dataset", "py_dataset"])
def test_one_hot_rows_of_a_data_set_say_that_they_are_classes(x, form):
    y = np.eye(3, dtype="float32")[np.arange(N) % 3]
    data = Batches(x, y)
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    distiller = tfnas.Distiller(mlp(units=16), mlp())
    distiller.compile("adam", run_eagerly=True)
    distiller.fit(data, shuffle=False, verbose=0)
    assert distiller.get_config()["outputs"]["config"]["kind"] == "logits"
    # What one training's targets said does not hold for another one's.
    with pytest.raises(ValueError, match="outputs must say the kind"):
        distiller.fit(x, regression_targets(), verbose=0)


class Opaque(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_models_say_what_they_give(x):
    student, teacher = Opaque(), Opaque()
    student(x), teacher(x)
    y = regression_targets()
    distiller = tfnas.Distiller(teacher, student, 0.25, outputs="regression")
    s, t = np.asarray(student(x)), np.asarray(teacher(x))
    expected = 0.25 * np.mean((s - y) ** 2) + 0.75 * np.mean((s - t) ** 2)
    assert float(distiller.compute_loss(x, y)) == pytest.approx(expected, rel=1e-5)
    teacher.compile("adam", "mse")
    assert found_kind(student, teacher) == "regression"
    two = {"a": "regression", "b": "softmax"}
    distiller = tfnas.Distiller(None, student, outputs=two)
    with pytest.raises(ValueError, match="student must return the outputs a, b, as outputs says"):
        distiller(x)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        raise NotImplementedError


class OwnLoss(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        raise NotImplementedError


def test_a_student_with_a_training_of_its_own_is_refused(x):
    parts = [keras.Input((8,)), layers.Dense(3)]
    with pytest.raises(ValueError, match=r"student must be .* OwnStep with a train_step"):
        tfnas.Distiller(mlp(), OwnStep(parts), outputs="regression", student_loss="mse")
    with pytest.raises(ValueError, match=r"OwnLoss with a compute_loss .*give its loss as student"):
        tfnas.Distiller(mlp(), OwnLoss(parts), outputs="regression")
    distiller = tfnas.Distiller(mlp(), OwnLoss(parts), student_loss="mse")
    assert np.isfinite(float(distiller.compute_loss(x, regression_targets())))
    assert tfnas.Distiller(OwnStep(parts), mlp(), outputs="regression").teachers  # it runs only


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": "softmx"}, "outputs must be one of softmax, logits, .*did you mean 'softmax'"),
        ({"outputs": 3}, "outputs must be one of softmax, logits"),
        ({"outputs": {"b": "logits"}}, "outputs must name outputs of the student, out, got 'b'"),
        ({"outputs": ["logits"] * 2}, "outputs must have one entry for each output .* a list of 2"),
        ({"outputs": "softmax"}, "outputs must be 'logits' for the output 'out', which ends in a"),
        ({"outputs": "logits", "student_gives": "probabilities"}, "student_gives must match out"),
        ({"outputs": "logits", "multi_label": True}, "multi_label must match outputs"),
        ({"outputs": "regression", "multi_label": True}, "multi_label must be left out"),
        ({"student_loss": "nothing"}, "student_loss must be a Keras loss, its name, or a function"),
        ({"outputs": lambda t, s: s}, "student_loss must be given for the output 'out'"),
    ],
)
def test_invalid_arguments_on_outputs_are_named(arguments, message):
    student = keras.Sequential([keras.Input((8,)), layers.Dense(3, name="out")])
    with pytest.raises(ValueError, match=message):
        tfnas.Distiller(mlp(), student, **arguments)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full((N, 3), np.nan, "float32"), "y must hold finite numbers .* 72 that are NaN"),
        (np.zeros((N, 2)), r"y must be numbers of the shape of the output .* got targets \(24, 2"),
        (np.zeros(N), r"y must be numbers of the shape .* got targets \(24,\)"),
    ],
)
def test_targets_of_a_regression_are_checked(x, y, message):
    distiller = tfnas.Distiller(mlp(units=16), mlp(), outputs="regression")
    distiller.compile("adam")
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, y, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    if np.isfinite(y).all():
        with pytest.raises(ValueError, match=message.replace("24", "None")):
            distiller.fit(data, verbose=0)


def test_cached_outputs_that_look_like_probabilities_are_refused(x):
    y, rng = np.arange(N) % 3, np.random.default_rng(0)
    for activation in ("softmax", "sigmoid"):
        student = mlp(activation, classes=8)
        labels = y if activation == "softmax" else np.eye(8)[y]
        p = np.asarray(keras.activations.get(activation)(rng.normal(size=(N, 8))), "float32")
        distiller = tfnas.Distiller(None, student)
        distiller.compile("adam", run_eagerly=True)
        with pytest.raises(ValueError, match=r"must be logits .* give teacher_gives='probab"):
            distiller.fit(x, (labels, p), verbose=0)
        with pytest.raises(ValueError, match="outputs in y must be finite"):
            distiller.fit(x, (labels, p * np.nan), verbose=0)
        stated = tfnas.Distiller(None, student, teacher_gives="probabilities")
        stated.compile("adam", run_eagerly=True)
        stated.fit(x, (labels, p), verbose=0)


def test_several_linear_teachers_without_a_loss_are_refused(x):
    teachers = [mlp(), mlp()]
    with pytest.raises(ValueError, match=r"outputs must say the kind .* several linear teachers"):
        tfnas.teacher_outputs(teachers, x)
    found = tfnas.teacher_outputs(teachers, x, outputs="regression", weights=[1, 3])
    expected = 0.25 * np.asarray(teachers[0](x)) + 0.75 * np.asarray(teachers[1](x))
    np.testing.assert_allclose(found, expected, atol=1e-6)
