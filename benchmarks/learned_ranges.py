"""Learned step sizes (LSQ) beside moving averages, at 8 and at 4 bits of weights.

    python benchmarks/learned_ranges.py --network=sst2_transformer [--seeds=3] [--epochs=3]
    python benchmarks/learned_ranges.py --network=resnet8 --data=cifar10.npz [--seeds=1]

The text transformer of `sequence_models` on SST-2, trained here for each seed, and MLPerf Tiny's
ResNet8 on CIFAR-10, as it is. Quantization-aware training begins with the same calibrated ranges;
then they are moving averages of each batch's extremes, or follow the gradient (Esser et al.,
"Learned Step Size Quantization", ICLR 2020). Both see the same batches, at the same rate, as long.
The float32 model that is trained as long says what the epochs alone change. Ranges are those of
activations; the scales of weights are their largest numbers in all rows.

Each network has a record of its own, `learned_ranges_NETWORK.json`, which holds the numbers of each
seed: the same call goes on, and a call with more seeds measures only those that are missing. Within
a seed each training is kept in --folder.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import record
import resnet8
from absl import app, flags
from sequence_models import network as sequence_model

import tfnas
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT, IMAGES = "sst2_transformer", "resnet8"
NETWORK = flags.DEFINE_enum("network", TEXT, (TEXT, IMAGES), "the network")
SEED = flags.DEFINE_integer("seed", 0, "the first seed of weights and training")
SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds", 1)
EPOCHS = flags.DEFINE_integer("epochs", 3, "epochs of quantization-aware training", 1)
MODES = flags.DEFINE_multi_enum(
    "mode", ["int8", "int8x4", "int16x8"], ["int8", "int8x4", "int16x8"], "formats to train for"
)
FOLDER = flags.DEFINE_string("folder", "runs/learned_ranges", "what is kept of the runs")
TEXTS = flags.DEFINE_string(
    "texts", str(ROOT.parent / "shared/data/tasks"), "folder of SST-2's sentences"
)
# Mode -> Adam's rate at its start: those of qat_resnet8.py.
RATES = {"float32": 1e-4, "int8": 1e-4, "int8x4": 5e-4, "int16x8": 1e-4}
KINDS = {"moving_average": "moving averages", "learned": "learned"}
CALIBRATION, BATCH, RECALIBRATE = 300, 64, 2000
Run = dict[str, Any]  # of one seed: rows, settings, date, commit


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model and what is done with it.

    Args:
        model: The model.
        typical: Calibration inputs.
        train: Takes a model and Adam's first rate, and trains it further, in place.
        x: Test inputs.
        y: Their classes.
    """

    model: keras.Model
    typical: np.ndarray
    train: Callable[[keras.Model, float], None]
    x: np.ndarray
    y: np.ndarray


def main(_: list[str]) -> None:
    """Measures a network and writes its record."""
    name = NETWORK.value
    runs = _kept(name)
    for seed in map(str, range(SEED.value, SEED.value + SEEDS.value)):
        if seed not in runs:
            runs[seed] = _measure(name, int(seed))
            _write(name, runs)
    _write(name, runs)


def _kept(name: str) -> dict[str, Run]:
    """What the network's record holds, by seed."""
    found: dict[str, Run] = record.kept(f"learned_ranges_{name}").get("runs", {})
    return {seed: run for seed, run in found.items() if run["settings"] == _settings(name)}


def _settings(name: str) -> dict[str, Any]:
    """What seeds of one record have in common."""
    examples = resnet8.EXAMPLES.value if name == IMAGES else None
    return {"epochs": EPOCHS.value, "modes": MODES.value, "examples": examples}


def _measure(name: str, seed: int) -> Run:
    """The numbers of a seed; a training that was kept is not repeated."""
    settings = _settings(name)
    parts = (name, seed, settings["epochs"], settings["examples"])
    folder = pathlib.Path(FOLDER.value, "_".join(str(part) for part in parts if part is not None))
    subject: list[Subject] = []

    def cell(mode: str, ranges: str | None) -> dict[str, Any]:
        if not subject:
            subject.append(_images(seed) if name == IMAGES else _texts(seed))
        return _right(subject[0], mode, ranges, seed)

    def kept(mode: str, ranges: str | None) -> np.ndarray:
        path = folder / f"{mode}_{ranges}.json"
        found = record.kept_cell(path, lambda: cell(mode, ranges))
        return np.frombuffer(bytes.fromhex(found["right"]), np.uint8).astype(bool)

    before, further = kept("float32", None), kept("float32", "trained")
    rows = [_row("float32", "", before, before, None)]
    rows.append(_row("float32", "trained as long", further, before, None))
    for mode in MODES.value:
        averages = kept(mode, "moving_average")
        rows.append(_row(mode, KINDS["moving_average"], averages, before, None))
        rows.append(_row(mode, KINDS["learned"], kept(mode, "learned"), before, averages))
    made = datetime.date.today().isoformat()
    commit = record.commit_of(pathlib.Path(__file__).parent)
    return {"date": made, "commit": commit, "settings": settings, "rows": rows}


