"""Fine-tuning of a model, with and without distillation."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.compression.fine_tune import TrainingError
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.data.augmentation import AugmentedImages, flip, shift
from tfnas.tasks import image_classes
from tfnas.tasks.image_classes import ImageClasses


def context(teacher, split, settings):
    return Context(teacher, ImageClasses(), split, settings)


@pytest.mark.slow
def test_the_model_given_can_be_the_teacher(tiny_model, digits):
    """With labels that say nothing, only the teacher can tell what an image shows."""
    silent = dataclasses.replace(digits, y_train=np.zeros_like(digits.y_train))
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Rescaling(1 / 16), layers.Flatten(), layers.Dense(10)]
    )
    settings = FineTuneSettings(
        epochs=8, batch_size=32, learning_rate=1e-2, distill=1.0, augment=("shift",)
    )
    context(tiny_model, silent, settings).fine_tune(student)
    classes, teacher_classes = (
        m.predict(digits.x_test, verbose=0).argmax(-1) for m in (student, tiny_model)
    )
    assert (classes == teacher_classes).mean() > 0.7


@pytest.mark.parametrize(
    "augment", [pytest.param((), marks=pytest.mark.slow), ("flip",)], ids=["plain", "flip"]
)
def test_teacher_logits_are_cached(tiny_model, digits, augment, monkeypatch):
    """Cached logits train as a teacher that runs in every step."""
    few = digits.limited(200)
    settings = FineTuneSettings(
        epochs=2, batch_size=50, learning_rate=1e-2, distill=1.0, augment=augment
    )
    weights = []
    for most in (image_classes.CACHED, 0):
        monkeypatch.setattr(image_classes, "CACHED", most)
        keras.utils.set_random_seed(0)
        student = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Rescaling(1 / 16), layers.Flatten(), layers.Dense(10)]
        )
        job = context(tiny_model, few, settings)
        logits = job.teacher_outputs()
        assert job.teacher_outputs() is logits  # once for all trainings of a job
        assert (logits is None) == (most == 0)
        assert logits is None or [len(each) for each in logits] == [200] * (1 + len(augment))
        keras.utils.set_random_seed(1)
        job.fine_tune(student)
        weights.append(student.get_weights())
    for kept, fresh in zip(*weights, strict=True):
        np.testing.assert_allclose(kept, fresh, atol=1e-4)


def test_models_that_lost_much_are_trained_by_muon(tiny_model, digits):
    """Its rate rises for 3% of the steps and falls to 0; else Adam's only falls."""
    rates = {}
    for rebuild in (False, True):
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)]
        )
        used = []
        watch = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs, used=used, model=model: used.append(model.optimizer)
        )
        settings = FineTuneSettings(epochs=10, batch_size=100, learning_rate=1e-3)
        few = dataclasses.replace(
            digits, x_train=digits.x_train[:1000], y_train=digits.y_train[:1000]
        )
        context(tiny_model, few, settings).fine_tune(model, [watch], muon=rebuild)
        assert isinstance(used[0], tfnas.Muon) == rebuild
        assert type(model.optimizer) is keras.optimizers.Adam  # Keras alone can load it
        rate = used[0]._learning_rate
        rates[rebuild] = [float(rate(step)) for step in (0, 1, 3, 50, 100)]
    assert rates[False] == sorted(rates[False], reverse=True)
    assert rates[False][0] == pytest.approx(1e-3)
    assert rates[True][:2] == pytest.approx([0, 0.5e-3])
    assert max(rates[True]) == rates[True][2] == pytest.approx(1.5e-3)
    assert rates[True][-1] == rates[False][-1] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distill": 1.5}, r"distill must be in \[0, 1\], got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": None}, "learning_rate must be a finite number above 0, got None"),
        (
            {"augment": ("turn",)},
            r"augment must hold some of flip, shift, each once, got \('turn',\)",
        ),
        ({"augment": ("flip", "flip")}, "augment must hold some of flip, shift, each once"),
        ({"augment": "flip"}, "augment must hold some of flip, shift, each once, got 'flip'"),
        ({"epochs": -1}, "epochs must be a whole number >= 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        FineTuneSettings(**{"epochs": 1, **change})


# --- changes of the images


@pytest.mark.parametrize("sides", [(1, 32), (32, 1), (1, 1), (2, 3)])
def test_small_images_are_moved_within_their_sides(sides):
    x = np.random.default_rng(0).random((4, *sides, 1), np.float32)
    moved = np.asarray(shift(x, seed=(0, 1)))
    assert moved.shape == x.shape
    assert np.isin(moved, x).all()


@pytest.mark.parametrize("pixels", [4, -1])
def test_shifts_as_large_as_the_image_are_refused(pixels):
    with pytest.raises(ValueError, match=f"pixels must be >= 0 and below .*, 4 x 8, got {pixels}$"):
        shift(np.zeros((2, 4, 8, 1), np.float32), pixels)


def test_images_are_mirrored_and_moved_each_by_itself():
    x = np.arange(6 * 32 * 32, dtype=np.float32).reshape(6, 32, 32, 1)
    keras.utils.set_random_seed(0)
    moved = np.asarray(shift(x))
    places = set()
    for new, old in zip(moved, x, strict=True):
        padded = np.pad(old, ((2, 2), (2, 2), (0, 0)), "reflect")
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(padded[i : i + 32, j : j + 32], new)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 1
    mirrored = np.asarray(flip(x))
    kinds = {np.array_equal(new, old[:, ::-1]) for new, old in zip(mirrored, x, strict=True)}
    assert kinds == {True, False}


def test_each_epoch_has_every_image_once_in_its_own_order():
    x = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((1, 8, 8, 1), np.float32)
    data = AugmentedImages(x, np.arange(10), ("flip", "shift"), 4, seed=0)
    orders = []
    for _ in range(2):
        batches = [data[i] for i in range(len(data))]
        assert [len(labels) for _, labels in batches] == [4, 4, 2]
        labels = np.concatenate([labels for _, labels in batches])
        images = np.concatenate([images for images, _ in batches])
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        orders.append(list(labels))
        data.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] != orders[1]


