"""A small text transformer that learns from a larger one, with and without its attention maps.

    python benchmarks/attention_maps.py [--seeds=3] [--epochs=8] [--teacher_epochs=8]

TREC, six kinds of questions: a teacher of four blocks of width 64 with four heads is trained once a
seed. A student of two blocks of width 32 with two heads, of the same first weights and on the same
batches, learns from the labels alone, from the teacher's outputs too, and from its attention maps
beside: layer i of 2 from layer 2i of 4, heads averaged. Weights of the maps are compared on the
validation part with the first seed; the test part judges what was best there. Prints the accuracy
of the float32 `.tflite` files on the test part, the paired difference to the student that learns
from outputs (all seeds' answers together) with its 95% interval over questions, and the divergence
of the attention maps from the teacher's on the validation part.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from keras import layers, ops
from sequence_models import text_transformer as trec
from sequence_models.blocks import encode

import tfnas
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.feature_distances import map_divergence
from tfnas.distillation.forward import ForwardPass
from tfnas.measure.accuracy import correct
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parents[1]
SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds", 1)
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
EPOCHS = flags.DEFINE_integer("epochs", 8, "epochs of a student")
TEACHER_EPOCHS = flags.DEFINE_integer("teacher_epochs", 8, "epochs of a teacher")
WEIGHTS = flags.DEFINE_list("weights", ["0.1", "1", "10"], "weights of the maps to compare")
ALPHA, TEMPERATURE, RATE, BATCH = 0.5, 1.0, 1e-3, 64
LABELS = "sparse_categorical_crossentropy"
ALONE, OUTPUTS, MAPS = "labels alone", "outputs", "outputs, attention maps"
Parts = tuple[tuple[np.ndarray, np.ndarray], ...]


def main(_: list[str]) -> None:
    """Trains teachers and students, and writes the record."""
    began = time.monotonic()
    parts = trec.data(DATA.value)
    right: dict[str, list[np.ndarray]] = {way: [] for way in ("teacher", ALONE, OUTPUTS, MAPS)}
    apart: dict[str, list[float]] = {way: [] for way in (ALONE, OUTPUTS, MAPS)}
    sizes: dict[str, int] = {}
    chosen, tried = 0.0, list[dict[str, Any]]()
    for seed in range(SEEDS.value):
        teacher = network(seed, width=64, blocks=4, heads=4)
        teacher.compile(keras.optimizers.Adam(RATE), LABELS, jit_compile=False)
        fit(teacher, parts, TEACHER_EPOCHS.value, seed)
        judge(teacher, parts, "teacher", right, sizes)
        print(f"seed {seed}, teacher: {right['teacher'][-1].mean():.4f}", flush=True)
        if not chosen:
            tried = [weight_row(float(each), teacher, parts) for each in WEIGHTS.value]
            chosen = max(tried, key=lambda row: row["validation accuracy"])["weight"]
            print(
                table(list(tried[0]), [list(map(str, row.values())) for row in tried]), flush=True
            )
        for way in (ALONE, OUTPUTS, MAPS):
            student = trained(way, teacher, parts, seed, chosen)
            judge(student, parts, way, right, sizes)
            apart[way].append(divergence(student, teacher, parts[1][0]))
            print(
                f"seed {seed}, {way}: {right[way][-1].mean():.4f}, {apart[way][-1]:.3f} apart",
                flush=True,
            )
        write(right, apart, sizes, chosen, tried)
    print(f"{time.monotonic() - began:.0f} s in all")


def write(right: Any, apart: Any, sizes: dict[str, int], chosen: float, tried: Any) -> None:
    """Writes the record of the seeds so far."""
    rows = [row_of(way, right, apart, sizes) for way in right]
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]), flush=True)
    seeds = len(right["teacher"])
    notes = [
        f"Mean over {seeds} seeds; points: difference to the student that learns from outputs, on "
        "the same questions of all seeds, with the 95% interval over questions.",
        "apart: KL divergence of the student's attention from the teacher's, validation part.",
        f"The weight of the maps, {chosen:g}, was the best of {', '.join(WEIGHTS.value)} on the "
        "validation part with the first seed.",
        "Measured on a machine that other jobs shared; no time is reported.",
    ]
    if np.mean(right["teacher"]) <= np.mean(right[ALONE]):
        notes.append(
            "The teacher is no better than the student that learns from labels alone, so learning "
            "from it costs accuracy here; the attention maps then say little for a good teacher."
        )
    command = f"python benchmarks/attention_maps.py --seeds={seeds}"
    tables = {"TREC": rows, "Weight of the maps": tried}
    record.write("attention_maps", tables, seed=0, notes=notes, command=command)


def network(seed: int, width: int, blocks: int, heads: int) -> keras.Model:
    """Words and places, blocks, the mean over words, softmax."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((trec.LENGTH,), dtype="int32", name="ids")
    places = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    words = layers.Embedding(trec.VOCABULARY, width, mask_zero=True, name="words")(ids)
    x = layers.Add()([words, layers.Embedding(trec.LENGTH, width, name="places")(places)])
    x = encode(x, blocks=blocks, heads=heads, dropout=0.1)
    x = layers.GlobalAveragePooling1D()(x, mask=ops.not_equal(ids, 0))
    return keras.Model(ids, layers.Dense(trec.KINDS, activation="softmax", name="kind")(x))


