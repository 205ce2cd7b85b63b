"""Losses by output, against NumPy: kinds, several outputs, weights, masks, caches."""

import pathlib
import re

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.distillation.output_losses import OutputLoss, Settings, as_loss, batch_loss

N = 12
NUMBERS = arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32))
few = settings(max_examples=15, deadline=None)


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(float)


# References: the loss of each example or position, from float64 outputs.


def softmax_losses(labels, student, teacher, temperature):
    log_s = scipy.special.log_softmax(student, -1)
    ce = -np.take_along_axis(log_s, labels[..., None], -1)[..., 0]
    p = scipy.special.softmax(teacher / temperature, -1)
    log_q = scipy.special.log_softmax(student / temperature, -1)
    return ce, temperature**2 * (p * (np.log(p) - log_q)).sum(-1)


def sigmoid_losses(labels, student, teacher, temperature):
    p = scipy.special.expit(student)
    ce = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(-1)
    p, q = (scipy.special.expit(z / temperature) for z in (teacher, student))
    kl = scipy.special.rel_entr(p, q) + scipy.special.rel_entr(1 - p, 1 - q)
    return ce, temperature**2 * kl.mean(-1)


def squared_losses(labels, student, teacher, temperature):
    return ((student - labels) ** 2).mean(-1), ((student - teacher) ** 2).mean(-1)


def huber_losses(labels, student, teacher, temperature):
    def huber(e):
        return np.where(abs(e) < 0.5, 0.5 * e * e, 0.5 * abs(e) - 0.125).mean(-1)

    return huber(student - labels), huber(student - teacher)


METRICS = {"kind": ["accuracy"], "depth": ["mae"]}
HUBER = keras.losses.Huber(delta=0.5)
KINDS = {
    # kind: activation, arguments of the distiller, reference
    "softmax": ("softmax", {}, softmax_losses),
    "logits": (None, {"outputs": "logits"}, softmax_losses),
    "sigmoid": ("sigmoid", {}, sigmoid_losses),
    "sigmoid_logits": (None, {"outputs": "sigmoid_logits"}, sigmoid_losses),
    "regression": (None, {"outputs": "regression"}, squared_losses),
    "huber": (None, {"outputs": HUBER}, huber_losses),
    "the student's huber": (None, {"student_loss": HUBER}, huber_losses),
}


def model(shape, activation, units, classes=3, mask=False):
    parts = [layers.Masking(0.0)] if mask else []
    parts += [layers.Dense(units, "relu"), layers.Dense(classes, activation)]
    return keras.Sequential([keras.Input(shape), *parts])


def linear_outputs(network, x):
    """Outputs before the last activation."""
    last = network.layers[-1]
    activation, last.activation = last.activation, keras.activations.linear
    try:
        return numpy(network(x))
    finally:
        last.activation = activation


def targets_of(kind, shape, rng):
    if "softmax" in kind or kind == "logits":
        return rng.integers(0, 3, shape)
    if "sigmoid" in kind:
        return rng.integers(0, 2, (*shape, 3)).astype("float32")
    return rng.normal(size=(*shape, 3)).astype("float32")


