"""Post-training recipes on a float `.tflite` file, carried out by ai-edge-quantizer.

The converter knows one format for a whole file. Files whose weights have 4 bits, or a
format a layer, or are unpacked to floats before use, are made from the float file here:
:func:`weights_recipe` writes a :class:`~tfnas.quantization.spec.QuantSpec` down as a recipe,
and :func:`apply_recipe` carries out any recipe, also one from a file or by its name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.data.datasets import arrays, spread
from tfnas.data.representative_dataset import (
    CALIBRATION_EXAMPLES,
    is_representative_dataset,
    representative_arrays,
)
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.file_weights import FileKernel, read_kernels
from tfnas.tflite.flatbuffer import TensorInfo, innermost, read_graphs

_ALGORITHM = "min_max_uniform_quantize"
# What ai-edge-quantizer 0.10 quantizes with float activations, and with 4 bits
# (`default_policy.py`); its names for TFLite's operators.
_NAMES = {
    "CONV_2D": "CONV_2D",
    "DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED": "FULLY_CONNECTED",
    "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE",
    "BATCH_MATMUL": "BATCH_MATMUL",
}
_FOUR_BITS = {"CONV_2D", "FULLY_CONNECTED"}


def layers_of_file(model: Any, artifact: Artifact) -> dict[str, tuple[str, list[FileKernel]]]:
    """Returns the layers that own a file's kernels: name -> (class, kernels).

    Args:
        model: The Keras or tf_keras model.
        artifact: The file that it was converted to.
    """
    classes = {layer.name: type(layer).__name__ for layer in model._flatten_layers()}
    found: dict[str, tuple[str, list[FileKernel]]] = {}
    for kernel in read_kernels(artifact):
        name = _owner(kernel, classes, counted=not is_tf_keras(model))
        found.setdefault(name, (classes.get(name, kernel.operator), []))[1].append(kernel)
    return found


def _owner(kernel: FileKernel, classes: dict[str, str], counted: bool) -> str:
    """The layer of the model whose kernel it is, else what the file's names tell.

    Keras 3 puts a counter behind each layer's name, tf_keras none: its "dense_1" is no "dense".
    """
    if counted and kernel.layer in classes:
        return kernel.layer
    return innermost(re.split("[/;]", kernel.tensor.name), classes, counted) or kernel.layer


def weights_recipe(model: Any, artifact: Artifact, spec: QuantSpec) -> list[dict[str, Any]]:
    """Returns the recipe that gives each layer's weights the format of a specification.

    Args:
        model: The model.
        artifact: Its float32 file.
        spec: Integer weights and float activations.

    Raises:
        ValueError: An entry of `spec.layers` matches no layer with a kernel, or no kernel
            would be quantized.
    """
    layers = layers_of_file(model, artifact)
    spec.check_patterns([(name, kind) for name, (kind, _) in layers.items()])
    recipe: list[dict[str, Any]] = []
    for name, (kind, kernels) in layers.items():
        bits = spec.weight_bits(name, kind)
        for kernel in kernels:
            if bits is not None and kernel.operator in _NAMES:
                least = bits if kernel.operator in _FOUR_BITS else 8
                recipe += _entries(artifact, kernel, max(bits, least), spec.weight_only)
    if not recipe:
        raise ValueError(
            f"mode {spec.mode!r} must quantize the kernel of some layer, got none for "
            f"{', '.join(list(layers)[:5]) or 'a file without kernels'}"
        )
    return recipe


def _entries(
    artifact: Artifact, kernel: FileKernel, bits: int, weight_only: bool
) -> Iterator[dict[str, Any]]:
    """An entry for every operator that takes the kernel, found by its output's name."""
    operators = ((graph, op) for graph in read_graphs(artifact.content) for op in graph.operators)
    for graph, op in operators:
        # Whole records: loops' bodies number their tensors anew.
        taken = [graph.constant_behind(tensor) for tensor in op.inputs]
        if op.name in _NAMES and kernel.tensor in taken:
            yield {
                "regex": f"^{re.escape(op.outputs[0].name)};",
                "operation": _NAMES[op.name],
                "algorithm_key": _ALGORITHM,
                "op_config": {
                    "weight_tensor_config": {
                        "num_bits": bits,
                        "symmetric": True,
                        "granularity": "CHANNELWISE",
                        "dtype": "INT",
                    },
                    "compute_precision": "FLOAT" if weight_only else "INTEGER",
                    "explicit_dequantize": weight_only,
                    "skip_checks": False,
                },
            }


