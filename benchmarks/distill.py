"""A small network alone and with a teacher; the time of a step beside Keras' own distiller.

    python benchmarks/distill.py [--datasets=fashion_mnist,cifar10] [--seeds=3] [--epochs=8]
        [--teacher_epochs=8] [--examples=60000] [--rounds=30] [--steps=40]

A teacher is trained once a data set. A student of a twentieth of its size or less is trained, a
seed, on the same images in the same order: by the labels alone, with the teacher's outputs, and
with its activations too. Alpha and temperature were chosen on training images that nothing was
trained on. Two tables:

- accuracy of the float32 `.tflite` files on the test images; mean and standard deviation over
  seeds, and the paired difference to the student alone (all seeds' images together) with its
  95% interval over images, for these students and this teacher;
- the time of a training step with `tfnas.Distiller` as a ratio to that with
  `keras.distillation.Distiller` on the same pair of networks and the same two layers, from rounds
  that alternate, with the 95% interval of the median over rounds; by the clock, and in CPU time,
  which other programs on the machine disturb less. Ours learns a projection on top, without
  which two layers can only be compared where they have as many channels.
"""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

import keras
import numpy as np
import record
import tensorflow as tf
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.measure.latency import median_interval
from tfnas.table import table

CIFAR = "~/.cache/tfnas/cifar10.npz"
DATASETS = flags.DEFINE_list("datasets", ["fashion_mnist", "cifar10"], "data sets")
DATA = flags.DEFINE_string("cifar10", CIFAR, "CIFAR-10 as an .npz file, where there is one")
SEEDS = flags.DEFINE_integer("seeds", 3, "number of students of each kind; 0: time alone")
EPOCHS = flags.DEFINE_integer("epochs", 8, "epochs of a student")
TEACHER_EPOCHS = flags.DEFINE_integer("teacher_epochs", 8, "epochs of the teacher")
RATE = flags.DEFINE_float("rate", 3e-3, "Adam's rate at the start of its decay")
EXAMPLES = flags.DEFINE_integer("examples", 60000, "training images at most")
TESTS = flags.DEFINE_integer("tests", 10000, "test images at most")
ALPHA = flags.DEFINE_float("alpha", 0.5, "weight of the labels")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "temperature of the teacher's part")
HINT = flags.DEFINE_float("hint", 0.1, "weight of the last maps' squared difference")
ROUNDS = flags.DEFINE_integer("rounds", 30, "alternating rounds of the timing; 0: none")
STEPS = flags.DEFINE_integer("steps", 40, "training steps a round")
WAYS = ("alone", "teacher", "teacher, features")
BATCH, LAST = 128, "last_maps"


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    accuracies, times = [], []
    for name in DATASETS.value:
        data = load(name)
        teacher = trained_teacher(data)
        if ROUNDS.value:
            times += time_rows(name, teacher, data)
        if SEEDS.value:
            accuracies += accuracy_rows(name, teacher, data)
    print("\n$ python", " ".join(sys.argv))
    found = {}
    if times:
        headers = ["training step", "keras ms", "tfnas ms", "tfnas to keras [95%]"]
        headers += ["the same, CPU time", "rounds", "target"]
        print(table(headers, times), "\n")
        found["Time of a training step"] = record.table_rows(headers, times)
    if accuracies:
        headers = ["float32 file", "mean accuracy", "s.d.", "points to alone [95%]", "bytes"]
        print(table(headers, accuracies))
        found["Accuracy"] = record.table_rows(headers, accuracies)
    record.write("distill", found, seed=0)
    print(f"{time.monotonic() - began:.0f} s in all")


def load(name: str) -> tfnas.data.DataSplit:
    """The data set, limited to --examples; validation images are left alone."""
    path = pathlib.Path(DATA.value).expanduser()
    source = path if name == "cifar10" and path.exists() else name
    return tfnas.data.load(source, validation=0.02).limited(EXAMPLES.value)


def build(shape: tuple[int, ...], classes: int, stages: tuple[tuple[int, ...], ...]) -> Any:
    """Stages of convolution, BatchNormalization and ReLU, each but the first at half the size.

    Functional, since Keras' distiller runs a Sequential model's layers once more for features.
    """
    layers = keras.layers
    inputs = layers.Input(shape)
    x = layers.Rescaling(1 / 255)(inputs)
    for stage, widths in enumerate(stages):
        for index, filters in enumerate(widths):
            strides = 2 if stage and not index else 1
            x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            last = stage + 1 == len(stages) and index + 1 == len(widths)
            x = layers.ReLU(name=LAST if last else None)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


def build_student(data: tfnas.data.DataSplit) -> Any:
    return build(data.input_shape, data.num_classes, ((8,), (16,), (64,)))


def trained_teacher(data: tfnas.data.DataSplit) -> Any:
    keras.utils.set_random_seed(0)
    teacher = build(data.input_shape, data.num_classes, ((32, 32), (64, 64), (128, 64)))
    fit_alone(teacher, data, TEACHER_EPOCHS.value, 0)
    return teacher


