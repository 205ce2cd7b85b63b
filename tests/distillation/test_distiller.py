"""The distiller: one forward pass per model and step, unchanged teachers, Keras' API."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.forward import ForwardPass, last_activation_call
from tfnas.distillation.losses import distillation_loss
from tfnas.graph.functional import clone, walk
from tfnas.quantization.quantize_aware import quantize_aware

N = 24


class Counting(layers.Layer):
    """Counts its calls on tensors that are not symbolic."""

    calls = 0

    def call(self, inputs):
        self.calls += not isinstance(inputs, keras.KerasTensor)
        return inputs


def mlp(units=4, activation=None, classes=3, **options):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(units, "relu", name="middle"),
            layers.Dense(classes, activation, **options),
        ]
    )


def convnet(filters=4, size=8, **options):
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Conv2D(filters, 3, use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(name="maps"),
            layers.Conv2D(filters, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dense(3, **options),
        ]
    )


def nested(filters=6):
    """A classifier around a nested backbone, as in transfer learning."""
    inside = keras.Input((8, 8, 1))
    maps = layers.Conv2D(filters, 3, name="inner")(inside)
    maps = layers.BatchNormalization()(maps)
    backbone = keras.Model(inside, layers.Dropout(0.5)(maps), name="backbone")
    outside = keras.Input((8, 8, 1))
    pooled = layers.GlobalAveragePooling2D()(backbone(outside * 2.0))
    return keras.Model(outside, layers.Dense(3, "softmax")(pooled))


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 8)).astype("float32"), rng.integers(0, 3, N)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 8, 8, 1)).astype("float32"), rng.integers(0, 3, N)


ALL = (
    tfnas.FeatureHint("maps", "maps", 0.1),
    tfnas.AttentionTransfer("second", "second", 10.0),
    tfnas.RelationalTransfer("pooled", "pooled", 1.0),
)


def compiled(distiller, **options):
    options = {"jit_compile": False, "metrics": ["accuracy"], **options}
    distiller.compile(keras.optimizers.Adam(0.01), **options)
    return distiller


def loss_of(distiller, x, y, weight=None, training=True):
    return float(distiller.compute_loss(x, y, distiller(x, training=False), weight, training))


def test_the_worked_example_holds_for_models():
    student = keras.Sequential([keras.Input((3,)), layers.Dense(3, "softmax")])
    teacher = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Softmax()])
    for model, p in ((student, [0.1, 0.2, 0.7]), (teacher, [0.05, 0.15, 0.8])):
        model.layers[0].set_weights([np.zeros((3, 3)), np.log(p)])
    distiller = tfnas.Distiller(teacher, student, 0.5, 1.0, reverse=True)
    kl = 0.1 * np.log(0.1 / 0.05) + 0.2 * np.log(0.2 / 0.15) + 0.7 * np.log(0.7 / 0.8)
    found = loss_of(distiller, np.zeros((2, 3)), np.array([2, 2]))
    assert found == pytest.approx(0.5 * -np.log(0.7) + 0.5 * kl, rel=1e-5)


def test_training_changes_only_the_student(images):
    student, teacher = convnet(), convnet(8)
    before = [v.numpy() for v in teacher.variables]
    distiller = compiled(tfnas.Distiller(teacher, student, features=ALL), run_eagerly=True)
    own = {id(v) for v in student.trainable_variables}
    extra = [v for v in distiller.trainable_variables if id(v) not in own]
    assert [v.name for v in extra] == ["projection", "offset"]
    assert not {id(v) for v in distiller.variables} & {id(v) for v in teacher.variables}
    history = distiller.fit(*images, batch_size=N, epochs=4, verbose=0).history
    assert list(history) == [
        "accuracy",
        "distillation_loss",
        "feature_loss",
        "loss",
        "student_loss",
    ]
    assert history["loss"][-1] < history["loss"][0]
    for old, new in zip(before, teacher.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(layer.trainable for layer in teacher.layers)  # copies of it will train
    assert distiller.teachers[0] is teacher
    assert list(distiller.teachers) == [teacher]


def test_the_student_learns_the_teachers_outputs(rows):
    x, _ = rows
    teacher, student = mlp(16), mlp(16)
    distiller = tfnas.Distiller(
        teacher, student, student_loss_weight=0, temperature=2, student_gives="logits"
    )
    distiller.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    before = loss_of(distiller, x, None)
    distiller.fit(np.tile(x, (60, 1)), batch_size=N, shuffle=False, verbose=0)  # no labels
    assert loss_of(distiller, x, None) < 0.05 * before
    target, learned = (keras.ops.softmax(model(x)) for model in (teacher, student))
    assert abs(target - learned).numpy().max() < 0.2


@pytest.mark.parametrize("end", slow_but([{}, {"activation": "softmax"}], {}))
def test_one_forward_pass_per_step(images, end):
    def counted(filters):
        model = convnet(filters, **end)
        counting = Counting()
        return keras.Sequential([keras.Input((8, 8, 1)), counting, *model.layers]), counting

    (student, ours), (teacher, theirs) = counted(4), counted(8)
    distiller = compiled(tfnas.Distiller(teacher, student, features=ALL), run_eagerly=True)
    ours.calls = theirs.calls = 0  # building a Sequential takes one
    distiller.fit(*images, batch_size=8, epochs=1, verbose=0)
    assert (ours.calls, theirs.calls) == (3, 3)
    distiller.evaluate(*images, batch_size=8, verbose=0)
    distiller.predict(images[0], batch_size=8, verbose=0)
    assert (ours.calls, theirs.calls) == (9, 3)


def test_probabilities_and_logits_are_distinguished(rows):
    x, y = rows
    keras.utils.set_random_seed(0)  # some pairs of networks differ by less than the tolerance
    logits, teacher = mlp(), mlp(16)
    dense = mlp(activation="softmax")
    reshaped = keras.Sequential([*mlp().layers, layers.Softmax(), layers.Reshape((3,))])
    opaque = keras.Sequential([*mlp().layers, layers.Lambda(keras.ops.softmax)])
    for model in (dense, reshaped, opaque):
        model.build((None, 8))
        model.set_weights(logits.get_weights())
    expected = loss_of(tfnas.Distiller(teacher, logits, 0.3, 3.0), x, y)
    for model in (dense, reshaped):
        assert loss_of(tfnas.Distiller(teacher, model, 0.3, 3.0), x, y) == pytest.approx(expected)
    stated = tfnas.Distiller(teacher, opaque, 0.3, 3.0, student_gives="probabilities")
    assert loss_of(stated, x, y) == pytest.approx(expected, rel=1e-4)
    taught = mlp(16, "softmax")
    taught.set_weights(teacher.get_weights())
    assert loss_of(tfnas.Distiller(taught, dense, 0.3, 3.0), x, y) == pytest.approx(expected)
    wrong = tfnas.Distiller(taught, logits, 0.3, 3.0, teacher_gives="logits")
    assert loss_of(wrong, x, y) != pytest.approx(expected, rel=1e-2)


def test_a_confident_wrong_softmax_still_learns():
    """-ln p of a p that float32 rounds to 0, or that an integer model rounds away."""
    model = mlp(activation="softmax")
    model.layers[-1].set_weights([np.zeros((4, 3)), np.array([0.0, 0.0, 90.0])])
    for student in (model, quantize_aware(model)):
        distiller = tfnas.Distiller(mlp(), student, student_loss_weight=1)
        x = np.ones((2, 8), "float32")
        with tf.GradientTape() as tape:
            loss = distiller.compute_loss(x, np.array([0, 0]), distiller(x, training=False))
        last = distiller.trainable_variables[-1]
        assert float(loss) > 80 or student is not model
        assert abs(tape.gradient(loss, last.value)).numpy().max() > 0.1


def test_the_last_activation_is_found_behind_roundings():
    sigmoid = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Activation("sigmoid")])
    assert last_activation_call(walk(sigmoid))[0] == "sigmoid"
    assert last_activation_call(walk(quantize_aware(mlp(activation="softmax"))))[0] == "softmax"
    relu = keras.Sequential([keras.Input((4,)), layers.Dense(2, "softmax"), layers.ReLU()])
    assert last_activation_call(walk(relu)) is None


def test_label_formats_give_the_same_loss(rows):
    x, y = rows
    distiller = tfnas.Distiller(mlp(16), mlp(), label_smoothing=0.1)
    expected = loss_of(distiller, x, y)
    for labels in (y[:, None], np.eye(3)[y], y.astype("float32")):
        assert loss_of(distiller, x, labels) == pytest.approx(expected)


def test_sample_weight_and_class_weight(rows):
    x, y = rows
    weight = np.where(y == 1, 3.0, 0.0)
    distiller = compiled(tfnas.Distiller(mlp(16), mlp()))
    parts = [loss_of(distiller, x[i : i + 1], y[i : i + 1]) for i in range(N)]
    assert loss_of(distiller, x, y, weight) == pytest.approx(np.mean(parts * weight), rel=1e-4)
    distiller.optimizer.learning_rate = 0.0
    options = {"batch_size": N, "verbose": 0}
    by_class = distiller.fit(x, y, class_weight={0: 0, 1: 3, 2: 0}, **options).history["loss"]
    by_example = distiller.fit(x, y, sample_weight=weight, **options).history["loss"]
    assert by_class == pytest.approx(by_example, rel=1e-5)
    assert by_class == pytest.approx([np.mean(parts * weight)], rel=1e-4)


def test_features_are_weighted_by_the_mean_over_an_examples_positions(rows):
    """Segmentation has one weight per position; features have one distance per example."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 6, 2)).astype("float32"), rng.integers(0, 3, (6, 6))
    student, teacher = (
        keras.Sequential(
            [keras.Input((6, 2)), layers.Dense(4, "relu", name="inner"), layers.Dense(3)]
        )
        for _ in range(2)
    )
    hint = tfnas.FeatureHint("inner", "inner", 1.0, project=False)
    both = [tfnas.Distiller(teacher, student, features=f) for f in ([], [hint])]
    weights = rng.uniform(0, 2, (6, 6)).astype("float32")  # as many positions as examples
    plain, hinted = (float(loss_of(distiller, x, y, weights)) for distiller in both)
    by_example = [float(loss_of(d, x, y, weights.mean(1, keepdims=True))) for d in both]
    assert hinted - plain == pytest.approx(by_example[1] - by_example[0], rel=1e-4)