def apply_recipe(
    artifact: Artifact,
    recipe: str | os.PathLike[str] | Sequence[dict[str, Any]],
    calibration: Any = None,
) -> Artifact:
    """Quantizes a float32 file by a recipe of ai-edge-quantizer.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        >>> file = tfnas.to_tflite(model)
        >>> tfnas.apply_recipe(file, "dynamic_wi4_afp32").size < file.size / 3
        True

    Args:
        artifact: A float32 file.
        recipe: A name in `ai_edge_quantizer.recipe`, a JSON file, or the recipe itself: a list
            of dictionaries.
        calibration: Typical inputs, as for :func:`tfnas.to_tflite`, for recipes that
            quantize activations.

    Returns:
        The quantized file; its `origin` holds the recipe.

    Raises:
        ValueError: The recipe is unknown or no recipe, it needs calibration data, or the
            data does not fit.
        ConversionError: ai-edge-quantizer can't carry it out on this file, nothing became
            smaller by it, or the interpreter refuses the result.

    References:
        https://github.com/google-ai-edge/ai-edge-quantizer
    """
    from ai_edge_quantizer import quantizer  # type: ignore[import-untyped]

    name, steps = _recipe(recipe)
    if not isinstance(artifact, Artifact):
        raise ValueError(f"artifact must be a tfnas.Artifact, got {type(artifact).__name__}")
    rounded = next((tensor for tensor in _tensors(artifact) if tensor.zero_points), None)
    if rounded is not None:
        raise ValueError(
            f"artifact must be a float32 file, got {rounded.dtype} numbers in {rounded.name!r}"
        )
    try:
        worker = quantizer.Quantizer(bytearray(artifact.content), steps)
        needs = worker.need_calibration
    except Exception as error:  # it raises many types for a recipe that is none
        raise ValueError(
            f"recipe must be one of ai-edge-quantizer's, got {name}: {error}"
        ) from error
    columns = _columns(artifact, name, calibration) if needs else []
    try:
        with _quiet():
            found = _ranges(worker, artifact, steps, columns) if needs else None
            content = worker.quantize(
                found, enable_progress_bar=False, enable_progress_report=False
            )
        result = Artifact(
            bytes(content.quantized_model or b""),
            name,
            {**artifact.origin, "mode": name, "recipe": list(steps)},
        )
        result.interpreter()
    except Exception as error:  # likewise
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConversionError(
            f"recipe {name} can't be carried out on this file: {cause}"
        ) from error
    before, after = ({t.dtype for t in _tensors(file)} for file in (artifact, result))
    if before == after:
        raise ConversionError(f"recipe {name} changed nothing: no operator of the file matches it")
    return result


def _tensors(artifact: Artifact) -> Iterator[TensorInfo]:
    """All tensors of a file, those inside loops too."""
    return (tensor for graph in read_graphs(artifact.content) for tensor in graph.tensors)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ai-edge-quantizer's progress bars and its interpreter's warning away."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _recipe(given: Any) -> tuple[str, list[dict[str, Any]]]:
    """A recipe and what to call it."""
    from ai_edge_quantizer import recipe as known

    if isinstance(given, list | tuple):
        return "recipe", list(given)
    if not isinstance(given, str | os.PathLike):
        raise ValueError(f"recipe must be a name, a JSON file or a list, got {given!r}")
    text = os.fspath(given)
    if pathlib.Path(text).suffix == ".json":
        try:
            steps = json.loads(pathlib.Path(text).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"recipe {text!r} must be a JSON file: {error}") from error
        return pathlib.Path(text).stem, steps
    names = sorted(name for name in vars(known) if re.fullmatch(r"[a-z_]+_wi\w+", name))
    if text not in names or text.startswith("_"):
        shown = ", ".join(name for name in names if not name.startswith("_"))
        raise ValueError(f"recipe must be one of {shown}, or a .json file, got {text!r}")
    return text, getattr(known, text)()


def _columns(artifact: Artifact, name: str, calibration: Any) -> list[np.ndarray]:
    """Calibration examples in the order of the file's inputs, checked."""
    if calibration is None:
        raise ValueError(f"calibration must hold typical inputs for recipe {name}, got None")
    if is_representative_dataset(calibration):
        examples = representative_arrays(calibration, CALIBRATION_EXAMPLES, "calibration")
        return artifact._columns(examples)
    columns = artifact._columns(arrays(calibration, what="calibration")[0])
    if not len(columns[0]):
        raise ValueError("calibration must hold at least one example, got none")
    return [spread(column, CALIBRATION_EXAMPLES) for column in columns]


def _ranges(
    worker: Any, artifact: Artifact, steps: list[dict[str, Any]], columns: list[np.ndarray]
) -> Any:
    """The ends of each activation over all examples, where the recipe asks for no more.

    The quantizer's moving average over examples would cut them, and leave of an output that
    is one number an example next to nothing.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils  # type: ignore[import-untyped]

    examples = _signatures(artifact, columns)
    if {step.get("algorithm_key", _ALGORITHM) for step in steps} - {_ALGORITHM, "no_quantize"}:
        return worker.calibrate(examples)  # it gathers more than ends
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(steps)
    watched = calibrator.Calibrator(
        artifact.content, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    watched.calibrate(examples, manager)
    return watched.get_model_qsvs()


def _signatures(artifact: Artifact, columns: list[np.ndarray]) -> dict[str, Any]:
    inputs = artifact.inputs
    examples = [
        {t.name: c[i : i + 1].astype(t.dtype) for t, c in zip(inputs, columns, strict=True)}
        for i in range(len(columns[0]))
    ]
    return {"serving_default": examples}
