"""tfnas' pruning beside tensorflow-model-optimization's, on Fashion-MNIST.

    python benchmarks/prune_vs_tfmot.py [--seeds=3] [--epochs=6] [--rounds=30]

The same network from the same initial weights sees the same images in the same order under
the same schedule; tfmot runs on tf_keras in a process of its own, since importing it turns
`tf.keras` into Keras 2. Two tables:

- the time of a training step with pruning, as a ratio to the same step without, from rounds
  that alternate, with the 95% interval of the median; every round renews the masks once;
- accuracy of the float32 `.tflite` file on the 10,000 test images, and its bytes, at each
  sparsity, with the standard deviation over seeds.
"""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import record
from absl import app, flags

SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
EPOCHS = flags.DEFINE_integer("epochs", 6, "epochs of training; pruned up to two thirds of them")
ROUNDS = flags.DEFINE_integer("rounds", 30, "alternating rounds of the timing")
STEPS = flags.DEFINE_integer("steps", 100, "training steps a round")
EXAMPLES = flags.DEFINE_integer("examples", 60000, "training images")
SPARSITIES = flags.DEFINE_list("sparsities", ["0.5", "0.8", "0.9"], "shares of zeros")
ENGINE = flags.DEFINE_enum("engine", None, ["tfnas", "tfmot"], "run this one alone, in here")
OUTPUT = flags.DEFINE_string("output", None, "file for the results of --engine")
ENGINES = ("tfnas", "tfmot")
BATCH, FREQUENCY = 128, 100


def build(keras, seed: int):
    """A small convolutional network; its weights depend on the seed alone."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((28, 28, 1))])  # tfmot refuses a Rescaling layer
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        model.add(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None:
            shape = tuple(layer.kernel.shape)
            spread = np.sqrt(2 / np.prod(shape[:-1]))
            layer.kernel.assign(rng.normal(0, spread, shape).astype(np.float32))
    return model


def compile_model(keras, model) -> None:
    steps = EXAMPLES.value // BATCH * EPOCHS.value
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )


def data(tf, x, y, seed: int, epochs: int):
    """All epochs' batches in an order that both engines share."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)])
    rows = tf.data.Dataset.from_tensor_slices(order).batch(BATCH, drop_remainder=True)
    x, y = tf.constant(x[..., None]), tf.constant(y)
    take = lambda i: (tf.cast(tf.gather(x, i), tf.float32) / 255, tf.gather(y, i))  # noqa: E731
    return rows.map(take, 2).prefetch(4)


class Tfnas:
    """Pruning by a callback, on Keras 3."""

    def __init__(self) -> None:
        import keras
        import tensorflow as tf

        import tfnas

        self.keras, self.tf, self.tfnas = keras, tf, tfnas

    def prepare(self, model, sparsity: float, end: int):
        compile_model(self.keras, model)
        schedule = self.tfnas.schedules.polynomial(
            sparsity, end=end, by="step", frequency=FREQUENCY
        )
        return model, [self.tfnas.PruningCallback(schedule)]

    def file(self, model) -> bytes:
        return self.tfnas.to_tflite(model).content


class Tfmot:
    """Pruning by wrapped layers, on tf_keras."""

    def __init__(self) -> None:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tensorflow as tf
        import tensorflow_model_optimization as tfmot

        self.tf, self.keras = tf, tf.keras
        self.sparsity = tfmot.sparsity.keras

    def prepare(self, model, sparsity: float, end: int):
        schedule = self.sparsity.PolynomialDecay(0.0, sparsity, 0, end, frequency=FREQUENCY)
        pruned = self.sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
        compile_model(self.keras, pruned)
        return pruned, [self.sparsity.UpdatePruningStep()]

    def file(self, model) -> bytes:
        stripped = self.sparsity.strip_pruning(model)  # as it is where nothing was pruned
        return self.tf.lite.TFLiteConverter.from_keras_model(stripped).convert()


