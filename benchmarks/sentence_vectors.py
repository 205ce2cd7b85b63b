"""Sentence vectors of all-MiniLM-L6-v2 as integers: how near are they to those of floats?

    python benchmarks/sentence_vectors.py --weights=FOLDER [--data=FOLDER] [--sentences=500]

FOLDER of the weights holds `model.safetensors` and `tokenizer.json` as they are published. A copy
of the network in layers of Keras is compared with its formulas in NumPy, in float64. Then each file
makes vectors of sentences of SST-2 (reviews) and TREC (questions), after training alone: training
sentences calibrate, others measure. Prints the cosines of its vectors with those of the float32
file, how many sentences keep their nearest other sentence, and the time of one sentence.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time

import keras
import numpy as np
import record
from absl import app, flags
from minilm.network import network, vectors_by_formulas
from minilm.weights import read_weights
from minilm.words import token_ids
from sequence_models.text_transformer import read

import tfnas
from tfnas.table import table

_TASKS = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
WEIGHTS = flags.DEFINE_string("weights", None, "folder of the weights", required=True)
DATA = flags.DEFINE_string("data", str(_TASKS), "folder of the sentences")
SENTENCES = flags.DEFINE_integer("sentences", 500, "sentences of each data set, at most")
CALIBRATE = flags.DEFINE_integer("calibrate", 200, "sentences of each that calibrate")
LENGTH = flags.DEFINE_integer("length", 64, "pieces of words of a sentence; longer ones are cut")
FILES = flags.DEFINE_list(
    "files",
    [
        "float16",
        "dynamic",
        "int8",
        "int8 smooth",
        "int8 residual",
        "int8 residual per-channel",
        "int16x8",
        "int16x8 residual",
    ],
    "files beside float32",
)
PARTS = {"SST-2": ("sst2_train.txt", "sst2_dev.txt"), "TREC": ("trec_train.txt", "trec_test.txt")}
_BY_FORMULAS = 16  # sentences that the network is compared with its formulas on


def main(_: list[str]) -> None:
    weights = read_weights(pathlib.Path(WEIGHTS.value) / "model.safetensors")
    model = network(weights, LENGTH.value)
    typical = np.concatenate([ids_of(files[0], CALIBRATE.value) for files in PARTS.values()])
    measured = {name: ids_of(files[1], SENTENCES.value) for name, files in PARTS.items()}
    some = typical[:_BY_FORMULAS]
    expected = vectors_by_formulas(weights, some)
    gap = np.abs(model.predict(some, verbose=0) - expected).max() / np.abs(expected).max()
    notes = [
        f"The network in Keras differs from its formulas in float64 by {gap:.1g} of the largest "
        f"number, on {_BY_FORMULAS} sentences.",
        f"{len(typical)} training sentences calibrate; sentences of {LENGTH.value} pieces.",
    ]
    print(notes[0], flush=True)
    original = tfnas.to_tflite(model)
    floats = {name: vectors(original, ids) for name, ids in measured.items()}
    rows, files = [], {"float32": original}
    for title in FILES.value:
        began = time.monotonic()
        file = original if title == "float32" else converted(model, title, typical)
        files[title] = file
        seconds = time.monotonic() - began
        for name, ids in measured.items():
            rows.append(row(title, file, original, name, vectors(file, ids), floats[name]))
            rows[-1]["conversion, s"] = round(seconds)
            print(rows[-1], flush=True)
        keep({"": rows}, notes)
    timed = times(files)
    keep({"": rows, "Time of one sentence": timed}, notes)
    print(table(list(rows[0]), [list(each.values()) for each in rows], right=2))
    print(table(list(timed[0]), [list(each.values()) for each in timed], right=1))


def keep(tables: dict[str, list[dict[str, object]]], notes: list[str]) -> None:
    """Writes the tables so far."""
    record.write("sentence_vectors", tables, seed=0, notes=notes)


def ids_of(name: str, count: int) -> np.ndarray:
    """Returns pieces of the first sentences of a file, (sentences, length)."""
    _, texts = read(pathlib.Path(DATA.value) / name)
    return token_ids(list(texts)[:count], pathlib.Path(WEIGHTS.value), LENGTH.value)


def converted(model: keras.Model, title: str, typical: np.ndarray) -> tfnas.Artifact:
    """Returns a file: the name of a mode, and what is done before.

    "smooth": outliers go into the weights; "residual": those of residual sums too, which have 16
    bits; "per-channel": kernels of Dense layers have a scale for each output channel.
    """
    mode, *before = title.split()
    spec, residual = tfnas.QuantSpec.of(mode), "residual" in before
    if residual or "smooth" in before:
        model, _ = tfnas.smooth_activations(model, typical, residual=residual)
        spec = dataclasses.replace(spec, residual_bits=16 if residual else 8)
    if "per-channel" in before:
        spec = dataclasses.replace(spec, dense_scales="per_channel")
    return tfnas.to_tflite(model, spec, typical if spec.needs_calibration else None)


def vectors(file: tfnas.Artifact, ids: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1, (sentences, 384)."""
    found = np.asarray(file.predict(ids), np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = found / lengths
    return unit


def row(
    title: str,
    file: tfnas.Artifact,
    original: tfnas.Artifact,
    name: str,
    found: np.ndarray,
    expected: np.ndarray,
) -> dict[str, object]:
    """Returns a row of the table."""
    cosines = (found * expected).sum(1)
    same = nearest(found) == nearest(expected)
    return {
        "file": title,
        "sentences of": name,
        "sentences": len(found),
        "cosine, mean": f"{cosines.mean():.4f}",
        "cosine, 1% least": f"{np.quantile(cosines, 0.01):.4f}",
        "cosine, least": f"{cosines.min():.4f}",
        "same nearest": f"{same.mean():.3f}",
        "bytes": file.size,
        "of float32": f"{file.size / original.size:.3f}",
        "float operators": len(file.origin.get("unquantized_layers", {})),
    }


def times(files: dict[str, tfnas.Artifact]) -> list[dict[str, object]]:
    """Returns the time of one sentence in each file, with one thread, of that in the float32 file.

    With the 95% interval of the median.
    """
    measured = tfnas.benchmark(list(files.values()), reference=files["float32"])
    return [
        {
            "file": title,
            "time of float32's": f"{t.ratio:.2f} ({t.ratio_low:.2f}-{t.ratio_high:.2f})",
        }
        for title, t in zip(files, measured, strict=True)
    ]


def nearest(each: np.ndarray) -> np.ndarray:
    """Returns the place of the most similar other sentence of each one."""
    similar = each @ each.T
    np.fill_diagonal(similar, -np.inf)
    found: np.ndarray = similar.argmax(1)
    return found


if __name__ == "__main__":
    app.run(main)
