"""Quantization error layer by layer, and the effect of keeping the worst layers in float32.

:func:`quantization_error` runs the float32 file of the same model beside the quantized one,
operator by operator (:mod:`tfnas.measure.quantization_debugger.operator_alignment`), and ranks
operators by the noise that they add: the noise of the output minus that of the inputs. Noise does
not simply add up in a network, so this is a ranking and no breakdown of the total error. The
file is then converted and measured again with the layers that rank first in float32.

References:
    Lin, Talathi and Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks",
    ICML 2016, for the signal-to-quantization-noise ratio (SQNR) of layers; Nagel et al., "A
    White Paper on Neural Network Quantization", arXiv 2106.08295, 2021, section 3, for looking
    at one layer at a time and keeping the worst in more bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.representative_dataset import CALIBRATION_EXAMPLES
from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.functional_form import opened_model
from tfnas.measure.model_and_file import check_same_ends, without_preprocessing
from tfnas.measure.quantization_debugger.activation_error import Scales
from tfnas.measure.quantization_debugger.error_report import (
    FloatLayers,
    LayerError,
    QuantizationError,
)
from tfnas.measure.quantization_debugger.file_comparison import Comparison
from tfnas.measure.quantization_debugger.float_layers import (
    FileFormat,
    layers_with_format,
    with_float_layers,
)
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantize_aware import strip_quantization
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.file_weights import read_kernels

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData
    from tfnas.data.representative_dataset import RepresentativeDataset


def quantization_error(
    model: keras.Model,
    artifact: Artifact,
    data: ExampleData | RepresentativeDataset,
    *,
    keep_float: Sequence[int] = (1, 2, 4),
    calibration: ExampleData | RepresentativeDataset | None = None,
) -> QuantizationError:
    """Measures the quantization error of a file, layer by layer, against its float model.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> from tfnas.measure.quantization_debugger.quantization_error import quantization_error
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> x = np.random.default_rng(0).normal(size=(64, 8))
        >>> found = quantization_error(model, tfnas.to_tflite(model, "int8", x), x, keep_float=[1])
        >>> found.worst(), found.outputs[0].sqnr > 30, found.kept_float[1].size > found.size
        (('d',), True, True)

    Args:
        model: The built Keras 3 model that the file was converted from: a float model, or a
            quantization-aware one, whose float model is `tfnas.strip_quantization(model)`.
        artifact: The quantized file, of any mode.
        data: A few hundred typical inputs, examples first; targets are ignored.
        keep_float: For each of these numbers k, the file is converted again with the k layers
            in float32 that add most noise, and measured. If the file has integer activations,
            this is post-training quantization of the float model with ranges of `calibration`,
            even if the file comes from quantization-aware training. The number 0 converts the
            file again with no layer in float32, which shows the effect of the conversion
            itself. Empty: no such files. The file itself always comes first.
        calibration: Typical inputs for these conversions; None: `data`.

    Returns:
        The errors: for each operator the SQNR of its output in dB, the noise that it adds, its
        saturation and the SQNR of its weights; for each file its size in bytes, the SQNR of its
        outputs in dB and the fraction of examples whose class changed. Operators on plain
        integers, such as shapes, are left out.

    Raises:
        ValueError: An argument is outside its rule: the model is not built, the file has
            nothing quantized or other inputs than the model, or the data does not fit.
        ConversionError: The model can't be converted to a float32 file.
        RuntimeError: The interpreter can't run a file.
    """
    counts = _counts(keep_float)
    _check_model(model)
    model = opened_model(model, data)
    if not isinstance(artifact, Artifact):
        raise ValueError(f"artifact must be a tfnas.Artifact, got {type(artifact).__name__}")
    columns = fitting_columns(model, data)
    typical = columns
    if calibration is not None:
        typical = fitting_columns(model, calibration, CALIBRATION_EXAMPLES, "calibration")
    model, passed = without_preprocessing(model, columns, typical)
    columns, typical = (list(each) for each in passed)
    check_same_ends(model, artifact)
    _check_quantized(artifact)
    float_model = strip_quantization(model) if fake_quants(model) else model
    comparison = Comparison(float_model, to_tflite(float_model, "float32"), artifact, columns)
    comparison.run()
    rows = comparison.layers()
    kept = [FloatLayers((), artifact.size, comparison.outputs())]
    if counts:
        kept += _kept_float(float_model, comparison, rows, counts, typical)
    examples = len(columns[0])
    return QuantizationError(
        model.name, artifact.mode, examples, tuple(rows), tuple(kept), comparison.unaligned()
    )


def _kept_float(
    model: keras.Model,
    comparison: Comparison,
    rows: Sequence[LayerError],
    counts: Sequence[int],
    calibration: Sequence[np.ndarray],
) -> Iterator[FloatLayers]:
    """Converts and measures the file with more and more of the worst layers in float32."""
    original_bits = comparison.bits()
    form = FileFormat.of(comparison.artifact, original_bits)
    quantized = [row.layer for row in rows if row.weight_bits is not None and row.weight_bits < 32]
    try:
        known = layers_with_format(model, form)
    except ValueError as error:
        yield FloatLayers((), None, (), _one_line(error))
        return
    worst = [name for name in dict.fromkeys(quantized) if name in known]
    if not worst:
        yield FloatLayers((), None, (), "no layer's weight format can be set")
        return
    for count in dict.fromkeys(min(count, len(worst)) for count in counts):
        layers = tuple(worst[:count])
        try:
            file = with_float_layers(model, form.spec(layers, known), calibration)
            compared = Comparison(model, comparison.reference, file, comparison.columns)
            note = _others_in_float(original_bits, compared.bits(), layers)
            compared.run(outputs_alone=True)
            yield FloatLayers(layers, file.size, compared.outputs(), note)
        except (ValueError, RuntimeError) as error:
            yield FloatLayers(layers, None, (), _one_line(error))


def _others_in_float(original: dict[str, int], bits: dict[str, int], layers: Sequence[str]) -> str:
    """Names further layers that became float32; raises ValueError if a requested one did not."""
    quantized = [name for name in layers if bits.get(name) != 32]
    if quantized:
        raise ValueError(
            f"the file's weights of {', '.join(quantized)} must be float32, got "
            f"{bits.get(quantized[0])} bits"
        )
    others = [name for name, n in bits.items() if n == 32 > original.get(name, 32)]
    others = [name for name in others if name not in layers]
    return f"{', '.join(others)} became float32 as well" if others else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _counts(keep_float: Any) -> list[int]:
    """The numbers of layers, ascending."""
    kinds = Sequence | set | np.ndarray
    listed: list[Any] = list(keep_float) if isinstance(keep_float, kinds) else [None]
    valid = [isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 0 for k in listed]
    if isinstance(keep_float, str) or not all(valid):
        raise ValueError(f"keep_float must be a list of whole numbers >= 0, got {keep_float!r}")
    return sorted({int(k) for k in listed})


def _check_model(model: Any) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")


def _check_quantized(artifact: Artifact) -> None:
    """Raises ValueError if nothing in a file is quantized, or if it is quantized blockwise."""
    kernels = [kernel.tensor for kernel in read_kernels(artifact)]
    scales = Scales(artifact)
    blocks = next((tensor.name for tensor in kernels if scales.in_blocks(tensor)), None)
    if blocks is not None:
        raise ValueError(
            f"artifact must be quantized per tensor or per channel, got blockwise scales for "
            f"{blocks!r}: only XNNPACK runs such files, and it hides the intermediate tensors"
        )
    outputs = [tensor for op in artifact.graph.operators for tensor in op.outputs]
    floats = all(tensor.dtype == "float32" for tensor in kernels)
    if floats and not any(tensor.zero_points for tensor in outputs):
        names = ", ".join(dict.fromkeys(kernel.layer for kernel in read_kernels(artifact)))
        raise ValueError(
            f"artifact must have quantized weights or activations, got a file of mode "
            f"{artifact.mode!r} that is all float32, also in {names} (in mode 'dynamic' the "
            "converter quantizes no kernel of less than 1,024 weights)"
        )