@pytest.mark.parametrize("classes", [1, 3])
def test_multi_label(rows, classes):
    x, y = rows
    labels = (np.arange(classes) <= y[:, None]).astype("float32")
    student, teacher = mlp(4, "sigmoid", classes), mlp(16, classes=classes)
    distiller = tfnas.Distiller(teacher, student, 0.4, 2.0)
    assert distiller.multi_label
    expected = distillation_loss(labels, logit(student(x)), teacher(x), 0.4, 2.0, multi_label=True)
    assert loss_of(distiller, x, labels) == pytest.approx(np.mean(expected), rel=1e-4)
    if classes == 1:
        assert loss_of(distiller, x, labels[:, 0]) == pytest.approx(np.mean(expected), rel=1e-4)
    history = compiled(distiller, run_eagerly=True).fit(x, labels, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_multi_labels_outside_0_to_1_are_refused(rows):
    x, _ = rows
    distiller = compiled(tfnas.Distiller(mlp(16, classes=1), mlp(classes=1), multi_label=True))
    with pytest.raises(ValueError, match="y must hold numbers from 0 to 1"):
        distiller.fit(x, np.linspace(0, 9, len(x)), verbose=0)


def logit(p):
    return np.log(p) - np.log1p(-np.asarray(p))


def test_evaluate_and_predict_are_the_students(rows):
    x, y = rows
    student = mlp(activation="softmax")
    distiller = compiled(tfnas.Distiller(mlp(16), student, label_smoothing=0.0))
    student.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    found = distiller.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(found, student.evaluate(x, y, verbose=0), rtol=1e-5)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), student.predict(x, verbose=0))


