"""Trains all networks of a small space once, and keeps what was measured as a table.

    python benchmarks/trained_table.py [--data=fashion_mnist] [--trainings=1] [--networks=160]
    python benchmarks/trained_table.py [--data=fashion_mnist] --latency

160 networks of MobileNetV2Space (benchmarks/search_tables/trained.py) on Fashion-MNIST, 3,000
images, or on scikit-learn's digits; nine epochs at a constant learning rate. Kept are the accuracy
after each epoch on validation images, and the last one on test images. What is done is kept after
each network, so that the same call goes on. With --latency the files of all networks are made in
int8 and measured side by side, beside the predictions of a latency model that was fitted before;
other jobs should rest.

`benchmarks/halving.py` searches the tables.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from scipy.stats import spearmanr
from search_tables import trained

import tfnas
from tfnas.graph.tracing import TraceOnce
from tfnas.keras_private import forget_kernels
from tfnas.measure.latency import provenance
from tfnas.runtime.files import write_atomically
from tfnas.search_space.hypermodel import compile_for_search

DATA = flags.DEFINE_enum("data", trained.FASHION_MNIST, list(trained.INPUTS), "data set")
TRAININGS = flags.DEFINE_integer("trainings", 1, "trainings of each network", 1)
PART = flags.DEFINE_integer("part", 0, "number of this process among --parts, from 0", 0)
PARTS = flags.DEFINE_integer("parts", 1, "processes that share the networks", 1)
NETWORKS = flags.DEFINE_integer("networks", None, "so many networks that are missing; none: all")
LATENCY = flags.DEFINE_bool("latency", False, "measure the files instead")
SECONDS = flags.DEFINE_float("seconds", 60.0, "time of fitting the latency model, in s")
IMAGES, VALIDATION, BATCH, RATE = 3000, 2000, 64, 3e-3


class Accuracies(keras.callbacks.Callback):
    """Keeps the accuracy on the validation images after each epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y
        self.found: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.found.append(accuracy(self.model, self.x, self.y))


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the share of the images whose class is the largest output."""
    outputs = model.predict(x, batch_size=500, verbose=0)
    return float(np.mean(outputs.argmax(-1) == y))


def loaded() -> tfnas.data.DataSplit:
    """Returns the data: of digits three tenths of the training images are for validation."""
    share = 0.3 if DATA.value == trained.DIGITS else 0.1
    return tfnas.data.load(DATA.value, share).limited(IMAGES)


def training(arch: Any, split: Any, seed: int) -> dict[str, Any]:
    """Trains a network and returns its accuracies."""
    keras.utils.set_random_seed(seed)
    model = compile_for_search(
        trained.space(DATA.value).build(arch), optimizer=keras.optimizers.Adam(RATE), metrics=[]
    )
    kept = Accuracies(split.x_val[:VALIDATION], split.y_val[:VALIDATION])
    model.fit(
        split.x_train,
        split.y_train,
        batch_size=BATCH,
        epochs=trained.EPOCHS,
        verbose=0,
        callbacks=[kept, TraceOnce()],
    )
    found = {"validation": kept.found, "test": accuracy(model, split.x_test, split.y_test)}
    forget_kernels()
    return found


def main(_: Any) -> None:
    path = trained.path_of(DATA.value)
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept.setdefault("networks", {})
    if LATENCY.value:
        measure(kept)
    else:
        train(kept)
    rows = [row_of(data) for data in trained.INPUTS if trained.path_of(data).exists()]
    if rows := [row for row in rows if row is not None]:
        record.show("", rows)
        record.write(
            "trained_table",
            rows,
            seed=0,
            notes=[
                "Rank correlations (Spearman's) are those of the validation accuracy after so many "
                "epochs with the test accuracy after all."
            ],
        )


def row_of(data: str) -> dict[str, Any] | None:
    """Returns a row: what the table of a data set holds; None: it is not whole yet."""
    if not trained.is_whole(data):
        return None
    found = trained.measured(data)
    truth = found.test.mean(1)
    row: dict[str, Any] = {"data": data, "networks": len(truth)}
    for name, share in {"least": 0.0, "median": 0.5, "best": 1.0}.items():
        row[f"{name} accuracy"] = f"{np.quantile(truth, share):.4f}"
    for epochs in (1, 3, trained.EPOCHS):
        correlation = spearmanr(found.validation[:, 0, epochs - 1], truth).statistic
        row[f"rank correlation, {epochs} epochs"] = f"{correlation:.2f}"
    near = np.abs(found.predicted / found.latency - 1) < 0.1
    known = not np.isnan(found.latency).any()
    row["latencies"] = f"{found.latency.min():.4f}x to {found.latency.max():.4f}x" if known else ""
    row["predicted within 10%"] = f"{near.mean():.0%}" if known else ""
    return row


def train(kept: dict[str, Any]) -> None:
    """Trains what is missing."""
    split = loaded()
    done, begin = 0, time.monotonic()
    for number in range(TRAININGS.value):
        for place, arch in enumerate(trained.members(DATA.value)):
            row = kept["networks"].setdefault(arch.key, {"network": str(arch), "trainings": []})
            if len(row["trainings"]) > number or place % PARTS.value != PART.value:
                continue
            row["trainings"].append(training(arch, split, 1000 * number + place))
            done += 1
            write(kept, split)
            seconds, last = (time.monotonic() - begin) / done, row["trainings"][-1]
            print(f"{number} {place} {seconds:.1f} s each, {last['test']:.4f} {arch}", flush=True)
            if NETWORKS.value and done >= NETWORKS.value:
                return


def measure(kept: dict[str, Any]) -> None:
    """Makes the files in int8 and measures them beside a latency model's predictions."""
    model = tfnas.LatencyModel("int8").fit(trained.space(DATA.value), SECONDS.value, seed=0)
    archs, split = trained.members(DATA.value), loaded()
    samples = tfnas.data.spread(split.x_train, 64)
    files = []
    for arch in archs:
        files.append(tfnas.to_tflite(trained.space(DATA.value).build(arch), "int8", samples))
        forget_kernels()
    for start in range(0, len(files), 12):  # few at a time, so that the reference is among them
        chunk = slice(start, start + 12)
        for arch, found in zip(archs[chunk], tfnas.benchmark(files[chunk]), strict=True):
            kept["networks"][arch.key] |= {"latency": found.ratio, "predicted": model(arch)}
    kept["latencies"] = {"fitted": str(model.fitted), "load": record.load_note()}
    write(kept, split)


def write(kept: dict[str, Any], split: tfnas.data.DataSplit) -> None:
    """Keeps the table, with what made it, and with what other processes have added to it."""
    sizes = [len(part) for part in (split.x_train, split.x_val[:VALIDATION], split.x_test)]
    kept |= {
        "data": "{}: {} training, {} validation, {} test images".format(DATA.value, *sizes),
        "training": f"Adam, rate {RATE}, batches of {BATCH}, {trained.EPOCHS} epochs",
        "date": datetime.date.today().isoformat(),
        "provenance": provenance(),
    }
    path = trained.path_of(DATA.value)
    with pathlib.Path(tempfile.gettempdir(), f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        others = json.loads(path.read_text("utf-8"))["networks"] if path.exists() else {}
        for key, row in others.items():
            own = kept["networks"].setdefault(key, row)
            if len(row["trainings"]) > len(own["trainings"]):
                kept["networks"][key] = row
        write_atomically(path, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
