"""Post-training quantization of a float `.tflite` file by recipes of ai-edge-quantizer.

TensorFlow's converter supports one format for an entire file. Files with 4-bit weights, with other
formats for single layers, or with weights that are dequantized before use are made from the float
file instead: :func:`weights_recipe` translates a :class:`~tfnas.quantization.spec.QuantSpec` into
a recipe, and :func:`apply_recipe` applies any recipe, also one from a file or by its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.reading import arrays, spread
from tfnas.data.representative_dataset import (
    CALIBRATION_EXAMPLES,
    is_representative_dataset,
    representative_arrays,
)
from tfnas.keras_private import all_layers
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.file_runs import fixed_batch
from tfnas.tflite.file_weights import FileKernel, read_kernels
from tfnas.tflite.flatbuffer import TensorInfo, innermost
from tfnas.tflite.recipe_input import for_quantizer
from tfnas.tflite.table_lookups import quantize_tables, read_tables

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import CalibrationData

_LOG = logging.getLogger(__name__)
_ALGORITHM = "min_max_uniform_quantize"
# TFLite operator -> name in ai-edge-quantizer 0.10, for the operators that it quantizes with
# float activations (`default_policy.py`).
_NAMES = {
    "CONV_2D": "CONV_2D",
    "DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED": "FULLY_CONNECTED",
    "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE",
    "BATCH_MATMUL": "BATCH_MATMUL",
}
_FOUR_BITS = {"CONV_2D", "FULLY_CONNECTED"}


def layers_of_file(
    model: keras.Model, artifact: Artifact
) -> dict[str, tuple[str, list[FileKernel]]]:
    """Returns the layers that the kernels and tables of a file belong to.

    Args:
        model: The Keras or tf_keras model.
        artifact: The file that it was converted to.

    Returns:
        Name of the layer -> (its class, its kernels).
    """
    classes = {layer.name: type(layer).__name__ for layer in all_layers(model)}
    layers: dict[str, tuple[str, list[FileKernel]]] = {}
    for kernel in (*read_kernels(artifact), *read_tables(artifact)):
        name = _layer_of(kernel, classes, counted=not is_tf_keras(model))
        layers.setdefault(name, (classes.get(name, kernel.operator), []))[1].append(kernel)
    return layers


def _layer_of(kernel: FileKernel, classes: dict[str, str], counted: bool) -> str:
    """The model's layer that a kernel belongs to, else the name that the file has for it.

    Keras 3 appends a counter to each layer's name in the graph. tf_keras does not: its "dense_1"
    is not a layer "dense".
    """
    if counted and kernel.layer in classes:
        return kernel.layer
    return innermost(re.split("[/;]", kernel.tensor.name), classes, counted) or kernel.layer


def weights_recipe(model: keras.Model, artifact: Artifact, spec: QuantSpec) -> list[dict[str, Any]]:
    """Returns the recipe that quantizes each layer's weights as a specification says.

    Args:
        model: The model.
        artifact: Its float32 file.
        spec: Integer weights and float activations.

    Raises:
        ValueError: An item of `spec.layers` matches no layer with a kernel.
    """
    layers = layers_of_file(model, artifact)
    spec.check_patterns([(name, kind) for name, (kind, _) in layers.items()])
    recipe: list[dict[str, Any]] = []
    for name, (kind, kernels) in layers.items():
        bits = spec.weight_bits(name, kind)
        for kernel in kernels:
            if bits is not None and kernel.operator in _NAMES:
                supported = bits if kernel.operator in _FOUR_BITS else max(bits, 8)
                recipe += _recipe_items(artifact, kernel, supported, spec.weight_only)
    return recipe


def with_weight_formats(model: keras.Model, artifact: Artifact, spec: QuantSpec) -> Artifact:
    """Returns a float32 file with the weights of each layer as a specification says.

    Args:
        model: The model.
        artifact: Its float32 file.
        spec: Integer weights and float activations.

    Raises:
        ConversionError: ai-edge-quantizer can't quantize the file.
        ValueError: An item of `spec.layers` matches no layer with a kernel, or no kernel
            would be quantized.
    """
    recipe = weights_recipe(model, artifact, spec)
    layers = layers_of_file(model, artifact)
    bits = {
        kernel.tensor.name: spec.weight_bits(name, kind)
        for name, (kind, kernels) in layers.items()
        for kernel in kernels
        if kernel.operator == "GATHER"
    }
    tables = {name: each for name, each in bits.items() if each is not None}
    if not recipe and not tables:
        raise ValueError(
            f"mode {spec.mode!r} must quantize the kernel of some layer, got none for "
            f"{', '.join(list(layers)[:5]) or 'a file without kernels'}"
        )
    result = apply_recipe(artifact, recipe) if recipe else artifact
    if tables:
        result = dataclasses.replace(result, content=quantize_tables(result.content, tables))
    return result


def _recipe_items(
    artifact: Artifact, kernel: FileKernel, bits: int, weight_only: bool
) -> Iterator[dict[str, Any]]:
    """One item for each operator that uses the kernel; it matches by the output's name."""
    operators = ((graph, op) for graph in artifact.graphs for op in graph.operators)
    for graph, op in operators:
        # Compare records, not indices: the bodies of loops have indices of their own.
        constants = [graph.constant_behind(tensor) for tensor in op.inputs]
        if op.name in _NAMES and kernel.tensor in constants:
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
    calibration: CalibrationData | None = None,
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
        recipe: A name in `ai_edge_quantizer.recipe`, the path of a JSON file, or the recipe
            itself: a list of dictionaries.
        calibration: Typical inputs for recipes that quantize activations, as for
            :func:`tfnas.to_tflite` (a TFLite representative dataset too). At most 500 examples
            are used.

    Returns:
        The quantized file; its `origin` holds the recipe, and as "unquantized_layers" the layers
        whose kernels stay float, with the reasons.

    Raises:
        ValueError: The recipe is unknown or invalid, it needs calibration data, or the data does
            not fit.
        ConversionError: ai-edge-quantizer can't apply it to this file, it changed nothing, or
            the interpreter refuses the result.

    References:
        https://github.com/google-ai-edge/ai-edge-quantizer
    """
    from ai_edge_quantizer import quantizer  # type: ignore[import-untyped]

    name, steps = _load_recipe(recipe)
    if not isinstance(artifact, Artifact):
        raise ValueError(f"artifact must be a tfnas.Artifact, got {type(artifact).__name__}")
    quantized = next((tensor for tensor in _tensors(artifact) if tensor.zero_points), None)
    if quantized is not None:
        raise ValueError(
            f"artifact must be a float32 file, got {quantized.dtype} numbers in {quantized.name!r}"
        )
    original = artifact
    try:
        needs_calibration = quantizer.Quantizer(bytearray(artifact.content), steps).need_calibration
    except Exception as error:  # it raises many types for an invalid recipe
        raise ValueError(
            f"recipe must be one of ai-edge-quantizer's, got {name}: {error}"
        ) from error
    columns = _calibration_columns(artifact, name, calibration) if needs_calibration else []
    content, signature = for_quantizer(artifact.content, needs_calibration)
    if content is not artifact.content:
        artifact = dataclasses.replace(artifact, content=content)
    examples = {signature: _examples(artifact, columns)} if needs_calibration else {}
    try:
        worker = quantizer.Quantizer(bytearray(artifact.content), steps)
        with _quiet_quantizer():
            ranges = _ranges(worker, artifact, steps, examples) if needs_calibration else None
            content = worker.quantize(
                ranges, enable_progress_bar=False, enable_progress_report=False
            )
        origin = {**artifact.origin, "mode": name, "recipe": list(steps)}
        result = Artifact(bytes(content.quantized_model or b""), name, origin)
        result.interpreter()
    except Exception as error:  # and for a file that it can't quantize
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConversionError(f"recipe {name} can't be applied to this file: {cause}") from error
    before, after = ({t.dtype for t in _tensors(file)} for file in (original, result))
    if before == after:
        raise ConversionError(f"recipe {name} changed nothing: no operator of the file matches it")
    if left := _float_layers(result):
        origin["unquantized_layers"] = left
    return result


def _float_layers(file: Artifact) -> dict[str, str]:
    """Layers of a quantized file whose kernels are floats, with the reasons; logs the surprising.

    A layer that the recipe's own patterns leave out is no surprise; an operator that the quantizer
    has no form for, such as the fused LSTM, is passed over by it without a word.
    """
    from ai_edge_quantizer import qtyping

    known = {each.value for each in qtyping.TFLOperationName}
    left, unknown = {}, {}
    for kernel in read_kernels(file):
        if kernel.tensor.dtype == "float32":
            left[kernel.layer] = "the recipe matches none of its operators"
            if _NAMES.get(kernel.operator, kernel.operator) not in known:
                unknown[kernel.layer] = f"ai-edge-quantizer has no form of {kernel.operator}"
    if unknown:
        reasons = "; ".join(dict.fromkeys(unknown.values()))
        _LOG.warning("%s stays float in the file of a recipe: %s", ", ".join(unknown), reasons)
    return {**left, **unknown}


def _tensors(artifact: Artifact) -> Iterator[TensorInfo]:
    """All tensors of a file, including those in the bodies of loops."""
    return (tensor for graph in artifact.graphs for tensor in graph.tensors)


@contextlib.contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Hides ai-edge-quantizer's progress bars and its interpreter's warning."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _load_recipe(recipe: Any) -> tuple[str, list[dict[str, Any]]]:
    """Returns the recipe's name, and the recipe."""
    from ai_edge_quantizer import recipe as known

    if isinstance(recipe, list | tuple):
        return "recipe", list(recipe)
    if not isinstance(recipe, str | os.PathLike):
        raise ValueError(f"recipe must be a name, a JSON file or a list, got {recipe!r}")
    text = os.fspath(recipe)
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