def test_several_teachers_are_averaged(rows):
    x, y = rows
    student, a, b = mlp(), mlp(8, "softmax"), mlp(16)
    p = 0.25 * np.asarray(a(x)) + 0.75 * np.asarray(keras.ops.softmax(b(x)))
    expected = distillation_loss(y, student(x), np.log(p), 0.5, 4.0)
    distiller = tfnas.Distiller(
        [a, b],
        student,
        teacher_weights=[1, 3],
        features=[tfnas.FeatureHint("middle", "middle", 1e-9, of=1)],
    )
    assert distiller.projections[0].units == 16
    assert loss_of(distiller, x, y) == pytest.approx(np.mean(expected), rel=1e-4)


def test_inputs_are_preprocessed_and_resized_for_the_teacher(images):
    x, y = images
    student, teacher = convnet(), convnet(8, size=16)
    scale = layers.Rescaling(2.0, 1.0)
    distiller = tfnas.Distiller(teacher, student, preprocess=scale)
    seen = keras.ops.image.resize(2 * x + 1, (16, 16), "bilinear")
    expected = np.mean(distillation_loss(y, student(x), teacher(seen), 0.5, 4.0))
    assert loss_of(distiller, x, y) == pytest.approx(expected, rel=1e-4)
    by_function = tfnas.Distiller([teacher], student, preprocess=[lambda x: 2 * x + 1])
    assert loss_of(by_function, x, y) == pytest.approx(expected, rel=1e-4)
    color = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(3)])
    repeated = tfnas.Distiller(color, student, preprocess=lambda x: keras.ops.repeat(x, 3, -1))
    seen = np.repeat(x, 3, -1).reshape(N, 4, 2, 4, 2, 3).mean((2, 4))
    expected = np.mean(distillation_loss(y, student(x), color(seen), 0.5, 4.0))
    assert loss_of(repeated, x, y) == pytest.approx(expected, rel=1e-4)