def accuracy_rows(name: str, teacher: Any, data: tfnas.data.DataSplit) -> list[list[Any]]:
    """A row a way to train, and the teacher's."""
    right: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    sizes = {}
    # The images are the same in every epoch and for every student, so it runs once.
    teacher_logits = tfnas.teacher_outputs(teacher, data.x_train.astype(np.float32))
    for seed in range(SEEDS.value):
        for way in WAYS:
            keras.utils.set_random_seed(seed)
            student = build_student(data)
            train(way, student, teacher, teacher_logits, data, seed)
            found, sizes[way] = on_test_images(student, data)
            right[way].append(found)
            print(f"{name}, seed {seed}, {way}: {found.mean():.4f}")
    taught, size = on_test_images(teacher, data)
    rows: list[list[Any]] = [[f"{name} the teacher", f"{taught.mean():.4f}", "", "", f"{size:,}"]]
    for way in WAYS:
        means = [found.mean() for found in right[way]]
        spread = f"{np.std(means, ddof=1):.4f}" if len(means) > 1 else ""
        ours, alone = (np.concatenate(right[w]) for w in (way, WAYS[0]))
        points = "" if way == WAYS[0] else record.points(ours, alone)
        rows.append([f"{name} {way}", f"{np.mean(means):.4f}", spread, points, f"{sizes[way]:,}"])
    return rows


def on_test_images(model: Any, data: tfnas.data.DataSplit) -> tuple[np.ndarray, int]:
    """(whether each test image is right, bytes of the file)."""
    file = tfnas.to_tflite(model)
    x, y = data.x_test[: TESTS.value], data.y_test[: TESTS.value]
    return correct(y, file.predict(x.astype(np.float32))), file.size


def train(
    way: str,
    student: Any,
    teacher: Any,
    teacher_logits: np.ndarray,
    data: tfnas.data.DataSplit,
    seed: int,
) -> None:
    if way == "alone":
        fit_alone(student, data, EPOCHS.value, seed)
        return
    live = way.endswith("features")  # what is inside the teacher is not kept
    distiller = ours(student, teacher if live else None, HINT.value if live else 0.0)
    distiller.compile(optimizer(data, EPOCHS.value), jit_compile=False)
    shown = batches(data, seed, EPOCHS.value, None if live else teacher_logits)
    distiller.fit(shown, shuffle=False, verbose=0)


def fit_alone(model: Any, data: tfnas.data.DataSplit, epochs: int, seed: int) -> None:
    model.compile(optimizer(data, epochs), label_loss(), jit_compile=False)
    model.fit(batches(data, seed, epochs), shuffle=False, verbose=0)


def optimizer(data: tfnas.data.DataSplit, epochs: int) -> Any:
    steps = max(1, len(data.x_train) // BATCH * epochs)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE.value, steps))


def label_loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def ours(student: Any, teacher: Any, hint: float) -> Any:
    features = [tfnas.FeatureHint(LAST, LAST, hint)] if hint else []
    return tfnas.Distiller(teacher, student, ALPHA.value, TEMPERATURE.value, features=features)


def theirs(student: Any, teacher: Any, hint: float) -> Any:
    known = keras.distillation
    losses = [known.LogitsDistillation(TEMPERATURE.value)]
    if hint:
        losses.append(known.FeatureDistillation("mse", LAST, LAST))
    weights = [1.0, hint][: len(losses)]
    return known.Distiller(teacher, student, losses, weights, student_loss_weight=ALPHA.value)


def batches(
    data: tfnas.data.DataSplit, seed: int, epochs: int, teacher_logits: np.ndarray | None = None
) -> tf.data.Dataset:
    """All epochs' batches in an order that every way to train shares; the teacher's logits too."""
    rng = np.random.default_rng(seed)
    count = len(data.x_train) // BATCH * BATCH
    order = [rng.permutation(len(data.x_train))[:count] for _ in range(epochs)]
    x, y = tf.constant(data.x_train), tf.constant(data.y_train)
    kept = None if teacher_logits is None else tf.constant(teacher_logits)

    def take(rows: Any) -> tuple[Any, Any]:
        labels = tf.gather(y, rows)
        targets = labels if kept is None else (labels, tf.gather(kept, rows))
        return tf.cast(tf.gather(x, rows), tf.float32), targets

    rows = tf.data.Dataset.from_tensor_slices(np.concatenate(order)).batch(BATCH)
    return rows.map(take, 2).prefetch(4)


def time_rows(name: str, teacher: Any, data: tfnas.data.DataSplit) -> list[list[Any]]:
    """A row with the teacher's outputs alone, and one with activations too."""
    rows = []
    for kind, hint, target in (("outputs", 0.0, ""), ("outputs, features", 1.0, "<= 1.00x")):
        times = step_times(teacher, data, hint)
        ms = [f"{1000 * value:.1f}" for value in np.median(times[:, 0], 0)]
        ratios = [ratio(times[:, clock]) for clock in range(2)]
        rows.append([f"{name} {kind}", *ms, *ratios, len(times), target])
    return rows


def step_times(teacher: Any, data: tfnas.data.DataSplit, hint: float) -> np.ndarray:
    """Seconds of a step, (rounds, 2, 2): by the wall and of all cores; theirs and ours."""
    models = [make(build_student(data), teacher, hint) for make in (theirs, ours)]
    models[0].compile(keras.optimizers.Adam(1e-4), label_loss(), jit_compile=False)
    models[1].compile(keras.optimizers.Adam(1e-4), jit_compile=False)
    rows = batches(data, 0, 1).take(STEPS.value).cache()
    times, rng = np.empty((ROUNDS.value + 2, 2, 2)), np.random.default_rng(0)
    for spent in times:
        for i in rng.permutation(2):
            begin = np.array([time.perf_counter(), time.process_time()])
            models[i].fit(rows, epochs=1, shuffle=False, verbose=0)
            spent[:, i] = np.array([time.perf_counter(), time.process_time()]) - begin
    return times[2:] / min(STEPS.value, len(data.x_train) // BATCH)  # the first ones trace


def ratio(times: np.ndarray) -> str:
    """The second column to the first: the median of the rounds', and its interval."""
    ratios = times[:, 1] / times[:, 0]
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.3f}x [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    app.run(main)
