"""Cached teacher logits: used again only where they are still valid."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.distillation import cached_teacher


def model(units, activation=None):
    hidden = layers.Dense(units, "relu")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(3, activation)])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 8)).astype("float32"), rng.integers(0, 3, 300)


@pytest.fixture
def runs(monkeypatch):
    """Numbers of examples that the teacher was run on."""
    seen, original = [], cached_teacher._teacher_outputs

    def counting(teachers, inputs, kinds):
        seen.append(len(inputs))
        return original(teachers, inputs, kinds)

    monkeypatch.setattr(cached_teacher, "_teacher_outputs", counting)
    return seen


def test_cached_logits_give_the_same_loss_as_the_teacher(rows):
    x, y = rows
    student = model(4)
    teachers = [model(16, "softmax"), model(8)]
    teacher_logits = tfnas.teacher_outputs(teachers, x, weights=[1, 3])
    assert (teacher_logits.shape, teacher_logits.dtype) == ((300, 3), np.float32)
    live = tfnas.Distiller(teachers, student, teacher_weights=[1, 3])
    kept = tfnas.Distiller(None, student)
    expected = live.compute_loss(x, y, live(x))
    np.testing.assert_allclose(
        kept.compute_loss(x, (y, teacher_logits), kept(x)), expected, rtol=1e-5
    )
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(teacher_logits))
    stated = tfnas.Distiller(None, student, teacher_gives="probabilities")
    found = stated.compute_loss(x, [y, probabilities], stated(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_fit_with_cached_logits(rows):
    x, y = rows
    teacher_logits = tfnas.teacher_outputs(model(16), x)
    distiller = tfnas.Distiller(None, model(4))
    distiller.compile("adam", metrics=["accuracy"], jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((x, (y, teacher_logits))).batch(100)
    history = distiller.fit(data, validation_data=(x, y), shuffle=False, verbose=0).history
    parts = ["accuracy", "distillation_loss", "loss", "student_loss"]
    assert list(history) == [*parts, "val_accuracy", "val_loss"]
    weighted = distiller.fit(x, (y, teacher_logits), sample_weight=np.zeros(300), verbose=0)
    assert weighted.history["loss"] == [0.0]
    assert distiller.evaluate(x, (y, teacher_logits), verbose=0) == distiller.evaluate(
        x, y, verbose=0
    )


def test_class_weight_with_cached_logits(rows):
    x, y = rows
    teacher_logits = tfnas.teacher_outputs(model(16), x)
    distiller = tfnas.Distiller(None, model(4))
    distiller.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    options, weights = {"batch_size": 300, "verbose": 0}, {0: 0.0, 1: 3.0}
    by_example = np.array([0.0, 3.0, 1.0])[y]
    expected = distiller.fit(x, (y, teacher_logits), sample_weight=by_example, **options).history[
        "loss"
    ]
    for labels in (y, np.eye(3)[y]):
        found = distiller.fit(x, (labels, teacher_logits), class_weight=weights, **options).history[
            "loss"
        ]
        assert found == pytest.approx(expected, rel=1e-5)
    data = tf.data.Dataset.from_tensor_slices((x, (y, teacher_logits))).batch(100)
    with pytest.raises(ValueError, match="class_weight must come with arrays of"):
        distiller.fit(data, class_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="class_weight must come without sample_weight"):
        distiller.fit(
            x, (y, teacher_logits), class_weight=weights, sample_weight=by_example, **options
        )


def test_changes_beyond_the_first_examples_are_noticed(runs, tmp_path):
    x = np.abs(np.random.default_rng(0).normal(size=(300, 8))).astype("float32")
    x[100:] *= -1
    teacher, file = model(16), tmp_path / "logits.npz"
    before = tfnas.teacher_outputs(teacher, x, file)
    after = tfnas.teacher_outputs(teacher, x, file, preprocess=keras.ops.relu)
    np.testing.assert_array_equal(before[:100], after[:100])
    assert np.abs(before[100:] - after[100:]).max() > 0.01
    scaled = tfnas.teacher_outputs(teacher, x, file, preprocess=lambda x: 1.005 * x)
    assert np.abs(scaled - before).max() > 0


def test_outputs_are_computed_once(rows, runs, tmp_path):
    x, _ = rows
    teacher, file = model(16), tmp_path / "folder" / "logits.npz"
    first = tfnas.teacher_outputs(teacher, x, file)
    assert runs == [256, 44]
    again = tfnas.teacher_outputs(teacher, x, file)
    assert runs == [256, 44, 54, 10]  # a sample of all, to check that the cache is still valid
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, teacher.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("change", ["weights", "data", "preprocess", "activation", "average"])
def test_an_outdated_cache_is_computed_again(rows, runs, tmp_path, change):
    x, _ = rows
    teacher, other = model(16), model(16)
    file = tmp_path / "logits.npz"
    before = {"teacher": [teacher, other], "preprocess": lambda x: 2 * x, "outputs": "logits"}
    tfnas.teacher_outputs(x=x, file=file, **before)
    now = {"x": x, **before}
    if change == "weights":
        kernel = other.layers[0].kernel
        kernel.assign(kernel + 1e-6)
    elif change == "data":
        now["x"] = np.concatenate([x[:-1], x[-1:] + 1])
    elif change == "preprocess":
        now["preprocess"] = lambda x: 3 * x
    elif change == "activation":
        teacher.layers[0].activation = keras.activations.sigmoid
    else:
        now["weights"] = [1, 2]
    del runs[:]
    found = tfnas.teacher_outputs(file=file, **now)
    assert runs[-2:] == [256, 44]
    np.testing.assert_array_equal(found, tfnas.teacher_outputs(**now))
    del runs[:]
    tfnas.teacher_outputs(file=file, **now)
    assert runs == [54, 10]


def test_batched_datasets(rows, runs, tmp_path):
    x, y = rows
    teacher, file = model(16), tmp_path / "logits.npz"
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(128)
    found = [tfnas.teacher_outputs(teacher, data, file) for _ in range(2)]
    assert runs == [128, 128, 44, 27, 27, 10]
    np.testing.assert_array_equal(*found)
    with pytest.raises(ValueError, match="x must end"):
        tfnas.teacher_outputs(teacher, data.repeat())


def test_other_files_are_not_overwritten(rows, tmp_path):
    x, _ = rows
    for name, content in (("a.npz", b"PK not a zip"), ("b.npz", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="file must not exist yet, or hold a teacher's outputs"
        ):
            tfnas.teacher_outputs(model(4), x, path)
        assert path.read_bytes() == content
    np.savez(tmp_path / "mine.npz", x=x)
    np.savez(tmp_path / "objects.npz", outputs=np.array([{}]), fingerprint="")
    for name in ("mine.npz", "objects.npz"):
        with pytest.raises(ValueError, match="file must not exist yet"):
            tfnas.teacher_outputs(model(4), x, tmp_path / name)
    with pytest.raises(
        ValueError, match=r"file must be a path that ends in \.npz, got 'logits.npy'"
    ):
        tfnas.teacher_outputs(model(4), x, "logits.npy")
    with pytest.raises(ValueError, match="teacher must be a built Keras 3 model"):
        tfnas.teacher_outputs(None, x)
    with pytest.raises(ValueError, match="x must hold at least one example"):
        tfnas.teacher_outputs(model(4), x[:0])


def test_an_interrupted_write_leaves_the_old_file(rows, tmp_path, monkeypatch):
    x, _ = rows
    file = tmp_path / "logits.npz"
    kept = tfnas.teacher_outputs(model(4), x, file)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            tfnas.teacher_outputs(model(8), x, file)
    with np.load(file) as found:
        np.testing.assert_array_equal(found["outputs"], kept)
    assert [path.name for path in tmp_path.iterdir()] == ["logits.npz"]