def fit(model: Any, parts: Parts, epochs: int, seed: int) -> None:
    keras.utils.set_random_seed(seed)  # the order of batches, and dropout
    x, y = parts[0]
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def trained(way: str, teacher: Any, parts: Parts, seed: int, weight: float) -> keras.Model:
    """A student of the seed's first weights."""
    student = network(seed, width=32, blocks=2, heads=2)
    if way == ALONE:
        student.compile(keras.optimizers.Adam(RATE), LABELS, jit_compile=False)
        fit(student, parts, EPOCHS.value, seed)
        return student
    maps = tfnas.attention_map_transfers(student, teacher, weight=weight) if way == MAPS else ()
    distiller = tfnas.Distiller(teacher, student, ALPHA, TEMPERATURE, features=maps)
    distiller.compile(keras.optimizers.Adam(RATE), jit_compile=False)
    fit(distiller, parts, EPOCHS.value, seed)
    return student


def weight_row(weight: float, teacher: Any, parts: Parts) -> dict[str, Any]:
    """The first seed's student with a weight of the maps, on the validation part."""
    student = trained(MAPS, teacher, parts, 0, weight)
    x, y = parts[1]
    found = correct(y, student.predict(x, verbose=0)).mean()
    apart = divergence(student, teacher, x)
    return {
        "weight": weight,
        "validation accuracy": round(float(found), 4),
        "apart": round(apart, 3),
    }


def divergence(student: Any, teacher: Any, x: np.ndarray) -> float:
    """The mean divergence of the student's attention maps from the teacher's."""
    pairs = tfnas.attention_map_transfers(student, teacher)
    taps = [
        [ActivationTap(getattr(each, role), maps=True) for each in pairs]
        for role in ("student", "teacher")
    ]
    models = zip((student, teacher), ("student", "teacher"), taps, strict=True)
    found = [ForwardPass(model, role, own).run(x, False).features for model, role, own in models]
    distances = [map_divergence(found[0][s], found[1][t]) for s, t in zip(*taps, strict=True)]
    return float(np.mean([np.mean(each) for each in distances]))


def judge(model: Any, parts: Parts, way: str, right: dict[str, Any], sizes: dict[str, int]) -> None:
    """Notes whether each test question is right, by the file, and the file's bytes."""
    file = tfnas.to_tflite(model)
    x, y = parts[2]
    right[way].append(correct(y, file.predict(x)))
    sizes[way] = file.size


def row_of(way: str, right: dict[str, Any], apart: dict[str, Any], sizes: dict[str, int]) -> Any:
    means = [float(found.mean()) for found in right[way]]
    ours, base = (np.concatenate(right[each]) for each in (way, OUTPUTS))
    return {
        "network": way if way == "teacher" else f"student, {way}",
        "accuracy": f"{np.mean(means):.4f}",
        "of each seed": ", ".join(f"{mean:.3f}" for mean in means),
        "points to outputs [95%]": "" if way in ("teacher", OUTPUTS) else record.points(ours, base),
        "apart": f"{np.mean(apart[way]):.3f}" if way in apart else "",
        "bytes": f"{sizes[way]:,}",
    }


if __name__ == "__main__":
    app.run(main)
