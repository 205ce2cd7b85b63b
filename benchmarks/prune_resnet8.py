"""80% zeros in MLPerf Tiny's ResNet8 on CIFAR-10, in at most 10 epochs.

    python benchmarks/prune_resnet8.py [--seeds=3] [--epochs=10] [--sparsity=0.8]

Starts from the reference's trained weights, prunes every kernel while training goes on, and
takes the weights of the last epoch: the test images are looked at once, at the end. Prints
for each seed the accuracy of the float32 `.tflite` file on the 10,000 test images beside
the unpruned file's, paired.
"""

from __future__ import annotations

import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tfnas
from tfnas.bench.evaluate import correct, paired_difference
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = flags.DEFINE_string(
    "model", str(ROOT.parent / "shared/data/mlperf_tiny/pretrainedResnet.h5"), "the trained model"
)
DATA = flags.DEFINE_string("data", "~/.cache/tfnas/cifar10.npz", "CIFAR-10 as an .npz file")
SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
EPOCHS = flags.DEFINE_integer("epochs", 10, "epochs of training")
SPARSITY = flags.DEFINE_float("sparsity", 0.8, "share of zeros over all kernels")
SCOPE = flags.DEFINE_string("scope", "global", "layer, global or erk")
RAMP = flags.DEFINE_float("ramp", 0.4, "share of the training after which the ratio is final")
RATE = flags.DEFINE_float("rate", 2e-3, "Adam's learning rate at the start of its decay")
ALPHA = flags.DEFINE_float("alpha", 0.5, "weight of the labels; the rest is the teacher's")
BATCH = 64
SHIFT = 2  # pixels


class Taught(keras.losses.Loss):
    """Cross-entropy with the labels and with the unpruned model's probabilities."""

    def call(self, y_true, y_pred):
        labels, teacher = y_true[:, :10], y_true[:, 10:]
        soft = ALPHA.value * labels + (1 - ALPHA.value) * teacher
        return keras.losses.categorical_crossentropy(soft, y_pred)


def batches(x: np.ndarray, y: np.ndarray, teacher, seed: int) -> tf.data.Dataset:
    """Flipped and shifted images with labels and what the unpruned model says to them."""

    def augment(images, labels):
        sides = [[0, 0], [SHIFT, SHIFT], [SHIFT, SHIFT], [0, 0]]
        images = tf.pad(tf.cast(images, tf.float32), sides, "REFLECT")
        images = tf.image.random_crop(images, [tf.shape(images)[0], 32, 32, 3])
        images = tf.image.random_flip_left_right(images)
        given = tf.one_hot(labels, 10)
        return images, tf.concat([given, teacher(images, training=False)], 1)

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return data.batch(BATCH, drop_remainder=True).map(augment, 2).prefetch(2)


def main(argv: list[str]) -> None:
    teacher = keras.saving.load_model(MODEL.value, compile=False)
    teacher.trainable = False
    with np.load(pathlib.Path(DATA.value).expanduser()) as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    y_test = y_test.reshape(-1)
    steps = EPOCHS.value * (len(x) // BATCH)
    whole = tfnas.to_tflite(teacher)
    was = correct(y_test, whole.predict(x_test.astype(np.float32)))
    rows = [["unpruned", "", f"{was.mean():.4f}", "", f"{whole.size:,}", f"{whole.gzip_size:,}"]]
    for seed in range(SEEDS.value):
        keras.utils.set_random_seed(seed)
        student = keras.saving.load_model(MODEL.value, compile=False)
        rate = keras.optimizers.schedules.CosineDecay(RATE.value, steps)
        student.compile(keras.optimizers.Adam(rate), Taught(), jit_compile=False)
        schedule = tfnas.schedules.polynomial(
            SPARSITY.value, end=int(RAMP.value * steps), by="step", frequency=50
        )
        pruning = tfnas.PruningCallback(schedule, scope=SCOPE.value)
        begin = time.time()
        student.fit(
            batches(x, y, teacher, seed), epochs=EPOCHS.value, verbose=2, callbacks=[pruning]
        )
        file = tfnas.to_tflite(student)
        now = correct(y_test, file.predict(x_test.astype(np.float32)))
        value, low, high = paired_difference(now, was)
        rows.append(
            [
                f"seed {seed}, {time.time() - begin:.0f} s",
                f"{pruning.report.sparsity:.4f}",
                f"{now.mean():.4f}",
                f"{100 * value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
                f"{file.size:,}",
                f"{file.gzip_size:,}",
            ]
        )
        print(pruning.report)
    print("\n$ python", " ".join(sys.argv))
    headers = ["model", "sparsity", "accuracy", "points to unpruned [95%]", "bytes", "gzip"]
    print(table(headers, rows))


if __name__ == "__main__":
    app.run(main)
