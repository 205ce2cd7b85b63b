"""tfnas' quantization-aware training beside tensorflow-model-optimization's.

    python benchmarks/qat_vs_tfmot.py [--datasets=fashion_mnist,cifar10] [--seeds=3]
        [--epochs=3] [--float_epochs=6] [--rounds=30] [--steps=60]

A small network is trained in floats once a seed, in Keras 3. Both engines start from these
weights and see the same images in the same order at the same learning rate, each in a process
of its own: tfnas in Keras 3, tfmot in tf_keras, where `tfnas.legacy` brings the network. Both
update the ranges of activations at every step; neither is shown calibration data. Two tables:

- the time of a training step, as a ratio to the same network's float step in the same
  library, from rounds that alternate, with the 95% interval of the median over rounds; by the
  clock, and in CPU time, which other programs on the machine disturb less;
- accuracy of the `.tflite` files on the 10,000 test images: float32, int8 after training, and
  both engines' int8; mean and standard deviation over seeds, and the paired difference of ours
  to the other's (all seeds' images together) with its 95% interval.
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
import tensorflow as tf
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.measure.latency import median_interval
from tfnas.table import table

CIFAR = "~/.cache/tfnas/cifar10.npz"
DATASETS = flags.DEFINE_list("datasets", ["fashion_mnist", "cifar10"], "data sets")
DATA = flags.DEFINE_string("cifar10", CIFAR, "CIFAR-10 as an .npz file, where there is one")
SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
FLOAT_EPOCHS = flags.DEFINE_integer("float_epochs", 6, "epochs of the training in floats")
EPOCHS = flags.DEFINE_integer("epochs", 3, "epochs of quantization-aware training")
RATE = flags.DEFINE_float("rate", 1e-3, "Adam's rate at the start of its decay")
FLOAT_RATE = flags.DEFINE_float("float_rate", 3e-3, "the same of the training in floats")
EXAMPLES = flags.DEFINE_integer("examples", 60000, "training images at most")
ROUNDS = flags.DEFINE_integer("rounds", 30, "alternating rounds of the timing; 0: none")
STEPS = flags.DEFINE_integer("steps", 60, "training steps a round")
STAGE = flags.DEFINE_enum("stage", None, ["float", "tfnas", "tfmot"], "run this one, in here")
FOLDER = flags.DEFINE_string("folder", None, "where the stages meet")
ENGINES = ("tfnas", "tfmot")
WAYS = {"float32": "float", "int8 PTQ": "ptq", "int8 QAT tfnas": "tfnas", "int8 QAT tfmot": "tfmot"}
BATCH = 128


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if STAGE.value:
        run(STAGE.value, pathlib.Path(FOLDER.value))
        return
    began = time.monotonic()
    results: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in ("float", *ENGINES):
            command = [sys.executable, *sys.argv, f"--stage={stage}", f"--folder={folder}"]
            subprocess.run(command, check=True)
            with np.load(pathlib.Path(folder, f"{stage}.npz")) as file:
                results |= dict(file)
    print("\n$ python", " ".join(sys.argv))
    found = {"Accuracy of the file": accuracy_rows(results)}
    if ROUNDS.value:
        found = {"Time of a training step": time_rows(results), **found}
    for rows in found.values():
        print(table(list(rows[0]), [list(row.values()) for row in rows]), "\n")
    record.write("qat_vs_tfmot", found, seed=0)
    print(f"{time.monotonic() - began:.0f} s in all")


def run(stage: str, folder: pathlib.Path) -> None:
    """One stage: what it measured goes into a file of its name."""
    results: dict[str, np.ndarray] = {}
    for name in DATASETS.value:
        data = load(name)
        if stage != "float" and ROUNDS.value:
            start = keras.saving.load_model(folder / f"{name}_0.keras", compile=False)
            results[f"{name}/{stage}/times"] = step_times(stage, start, data)
        for seed in range(SEEDS.value):
            path = folder / f"{name}_{seed}.keras"
            floats = trained_float(data, seed, path) if stage == "float" else None
            files = floats or quantized(stage, data, path)
            for way, file in files.items():
                right = correct(data.y_test, file.predict(pixels(data.x_test)))
                results[f"{name}/{way}/{seed}"] = right
                print(f"{name}, seed {seed}, {way}: {right.mean():.4f}, {file.size:,} bytes")
    np.savez(folder / f"{stage}.npz", **results)


def load(name: str) -> tfnas.data.DataSplit:
    """The data set, limited to --examples; validation images are left alone."""
    path = pathlib.Path(DATA.value).expanduser()
    source = path if name == "cifar10" and path.exists() else name
    return tfnas.data.load(source, validation=0.02).limited(EXAMPLES.value)


def pixels(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / 255


def build(shape: tuple[int, ...], classes: int) -> Any:
    """Convolution, BatchNormalization and ReLU, four times."""
    layers = keras.layers
    model = keras.Sequential([layers.Input(shape)])
    for filters, stride in ((16, 1), (32, 2), (64, 2), (64, 1)):
        model.add(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(classes, activation="softmax"))
    return model


def trained_float(
    data: tfnas.data.DataSplit, seed: int, path: pathlib.Path
) -> dict[str, tfnas.Artifact]:
    """Trains and saves the network that both engines start from."""
    keras.utils.set_random_seed(seed)
    model = build(data.input_shape, data.num_classes)
    fit(keras, model, data, FLOAT_EPOCHS.value, FLOAT_RATE.value, seed)
    model.save(path)
    calibration = pixels(data.x_train[:500])
    return {"float": tfnas.to_tflite(model), "ptq": tfnas.to_tflite(model, "int8", calibration)}


def quantized(
    engine: str, data: tfnas.data.DataSplit, path: pathlib.Path
) -> dict[str, tfnas.Artifact]:
    """The file after an engine's quantization-aware training."""
    model = keras.saving.load_model(path, compile=False)
    aware = tfnas.quantize_aware(model, "int8", engine=engine)
    seed = int(path.stem.rsplit("_", 1)[1])
    fit(library(engine), aware, data, EPOCHS.value, RATE.value, seed + 1000)
    return {engine: tfnas.to_tflite(aware, "int8")}


