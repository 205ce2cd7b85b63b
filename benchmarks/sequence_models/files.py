"""The files of a network of `sequences.py`: those of tfnas, and those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfnas

INT8, INT16 = tfnas.QuantSpec("int8"), tfnas.QuantSpec("int8", "int16")
SECOND_ORDER = tfnas.QuantSpec("int8", rounding="second_order")
INT4_TABLES = tfnas.QuantSpec("int8", layers={"Embedding": "int4"})
RECIPES = ("dynamic_wi8_afp32", "static_wi8_ai8")
_REASON = 160  # characters of an error


def files_of(
    model: keras.Model, typical: np.ndarray, train: Callable[[keras.Model], None]
) -> dict[str, tuple[tfnas.Artifact, keras.Model | None]]:
    """Returns the files of tfnas by their titles, each with its quantization-aware model, if any.

    Args:
        model: The trained network.
        typical: Calibration inputs.
        train: Trains a model further, as quantization-aware ones are trained.
    """
    files: dict[str, tuple[tfnas.Artifact, keras.Model | None]] = {
        "float32": (tfnas.to_tflite(model), None),
        "dynamic": (tfnas.to_tflite(model, "dynamic"), None),
        "int8 after training": (tfnas.to_tflite(model, INT8, typical), None),
        "int8, second order": (tfnas.to_tflite(model, SECOND_ORDER, typical), None),
    }
    trained = {"int8 trained": INT8, "int16x8 trained": INT16}
    if any(isinstance(layer, keras.layers.Embedding) for layer in model.layers):
        title = "int8, int4 tables"
        files[f"{title} after training"] = tfnas.to_tflite(model, INT4_TABLES, typical), None
        trained[f"{title} trained"] = INT4_TABLES
    further = keras.models.clone_model(model)
    further.set_weights(model.get_weights())
    train(further)  # what the epochs alone change
    files["float32 trained as long"] = tfnas.to_tflite(further), None
    for title, spec in trained.items():
        aware = tfnas.quantize_aware(model, spec, data=typical)
        train(aware)
        files[title] = tfnas.to_tflite(aware, spec.mode), aware
    return files


def peers_of(
    model: keras.Model, float_file: tfnas.Artifact, typical: np.ndarray, x: np.ndarray
) -> tuple[dict[str, tfnas.Artifact | keras.Model], list[str]]:
    """Returns what others make of the network by title, and a line for each that can't.

    Args:
        model: The trained network.
        float_file: Its float32 file.
        typical: Calibration inputs.
        x: The inputs that they are judged by; what can't run on them has no row.
    """
    makers: dict[str, Callable[[], Any]] = {
        "TensorFlow, own fallback": lambda: _by_tensorflow(model, typical),
        **{f"ai-edge-quantizer, {r}": _by_recipe(float_file, r, typical) for r in RECIPES},
        "keras quantize(int8), no file": lambda: _by_keras(model),
    }
    made, notes = {}, []
    for title, make in makers.items():
        try:
            found = make()
            found.predict(x)
            made[title] = found
        except Exception as error:  # whatever a library raises becomes a line
            text = " ".join(str(error).split())[:_REASON]
            notes.append(f"{title}: {type(error).__name__}: {text}")
    return made, notes


def _by_tensorflow(model: keras.Model, typical: np.ndarray) -> tfnas.Artifact:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in typical)
    return tfnas.Artifact(converter.convert())


def _by_recipe(file: tfnas.Artifact, name: str, typical: np.ndarray) -> Callable[[], Any]:
    return lambda: tfnas.apply_recipe(file, name, typical)


def _by_keras(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.quantize("int8")
    return copy