def test_layers_inside_nested_models(images):
    x, y = images
    student, teacher = nested(), nested(12)
    backbone = student.get_layer("backbone")
    hints = [tfnas.FeatureHint("inner", "backbone/inner")]
    distiller = tfnas.Distiller(teacher, student, features=hints)
    result = ForwardPass(student, "student", [ActivationTap("inner")]).run(x, False)
    np.testing.assert_allclose(result.outputs, student(x), atol=1e-6)
    np.testing.assert_allclose(
        result.features[ActivationTap("inner")], backbone.get_layer("inner")(x * 2), atol=1e-6
    )
    assert np.isfinite(loss_of(distiller, x, y))
    moving = backbone.layers[2].moving_mean.numpy()
    trained = distiller(x, training=True)
    assert (backbone.layers[2].moving_mean.numpy() != moving).any()
    assert not np.allclose(trained, distiller(x, training=True))  # dropout
    history = compiled(distiller).fit(x, y, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_regularizers_and_masks_are_used(rows):
    x, y = rows
    student = mlp(kernel_regularizer=keras.regularizers.L2(0.5))
    distiller = tfnas.Distiller(mlp(16), student)
    plain = mlp()
    plain.set_weights(student.get_weights())
    expected = loss_of(tfnas.Distiller(distiller.teachers[0], plain), x, y)
    expected += 0.5 * (student.layers[-1].kernel.numpy() ** 2).sum()
    assert loss_of(distiller, x, y) == pytest.approx(expected, rel=1e-5)
    tagger = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), layers.Dense(3)]
    )
    words = np.array([[3, 4, 0, 0, 0], [1, 2, 3, 4, 0]])
    tags = np.array([[0, 1, 2, 2, 2], [2, 1, 0, 1, 1]])
    distiller = tfnas.Distiller(keras.models.clone_model(tagger), tagger)
    found = loss_of(distiller, words, tags)
    tags[words == 0] = 0
    assert loss_of(distiller, words, tags) == pytest.approx(found)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return self.x[part], self.y[part]


def trained(start, teacher, data, features, **options):
    """The history of a training with fixed initial weights, seed and order of batches."""
    student = clone(start)
    keras.utils.set_random_seed(0)
    distiller = compiled(tfnas.Distiller(teacher, student, features=features), **options)
    batch_size = {"batch_size": 8} if isinstance(data, tuple) else {}
    data = data if isinstance(data, tuple) else (data,)
    history = distiller.fit(*data, **batch_size, epochs=2, shuffle=False, verbose=0).history
    return np.array([history["loss"], history["accuracy"]])


def test_eager_and_compiled_training_give_the_same(rows):
    start, teacher = mlp(), mlp(16)
    features = [tfnas.FeatureHint("middle", "middle")]
    eager = trained(start, teacher, rows, features, run_eagerly=True)
    found = trained(start, teacher, Batches(*rows), features, steps_per_execution=3)
    np.testing.assert_allclose(found, eager, rtol=1e-3)


@pytest.mark.slow
def test_xla_computes_the_same(images):
    start, teacher = convnet(activation="softmax"), convnet(8, size=12)
    results = [trained(start, teacher, images, ALL, jit_compile=jit) for jit in (False, True)]
    np.testing.assert_allclose(*results, rtol=5e-3)


