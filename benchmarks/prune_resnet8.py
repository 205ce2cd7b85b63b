"""80% zeros in MLPerf Tiny's ResNet8 on CIFAR-10, in at most 10 epochs.

    python benchmarks/prune_resnet8.py [--seeds=3] [--epochs=10] [--sparsity=0.8]

Starts from the reference's trained weights, prunes every kernel while training goes on, and
takes the weights of the last epoch: the test images are looked at once, at the end. Prints
for each seed the accuracy of the float32 `.tflite` file on the 10,000 test images beside
the unpruned file's, paired.
"""

from __future__ import annotations

import sys
import time

import keras
import record
import resnet8
from absl import app, flags

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table

SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
EPOCHS = flags.DEFINE_integer("epochs", 10, "epochs of training")
SPARSITY = flags.DEFINE_float("sparsity", 0.8, "share of zeros over all kernels")
SCOPE = flags.DEFINE_string("scope", "global", "layer, global or erk")
RAMP = flags.DEFINE_float("ramp", 0.4, "share of the training after which the ratio is final")
RATE = flags.DEFINE_float("rate", 2e-3, "Adam's learning rate at the start of its decay")
ALPHA = flags.DEFINE_float("alpha", 0.5, "weight of the labels; the rest is the teacher's")
BATCH = 64
SHIFT = 2  # pixels


def main(argv: list[str]) -> None:
    teacher = resnet8.load_model()
    x, y, x_test, y_test = resnet8.load_images()
    steps = EPOCHS.value * (len(x) // BATCH)
    baseline = tfnas.to_tflite(teacher)
    before = correct(y_test, baseline.predict(x_test))
    rows = [
        [
            "unpruned",
            "",
            f"{before.mean():.4f}",
            "",
            f"{baseline.size:,}",
            f"{baseline.gzip_size:,}",
        ]
    ]
    for seed in range(SEEDS.value):
        keras.utils.set_random_seed(seed)
        student = resnet8.load_model()
        rate = keras.optimizers.schedules.CosineDecay(RATE.value, steps)
        loss = "categorical_crossentropy"
        student.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        schedule = tfnas.schedules.polynomial(
            SPARSITY.value, end=int(RAMP.value * steps), by="step", frequency=50
        )
        pruning = tfnas.PruningCallback(schedule, scope=SCOPE.value)
        begin = time.time()
        data = resnet8.batches(
            x, y, teacher, seed, batch=BATCH, shift=SHIFT, distill=1 - ALPHA.value
        )
        student.fit(data, epochs=EPOCHS.value, verbose=2, callbacks=[pruning])
        file = tfnas.to_tflite(student)
        after = correct(y_test, file.predict(x_test))
        rows.append(
            [
                f"seed {seed}, {time.time() - begin:.0f} s",
                f"{pruning.report.sparsity:.4f}",
                f"{after.mean():.4f}",
                record.points(after, before),
                f"{file.size:,}",
                f"{file.gzip_size:,}",
            ]
        )
        print(pruning.report)
    print("\n$ python", " ".join(sys.argv))
    headers = ["model", "sparsity", "accuracy", "points to unpruned [95%]", "bytes", "gzip"]
    print(table(headers, rows))
    record.write("prune_resnet8", record.table_rows(headers, rows), seed=0)


if __name__ == "__main__":
    app.run(main)