def test_mirrored_images_have_the_answers_to_these():
    x = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    answers = [x.reshape(10, -1).astype(np.float32), x[:, :, ::-1].reshape(10, -1) + np.float32(0)]
    data = AugmentedImages(x, np.arange(10), ("flip",), 4, 0, answers)
    mirrored = 0
    for images, (labels, logits) in data.dataset():
        np.testing.assert_array_equal(np.reshape(images, (len(images), -1)), logits)
        mirrored += (np.asarray(logits) == answers[1][labels]).all(axis=1).sum()
    assert 0 < mirrored < 10


def test_as_a_dataset_it_gives_the_same_batches():
    x = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    ours, theirs = (AugmentedImages(x, np.arange(10), ("flip",), 4, seed=0) for _ in range(2))
    dataset = theirs.dataset()
    assert len(dataset) == 3
    assert not dataset.options().autotune.enabled
    ours[0]  # both have yielded one batch before
    for _ in range(2):
        batches = [ours[i] for i in range(len(ours))]
        ours.on_epoch_end()
        for (images, labels), (own, own_labels) in zip(batches, dataset, strict=True):
            np.testing.assert_array_equal(images, own)
            np.testing.assert_array_equal(labels, own_labels)


def test_a_training_that_diverges_ends_at_that_epoch(digits, tmp_path):
    few = digits.limited(100)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    begun = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    settings = FineTuneSettings(epochs=9, batch_size=20, learning_rate=1e38)
    message = r"loss of '\w+' must stay finite, got (nan|inf) in epoch \d of 9: .* learning rate"
    with pytest.raises(TrainingError, match=message):
        context(model, few, settings).fine_tune(model, [count])
    assert len(begun) < 4
