"""The task of a model by its loss and its metric, on data of any kind."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.compression.fine_tune import TrainingError, fine_tune
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.data.examples import ArrayParts, Examples
from tfnas.measure.agreement import PLAIN, Agreement
from tfnas.measure.output_agreement import OutputAgreement
from tfnas.tasks.assessment import Metric
from tfnas.tasks.compiled_task import CompiledTask

RNG = np.random.default_rng(0)


def table_model(**compiled):
    """Two named inputs, two named outputs: a regression and three classes."""
    inputs = {"size": keras.Input((3,), name="size"), "kind": keras.Input((1,), name="kind")}
    trunk = layers.Dense(8, "relu")(layers.Concatenate()(list(inputs.values())))
    outputs = {"price": layers.Dense(1)(trunk), "level": layers.Dense(3, "softmax")(trunk)}
    model = keras.Model(inputs, outputs)
    if compiled:
        model.compile("adam", jit_compile=False, **compiled)
    return model


def examples(count=40):
    """Inputs and targets in another order than the model has them."""
    x = {
        "kind": RNG.normal(size=(count, 1)).astype("float32"),
        "size": RNG.normal(size=(count, 3)).astype("float32"),
    }
    y = {"level": RNG.integers(0, 3, count), "price": RNG.normal(size=(count, 1))}
    return Examples(x, y, RNG.random(count).astype("float32"))


def parts():
    return ArrayParts("table", examples(), examples(20), examples(20))


LOSSES = {"price": "mse", "level": "sparse_categorical_crossentropy"}


def test_loss_and_metric_come_from_compile():
    model = table_model(loss=LOSSES, loss_weights={"price": 0.5, "level": 2.0})
    task = CompiledTask.of(model)
    data = parts()
    task.check(model, data)
    few = data.test
    outputs = {name: np.asarray(value) for name, value in model(few.x).items()}
    expected = 0.5 * np.mean((outputs["price"] - few.y["price"]) ** 2) + 2.0 * np.mean(
        -np.log(outputs["level"][np.arange(20), few.y["level"]])
    )
    assert float(task.criterion_loss(model)(few.y, outputs)) == pytest.approx(expected, rel=1e-4)


def test_the_first_metric_decides_and_the_others_are_kept():
    model = table_model(loss=LOSSES)
    task = CompiledTask.of(model, metric={"level": "accuracy", "price": "mae"})
    assert (task.metric.name, task.metric.higher_is_better) == ("accuracy of level", True)
    assert task.more_metrics["price"].name == "mae of price"
    few = parts().test
    outputs = {name: np.asarray(value) for name, value in model(few.x).items()}
    right = outputs["level"].argmax(1) == few.y["level"]
    # As the file gives them: a list in the order of the names.
    in_order = [outputs["level"], outputs["price"]]
    assert task.assess(few.y, outputs).score.value == right.mean()
    assert task.assess(few.y, in_order).score.value == right.mean()


def test_outputs_of_one_loss_are_judged_by_it():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    model.compile("adam", "mse")
    task = CompiledTask.of(model)
    assert not task.metric.higher_is_better
    y, outputs = np.zeros((5, 2)), np.full((5, 2), 2.0)
    assert task.assess(y, outputs).score.value == 4.0


def test_a_loss_is_needed():
    with pytest.raises(ValueError, match="loss must be given for a model that was not compiled"):
        CompiledTask.of(table_model())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, {**y, "level": y["level"] + 1}), r"from 0 to 2 for 'level'.*got 3"),
        (lambda x, y: (x, {**y, "level": y["level"] - 1}), r"from 0 to 2 for 'level'.*got -1"),
        (lambda x, y: ({"kind": x["kind"]}, y), "must hold 'size', an input of the model"),
        (lambda x, y: ({**x, "size": x["size"][:, :2]}, y), r"shape \(3,\), got \(2,\)"),
        (lambda x, y: (x, {"price": y["price"]}), "must hold 'level', which has a loss"),
        (lambda x, y: (x, {**y, "more": y["price"]}), "must name outputs of level, price"),
        (lambda x, y: (x, {**y, "price": np.zeros((len(y["level"]), 7, 2))}), r"got \(7, 2\)"),
        (
            lambda x, y: (x, {**y, "price": np.zeros((len(y["level"]), 2))}),
            r"must have the shape of the output 'price': an example must have \(1,\), got \(2,\)",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(change, message):
    model = table_model(loss=LOSSES)
    good = examples()
    bad = Examples(*change(good.x, good.y))
    with pytest.raises(ValueError, match=message):
        CompiledTask.of(model).check(model, ArrayParts("table", bad, good, good))


def test_a_dictionary_of_targets_for_one_output_is_refused_with_the_way_out():
    data, model = line()
    part = Examples(data.x, {"output": data.y})
    message = "one output must be an array, got a dict of 1 part: the array instead of the dict"
    with pytest.raises(ValueError, match=message):
        CompiledTask("mse", "mse").check(model, ArrayParts("line", part, part, part))


def test_a_list_of_targets_for_one_output_is_refused_with_the_way_out():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(inputs))
    part = Examples(np.zeros((4, 4), "float32"), [np.array([0, 1, 2, 1])])
    task = CompiledTask("sparse_categorical_crossentropy", "accuracy")
    message = r"one output must be an array, got a list of 1 part: y instead of \[y\]"
    with pytest.raises(ValueError, match=message):
        task.check(model, ArrayParts("line", part, part, part))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mean_square_error", "got 'mean_square_error'; did you mean 'mean_squared_error'"),
        ({"price": "mse", "old": "bince"}, "loss must be a loss of keras.losses.*got 'bince'"),
        (keras.losses.Huber, r"got <class .*Huber'>: Huber\(\) is a loss"),
        (3, "its name, or a function of .*got 3"),
    ],
)
def test_an_unknown_loss_is_named(loss, message):
    with pytest.raises(ValueError, match=message):
        CompiledTask.of(line()[1], loss, "mse")


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda model: None, r"fit must take \(model, epochs, callbacks\), got <lambda>\(model\)"),
        (lambda model, epochs, callbacks, data: None, "missing a required argument: 'data'"),
        ("fit", "fit must be a function of .*got 'fit'"),
    ],
)
def test_a_fit_of_other_arguments_is_refused(fit, message):
    with pytest.raises(ValueError, match=message):
        CompiledTask("mse", "mse", fit=fit)


def test_a_class_that_the_loss_ignores_is_no_wrong_label():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    part = Examples(np.zeros((4, 4), "float32"), np.array([0, 255, 2, 1]))
    CompiledTask.of(model, loss, "accuracy").check(model, ArrayParts("few", part, part, part))


def line():
    """Points of a line, and a model that can learn it."""
    x = RNG.normal(size=(64, 2)).astype("float32")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    return Examples(x, x @ np.array([[1.0], [-2.0]], "float32")), model


def test_sample_weights_reach_the_training():
    data, model = line()
    none = Examples(data.x, data.y, np.zeros(64, "float32"))
    before = model.get_weights()
    fine_tune(model, CompiledTask("mse", "mse"), none, FineTuneSettings(epochs=1))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_fit_is_the_users_own():
    data, model = line()
    seen = []

    def fit(model, epochs, callbacks):
        seen.append((epochs, [type(each).__name__ for each in callbacks]))
        model.fit(data.x, data.y, epochs=epochs, callbacks=callbacks, verbose=0)

    own = keras.callbacks.LambdaCallback()
    task = CompiledTask("mse", "mse", fit=fit)
    fine_tune(model, task, data, FineTuneSettings(epochs=2), callbacks=[own])
    [(epochs, callbacks)] = seen
    assert epochs == 2
    assert "LambdaCallback" in callbacks
    assert not task.distills


def test_an_initial_epoch_without_default_is_given_from_the_first_epoch_on():
    data, model = line()
    seen = []

    def fit(model, epochs, callbacks, initial_epoch):
        seen.append(initial_epoch)
        model.fit(data.x, data.y, epochs=epochs, initial_epoch=initial_epoch, verbose=0)

    task = CompiledTask("mse", "mse", fit=fit)
    fine_tune(model, task, data, FineTuneSettings(epochs=1))
    assert seen == [0]


def test_fit_that_trains_nothing_is_an_error():
    data, model = line()
    task = CompiledTask("mse", "mse", fit=lambda model, epochs, callbacks: None)
    with pytest.raises(TrainingError, match="fit must train the model"):
        fine_tune(model, task, data, FineTuneSettings(epochs=1))


class OwnStep(keras.Model):
    """A model whose loss is its own."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def test_a_train_step_of_its_own_needs_no_loss():
    data, _ = line()
    inputs = keras.Input((2,))
    model = OwnStep(inputs, layers.Dense(1)(inputs))
    task = CompiledTask.of(model, metric=Metric("error", False, values=lambda y, p: (y - p)[:, 0]))
    task.check(model, ArrayParts("line", data, data, data))
    before = np.mean((model.predict(data.x, verbose=0) - data.y) ** 2)
    fine_tune(model, task, data, FineTuneSettings(epochs=10, batch_size=16, learning_rate=0.1))
    after = np.mean((model.predict(data.x, verbose=0) - data.y) ** 2)
    assert after < before / 2
    with pytest.raises(ValueError, match="own train_step"):
        task.loss(model)


