"""What a Keras model and its `.tflite` file must have in common to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.output_names import output_names
from tfnas.graph.preprocessing import preprocessed, split_preprocessing
from tfnas.quantization.aware_models import fake_quants, float_output_names
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.passes.read_calibration import as_inputs


def without_preprocessing(
    model: keras.Model, *data: Sequence[np.ndarray]
) -> tuple[keras.Model, tuple[Sequence[np.ndarray], ...]]:
    """Returns the part of a model that is in its file, and data as this part takes it.

    Args:
        model: A functional or Sequential model.
        *data: Inputs of the model, one array per input in each.
    """
    front, rest = split_preprocessing(model)
    if front is None:
        return model, data
    passed = (preprocessed(front, as_inputs(front, columns)) for columns in data)
    return rest, tuple(fitting_columns(rest, columns) for columns in passed)


def check_same_ends(model: keras.Model, artifact: Artifact) -> None:
    """Checks that a file has the inputs and outputs of a model.

    Args:
        model: A model with known inputs, without preprocessing in front.
        artifact: The file.

    Raises:
        ValueError: It has others.
    """
    shapes = {tensor.name: tuple(tensor.shape) for tensor in artifact.inputs}
    check_same_tensors(model, shapes, len(artifact.outputs))


def check_same_tensors(
    model: keras.Model, inputs: Mapping[str, tuple[int, ...]], outputs: int
) -> None:
    """Checks that a file has the inputs and outputs of a model.

    Args:
        model: A model with known inputs, without preprocessing in front.
        inputs: The shapes of the file's inputs by name; -1 is an open size.
        outputs: The number of its outputs.

    Raises:
        ValueError: It has others.
    """
    names = sorted(tensor.name for tensor in model.inputs)
    found = sorted(inputs)
    if len(names) != len(found) or (len(names) > 1 and names != found):
        raise ValueError(f"artifact must have the inputs {names} of the model, got {found}")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in model.inputs}
    for name, shape in inputs.items():
        expected = shapes[name if len(names) > 1 else names[0]]
        if len(expected) != len(shape) or any(
            size not in (None, got) and got != -1
            for size, got in zip(expected[1:], shape[1:], strict=True)
        ):
            raise ValueError(
                f"artifact must take the shape {expected} of the model's input {name!r}, "
                f"got {shape}"
            )
    if len(model.outputs) != outputs:
        raise ValueError(
            f"artifact must have the {len(model.outputs)} outputs of the model, got {outputs}"
        )


def names_of_outputs(model: keras.Model, own: list[str]) -> list[str]:
    """Returns the names of a file's outputs as its model has them, in the file's order.

    Those are Keras' names, of a Sequential model that of its last layer; of a quantization-aware
    model those of the layers that it was made of. A file calls the same outputs "output_0" or
    "StatefulPartitionedCall_1:0". Where the model has none, or one twice, they are the file's.

    Args:
        model: A model with known inputs.
        own: The names of its file's outputs.
    """
    if fake_quants(model) and not isinstance(getattr(model, "output", None), dict):
        names = float_output_names(model)
    elif isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = output_names(model) if hasattr(model, "output_names") else own
    return names if len(set(names)) == len(own) else own
