"""Transformers and recurrent networks as float and integer files, after and in training.

    python benchmarks/sequences.py --network=text_transformer [--seeds=3] [--data=FOLDER]

A network is trained, then its files are made: float32, dynamic, int8 after training (rounded to
nearest, and by second moments), and after some epochs of quantization-aware training int8 and
int16x8; those of words also with tables of 4 bits.
A float32 file that was trained as long tells what the epochs alone change.
Beside them, with the first seed, what else makes integer files of a Keras 3 model: TensorFlow's
converter with its own fallback to floats, recipes of ai-edge-quantizer, and Keras' own
`quantize("int8")`, which has no file. Prints the quality on the test part, the loss to float32 on
the same examples with its interval, the share of answers that stay, bytes, time beside dynamic's,
and the operators that compute in floats; for trained files how often Keras' own integers and
LiteRT's reference kernels name the same class, and by how many steps of the output they differ at
the median. Each training ends with the weights of its best epoch on the validation part. Networks
are modules in `sequence_models`. Each network has a record of its own, `sequences_NETWORK.json`,
which holds the numbers of each seed: the same call goes on, and a call with more seeds measures
only those that are missing; with --again all of them. Files are kept in --folder.
"""

from __future__ import annotations

import datetime
import math
import pathlib
import statistics
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from sequence_models import NAMES, network
from sequence_models.files import files_of, peers_of

import tfnas
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parents[1]
NETWORKS = flags.DEFINE_multi_enum("network", list(NAMES), NAMES, "the networks")
SEED = flags.DEFINE_integer("seed", 0, "the first seed of weights and training")
SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds", 1)
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
FOLDER = flags.DEFINE_string("folder", "runs/sequences", "what is kept of the runs")
AGAIN = flags.DEFINE_boolean("again", False, "whether seeds of the record are measured again")
CALIBRATION, BATCH, COMPARED = 300, 64, 500
Row = dict[str, Any]
Run = dict[str, Any]  # of one seed: rows, notes, date, commit


def main(_: list[str]) -> None:
    """Measures the networks and writes their records."""
    seeds = range(SEED.value, SEED.value + SEEDS.value)
    for name in NETWORKS.value:
        runs = _kept(name)
        for seed in map(str, seeds):
            if AGAIN.value or seed not in runs:
                runs[seed] = _measure(name, int(seed), pathlib.Path(FOLDER.value, f"{name}_{seed}"))
                _write(name, runs)
        _write(name, runs)


def _record_name(name: str) -> str:
    return f"sequences_{name}"


def _kept(name: str) -> dict[str, Run]:
    """What the network's record holds, by seed."""
    return dict(record.kept(_record_name(name)).get("runs", {}))


def _write(name: str, runs: dict[str, Run]) -> None:
    """Writes the network's record: means over its seeds, and the numbers of each."""
    runs = {seed: runs[seed] for seed in sorted(runs, key=int)}
    rows = _rows([run["rows"] for run in runs.values()])
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]), flush=True)
    notes = [
        f"Mean over {len(runs)} seeds; after ± half of the 95% interval of the mean loss, by the "
        "differences on the same test examples. Errors are in percent of float32's.",
        "same: share of answers that are those of the float32 file. Keras: share of examples for "
        "which Keras' integers and the file's reference kernels name one class, and the median "
        "difference of the outputs in steps. time: of one inference, dynamic = 1.",
        "Peers and times are of one seed.",
        *_notes_of_margins([run["rows"] for run in runs.values()]),
        *dict.fromkeys(note for run in runs.values() for note in run["notes"]),
    ]
    seed = min(map(int, runs))
    command = f"python benchmarks/sequences.py --network={name} --seeds={len(runs)}"
    record.write(
        "sequences",
        rows,
        seed=seed,
        notes=notes,
        command=command,
        result=_record_name(name),
        runs=runs,
    )


def _notes_of_margins(runs: Sequence[Sequence[Row]]) -> list[str]:
    """What the answers had in common that int8 changed after training."""
    title = "int8 after training"
    found = [row.get("margins") for rows in runs for row in rows if row["file"] == title]
    margins = [margin for each in found for margin in each or ()]
    if not margins or None in found:
        return []
    middle, most = statistics.median(margins), max(margins)
    return [
        f"{title} changed {len(margins)} answers. float32's first class was ahead of its second by "
        f"{middle:.3f} of probability there in the median, by {most:.3f} at most."
    ]


def _measure(name: str, seed: int, folder: pathlib.Path) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    module = network(name)
    parts = module.data(DATA.value)
    model = module.model(seed)
    began = time.monotonic()
    _fit(module, model, parts, module.EPOCHS, module.LEARNING_RATE)
    print(f"{name}, seed {seed}: trained in {time.monotonic() - began:.0f} s", flush=True)
    typical = tfnas.data.spread(parts[0][0], CALIBRATION)

    def trained(aware: keras.Model) -> None:
        _fit(module, aware, parts, module.QAT_EPOCHS, module.LEARNING_RATE / 10)

    files = files_of(model, typical, trained)
    notes: list[str] = []
    x, y = parts[2]
    reference = np.asarray(files["float32"][0].predict(x))
    peers: dict[str, Any] = {}
    if seed == SEED.value:
        peers, notes = peers_of(model, files["float32"][0], typical, x)
    rows = [_row(module, title, *each, x, y, reference) for title, each in files.items()]
    rows += [_row(module, title, file, None, x, y, reference) for title, file in peers.items()]
    for title, file in {**{k: f for k, (f, _) in files.items()}, **peers}.items():
        if isinstance(file, tfnas.Artifact):
            file.save(folder / f"{title.replace(' ', '_').replace(',', '')}.tflite")
    if seed == SEED.value:
        _add_times(rows, {**{k: f for k, (f, _) in files.items()}, **peers})
    made = datetime.date.today().isoformat()
    commit = record.commit_of(pathlib.Path(__file__).parent)
    return {"date": made, "commit": commit, "notes": notes, "rows": rows}


