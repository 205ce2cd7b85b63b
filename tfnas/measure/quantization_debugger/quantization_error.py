"""Where a quantized file departs from its float model, and what leaving layers float gives back.

:func:`quantization_error` runs the float32 file of the same model beside the quantized one,
operator by operator (:mod:`tfnas.measure.quantization_debugger.operator_alignment`), and takes the
noise where it is made: what an operator's output has more than its inputs had. The noise of several
inputs need not add up in the output, so this is a ranking, not an account; what it ranks first is
then left float and the file measured again.

References:
    Lin, Talathi and Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks",
    ICML 2016, for the signal-to-quantization-noise ratio (SQNR) of layers; Nagel et al., "A
    White Paper on Neural Network Quantization", arXiv 2106.08295, 2021, section 3, for looking
    at one layer at a time and keeping the worst in more bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.graph.batchnorm import fitting_columns
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
from tfnas.quantization.quantize_aware import fake_quants, strip_quantization
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.file_weights import read_kernels

_CALIBRATION = 500


def quantization_error(
    model: Any,
    artifact: Artifact,
    data: Any,
    *,
    keep_float: Sequence[int] = (1, 2, 4),
    calibration: Any = None,
) -> QuantizationError:
    """Measures, layer by layer, what quantization does to a model's numbers.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> from tfnas.measure.quantization_debugger.quantization_error import quantization_error
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> x = np.random.default_rng(0).normal(size=(64, 8))
        >>> found = quantization_error(model, tfnas.to_tflite(model, "int8", x), x, keep_float=[1])
        >>> found.worst(), found.outputs[0].sqnr > 30, found.kept_float[1].size > found.size
        (('d',), True, True)

    Args:
        model: The built Keras 3 model that the file was made from: the float one, or a
            quantization-aware one, whose float counterpart is `tfnas.strip_quantization(model)`.
        artifact: The quantized file, of any mode.
        data: A few hundred typical inputs; targets are ignored.
        keep_float: For each of these numbers k, the file is made again with the k layers
            float whose weights' operators add most noise, and measured. A file with
            integer activations is made after training, from the float model, with the
            ranges that `calibration` gives, also where the file at hand was trained. Empty:
            no such file. The file at hand comes first in any case; 0 makes it anew with
            none float, which shows what making it anew changes by itself.
        calibration: Typical inputs for these files; None: `data`.

    Returns:
        The record: for each operator the SQNR of its output in dB, the noise that it adds,
        its saturation, and the SQNR of its weights; for each file its size in bytes, the
        SQNR of its outputs and the share of examples whose class changed. Operators on whole
        numbers, as those of shapes, have no noise and no entry.

    Raises:
        ValueError: An argument is outside its rule: a model that was never built, a file
            with nothing quantized or with other inputs, data that does not fit.
        ConversionError: The model can't be converted to a float32 file.
        RuntimeError: The interpreter refuses a file.
    """
    counts = _counts(keep_float)
    _check_model(model)
    if not isinstance(artifact, Artifact):
        raise ValueError(f"artifact must be a tfnas.Artifact, got {type(artifact).__name__}")
    columns = fitting_columns(model, data)
    typical = columns if calibration is None else _typical(model, calibration)
    _check_ends(model, artifact)
    _check_quantized(artifact)
    plain = strip_quantization(model) if fake_quants(model) else model
    found = Comparison(plain, to_tflite(plain), artifact, columns)
    found.run()
    rows = found.layers()
    kept = [FloatLayers((), artifact.size, found.outputs())]
    if counts:
        kept += _kept_float(plain, found, rows, counts, typical)
    examples = len(columns[0])
    return QuantizationError(
        model.name, artifact.mode, examples, tuple(rows), tuple(kept), found.unaligned()
    )


def _kept_float(
    model: Any,
    found: Comparison,
    rows: Sequence[LayerError],
    counts: Sequence[int],
    calibration: Sequence[np.ndarray],
) -> Iterator[FloatLayers]:
    """The file anew with more and more of the worst layers float, measured; or why not."""
    given = found.bits()
    form = FileFormat.of(found.artifact, given)
    quantized = [row.layer for row in rows if row.weight_bits is not None and row.weight_bits < 32]
    try:
        known = layers_with_format(model, form)
    except ValueError as error:
        yield FloatLayers((), None, (), _line(error))
        return
    worst = [name for name in dict.fromkeys(quantized) if name in known]
    if not worst:
        yield FloatLayers((), None, (), "the format of no layer's weights can be asked for")
        return
    for count in dict.fromkeys(min(count, len(worst)) for count in counts):
        layers = tuple(worst[:count])
        try:
            built = with_float_layers(model, form.spec(layers, known), calibration)
            again = Comparison(model, found.reference, built, found.columns)
            note = _others_float(given, again.bits(), layers)
            again.run(outputs_alone=True)
            yield FloatLayers(layers, built.size, again.outputs(), note)
        except (ValueError, RuntimeError) as error:
            yield FloatLayers(layers, None, (), _line(error))


def _others_float(given: dict[str, int], bits: dict[str, int], layers: Sequence[str]) -> str:
    """Names the layers that became float unasked; raises ValueError where one asked for did not."""
    wrong = [name for name in layers if bits.get(name) != 32]
    if wrong:
        raise ValueError(
            f"the file's weights of {', '.join(wrong)} must be float, got {bits.get(wrong[0])} bits"
        )
    others = [name for name, n in bits.items() if n == 32 > given.get(name, 32)]
    others = [name for name in others if name not in layers]
    return f"with {', '.join(others)} float as well, unasked" if others else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _typical(model: Any, calibration: Any) -> list[np.ndarray]:
    return fitting_columns(model, calibration, _CALIBRATION, "calibration")


def _counts(keep_float: Any) -> list[int]:
    """The numbers of layers, ascending."""
    kinds = Sequence | set | np.ndarray
    listed: list[Any] = list(keep_float) if isinstance(keep_float, kinds) else [None]
    whole = [isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 0 for k in listed]
    if isinstance(keep_float, str) or not all(whole):
        raise ValueError(
            f"keep_float must be a list of whole numbers of at least 0, got {keep_float!r}"
        )
    return sorted({int(k) for k in listed})


def _check_model(model: Any) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"model must be built and have known inputs, got {model.name!r}: begin it with "
            "keras.Input, or wrap it in a functional model"
        )


def _check_ends(model: Any, artifact: Artifact) -> None:
    """Raises ValueError where a file has other inputs or outputs than the model."""
    names = sorted(tensor.name for tensor in model.inputs)
    given = sorted(tensor.name for tensor in artifact.inputs)
    if len(names) != len(given) or (len(names) > 1 and names != given):
        raise ValueError(f"artifact must have the inputs {names} of the model, got {given}")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in model.inputs}
    for tensor in artifact.inputs:
        wanted = shapes[tensor.name if len(names) > 1 else names[0]]
        if len(wanted) != len(tensor.shape) or any(
            want not in (None, got) and got != -1
            for want, got in zip(wanted[1:], tensor.shape[1:], strict=True)
        ):
            raise ValueError(
                f"artifact must take the shape {wanted} of the model's input {tensor.name!r}, "
                f"got {tensor.shape}"
            )
    if len(model.outputs) != len(artifact.outputs):
        raise ValueError(
            f"artifact must have the {len(model.outputs)} outputs of the model, got "
            f"{len(artifact.outputs)}"
        )


def _check_quantized(artifact: Artifact) -> None:
    """Raises ValueError where a file holds nothing quantized, or what can't be run here."""
    kernels = [kernel.tensor for kernel in read_kernels(artifact)]
    scales = Scales(artifact)
    blocks = next((tensor.name for tensor in kernels if scales.in_blocks(tensor)), None)
    if blocks is not None:
        raise ValueError(
            f"artifact must have a step a tensor or a channel, got one a block for {blocks!r}: "
            "TFLite computes such files with XNNPACK alone, which hides what lies between"
        )
    made = [tensor for op in artifact.graph.operators for tensor in op.outputs]
    floats = all(tensor.dtype == "float32" for tensor in kernels)
    if floats and not any(tensor.zero_points for tensor in made):
        raise ValueError(
            f"artifact must hold quantized numbers, got a file of mode {artifact.mode!r} whose "
            "weights and activations are all float32 (the converter leaves kernels of less than "
            "1,024 weights alone in mode 'dynamic')"
        )