def test_callbacks_of_keras(rows, tmp_path):
    x, y = rows
    distiller = compiled(tfnas.Distiller(mlp(64), mlp()))
    path = tmp_path / "best.weights.h5"
    history = distiller.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        validation_data=(x, y),
        callbacks=[
            keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_best_only=True),
            keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("val_accuracy"),
        ],
    ).history
    assert list(history)[:6] == [
        "accuracy",
        "distillation_loss",
        "loss",
        "student_loss",
        "val_accuracy",
        "val_loss",
    ]
    kept = distiller.student.get_weights()
    distiller.student.set_weights([w * 0 for w in kept])
    distiller.load_weights(path)
    for a, b in zip(kept, distiller.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert path.stat().st_size < 40_000  # the student's weights and Adam's, no teacher's


def test_a_saved_distiller_resumes_training(images, tmp_path):
    x, y = images
    adapted = layers.Normalization()
    adapted.adapt(x * 3 + 1)
    student, teachers = convnet(activation="softmax"), [convnet(8), convnet(6, size=6)]
    teachers[0].compile("adam", loss=lambda a, b: keras.ops.mean(a - b))  # would not load
    distiller = tfnas.Distiller(
        teachers,
        student,
        0.3,
        2.0,
        features=ALL,
        label_smoothing=0.1,
        teacher_weights=[1, 2],
        preprocess=adapted,
    )
    compiled(distiller, run_eagerly=True).fit(x, y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loss_of(loaded, x, y) == pytest.approx(loss_of(distiller, x, y), rel=1e-5)
    assert loaded.features == ALL
    losses = [d.fit(x, y, verbose=0, shuffle=False).history["loss"] for d in (distiller, loaded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    loaded.student.save(tmp_path / "student.keras")
    plain = keras.saving.load_model(tmp_path / "student.keras")
    assert type(plain) is keras.Sequential
    np.testing.assert_allclose(plain(x), loaded(x), atol=1e-6)


@pytest.mark.slow
def test_a_saved_distiller_is_loaded_by_a_new_process(tmp_path):
    hint = tfnas.FeatureHint("middle", "middle")
    compiled(tfnas.Distiller(mlp(16), mlp(), features=[hint])).save(tmp_path / "d.keras")
    path = str(tmp_path / "d.keras")
    code = f"import tfnas; print(tfnas.load_model({path!r}).student_loss_weight)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "0.5", run.stderr


def test_pruning_prunes_the_student(rows):
    def deep(units):
        first = layers.Dense(8, "relu", name="first")
        return keras.Sequential([keras.Input((8,)), first, *mlp(units).layers])

    student, teacher = deep(8), deep(16)
    hint = tfnas.FeatureHint("middle", "middle")
    distiller = compiled(tfnas.Distiller(teacher, student, features=[hint]), run_eagerly=True)
    pruning = tfnas.PruningCallback(0.5, exclude="last", criterion="taylor", data=rows)
    distiller.fit(*rows, epochs=2, verbose=0, callbacks=[pruning], batch_size=8)
    zeros = [np.mean(student.get_layer(n).kernel.numpy() == 0) for n in ("first", "middle")]
    assert zeros == [0.5, 0.5]
    assert pruning.report.weights == 128
    assert np.all(student.layers[-1].kernel.numpy() != 0)
    assert all(np.all(layer.kernel.numpy() != 0) for layer in teacher.layers)
    assert np.all(distiller.projections[0].projection.numpy() != 0)


def test_a_hint_without_projection_compares_activations_directly(rows):
    student, teacher = mlp(8), mlp(8)
    hint = tfnas.FeatureHint("middle", "middle", weight=3.0, project=False)
    distiller = compiled(
        tfnas.Distiller(
            teacher, student, student_loss_weight=0.0, features=[hint], outputs="logits"
        )
    )
    assert distiller.projections == [None]
    assert not distiller.weights[len(student.weights) :]
    x = rows[0]
    plain = compiled(tfnas.Distiller(teacher, student, student_loss_weight=0.0, outputs="logits"))
    gaps = [
        np.asarray(keras.Model(m.inputs[0], m.get_layer("middle").output)(x))
        for m in (student, teacher)
    ]
    added = 3.0 * np.mean((gaps[0] - gaps[1]) ** 2)
    losses = [
        float(d.compute_loss(x, rows[1], d(x, training=True), training=True))
        for d in (distiller, plain)
    ]
    assert losses[0] - losses[1] == pytest.approx(added, rel=1e-4)


@pytest.mark.slow
def test_a_quantization_aware_student(images):
    x, y = images
    student = quantize_aware(convnet(activation="softmax"))
    last = [layer.name for layer in student.layers if "second" in layer.name][-1]
    distiller = tfnas.Distiller(
        convnet(8), student, features=[tfnas.FeatureHint(last, "second", 0.1)]
    )
    compiled(distiller).fit(x, y, epochs=2, verbose=0)
    file = tfnas.to_tflite(distiller.student, "int8")
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"


def test_mixed_precision(images):
    x, y = images
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = convnet(activation="softmax")
    finally:
        keras.config.set_dtype_policy(policy)
    distiller = compiled(tfnas.Distiller(convnet(8), student, features=ALL))
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert distiller(x).dtype == "float16"
    loss = distiller.compute_loss(x, y, distiller(x, training=False))
    assert loss.dtype == "float32"
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=64)
    distiller.compile(scaled, run_eagerly=True)
    history = distiller.fit(x, y, batch_size=N, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert all(v.dtype == "float32" for v in distiller.projections[0].variables)


def test_xla_is_off_where_the_teacher_does_not_support_it(rows):
    stubborn = layers.Lambda(lambda x: x)
    stubborn.supports_jit = False
    teacher = keras.Sequential([keras.Input((8,)), stubborn, layers.Dense(3)])
    assert not compiled(tfnas.Distiller(teacher, mlp()), jit_compile="auto").jit_compile
    assert compiled(tfnas.Distiller(mlp(16), mlp()), jit_compile="auto").supports_jit


STRATEGY = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfnas.distillation.distiller import Distiller
from tfnas.distillation.feature_losses import FeatureHint

def model(units):
    middle = keras.layers.Dense(units, "relu", name="middle")
    return keras.Sequential([keras.Input((8,)), middle, keras.layers.Dense(3)])

x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
y = np.arange(32) % 3
start = model(4), model(16)
results = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        student, teacher = model(4), model(16)
        for new, old in zip((student, teacher), start):
            new.set_weights(old.get_weights())
        keras.utils.set_random_seed(0)
        distiller = Distiller(teacher, student, features=[FeatureHint("middle", "middle")])
        distiller.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], jit_compile=False)
    told = distiller.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    loss = [told[name] for name in ("loss", "student_loss", "distillation_loss", "feature_loss")]
    results.append((np.array(loss), student.get_weights()[0], strategy.num_replicas_in_sync))
np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)
assert results[1][2] == 2
print("same")
"""


@pytest.mark.slow
def test_two_replicas_train_as_one():
    done = subprocess.run([sys.executable, "-c", STRATEGY], capture_output=True, text=True)
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


def opaque():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    return Own()


def test_a_subclassed_student_and_teacher(rows):
    x, y = rows
    student, teacher = opaque(), opaque()
    with pytest.raises(ValueError, match="student must be built, got 'own"):
        tfnas.Distiller(teacher, student)
    student(x), teacher(x)  # builds them
    for known in ("student", "teacher"):
        other = {"student": "teacher", "teacher": "student"}[known]
        with pytest.raises(ValueError, match=f"{other}_gives must be 'logits' or 'probabilities'"):
            tfnas.Distiller(teacher, student, **{f"{known}_gives": "logits"})
    distiller = tfnas.Distiller(teacher, student, student_gives="logits", teacher_gives="logits")
    expected = distillation_loss(y, student(x), teacher(x), 0.5, 4.0)
    assert loss_of(distiller, x, y) == pytest.approx(np.mean(expected), rel=1e-5)
    with pytest.raises(
        ValueError, match="features must come with a functional or Sequential student"
    ):
        tfnas.Distiller(
            mlp(),
            student,
            student_gives="logits",
            features=[tfnas.FeatureHint("dense", "middle")],
        )


def two_outputs():
    inputs = keras.Input((8,))
    return keras.Model(inputs, {"a": layers.Dense(3)(inputs), "b": layers.Dense(3)(inputs)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"student_loss_weight": 1.5},
            r"student_loss_weight must be a number in \[0, 1\], got 1.5",
        ),
        ({"student_loss_weight": True}, "student_loss_weight must be a number"),
        ({"student_loss_weight": float("nan")}, "student_loss_weight must be a number"),
        ({"temperature": 0}, r"temperature must be a number in \(0, inf\), got 0"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": float("inf")}, "temperature must be a number"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a number in \[0, 1\), got 1.0"),
        ({"student": 3}, "student must be a built Keras 3 model, got int"),
        ({"student": keras.Sequential([layers.Dense(3)])}, "student must be built"),
        ({"student": two_outputs}, "teacher must have the student's outputs, a, b, got dense"),
        ({"teacher": two_outputs}, "teacher must have the student's outputs, dense.*, got a, b"),
        ({"teacher": "resnet"}, "teacher must be a built Keras 3 model, got str"),
        ({"teacher": []}, r"teacher must be a built .* or None, got \[\]"),
        ({"teacher": lambda: mlp(classes=4)}, r"student's shape \(None, 3\), got \(None, 4\)"),
        ({"teacher": convnet}, r"teacher must fit the student's inputs, got \(None, 8\)"),
        ({"preprocess": "scale"}, "preprocess must be a callable"),
        ({"preprocess": [None, None]}, "preprocess must be a callable, or a list of one"),
        ({"preprocess": lambda x: x[:, :2]}, r"preprocess must fit .*, got \(None, 2\)"),
        ({"preprocess": lambda x: 1 / 0}, "preprocess must take a batch .* division by zero"),
        ({"teacher_weights": [1, 2]}, "teacher_weights must be a list of one number per teacher"),
        ({"teacher_weights": [0]}, "teacher_weights must be a number in"),
        ({"student_gives": "scores"}, "student_gives must be 'logits', 'probabilities' or None"),
        ({"teacher_gives": "scores"}, "teacher_gives must be 'logits', 'probabilities' or None"),
        ({"multi_label": 1}, "multi_label must be True, False or None, got 1"),
        (
            {"teacher": lambda: mlp(activation="softmax"), "multi_label": True},
            "multi_label must match",
        ),
        ({"student": lambda: mlp(activation="sigmoid"), "multi_label": False}, "multi_label must"),
        ({"features": "middle"}, "features must be a list of FeatureHint"),
        ({"features": ["middle"]}, "features must be a list of FeatureHint"),
        ({"features": [tfnas.FeatureHint("x", "middle")]}, "layers of the student .* got 'x'"),
        (
            {"features": [tfnas.FeatureHint("middle", "middle", project=False)]},
            "the same number of channels where project is False",
        ),
        ({"features": [tfnas.FeatureHint("middle", "x")]}, "layers of the teacher .* got 'x'"),
        ({"features": [tfnas.FeatureHint("middle", "middle", of=1)]}, "one of 1 teachers"),
        ({"features": [tfnas.AttentionTransfer("middle", "middle")]}, "give feature maps"),
        (
            {"features": [tfnas.FeatureHint("middle", "middle")], "teacher": None},
            "features must be left out where teacher is None",
        ),
    ],
)
def test_invalid_arguments_are_named(change, message):
    arguments = {"student": mlp, "teacher": lambda: mlp(16), **change}
    for name in ("student", "teacher"):
        value = arguments[name]
        if callable(value) and not isinstance(value, keras.Model):
            arguments[name] = value()
    with pytest.raises(ValueError, match=message):
        tfnas.Distiller(**arguments)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: tfnas.FeatureHint(3, "a"), "student must be the name of a layer, got 3"),
        (lambda: tfnas.FeatureHint("a", "a", weight=0), r"weight must be a number in \(0, inf\)"),
        (lambda: tfnas.FeatureHint("a", "a", of=-1), "of must be the index of a teacher"),
        (lambda: tfnas.RelationalTransfer("a", "a", angles=-1), "angles must be a number in"),
        (
            lambda: tfnas.RelationalTransfer("a", "a", distances=0, angles=0),
            "distances or angles must be above 0",
        ),
    ],
)
def test_invalid_feature_losses_are_named(create, message):
    with pytest.raises(ValueError, match=message):
        create()


def test_mismatched_data_is_named(rows, images):
    x, y = rows
    model = mlp()
    with pytest.raises(ValueError, match="another model than the student"):
        tfnas.Distiller(model, model)
    distiller = tfnas.Distiller(mlp(16), mlp())
    with pytest.raises(ValueError, match="loss must be left out"):
        distiller.compile("adam", loss="mse")
    for labels, message in (
        (None, "y must be given where labels count"),
        ((y, y), "y must be one array of labels, got a tuple of two: .* teacher is left out"),
        ({"a": y}, "y must be one array of labels, got a dict"),
        (np.zeros((N, 4)), r"y must be class indices, .* \(24, 3\), got labels \(24, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss_of(distiller, x, labels)
    alone = tfnas.Distiller(None, mlp())
    with pytest.raises(ValueError, match=r"y must be \(labels, teacher's outputs\) where teacher"):
        loss_of(alone, x, y)
    with pytest.raises(
        ValueError, match=r"teacher must give outputs of .* \(24, 3\), got \(24, 2\)"
    ):
        loss_of(alone, x, (y, np.zeros((N, 2))))
    for student, teacher, rule in (
        ("maps", "pooled", "have the same rank"),
        ("middle", "wide", "differ only in their channels, or are 2-D feature maps"),
    ):
        with pytest.raises(ValueError, match=f"features must compare layers that {rule}"):
            tfnas.Distiller(
                *(sequences() if student == "middle" else (convnet(8), convnet())),
                features=[tfnas.FeatureHint(student, teacher)],
            )


def sequences():
    """A teacher and a student whose sequences differ in length."""
    for name, stride in (("wide", 1), ("middle", 2)):
        maps = layers.Conv1D(4, 3, strides=stride, name=name)
        yield keras.Sequential([keras.Input((9, 2)), maps, layers.Flatten(), layers.Dense(3)])


@pytest.mark.parametrize("metrics", slow_but([None, ["accuracy"]], ["accuracy"]))
def test_labels_may_be_left_out_with_metrics(rows, metrics):
    x, y = rows
    distiller = tfnas.Distiller(mlp(16), mlp(), student_loss_weight=0, student_gives="logits")
    distiller.compile("adam", metrics=metrics, jit_compile=False)
    alone = {"distillation_loss", "loss"}
    assert set(distiller.fit(x, epochs=2, verbose=0).history) == alone
    seen = distiller.fit(x, epochs=2, verbose=0, validation_data=(x, y)).history
    assert set(seen) == {*alone, "val_loss", *(["val_accuracy"] if metrics else [])}
    if metrics:
        right = np.asarray(distiller.student(x)).argmax(-1) == y.reshape(-1)
        assert seen["val_accuracy"][-1] == pytest.approx(right.mean())
        assert set(distiller.fit(x, epochs=1, verbose=0).history) == alone
        assert set(distiller.fit(x, y, epochs=1, verbose=0).history) == {*alone, "accuracy"}


@pytest.mark.parametrize("label", [-1, 3])
def test_invalid_class_indices(label, rows):
    x, y = rows
    wrong = np.asarray(y).copy()
    wrong[5] = label
    taught, alone = tfnas.Distiller(mlp(16), mlp()), tfnas.Distiller(None, mlp())
    teacher_logits = np.zeros((N, 3), np.float32)
    for distiller, arguments in (
        (taught, {"y": wrong}),
        (alone, {"y": (wrong, teacher_logits)}),
        (taught, {"y": y, "validation_data": (x, wrong)}),
    ):
        distiller.compile("adam")
        with pytest.raises(ValueError, match="y must hold class indices from 0 to 2 for a student"):
            distiller.fit(x, **arguments, verbose=0)


def test_messages_list_all_layers_or_state_that_they_do_not():
    long = [layers.Dense(2, name=f"d{n}") for n in range(30)]
    deep = keras.Sequential([keras.Input((8,)), *long, layers.Dense(3)])
    hint = [tfnas.FeatureHint("x", "middle")]
    with pytest.raises(ValueError, match="none of its layers: the last 24 of 31: d7, d8"):
        tfnas.Distiller(mlp(), deep, features=hint)
    with pytest.raises(ValueError, match="none of its layers: middle, dense"):
        tfnas.Distiller(mlp(), mlp(), features=hint)


def test_a_distiller_can_not_be_converted():
    with pytest.raises(ValueError, match=r"give its student, distiller\.student"):
        tfnas.to_tflite(tfnas.Distiller(mlp(16), mlp()))