def step_times(engine, x, y) -> list[float]:
    """Time of a round of steps with pruning over one without, a round."""
    plain = build(engine.keras, 0)
    compile_model(engine.keras, plain)
    pruned, callbacks = engine.prepare(build(engine.keras, 0), 0.8, 10**6)
    rows = data(engine.tf, x, y, 0, 1).take(STEPS.value).cache()
    ratios, rng = [], np.random.default_rng(0)
    for round_number in range(ROUNDS.value + 2):
        spent = {}
        for name in rng.permutation(["plain", "pruned"]):
            model, extra = (plain, []) if name == "plain" else (pruned, callbacks)
            begin = time.perf_counter()
            model.fit(rows, epochs=1, verbose=0, callbacks=list(extra))
            spent[name] = time.perf_counter() - begin
        if round_number >= 2:  # the first ones trace and fill the cache
            ratios.append(spent["pruned"] / spent["plain"])
    return ratios


def trained(engine, x, y, sparsity: float, seed: int) -> tuple[bytes, float]:
    """The file of a network that was pruned while it trained, and the training's seconds."""
    steps = len(x) // BATCH * EPOCHS.value
    model, callbacks = engine.prepare(build(engine.keras, seed), sparsity, steps * 2 // 3)
    if sparsity == 0.0:
        model, callbacks = build(engine.keras, seed), []
        compile_model(engine.keras, model)
    rows = data(engine.tf, x, y, seed, EPOCHS.value)
    begin = time.time()
    model.fit(rows, epochs=1, verbose=0, callbacks=callbacks)
    return engine.file(model), time.time() - begin


def accuracy(file: bytes, x, y) -> float:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, [len(x), 28, 28, 1])
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x[..., None].astype(np.float32) / 255)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return float((found.argmax(1) == y).mean())


def run(name: str) -> None:
    """Everything of one engine, as JSON into --output."""
    engine = {"tfnas": Tfnas, "tfmot": Tfmot}[name]()
    (x, y), (x_test, y_test) = engine.keras.datasets.fashion_mnist.load_data()
    x, y = x[: EXAMPLES.value], y[: EXAMPLES.value]
    results = {"times": step_times(engine, x, y), "trained": []}
    for sparsity in [0.0, *map(float, SPARSITIES.value)]:
        for seed in range(SEEDS.value):
            file, seconds = trained(engine, x, y, sparsity, seed)
            row = {
                "sparsity": sparsity,
                "seed": seed,
                "accuracy": accuracy(file, x_test, y_test),
                "bytes": len(file),
                "gzip": len(gzip.compress(file, 9, mtime=0)),
                "seconds": seconds,
            }
            results["trained"].append(row)
            print(name, row, flush=True)
    pathlib.Path(OUTPUT.value).write_text(json.dumps(results))


def main(argv: list[str]) -> None:
    if ENGINE.value:
        run(ENGINE.value)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ENGINES:
            path = pathlib.Path(folder, f"{name}.json")
            command = [sys.executable, *sys.argv, f"--engine={name}", f"--output={path}"]
            subprocess.run(command, check=True)
            results[name] = json.loads(path.read_text())
    print("\n$ python", " ".join(sys.argv))
    print_tables(results)


def print_tables(results: dict) -> None:
    from tfnas.measure.latency import median_interval
    from tfnas.table import table

    rows = []
    for name in ENGINES:
        ratios = np.array(results[name]["times"])
        low, high = median_interval(ratios)
        rows.append([name, f"{np.median(ratios):.3f}x", f"[{low:.3f}, {high:.3f}]", len(ratios)])
    headers = ["training step", "to no pruning", "95% interval", "rounds"]
    print(table(headers, rows), "\n")
    found = {"Time of a training step": record.table_rows(headers, rows)}
    rows = []
    for sparsity in [0.0, *map(float, SPARSITIES.value)]:
        for name in ENGINES:
            found = [r for r in results[name]["trained"] if r["sparsity"] == sparsity]
            scores = np.array([r["accuracy"] for r in found])
            rows.append(
                [
                    f"{sparsity:.0%} {name}",
                    f"{scores.mean():.4f}",
                    f"{scores.std(ddof=1) if len(scores) > 1 else 0:.4f}",
                    " ".join(f"{s:.4f}" for s in scores),
                    f"{np.mean([r['bytes'] for r in found]):,.0f}",
                    f"{np.mean([r['gzip'] for r in found]):,.0f}",
                ]
            )
    headers = ["zeros", "accuracy", "s.d.", "each seed", "bytes", "gzip"]
    print(table(headers, rows))
    found["Accuracy of the file"] = record.table_rows(headers, rows)
    record.write("prune_vs_tfmot", found, seed=0)


if __name__ == "__main__":
    app.run(main)