def test_criteria_without_a_loss_rank_by_how_far_outputs_move():
    x = RNG.normal(size=(256, 4)).astype("float32")
    inputs = keras.Input((4,))
    model = OwnStep(inputs, layers.Dense(3, use_bias=False)(inputs))
    kernel = np.zeros((4, 3), "float32")
    kernel[:, 0] = [4, 3, 2, 1]
    model.set_weights([kernel])
    x[:, 0] *= 0.01  # the largest weight moves the output least
    task = CompiledTask.of(model, metric="mse")
    pruned, _ = tfnas.prune(
        model, 0.75, criterion="taylor", data=(x, x[:, :3]), loss=task.criterion_loss(model)
    )
    assert pruned.layers[-1].kernel.numpy()[0, 0] == 0
    assert pruned.layers[-1].kernel.numpy()[1, 0] == 3


def test_targets_of_one_number_fit_an_output_of_one_unit():
    data, model = line()
    task = CompiledTask("binary_crossentropy", "accuracy")
    flat = (data.y[:, 0] > 0).astype("float32")
    outputs = 1 / (1 + np.exp(-data.y))
    loss = task.criterion_loss(model)
    assert float(loss(flat, outputs)) == float(loss(flat[:, None], outputs))


def test_identity_is_the_same_for_the_same_task():
    model = table_model(loss=LOSSES)
    assert CompiledTask.of(model).identity() == CompiledTask.of(model).identity()
    other = CompiledTask.of(model, loss={**LOSSES, "price": "mae"})
    assert other.identity() != CompiledTask.of(model).identity()


