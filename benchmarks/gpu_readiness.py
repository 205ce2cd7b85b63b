"""What a phone's GPU is predicted to take of keras.applications, and whether the files are right.

    python benchmarks/gpu_readiness.py [--families=MobileNetV2,...] [--size=96] [--cells=FOLDER]

The smallest architecture of each family as a float32 file: random weights, statistics of
BatchNormalization of random images, 10 classes. Prints how many multiply-accumulates TFLite's
GPU delegate is predicted to take, in how many parts, and how many operators it leaves to the CPU,
in the file as it is converted and after `fit_for="gpu"`; and the largest difference of an output
of these two files, as a fraction of the largest output. And the errors of the converted file
against Keras by `tfnas.verify`, on random images and at the ends of their ranges, with the operator
that departs first and the repair where it is not verified; and there how far Keras and the file are
from the same network in float64, whose rounding is no matter.

Each architecture is kept in a file of --cells: what is there is not measured again.
"""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.table import table
from tfnas.tflite.gpu_forms.gpu_form import fitted_for_gpu

FAMILIES = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "EfficientNetB0"),
    *("EfficientNetV2B0", "DenseNet121", "VGG16", "Xception", "InceptionV3", "NASNetMobile"),
    *("ConvNeXtTiny", "InceptionResNetV2"),
)
CHOSEN = flags.DEFINE_list("families", list(FAMILIES), "models of keras.applications")
SIZE = flags.DEFINE_integer("size", 96, "height and width of the images")
CELLS = flags.DEFINE_string("cells", "build/gpu_readiness", "folder of what is measured already")
EXAMPLES = 8
GPU, ERRORS = "float32 files on a GPU, as predicted", "float32 files against Keras"


def main(argv: list[str]) -> None:
    cells = [cell(name) for name in CHOSEN.value]
    tables = {title: [each[title] for each in cells] for title in (GPU, ERRORS)}
    for rows in tables.values():
        print(table(list(rows[0]), [list(row.values()) for row in rows], right=1))
    notes = [f"Images of {SIZE.value}x{SIZE.value}; errors on {EXAMPLES} random images."]
    if left := [name for name in FAMILIES if name not in CHOSEN.value]:
        notes.append(f"Not measured: {', '.join(left)}.")
    record.write("gpu_readiness", tables, seed=0, notes=notes)


def cell(name: str) -> dict[str, Any]:
    """Returns the rows of an architecture, measured before or now."""
    path = pathlib.Path(CELLS.value) / f"{name}_{SIZE.value}.json"
    return record.kept_cell(path, lambda: measured(name))


def measured(name: str) -> dict[str, Any]:
    """Returns a row of each table."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    shape = (SIZE.value, SIZE.value, 3)
    model = getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10)
    images = np.random.default_rng(0).uniform(0, 255, (EXAMPLES, *shape)).astype("float32")
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        tfnas.recalibrate_batchnorm(model, images)
    file = tfnas.to_tflite(model)
    return {GPU: on_a_gpu(name, file), ERRORS: against_keras(name, model, file, images)}


def on_a_gpu(name: str, file: tfnas.Artifact) -> dict[str, Any]:
    """Returns what is predicted to be delegated, before and after."""
    _, fit = fitted_for_gpu(file)
    before, after = fit.before, fit.after
    return {
        "model": name,
        "MACs, M": round((before.total or 0) / 1e6, 1),
        "delegated": before.share,
        "delegated, fitted": after.share,
        "parts": before.partitions,
        "parts, fitted": after.partitions,
        "left": before.left,
        "left, fitted": after.left,
        "rewritten": ", ".join(f"{count} {each}" for each, count in fit.rewritten.items()),
        "difference": "" if fit.difference is None else f"{fit.difference:.2g}",
    }


def against_keras(
    name: str, model: keras.Model, file: tfnas.Artifact, images: np.ndarray
) -> dict[str, Any]:
    """Returns the errors of the file, and what departs and repairs it."""
    found = tfnas.verify(model, file, images, repair=True)
    worst, extreme = found.worst(), found.worst("ends of ranges")
    repaired = next((each.what for each in found.repairs if each.passed), "none")
    return {
        "model": name,
        "relative": f"{worst.relative:.2g}",
        "largest": f"{worst.largest:.2g}",
        "relative, extreme": f"{extreme.relative:.2g}",
        "verified": found.passed,
        "departs": "" if found.departure is None else str(found.departure),
        "repair": "" if found.passed else repaired,
        **from_float64(model, file, None if found.passed else images),
    }


def from_float64(
    model: keras.Model, file: tfnas.Artifact, images: np.ndarray | None
) -> dict[str, str]:
    """Returns how far Keras and the file are from float64, as a fraction of the largest output.

    Args:
        model: The model.
        file: Its file.
        images: What both are computed on; None: that is not measured.
    """
    columns = ("Keras, from float64", "file, from float64", "file, other kernels, from float64")
    if images is None:
        return dict.fromkeys(columns, "")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        exact = type(model).from_config(in_float64(model.get_config()))
        exact.set_weights([weight.astype("float64") for weight in model.get_weights()])
        expected = np.asarray(exact(images.astype("float64")))
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    outputs = (model(images), file.predict(images), file.predict(images, reference=True))
    largest = np.abs(expected).max()
    errors = (np.abs(np.asarray(each) - expected).max() / largest for each in outputs)
    return {column: f"{error:.2g}" for column, error in zip(columns, errors, strict=True)}


def in_float64(config: Any) -> Any:
    """Returns a model's configuration with all its numbers in float64."""
    if isinstance(config, dict):
        return {key: in_float64(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [in_float64(value) for value in config]
    return "float64" if config == "float32" else config


if __name__ == "__main__":
    app.run(main)