def _right(subject: Subject, mode: str, ranges: str | None, seed: int) -> dict[str, Any]:
    """Trains a copy of the model, and tells for which test examples its file is right."""
    keras.utils.set_random_seed(seed)
    if mode == "float32":
        model = keras.models.clone_model(subject.model)
        model.set_weights(subject.model.get_weights())
    else:
        spec = dataclasses.replace(tfnas.QuantSpec.of(mode), ranges=ranges)
        model = tfnas.quantize_aware(subject.model, spec, data=subject.typical)
    if ranges is not None:
        subject.train(model, RATES[mode])
    found = np.asarray(tfnas.to_tflite(model, mode).predict(subject.x)).argmax(1) == subject.y
    return {"accuracy": float(found.mean()), "right": found.astype(np.uint8).tobytes().hex()}


def _texts(seed: int) -> Subject:
    """The transformer of SST-2, trained as in sequences.py; the best epoch on "dev" counts."""
    module = sequence_model(TEXT)
    train, validation, (x, y) = module.data(TEXTS.value)
    model = module.model(seed)

    def fit(trained: keras.Model, rate: float, epochs: int = EPOCHS.value) -> None:
        schedule = keras.optimizers.schedules.CosineDecay(
            rate, epochs * math.ceil(len(train[0]) / BATCH)
        )
        optimizer, loss = keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy"
        trained.compile(optimizer, loss, jit_compile=False)
        best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
        options = {"validation_data": validation, "callbacks": [best], "verbose": 2}
        trained.fit(*train, batch_size=BATCH, epochs=epochs, **options)

    fit(model, module.LEARNING_RATE, module.EPOCHS)
    return Subject(model, tfnas.data.spread(train[0], CALIBRATION), fit, x, y)


def _images(seed: int) -> Subject:
    """The reference's ResNet8; the weights of the last step count, as in qat_resnet8.py."""
    teacher = resnet8.load_model()
    images, labels, x, y = resnet8.load_images()

    def fit(trained: keras.Model, rate: float) -> None:
        resnet8.train(trained, teacher, rate, images, labels, seed, EPOCHS.value)
        tfnas.recalibrate_batchnorm(trained, images[:RECALIBRATE].astype(np.float32))

    return Subject(teacher, images[:CALIBRATION].astype(np.float32), fit, x, y)


def _row(
    mode: str, ranges: str, right: np.ndarray, before: np.ndarray, averages: np.ndarray | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": mode, "ranges": ranges, "accuracy": float(right.mean())}
    row["to float32"] = _difference(right, before)
    row["to averages"] = None if averages is None else _difference(right, averages)
    return row


def _difference(right: np.ndarray, other: np.ndarray) -> list[float]:
    """Mean difference in points, and the variance of that mean over the examples."""
    points = 100.0 * (right.astype(float) - other.astype(float))
    return [float(points.mean()), float(points.var(ddof=1) / len(points))]


def _write(name: str, runs: dict[str, Run]) -> None:
    """Writes the network's record: means over its seeds, and the numbers of each."""
    runs = {seed: runs[seed] for seed in sorted(runs, key=int)}
    groups = zip(*(run["rows"] for run in runs.values()), strict=True)
    rows = [_mean_row(list(group)) for group in groups]
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]), flush=True)
    notes = [
        f"Seeds: {len(runs)}; epochs of each training: {EPOCHS.value}. After ± is half of the 95% "
        "interval of the mean difference in points on the same test examples, which holds for "
        "these trainings and not for others; single seeds in brackets.",
        "int8x4 has weights of 4 bits, int16x8 activations of 16. Adam's first rate: 5e-4 with "
        "4 bits, else 1e-4.",
        "Measured beside other jobs; nothing here depends on time.",
    ]
    command = f"python benchmarks/learned_ranges.py --network={name} --seeds={len(runs)}"
    command += "".join(f" --mode={mode}" for mode in MODES.value) if len(MODES.value) < 3 else ""
    if name == IMAGES:
        notes.append(f"{resnet8.EXAMPLES.value:,} training images, {RECALIBRATE:,} of them for")
        notes[-1] += " BatchNormalization at the end; weights of the last step."
        command += f" --data=cifar10.npz --examples={resnet8.EXAMPLES.value}"
    else:
        notes.append("The weights of the epoch with the least loss on the 872 dev sentences.")
    record.write(
        "learned_ranges",
        rows,
        seed=min(map(int, runs)),
        notes=notes,
        command=f"{command} --epochs={EPOCHS.value}",
        result=f"learned_ranges_{name}",
        runs=runs,
    )


def _mean_row(rows: list[dict[str, Any]]) -> dict[str, str]:
    """A row of the table: means over the seeds."""

    def points(key: str) -> str:
        pairs = [row[key] for row in rows if row[key] is not None]
        if not pairs:
            return ""
        half = 1.96 * math.sqrt(sum(variance for _, variance in pairs)) / len(pairs)
        values = [value for value, _ in pairs]
        single = f" ({', '.join(f'{value:+.2f}' for value in values)})" if len(values) > 1 else ""
        return f"{statistics.mean(values):+.2f} ± {half:.2f}{single}"

    first = rows[0]
    trained = bool(first["ranges"])
    return {
        "mode": first["mode"],
        "ranges": first["ranges"],
        "accuracy": f"{statistics.mean(row['accuracy'] for row in rows):.4f}",
        "points to float32": points("to float32") if trained else "",
        "points to moving averages": points("to averages"),
    }


if __name__ == "__main__":
    app.run(main)