def library(engine: str) -> Any:
    """The Keras that an engine's models are of."""
    return keras if engine == "tfnas" else tfnas.legacy.tf_keras()


def fit(
    lib: Any, model: Any, data: tfnas.data.DataSplit, epochs: int, rate: float, seed: int
) -> None:
    steps = len(data.x_train) // BATCH * epochs
    compile_model(lib, model, lib.optimizers.schedules.CosineDecay(rate, steps))
    model.fit(batches(data, seed, epochs), epochs=1, verbose=0)


def compile_model(lib: Any, model: Any, rate: Any) -> None:
    model.compile(lib.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)


def batches(data: tfnas.data.DataSplit, seed: int, epochs: int) -> tf.data.Dataset:
    """All epochs' batches in an order that both engines share."""
    rng = np.random.default_rng(seed)
    count = len(data.x_train) // BATCH * BATCH
    order = [rng.permutation(len(data.x_train))[:count] for _ in range(epochs)]
    x, y = tf.constant(data.x_train), tf.constant(data.y_train)

    def take(rows: Any) -> tuple[Any, Any]:
        return tf.cast(tf.gather(x, rows), tf.float32) / 255, tf.gather(y, rows)

    rows = tf.data.Dataset.from_tensor_slices(np.concatenate(order)).batch(BATCH)
    return rows.map(take, 2).prefetch(4)


def step_times(engine: str, model: Any, data: tfnas.data.DataSplit) -> np.ndarray:
    """Seconds of a step, (rounds, 2, 2): by the wall and of all cores; floats and QAT."""
    lib = library(engine)
    plain = model if engine == "tfnas" else tfnas.legacy.to_tf_keras(model)
    models = [plain, tfnas.quantize_aware(model, "int8", engine=engine)]
    for each in models:
        compile_model(lib, each, 1e-4)
    rows = batches(data, 0, 1).take(STEPS.value).cache()
    times, rng = np.empty((ROUNDS.value + 2, 2, 2)), np.random.default_rng(0)
    for spent in times:
        for i in rng.permutation(2):
            begin = np.array([time.perf_counter(), time.process_time()])
            models[i].fit(rows, epochs=1, verbose=0)
            spent[:, i] = np.array([time.perf_counter(), time.process_time()]) - begin
    return times[2:] / STEPS.value  # the first ones trace and fill the cache


def time_rows(results: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for name in DATASETS.value:
        for engine in ENGINES:
            times = results[f"{name}/{engine}/times"]
            ms = [f"{1000 * value:.1f}" for value in np.median(times[:, 0], 0)]
            target = "<= 1.20x, below tfmot's" if engine == "tfnas" else ""
            ratios = [ratio(times[:, clock]) for clock in range(2)]
            rows.append([f"{name} {engine}", *ms, *ratios, len(times), target])
    headers = ["training step", "float ms", "QAT ms", "QAT to float [95%]", "the same, CPU time"]
    return record.table_rows([*headers, "rounds", "target"], rows)


def ratio(times: np.ndarray) -> str:
    """The second column to the first: the median of the rounds', and its interval."""
    ratios = times[:, 1] / times[:, 0]
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.3f}x [{low:.3f}, {high:.3f}]"


def accuracy_rows(results: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for name in DATASETS.value:
        right = {
            way: np.stack([results[f"{name}/{key}/{seed}"] for seed in range(SEEDS.value)])
            for way, key in WAYS.items()
        }
        for way, key in WAYS.items():
            scores = right[way].mean(axis=1)
            rows.append(
                [
                    f"{name} {way}",
                    f"{scores.mean():.4f}",
                    f"{scores.std(ddof=1) if len(scores) > 1 else 0:.4f}",
                    " ".join(f"{score:.4f}" for score in scores),
                    *(
                        [""] * 2
                        if key == "float"
                        else [record.points(right[way], right["float32"])]
                    ),
                    *(
                        []
                        if key == "float"
                        else [record.points(right[way], right["int8 QAT tfmot"])]
                    ),
                    "not behind tfmot's" if key == "tfnas" else "",
                ]
            )
    headers = ["file", "accuracy", "s.d.", "each seed", "points to float [95%]"]
    return record.table_rows([*headers, "points to tfmot [95%]", "target"], rows)


if __name__ == "__main__":
    app.run(main)
