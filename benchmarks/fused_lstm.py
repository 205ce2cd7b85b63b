"""An LSTM in int8 files: a loop of operators, or TFLite's fused operator.

    python benchmarks/fused_lstm.py [--network=japanese_vowels_lstm] [--data=FOLDER]

Networks are those of `sequences.py`. The files: float32 and dynamic, and int8 after training with
steps of 16 bits, with steps of 8 bits, and fused. With --train also after quantization-aware
training. Prints the quality on the test part, the loss to float32 on the same examples with its
interval, the share of answers that stay, how often Keras' integers and the file's reference kernels
name the same class and by how many steps they differ at the median, bytes, and time beside
dynamic's. Of files of a batch of 1 also TFLite Micro's arena and its time on this computer,
beside the loop's. Trained networks and numbers are kept in --folder: the same call goes on.
"""

from __future__ import annotations

import json
import pathlib
from types import ModuleType
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from micro_times import micro_seconds
from sequence_models import network

import tfnas
from tfnas.table import table

NETWORKS = flags.DEFINE_multi_enum(
    "network",
    ["japanese_vowels_lstm", "etth1_lstm"],
    ["japanese_vowels_lstm", "etth1_lstm"],
    "the networks",
)
DATA = flags.DEFINE_string("data", None, "folder of the data", required=True)
FOLDER = flags.DEFINE_string("folder", "runs/fused_lstm", "what is kept of the runs")
TRAIN = flags.DEFINE_bool("train", False, "whether quantization-aware models are trained too")
SEED, CALIBRATION, BATCH, COMPARED = 0, 300, 64, 200
FORMS = {
    "loop, 16 bits": tfnas.QuantSpec("int8"),
    "loop, 8 bits": tfnas.QuantSpec("int8", state_bits=8),
    "fused": tfnas.QuantSpec("int8", recurrent="fused"),
}
Row = dict[str, Any]


def main(_: list[str]) -> None:
    """Measures the networks and writes the record."""
    rows = [row for name in NETWORKS.value for row in _measured(name)]
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    notes = [
        "After ± half of the 95% interval of the loss, by the differences on the same test "
        "examples. Errors (ETTh1) are in percent of float32's.",
        "same: share of answers that are those of the float32 file. Keras: share of examples for "
        "which Keras' integers and the file's reference kernels name one class, and the median "
        "difference of the outputs in steps. time: of one inference in LiteRT, dynamic = 1.",
        "arena, in bytes, and Micro's time: of the file for a batch of 1 in TFLite Micro on this "
        "computer; loop, 16 bits = 1.",
    ]
    record.write("fused_lstm", rows, seed=SEED, notes=notes)


def _measured(name: str) -> list[Row]:
    kept = pathlib.Path(FOLDER.value) / f"{name}{'_trained' if TRAIN.value else ''}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_measure(name), indent=1), encoding="utf-8")
    rows: list[Row] = json.loads(kept.read_text("utf-8"))
    return rows


def _measure(name: str) -> list[Row]:
    module = network(name)
    parts = module.data(DATA.value)
    model = _trained(module, name, parts)
    x, y = parts[2]
    typical = tfnas.data.spread(parts[0][0], CALIBRATION)
    floats = {mode: tfnas.to_tflite(model, mode) for mode in ("float32", "dynamic")}
    reference = np.asarray(floats["float32"].predict(x))
    rows = [_row(module, name, title, f, x, y, reference) for title, f in floats.items()]
    files, small = dict(floats), {}
    for form, spec in FORMS.items():
        aware = tfnas.quantize_aware(model, spec, data=typical)
        title = f"int8, {form}"
        files[title] = tfnas.to_tflite(aware, "int8")
        rows.append(_row(module, name, title, files[title], x, y, reference, aware))
        small[title] = _for_a_batch_of_1(model, spec, aware)
        if TRAIN.value and spec.state_bits > 8:
            _fit(module, aware, parts, module.QAT_EPOCHS, module.LEARNING_RATE / 10)
            title = f"int8, {form}, trained"
            files[title] = tfnas.to_tflite(aware, "int8")
            rows.append(_row(module, name, title, files[title], x, y, reference, aware))
    _add_times(rows, files, small)
    return rows