def test_classes_are_compared_as_classes_and_numbers_as_numbers():
    x = RNG.normal(size=(30, 4)).astype("float32")
    softmax = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    softmax.compile("adam", "categorical_crossentropy")
    data = ArrayParts("series", *[Examples(x, np.eye(3)[np.arange(30) % 3])] * 3)
    file = tfnas.to_tflite(softmax)
    found = CompiledTask.of(softmax).agreement((file, file), data, (softmax, softmax))
    assert isinstance(found, Agreement)
    assert (found.changed[0], [*found.classes]) == (0, ["0", "1", "2"])
    numbers = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    numbers.compile("adam", "mse")
    file = tfnas.to_tflite(numbers)
    found = CompiledTask.of(numbers).agreement((file, file), data, (numbers, numbers))
    assert isinstance(found, OutputAgreement)
    logits = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    logits.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    file = tfnas.to_tflite(logits)
    y = (file.predict(x)[:, 0] > 0).astype(int)
    data = ArrayParts("flags", *[Examples(x, y)] * 3)
    found = CompiledTask.of(logits).agreement((file, file), data, (logits, logits))
    assert found.accuracy[PLAIN].original == 1


def test_a_model_that_trains_some_outputs_is_not_distilled():
    model = table_model(loss={"price": "mse"})
    task = CompiledTask.of(model, metric={"price": "mae"})
    with pytest.raises(ValueError, match=r"loss must name every output .* got none for 'level'"):
        task.check_distillation(model)


@pytest.mark.parametrize("technique", [("factorize", {"rank": 1}), ("qat", {})])
def test_losses_by_names_of_layers_are_those_of_factors_and_roundings_too(technique, tmp_path):
    """The last layers of what a technique makes have other names."""
    inputs = keras.Input((8,))
    x = layers.Dense(8, "relu", name="trunk")(inputs)
    heads = [layers.Dense(8, name="copy")(x), layers.Dense(3, "softmax", name="level")(x)]
    model = keras.Model(inputs, heads)
    losses = {"copy": "mse", "level": "sparse_categorical_crossentropy"}
    model.compile("adam", losses, loss_weights={"copy": 0.5, "level": 1.0}, jit_compile=False)
    x = RNG.normal(size=(40, 8)).astype("float32")
    y = {"copy": x, "level": RNG.integers(0, 3, 40)}
    result = tfnas.run_techniques(
        *(model, [technique], (x, y)),
        directory=tmp_path,
        settings=FineTuneSettings(epochs=1),
        verbose=0,
    )
    assert result.outcomes[-1].model.output_names == ["copy", "level"]
    assert "copy" in str(result.rows[-1].score)