def _fit(module: ModuleType, model: keras.Model, parts: tuple, epochs: int, rate: float) -> None:
    error = getattr(module, "ERROR", False)
    loss, metrics = ("mse", []) if error else ("sparse_categorical_crossentropy", ["accuracy"])
    steps = epochs * math.ceil(len(parts[0][0]) / BATCH)
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(decay), loss, metrics=metrics, jit_compile=False)
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    options = {"validation_data": parts[1], "callbacks": [best], "verbose": 2}
    model.fit(*parts[0], batch_size=BATCH, epochs=epochs, **options)


def _row(
    module: ModuleType,
    title: str,
    file: Any,
    aware: keras.Model | None,
    x: np.ndarray,
    y: np.ndarray,
    reference: np.ndarray,
) -> Row:
    """The numbers of one file; `file` may be a Keras model that has none."""
    error = getattr(module, "ERROR", False)
    is_file = isinstance(file, tfnas.Artifact)
    outputs = np.asarray(file.predict(x) if is_file else file.predict(x, verbose=0))
    mine, before = (_losses(each, y, error) for each in (outputs, reference))
    scale = 100 / before.mean() if error else 100.0
    lost = (mine - before) * scale
    same = None if error else float((outputs.argmax(1) == reference.argmax(1)).mean())
    row: Row = {"file": title, "error": error, "quality": float(mine.mean()), "same": same}
    if not error:
        row["margins"] = _margins_of_changed(outputs, reference)
    row |= {"lost": float(lost.mean()), "variance": float(lost.var(ddof=1) / len(lost))}
    if is_file:
        floats = [op for op in file.graph.operators if _computes_in_floats(op)]
        row |= {"bytes": file.size, "floats": len(floats)}
    if aware is not None:
        some = x[:COMPARED]
        expected, found = aware.predict(some, verbose=0), _on_reference_kernels(file, some)
        row["steps"] = float(np.median(np.abs(expected - found)) / file.outputs[0].scale)
        row["same class"] = None if error else float((expected.argmax(1) == found.argmax(1)).mean())
    return row


def _margins_of_changed(outputs: np.ndarray, reference: np.ndarray) -> list[float]:
    """By how much float32's first class was ahead of the second, where the answer is another."""
    first, second = np.sort(reference, axis=1)[:, :-3:-1].T
    changed = outputs.argmax(1) != reference.argmax(1)
    return [round(float(margin), 4) for margin in np.sort((first - second)[changed])]


def _losses(outputs: np.ndarray, y: np.ndarray, error: bool) -> np.ndarray:
    """What each example costs: its squared error, or 1 where the class is wrong."""
    if error:
        return np.square(outputs - y).mean(axis=1)
    return (outputs.argmax(1) != y).astype(float)


def _add_times(rows: list[Row], files: dict[str, Any]) -> None:
    real = {title: file for title, file in files.items() if isinstance(file, tfnas.Artifact)}
    times = tfnas.benchmark(list(real.values()), reference=real["dynamic"])
    ratios = {title: measured.ratio for title, measured in zip(real, times, strict=True)}
    for row in rows:
        row["time"] = ratios.get(row["file"])


def _rows(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """A row of the table a file: means over the seeds that have it."""
    by_title: dict[str, list[Row]] = {}
    for row in (row for rows in runs for row in rows):
        by_title.setdefault(row["file"], []).append(row)
    return [_mean_row(title, rows) for title, rows in by_title.items()]


def _mean_row(title: str, rows: Sequence[Row]) -> Row:
    def mean(key: str, form: str) -> str:
        values = [row[key] for row in rows if row.get(key) is not None]
        return format(statistics.mean(values), form) if values else ""

    error = rows[0]["error"]
    half = 1.96 * math.sqrt(sum(row["variance"] for row in rows)) / len(rows)
    quality = statistics.mean(row["quality"] for row in rows)
    return {
        "file": title,
        "accuracy or MSE": f"{quality if error else 1 - quality:.4f}",
        "lost": f"{mean('lost', '+.2f')} ± {half:.2f} {'%' if error else 'points'}",
        "same": mean("same", ".4f"),
        "bytes": mean("bytes", ",.0f"),
        "time": mean("time", ".2f"),
        "float operators": mean("floats", ".0f"),
        "Keras: same class": mean("same class", ".4f"),
        "Keras: steps": mean("steps", ".2f"),
    }


def _computes_in_floats(op: Any) -> bool:
    return any(tensor.dtype.startswith("float") for tensor in (*op.inputs, *op.outputs))


def _on_reference_kernels(file: Any, x: np.ndarray) -> np.ndarray:
    interpreter = file.interpreter(reference=True)
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = exit_["quantization"]
    outputs = []
    for example in x:
        value = example[None]
        if entry["dtype"] in (np.int8, np.int16):
            step, point = entry["quantization"]
            limits = np.iinfo(entry["dtype"])
            value = np.floor(value / np.float32(step) + 0.5) + point
            value = np.clip(value, limits.min, limits.max)
        interpreter.set_tensor(entry["index"], value.astype(entry["dtype"]))
        interpreter.invoke()
        outputs.append(
            (interpreter.get_tensor(exit_["index"])[0].astype(np.float32) - zero) * scale
        )
    return np.stack(outputs)


if __name__ == "__main__":
    app.run(main)