def _trained(module: ModuleType, name: str, parts: tuple) -> keras.Model:
    path = pathlib.Path(FOLDER.value) / f"{name}.keras"
    if path.exists():
        return tfnas.load_model(path)
    model = module.model(SEED)
    _fit(module, model, parts, module.EPOCHS, module.LEARNING_RATE)
    model.save(path)
    return model


def _fit(module: ModuleType, model: keras.Model, parts: tuple, epochs: int, rate: float) -> None:
    loss = "mse" if _forecasts(module) else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    options = {"validation_data": parts[1], "callbacks": [best], "verbose": 2}
    model.fit(*parts[0], batch_size=BATCH, epochs=epochs, **options)


def _forecasts(module: ModuleType) -> bool:
    return getattr(module, "ERROR", False)


def _for_a_batch_of_1(
    model: keras.Model, spec: tfnas.QuantSpec, aware: keras.Model
) -> tfnas.Artifact:
    """The file for a fixed batch of 1, with the ranges of a quantization-aware model."""
    inputs = keras.Input(batch_shape=(1, *model.input_shape[1:]))
    x = inputs
    for layer in model.layers[1:]:
        x = layer(x)
    one = tfnas.quantize_aware(keras.Model(inputs, x, name=model.name), spec)
    one.set_weights(aware.get_weights())
    return tfnas.to_tflite(one, "int8")


def _row(
    module: ModuleType,
    name: str,
    title: str,
    file: tfnas.Artifact,
    x: np.ndarray,
    y: np.ndarray,
    reference: np.ndarray,
    aware: keras.Model | None = None,
) -> Row:
    error = _forecasts(module)
    outputs = np.asarray(file.predict(x))
    mine, before = (_losses(each, y, error) for each in (outputs, reference))
    lost = (mine - before) * (100 / before.mean() if error else 100.0)
    half = 1.96 * lost.std(ddof=1) / np.sqrt(len(lost))
    quality = mine.mean() if error else 1 - mine.mean()
    same = "" if error else f"{(outputs.argmax(1) == reference.argmax(1)).mean():.4f}"
    row: Row = {
        "network": name,
        "file": title,
        "accuracy or MSE": f"{quality:.4f}",
        "lost": f"{lost.mean():+.2f} ± {half:.2f} {'%' if error else 'points'}",
        "same": same,
        "Keras: same class": "",
        "Keras: steps": "",
        "bytes": f"{file.size:,}",
    }
    if aware is not None:
        some = x[:COMPARED]
        expected, found = aware.predict(some, verbose=0), file.predict(some, reference=True)
        steps = np.median(np.abs(expected - found)) / file.outputs[0].scale
        row["Keras: steps"] = f"{steps:.2f}"
        if not error:
            one_class = (expected.argmax(1) == found.argmax(1)).mean()
            row["Keras: same class"] = f"{one_class:.4f}"
    print(row, flush=True)
    return row


def _losses(outputs: np.ndarray, y: np.ndarray, error: bool) -> np.ndarray:
    """What each example costs: its squared error, or 1 where the class is wrong."""
    if error:
        return np.square(outputs - y).mean(axis=1)
    return (outputs.argmax(1) != y).astype(float)


def _add_times(
    rows: list[Row], files: dict[str, tfnas.Artifact], small: dict[str, tfnas.Artifact]
) -> None:
    times = tfnas.benchmark(list(files.values()), reference=files["dynamic"])
    ratios = {title: f"{each.ratio:.2f}" for title, each in zip(files, times, strict=True)}
    micro = _micro_times(small)
    for row in rows:
        file = small.get(row["file"])
        row["time"] = ratios[row["file"]]
        row["bytes, batch of 1"] = "" if file is None else f"{file.size:,}"
        row["arena"] = "" if file is None else f"{tfnas.micro_memory(file).arena:,}"
        row["Micro's time"] = micro.get(row["file"], "")


def _micro_times(files: dict[str, tfnas.Artifact]) -> dict[str, str]:
    found = micro_seconds(list(files.values()))
    return {title: f"{each / found[0]:.2f}" for title, each in zip(files, found, strict=True)}


if __name__ == "__main__":
    app.run(main)