@pytest.mark.parametrize("shape", [(), (5,), (4, 6)], ids=["rows", "sequences", "segmentation"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_its_formula(kind, shape):
    activation, arguments, reference = KINDS[kind]
    rng = np.random.default_rng(0)
    student, teacher = model((*shape, 2), activation, 4), model((*shape, 2), activation, 16)
    x = rng.normal(size=(N, *shape, 2)).astype("float32")
    y = targets_of(kind, (N, *shape), rng)
    distiller = tfnas.Distiller(teacher, student, 0.3, 2.0, **arguments)
    parts = reference(y, linear_outputs(student, x), linear_outputs(teacher, x), 2.0)
    by_example = 0.3 * parts[0] + 0.7 * parts[1]
    found = distiller.compute_loss(x, y, distiller(x))
    assert float(found) == pytest.approx(by_example.mean(), rel=2e-4)
    assert float(distiller.compute_loss(x, y, training=False)) == pytest.approx(
        parts[0].mean(), rel=2e-4
    )
    weights = rng.uniform(0, 2, (N, *shape)).astype("float32")
    found = distiller.compute_loss(x, y, distiller(x), weights)
    assert float(found) == pytest.approx((by_example * weights).mean(), rel=2e-4)
    if shape:
        weights = rng.uniform(0, 2, N).astype("float32")
        expected = (by_example * weights.reshape(N, *(1 for _ in shape))).mean()
        found = distiller.compute_loss(x, y, distiller(x), weights)
        assert float(found) == pytest.approx(expected, rel=2e-4)
    kept = tfnas.Distiller(None, student, 0.3, 2.0, **arguments)
    options = {"outputs": arguments["outputs"]} if "outputs" in arguments else {}
    cached = tfnas.teacher_outputs(teacher, x, **options)
    assert float(kept.compute_loss(x, (y, cached))) == pytest.approx(by_example.mean(), rel=2e-4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid_logits", "regression", "huber"])
def test_masked_steps_do_not_count(kind):
    activation, arguments, reference = KINDS[kind]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5, 2)).astype("float32")
    x[:, 3:] = 0
    x[0, 1:] = 0
    counts = (x != 0).any(-1)
    y = targets_of(kind, (N, 5), rng)
    student = model((5, 2), activation, 4, mask=True)
    teacher = model((5, 2), activation, 16, mask=True)
    distiller = tfnas.Distiller(teacher, student, 0.3, 2.0, **arguments)
    parts = reference(y, linear_outputs(student, x), linear_outputs(teacher, x), 2.0)
    expected = (0.3 * parts[0] + 0.7 * parts[1])[counts].mean()
    assert float(distiller.compute_loss(x, y, distiller(x))) == pytest.approx(expected, rel=2e-4)


@few
@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from([0.0, 0.3, 1.0]))
def test_a_regression_is_the_weighted_sum_of_two_errors(labels, student, teacher, share):
    mae = as_loss("mae", "student_loss")
    output = OutputLoss("a", "regression", mae, as_loss("mse", "outputs"))
    tensor = keras.ops.convert_to_tensor(student)
    found = batch_loss(output, labels, (tensor, None), teacher, Settings(share, 4.0, False))
    s, t, y = (array.astype(float) for array in (student, teacher, labels))
    errors = {"student": abs(s - y).mean(), "distillation": ((s - t) ** 2).mean()}
    expected = share * errors["student"] + (1 - share) * errors["distillation"]
    np.testing.assert_allclose(float(found.total), expected, rtol=1e-4, atol=1e-5)
    for name, needed in (("student", share > 0), ("distillation", share < 1)):
        value = getattr(found, name)
        assert (value is not None) == needed
        if needed:
            np.testing.assert_allclose(float(value), errors[name], rtol=1e-4, atol=1e-5)


def test_the_students_own_loss_is_used():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 2)).astype("float32"), rng.integers(0, 3, N)
    student, teacher = model((2,), "softmax", 4), model((2,), "softmax", 16)
    one_hot = np.eye(3, dtype="float32")[y]
    focal = keras.losses.CategoricalFocalCrossentropy()
    expected = float(focal(one_hot, student(x)))
    given_loss = tfnas.Distiller(teacher, student, student_loss=focal)
    assert float(given_loss.compute_loss(x, one_hot, training=False)) == pytest.approx(expected)
    student.compile("adam", focal)
    compiled = tfnas.Distiller(teacher, student)
    assert float(compiled.compute_loss(x, one_hot, training=False)) == pytest.approx(expected)
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    student.compile("adam", smooth)
    found = tfnas.Distiller(teacher, student).compute_loss(x, one_hot, training=False)
    assert float(found) == pytest.approx(float(smooth(one_hot, student(x))), rel=1e-5)
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=1)
    found = tfnas.Distiller(teacher, student, student_loss=ignoring)
    expected = float(ignoring(y, student(x)))
    assert float(found.compute_loss(x, y, training=False)) == pytest.approx(expected, rel=1e-5)

    def distance(t, s):
        return keras.ops.sum(keras.ops.abs(t - s), axis=-1)

    own = tfnas.Distiller(teacher, student, 0.0, outputs=distance)
    expected = np.abs(numpy(teacher(x)) - numpy(student(x))).sum(-1).mean()
    assert float(own.compute_loss(x)) == pytest.approx(expected, rel=1e-5)


