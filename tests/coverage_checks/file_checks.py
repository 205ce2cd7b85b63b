"""Checks of conversion: formats are read from the file, outputs are compared with Keras."""

import collections

import numpy as np
from coverage_checks.cells import (
    Check,
    Silent,
    Subject,
    file_inputs,
    largest_difference,
    outputs_of,
    relative_error,
    require,
)
from model_kinds import flat

import tfnas
from tfnas.quantization.spec import MODES, QuantSpec

# Largest root mean square difference, as a part of the outputs' deviation. The networks are tiny
# and barely trained: their outputs move more than those of a real one.
BOUNDS = {
    "float16": 0.01,
    "dynamic": 0.06,
    "int4": 0.6,
    "weights8": 0.03,
    "weights4": 0.6,
    "int8": 0.15,
    "int8x4": 0.7,
    "int16x8": 0.06,
}
WEIGHTS = {"float16": ("float16",), "int4": ("int4",), "weights4": ("int4",), "int8x4": ("int4",)}


def float32_file(subject: Subject) -> str:
    """`to_tflite`: outputs equal Keras' to 1e-5 (2e-3 where layers compute in 16 bits)."""
    file = tfnas.to_tflite(subject.model)
    expected = outputs_of(subject)
    error = largest_difference(flat(file.predict(file_inputs(subject.model, subject.x))), expected)
    scale = max(1.0, *(float(abs(each).max(initial=0.0)) for each in expected))
    bound = 2e-3 if subject.halves else 1e-5
    require(error <= bound * scale, f"differs by {error:.2g}")
    return f"equal to {error:.1g}; {operators_in(file)}"


def operators_in(file: tfnas.Artifact) -> str:
    """Returns the operators of a file with their counts, the most frequent first."""
    counts = collections.Counter(op.name for op in file.graph.operators)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common(6))


def within_a_step(
    found: list[np.ndarray], expected: list[np.ndarray], file: tfnas.Artifact
) -> bool:
    """Whether integer outputs are right but for the rounding, which few values share."""
    errors = [np.sqrt(np.square(a - b).mean()) for a, b in zip(found, expected, strict=True)]
    return all(error <= t.scale for error, t in zip(errors, file.outputs, strict=True))


def file_of(mode: str) -> Check:
    """Returns the check of a mode."""
    if mode == "float32":
        return float32_file

    def check(subject: Subject) -> str:
        data = subject.x if QuantSpec.of(mode).needs_calibration else None
        file = tfnas.to_tflite(subject.model, mode, data)
        constants = [t for t in file.graph.tensors if t.constant is not None and len(t.shape) > 1]
        formats = WEIGHTS.get(mode, ("int8",))
        small = [t for t in constants if t.dtype in formats]
        left = dict(file.origin.get("unquantized_layers", {}))
        kinds = sorted({t.dtype for t in constants})
        floats = [each for each in kinds if each.startswith("float")]
        integers = QuantSpec.of(mode).activations in {t.dtype for t in file.graph.tensors}
        if not (small or left or (integers and not floats)):
            raise Silent(f"no weight is of {formats[0]}, but {', '.join(kinds) or 'none'}")
        found = flat(file.predict(file_inputs(subject.model, subject.x)))
        expected = outputs_of(subject)
        error = relative_error(found, expected)
        near = error <= BOUNDS[mode] or within_a_step(found, expected, file)
        require(near, f"outputs differ by {error:.2g} of their deviation")
        text = f"{error:.2g} of the deviation; {len(small)} tensors of {formats[0]}"
        return f"{text}; float: {', '.join(left)}" if left else text

    check.__doc__ = (
        f"`to_tflite` of mode {mode}: weights of {WEIGHTS.get(mode, ('int8',))[0]} are in the "
        "file, or the layers that stay float are named; outputs are within "
        f"{BOUNDS[mode]:g} of their deviation of Keras', or within a step of the output."
    )
    return check


MODE_CHECKS: dict[str, Check] = {mode: file_of(mode) for mode in MODES}
