"""Pruned, clustered, quantized, and all of them together: MLPerf Tiny's ResNet8 on CIFAR-10.

    python benchmarks/collaborative.py [--epochs=6] [--sparsity=0.77] [--clusters=16]

Each step starts from what the one before it left and keeps what that achieved: zeros stay
zeros, equal weights stay equal. Training as in `prune_channels_resnet8.py`: flipped and shifted
images with their labels (--alpha below 1: and the original's outputs for them).

Prints for each combination: accuracy of the file on the 10,000 test images with the paired
difference to the float32 original, zeros and distinct values counted in the file, bytes, gzipped
bytes, how many times smaller the gzipped file is than the float32 original's, and how much
faster it is, interleaved. Target: pruned + clustered + int8 at least 10x smaller, within 1 point.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import keras
import numpy as np
import record
import resnet8
import tensorflow as tf
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table
from tfnas.tflite.file_weights import read_kernels

SEED = flags.DEFINE_integer("seed", 0, "seed of the training")
EPOCHS = flags.DEFINE_integer("epochs", 6, "epochs of each step that trains")
SPARSITY = flags.DEFINE_float("sparsity", 0.77, "share of zeros")
CLUSTERS = flags.DEFINE_integer("clusters", 16, "most values of a kernel")
RATE = flags.DEFINE_float("rate", 4e-3, "Adam's rate at the start of pruning; later less")
ALPHA = flags.DEFINE_float("alpha", 1.0, "share of the labels in the loss, 0 to 1")
BATCH = flags.DEFINE_integer("batch", 128, "images a step")
WAYS = flags.DEFINE_list(
    "ways",
    ["", "p", "pc", "pcq", "q", "pq", "c", "cq", "tfmot"],
    "combinations of p (pruned), c (clustered) and q (quantized, int8); tfmot: its own of all",
)
FOLDER = flags.DEFINE_string("folder", None, "where models are kept and found again, if set")
TFMOT = "tfmot"
NAMES = {"p": "pruned", "c": "clustered", "q": "int8"}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    original = resnet8.load_model()
    x, y, held, labels = resnet8.load_images()
    baseline = tfnas.to_tflite(original)
    before = correct(labels, baseline.predict(held))
    work = Work(original, x, y)
    rows: list[list[str]] = []
    for way in WAYS.value:
        begin = time.monotonic()
        file = baseline if not way else by_tfmot() if way == TFMOT else work.file(way)
        right = correct(labels, file.predict(held))
        old, new = tfnas.benchmark([baseline, file], rounds=30)
        kernels = [kernel.values for kernel in read_kernels(file)]
        zeros = sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)
        rows.append(
            [
                name_of(way),
                f"{right.mean():.4f}",
                record.points(right, before),
                f"{zeros:.1%}",
                str(max(len(np.unique(k)) for k in kernels)),
                f"{file.size:,}",
                f"{file.gzip_size:,}",
                f"{baseline.gzip_size / file.gzip_size:.1f}x",
                f"{old.ratio / new.ratio:.2f}x",
                f"{time.monotonic() - begin:.0f}",
            ]
        )
        print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    headers = ["file", "accuracy", "points to float32 [95%]", "zeros", "values", "bytes", "gzip"]
    headers += ["smaller", "faster", "s"]
    print(table(headers, rows))
    record.write("collaborative", record.table_rows(headers, rows), seed=SEED.value)
    print(f"{time.monotonic() - began:.0f} s in all")


class Work:
    """Makes the combinations; a step that two of them share is trained once."""

    def __init__(self, original: Any, x: np.ndarray, y: np.ndarray) -> None:
        self.original, self.x, self.y = original, x, y
        self.images = x[:500].astype(np.float32)
        self.models: dict[str, Any] = {"": original}

    def file(self, way: str) -> tfnas.Artifact:
        """The file of a combination."""
        model = self.model(way)
        return tfnas.to_tflite(model, "int8") if way.endswith("q") else tfnas.to_tflite(model)

    def model(self, way: str) -> Any:
        """The Keras model of a combination, from that of all but its last step."""
        if way not in self.models:
            path = pathlib.Path(FOLDER.value or "", f"{way}.keras")
            if FOLDER.value and path.exists():
                self.models[way] = tfnas.load_model(path)
                return self.models[way]
            step = {"p": self.pruned, "c": self.clustered, "q": self.quantized}[way[-1]]
            self.models[way] = step(self.model(way[:-1]))
            if FOLDER.value:
                self.models[way].save(path)
        return self.models[way]

    def pruned(self, start: Any) -> Any:
        model = copy_of(start)
        steps = EPOCHS.value * (len(self.x) // BATCH.value)
        schedule = tfnas.schedules.polynomial(
            SPARSITY.value, end=steps // 2, by="step", frequency=50
        )
        self.train(model, [tfnas.PruningCallback(schedule, scope="global")])
        return model

    def clustered(self, start: Any) -> Any:
        # Normalization stays: in the integer file it is a factor a channel of the scale, and
        # the integers are as few as the values here. (The float file holds as many a channel.)
        model = copy_of(start)
        callback = tfnas.ClusteringCallback(CLUSTERS.value, 5, "step", seed=SEED.value)
        self.train(model, [callback], rate=RATE.value / 3)
        return model

    def quantized(self, start: Any) -> Any:
        model = tfnas.quantize_aware(start, "int8", data=self.images)
        callbacks = []
        if most_values(start) <= CLUSTERS.value:
            callbacks = [tfnas.ClusteringCallback(None)]  # zeros stay too
        elif start is not self.original:
            tfnas.keep_zeros(model)
        self.train(model, callbacks, rate=RATE.value / 10)
        return model

    def train(self, model: Any, callbacks: list[Any], rate: float | None = None) -> None:
        """Trains in place."""
        keras.utils.set_random_seed(SEED.value)
        steps = EPOCHS.value * (len(self.x) // BATCH.value)
        schedule = keras.optimizers.schedules.CosineDecay(rate or RATE.value, steps)
        optimizer = keras.optimizers.Adam(schedule)
        distiller = tfnas.Distiller(
            self.original, model, student_loss_weight=ALPHA.value, temperature=1.0
        )
        distiller.compile(optimizer, metrics=["accuracy"], jit_compile=False)
        data = batches(self.original, self.x, self.y)
        distiller.fit(data, epochs=EPOCHS.value, verbose=2, callbacks=callbacks)


def batches(original: Any, x: np.ndarray, y: np.ndarray, distill: float = 0.0) -> tf.data.Dataset:
    """What each step trains on.

    tfmot has no distillation: of its labels a share of `distill` is what the original says.
    """
    options = {"batch": BATCH.value, "shift": 1, "distill": distill}
    return resnet8.batches(x, y, original, SEED.value, **options)


def by_tfmot() -> tfnas.Artifact:
    """tensorflow-model-optimization's file, made in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "tfmot.tflite")
        script = pathlib.Path(__file__).with_name("collaborative_tfmot.py")
        ours = ("--ways", "--result")
        arguments = [a for a in sys.argv[1:] if a.startswith("--") and not a.startswith(ours)]
        subprocess.run([sys.executable, str(script), *arguments, f"--output={path}"], check=True)
        return tfnas.Artifact.load(path)


def name_of(way: str) -> str:
    if way == TFMOT:
        return "tfmot's pruned + clustered + int8"
    return " + ".join(NAMES[letter] for letter in way) or "float32"


def most_values(model: Any) -> int:
    """The most distinct values of a kernel."""
    kernels = [w for w in model.weights if w.path.endswith("kernel")]
    return max(len(np.unique(np.asarray(kernel))) for kernel in kernels)


def copy_of(model: Any) -> Any:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


if __name__ == "__main__":
    app.run(main)