def _calibration_columns(artifact: Artifact, name: str, calibration: Any) -> list[np.ndarray]:
    """Checks the calibration data and returns one array for each input, in the file's order."""
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
    worker: Any, artifact: Artifact, steps: list[dict[str, Any]], examples: dict[str, Any]
) -> Any:
    """The minimum and maximum of each activation over all examples.

    The quantizer's own calibration is a moving average over examples, which clips outliers, and
    leaves nearly nothing of an output that is one number per example. Algorithms other than
    min-max need more statistics and use it nevertheless.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils  # type: ignore[import-untyped]

    if {step.get("algorithm_key", _ALGORITHM) for step in steps} - {_ALGORITHM, "no_quantize"}:
        return worker.calibrate(examples)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(steps)
    min_max = calibrator.Calibrator(
        artifact.content, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    min_max.calibrate(examples, manager)
    return min_max.get_model_qsvs()


def _examples(artifact: Artifact, columns: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Batches of the size that the file fixes, else of one; the last is filled up by repetition."""
    inputs, count = artifact.inputs, len(columns[0])
    batch = fixed_batch(inputs) or 1
    return [
        {
            tensor.name: column[np.minimum(np.arange(start, start + batch), count - 1)].astype(
                tensor.dtype
            )
            for tensor, column in zip(inputs, columns, strict=True)
        }
        for start in range(0, count, batch)
    ]