def two_outputs(units, container, seed=0):
    """A classifier of 3 classes and a regression of 2 numbers, of two named inputs."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
    hidden = layers.Dense(units, "relu")(layers.Concatenate()(list(inputs.values())))
    outputs = {
        "kind": layers.Dense(3, "softmax", name="kind")(hidden),
        "depth": layers.Dense(2, name="depth")(hidden),
    }
    return keras.Model(inputs, outputs if container is dict else container(outputs.values()))


@pytest.fixture
def scenes():
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(N, 4)).astype("float32") for name in ("left", "right")}
    y = {"kind": rng.integers(0, 3, N), "depth": rng.normal(size=(N, 2)).astype("float32")}
    return x, y


def in_container(named, container):
    return named if container is dict else container(named[name] for name in ("kind", "depth"))


def references(student, teacher, x, y):
    """Losses by output and part, each (examples,)."""
    found = {}
    for name in ("kind", "depth"):
        ends = [keras.Model(m.inputs, m.get_layer(name).output) for m in (student, teacher)]
        s, t = (numpy(end([x["left"], x["right"]])) for end in ends)
        if name == "kind":
            s, t = np.log(s), np.log(t)
        reference = softmax_losses if name == "kind" else squared_losses
        found[name] = reference(y[name], s, t, 2.0)
    return found


@pytest.mark.parametrize(
    ("container", "run_eagerly"),
    slow_but([(dict, False), (list, False), (tuple, True)], (dict, False), (tuple, True)),
)
def test_several_outputs(scenes, container, run_eagerly):
    x, y = scenes
    student, teacher = two_outputs(4, container), two_outputs(16, container, 1)
    distiller = tfnas.Distiller(
        teacher, student, 0.3, 2.0, outputs={"depth": "regression"}, name="distiller"
    )
    assert sorted(distiller.output_names) == ["depth", "kind"]
    weights = {"kind": 1.0, "depth": 0.5}
    distiller.compile(
        keras.optimizers.SGD(0.0),
        loss_weights=weights,
        metrics=METRICS,
        jit_compile=False,
        run_eagerly=run_eagerly,
    )
    labels = in_container(y, container)
    history = distiller.fit(x, labels, batch_size=5, verbose=0, validation_data=(x, labels)).history
    expected = references(student, teacher, x, y)
    for name, parts in expected.items():
        for part, values in zip(("student", "distillation"), parts, strict=True):
            assert history[f"{name}_{part}_loss"] == pytest.approx([values.mean()], rel=1e-4)
    both = [expected["kind"][part] + 0.5 * expected["depth"][part] for part in (0, 1)]
    assert history["student_loss"] == pytest.approx([both[0].mean()], rel=1e-4)
    assert history["distillation_loss"] == pytest.approx([both[1].mean()], rel=1e-4)
    assert history["loss"] == pytest.approx([(0.3 * both[0] + 0.7 * both[1]).mean()], rel=1e-4)
    assert history["val_loss"] == pytest.approx(history["student_loss"], rel=1e-4)
    assert history["val_kind_student_loss"] == pytest.approx(history["kind_student_loss"])
    assert not {"val_student_loss", "val_kind_distillation_loss"} & set(history)
    depth = numpy(keras.tree.flatten(student(x))[0 if container is dict else 1])
    mae = np.abs(depth - y["depth"]).mean()
    assert history["depth_mae"] == pytest.approx([mae], rel=1e-4)
    assert {"kind_accuracy", "val_depth_mae"} <= set(history)
    # Weights by output, and one for all.
    by_output = {"kind": np.arange(N) / 5, "depth": np.arange(N)[::-1] / 7}
    total = sum(
        weights[name] * ((0.3 * parts[0] + 0.7 * parts[1]) * by_output[name]).mean()
        for name, parts in expected.items()
    )
    options = {"verbose": 0, "batch_size": N}
    weighted = in_container(by_output, container)
    found = distiller.fit(x, labels, sample_weight=weighted, **options).history
    assert found["loss"] == pytest.approx([total], rel=1e-4)
    shared = by_output["kind"]
    total = ((0.3 * both[0] + 0.7 * both[1]) * shared).mean()
    found = distiller.fit(x, labels, sample_weight=shared, **options).history
    assert found["loss"] == pytest.approx([total], rel=1e-4)


@pytest.mark.parametrize(
    ("container", "run_eagerly"), slow_but([(dict, False), (list, True)], (list, True))
)
def test_several_cached_outputs(scenes, container, run_eagerly, tmp_path):
    x, y = scenes
    student, teacher = two_outputs(4, container), two_outputs(16, container, 1)
    kinds = {"depth": "regression"}
    file = tmp_path / "outputs.npz"
    cached = tfnas.teacher_outputs(teacher, x, file, outputs=kinds)
    again = tfnas.teacher_outputs(teacher, x, file, outputs=kinds)
    assert type(cached) is container
    for one, other in zip(keras.tree.flatten(cached), keras.tree.flatten(again), strict=True):
        np.testing.assert_array_equal(one, other)
    live = tfnas.Distiller(teacher, student, 0.3, 2.0, outputs=kinds)
    kept = tfnas.Distiller(None, student, 0.3, 2.0, outputs=kinds)
    labels = in_container(y, container)
    expected = float(live.compute_loss(x, labels))
    assert float(kept.compute_loss(x, (labels, cached))) == pytest.approx(expected, rel=1e-5)
    # Labels alone, of which there are two as well.
    assert float(kept.compute_loss(x, labels, training=False)) == pytest.approx(
        float(live.compute_loss(x, labels, training=False)), rel=1e-5
    )
    for distiller in (live, kept):
        distiller.compile(
            keras.optimizers.SGD(0.0), metrics=METRICS, jit_compile=False, run_eagerly=run_eagerly
        )
    weights = in_container({"kind": np.arange(N) / 5, "depth": np.arange(N) / 7}, container)
    options = {"verbose": 0, "batch_size": N, "validation_data": (x, labels)}
    found = [
        distiller.fit(x, targets, sample_weight=w, **options).history
        for w in (None, np.arange(N) / 5, weights)
        for distiller, targets in ((live, labels), (kept, (labels, cached)))
    ]
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == pytest.approx(other[name], rel=1e-4), name
    pairs = tf.data.Dataset.from_tensor_slices((x, as_tuples((labels, cached)), np.arange(N) / 5))
    options = {"verbose": 0, "validation_data": (x, labels), "shuffle": False}
    from_data = kept.fit(pairs.batch(N), **options).history
    for name, value in from_data.items():
        assert value == pytest.approx(found[3][name], rel=1e-4), name


def as_tuples(nested):
    """Data sets stack lists."""
    return keras.tree.lists_to_tuples(nested) if not isinstance(nested, dict) else nested


def test_a_distiller_of_several_outputs_is_saved(scenes, tmp_path):
    x, y = scenes
    student, teacher = two_outputs(4, dict), two_outputs(16, dict, 1)
    losses = {"kind": "sparse_categorical_crossentropy", "depth": keras.losses.Huber(delta=0.1)}
    student.compile("adam", losses, loss_weights={"kind": 1.0, "depth": 3.0})
    distiller = tfnas.Distiller(teacher, student)
    expected = float(distiller.compute_loss(x, y))
    distiller.compile(keras.optimizers.SGD(0.0), metrics={"kind": ["accuracy"]}, run_eagerly=True)
    distiller.fit(x, y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert float(loaded.compute_loss(x, y)) == pytest.approx(expected, rel=1e-5)


def test_teachers_are_matched_by_name_or_position(scenes):
    x, y = scenes
    student, teacher = two_outputs(4, dict), two_outputs(16, list, 1)
    named = two_outputs(16, dict, 1)
    options = {"outputs": {"depth": "regression"}}
    found = [tfnas.Distiller(t, student, **options).compute_loss(x, y) for t in (teacher, named)]
    np.testing.assert_allclose(*found, rtol=1e-6)
    two = tfnas.Distiller([teacher, named], student, **options)
    np.testing.assert_allclose(two.compute_loss(x, y), found[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"y must hold one entry for each output .* got a dict"):
        two.compute_loss(x, {"kind": y["kind"]})
    with pytest.raises(ValueError, match=r"got a dict of 1: kind: nothing for 'depth'. Of some"):
        two.fit(x, {"kind": y["kind"]})
    with pytest.raises(ValueError, match=r"'more' is no output"):
        two.fit(x, {**y, "more": y["kind"]})
    with pytest.raises(ValueError, match=r"loss_weights must name outputs .* got 'dept'"):
        two.compile("adam", loss_weights={"dept": 1.0})
    with pytest.raises(ValueError, match="loss_weights must be a number"):
        two.compile("adam", loss_weights={"depth": -1.0})
    with pytest.raises(ValueError, match="multi_label must be left out where the student has sev"):
        tfnas.Distiller(teacher, student, multi_label=True)
    two.compile("adam")
    with pytest.raises(ValueError, match="class_weight must be left out where the student has sev"):
        two.fit(x, y, class_weight={0: 2.0})


@pytest.mark.parametrize("cached", [False, True])
def test_class_weight_of_a_segmentation(cached):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 4, 6, 2)).astype("float32"), rng.integers(0, 3, (N, 4, 6))
    student, teacher = model((4, 6, 2), "softmax", 4), model((4, 6, 2), None, 16)
    distiller = tfnas.Distiller(None if cached else teacher, student, 0.3, 2.0)
    distiller.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    parts = softmax_losses(y, np.log(numpy(student(x))), numpy(teacher(x)), 2.0)
    weights = np.array([0.5, 1.0, 3.0])[y]
    targets = (y, tfnas.teacher_outputs(teacher, x)) if cached else y
    options = {"class_weight": {0: 0.5, 2: 3.0}, "batch_size": N, "verbose": 0}
    found = distiller.fit(x, targets, **options).history["loss"]
    assert found == pytest.approx([((0.3 * parts[0] + 0.7 * parts[1]) * weights).mean()], rel=1e-4)
    data = tf.data.Dataset.from_tensor_slices((x, targets)).batch(N)
    with pytest.raises(ValueError, match="class_weight must come with arrays of labels"):
        distiller.fit(data, class_weight={0: 2.0})


def test_class_weight_needs_one_true_class():
    x = np.zeros((N, 2), "float32")
    for arguments in ({"outputs": "regression"}, {"multi_label": True}):
        distiller = tfnas.Distiller(model((2,), None, 4), model((2,), None, 4), **arguments)
        distiller.compile("adam")
        with pytest.raises(ValueError, match="class_weight must be left out unless one of several"):
            distiller.fit(x, np.zeros((N, 3)), class_weight={0: 2.0})


def test_parts_of_the_loss_add_up():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 2)).astype("float32"), rng.integers(0, 3, N)

    def network(units):
        middle = layers.Dense(units, "relu", name="middle")
        return keras.Sequential([keras.Input((2,)), middle, layers.Dense(3, "softmax")])

    hint = tfnas.FeatureHint("middle", "middle", 0.1)
    distiller = tfnas.Distiller(network(16), network(4), 0.3, 2.0, features=[hint])
    distiller.compile("adam", jit_compile=False)
    for options in ({}, {"batch_size": 5}):
        history = distiller.fit(x, y, epochs=2, verbose=0, **options).history
        parts = [np.array(history[f"{n}_loss"]) for n in ("student", "distillation", "feature")]
        expected = 0.3 * parts[0] + 0.7 * parts[1] + parts[2]
        np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    by_batch = distiller.train_on_batch(x, y, return_dict=True)
    assert {"loss", "student_loss", "distillation_loss", "feature_loss"} == set(by_batch)


def test_the_code_of_the_page_runs(capsys):
    page = pathlib.Path(__file__).parents[2] / "docs" / "distillation.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    exec(compile(code, str(page), "exec"), {})
    printed = capsys.readouterr().out
    for name in ("student_loss", "distillation_loss", "kind_student_loss", "depth_student_loss"):
        assert f"'{name}'" in printed
