"""Transformers over words and patches as float and integer files, after and in training.

    python benchmarks/sequences.py [--network=text_transformer] [--seed=0] [--data=FOLDER]

A network is trained, then its files are made: float32, dynamic, int8 after training, and after some
epochs of quantization-aware training int8, and int8 with tables of 4 bits. Prints for each the
accuracy on the test part, the difference to float32 in points with its interval on the same
examples, the share of answers that stay, bytes, and the operators that compute in floats; for the
integer files how often Keras' own integers and LiteRT's reference kernels name the same class, and
by how many steps of the output they differ at the median. A row is a module in `sequence_models`.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from sequence_models import NAMES, network

import tfnas
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parents[1]
NETWORKS = flags.DEFINE_multi_enum("network", list(NAMES), NAMES, "the networks")
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and training")
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
CALIBRATION = 300
INT8 = tfnas.QuantSpec("int8")
INT4_TABLES = tfnas.QuantSpec("int8", layers={"Embedding": "int4"})


def main(_: list[str]) -> None:
    """Measures the networks and writes the record."""
    rows = [row for name in NETWORKS.value for row in _rows(name, SEED.value)]
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    notes = [
        "same: share of answers that are those of the float32 file. Keras: share of examples for "
        "which Keras' integers and the file's reference kernels name one class, and the median "
        "difference of the outputs in steps."
    ]
    record.write("sequences", rows, seed=SEED.value, notes=notes)


def _rows(name: str, seed: int) -> list[dict[str, Any]]:
    module = network(name)
    parts = module.data(DATA.value)
    model = module.model(seed)
    began = time.monotonic()
    _fit(model, parts, module.EPOCHS, module.LEARNING_RATE)
    print(f"{name}: trained in {time.monotonic() - began:.0f} s", flush=True)
    typical = parts[0][0][:CALIBRATION]
    files: dict[str, tuple[Any, keras.Model | None]] = {
        "float32": (tfnas.to_tflite(model), None),
        "dynamic": (tfnas.to_tflite(model, "dynamic"), None),
        "int8 after training": (tfnas.to_tflite(model, INT8, typical), None),
    }
    trained = {"int8 trained": INT8}
    if any(isinstance(layer, keras.layers.Embedding) for layer in model.layers):
        files["int8, int4 tables after training"] = (
            tfnas.to_tflite(model, INT4_TABLES, typical),
            None,
        )
        trained["int8, int4 tables trained"] = INT4_TABLES
    for title, spec in trained.items():
        aware = tfnas.quantize_aware(model, spec, data=typical)
        _fit(aware, parts, module.QAT_EPOCHS, module.LEARNING_RATE / 10)
        files[title] = tfnas.to_tflite(aware, "int8"), aware
    x, y = parts[2]
    reference = np.asarray(files["float32"][0].predict(x))
    return [
        _row(name, title, file, aware, x, y, reference) for title, (file, aware) in files.items()
    ]


def _fit(model: keras.Model, parts: tuple, epochs: int, rate: float) -> None:
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*parts[0], batch_size=64, epochs=epochs, validation_data=parts[1], verbose=2)


def _row(
    name: str,
    title: str,
    file: Any,
    aware: keras.Model | None,
    x: np.ndarray,
    y: np.ndarray,
    reference: np.ndarray,
) -> dict[str, Any]:
    outputs = np.asarray(file.predict(x))
    right, before = (each.argmax(1) == y for each in (outputs, reference))
    change = right.astype(float) - before
    half = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    names = [op.name for op in file.graph.operators if _computes_in_floats(op)]
    row = {
        "network": name,
        "file": title,
        "accuracy": f"{right.mean():.4f}",
        "points": f"{100 * change.mean():+.2f} ± {100 * half:.2f}",
        "same": f"{(outputs.argmax(1) == reference.argmax(1)).mean():.4f}",
        "bytes": f"{file.size:,}",
        "float operators": str(len(names)),
        "Keras: same class": "",
        "Keras: steps": "",
    }
    if aware is not None:
        expected, found = aware.predict(x, verbose=0), _on_reference_kernels(file, x)
        steps = np.abs(expected - found) / file.outputs[0].scale
        row["Keras: same class"] = f"{(expected.argmax(1) == found.argmax(1)).mean():.4f}"
        row["Keras: steps"] = f"{np.median(steps):.2f}"
    return row


def _computes_in_floats(op: Any) -> bool:
    return any(tensor.dtype.startswith("float") for tensor in (*op.inputs, *op.outputs))


def _on_reference_kernels(file: Any, x: np.ndarray) -> np.ndarray:
    interpreter = file.interpreter(reference=True)
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = exit_["quantization"]
    outputs = []
    for example in x:
        value = example[None]
        if entry["dtype"] == np.int8:
            step, point = entry["quantization"]
            value = np.clip(np.floor(value / np.float32(step) + 0.5) + point, -128, 127)
        interpreter.set_tensor(entry["index"], value.astype(entry["dtype"]))
        interpreter.invoke()
        outputs.append(
            (interpreter.get_tensor(exit_["index"])[0].astype(np.float32) - zero) * scale
        )
    return np.stack(outputs)


if __name__ == "__main__":
    app.run(main)
