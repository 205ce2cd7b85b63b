"""Other conversions of a model, tried until one is verified."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.measure.verification.departure import Departure
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantize_aware import strip_quantization
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite


@dataclasses.dataclass(frozen=True)
class Repair:
    """An attempt to make a file that is verified.

    Args:
        what: How the model was converted.
        passed: Whether the new file is verified.
        relative: Its largest relative error of an output on real inputs; None: no file came out.
        size: Its size in bytes; None: no file came out.
        note: Why no file came out; else empty.
    """

    what: str
    passed: bool
    relative: float | None
    size: int | None
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
    """A way to convert a model again.

    Args:
        what: Its name.
        convert: Makes the file.
    """

    what: str
    convert: Callable[[], Artifact]


def ways(
    model: keras.Model,
    mode: str,
    departure: Departure | None,
    columns: Sequence[np.ndarray],
    extremes: Sequence[np.ndarray],
    *,
    streaming: bool = False,
) -> Iterator[Way]:
    """Yields conversions that may be verified, the nearest to the file first.

    Args:
        model: The Keras model, without preprocessing in front.
        mode: The format of the file.
        departure: Where the file departs.
        columns: Real inputs, one array per input.
        extremes: Extreme inputs, likewise.
        streaming: Whether the file takes one frame.
    """
    convert = functools.partial(to_tflite, streaming=streaming)
    spec = QuantSpec.of(mode)
    if fake_quants(model):
        yield Way("converted again", lambda: convert(model, spec))
        model = strip_quantization(model)
    integers = spec.needs_calibration
    real = _named(model, columns) if integers else None
    if not integers or not fake_quants(model):
        yield Way("converted again", lambda: convert(model, spec, real))
    if integers:
        corrected = dataclasses.replace(spec, correct=True)
        yield Way("with correct=True", lambda: convert(model, corrected, real))
        wider = [np.concatenate(pair) for pair in zip(columns, extremes, strict=True)]
        both = _named(model, wider)
        yield Way("calibrated with the ends of ranges too", lambda: convert(model, spec, both))
    if mode != "float32" and departure is not None:
        island = dataclasses.replace(spec, layers={departure.layer: "float32"})
        yield Way(f"{departure.layer} in float32", lambda: convert(model, island, real))
    if mode == "float16":
        yield Way("in float32", lambda: convert(model, "float32"))


def attempts(
    ways: Iterator[Way], check: Callable[[Artifact], tuple[bool, float]]
) -> tuple[tuple[Repair, ...], Artifact | None]:
    """Tries ways until the file of one is verified.

    Args:
        ways: The ways, in order.
        check: Returns of a file whether it is verified, and its largest relative error.

    Returns:
        What was tried, and the file that is verified; None: no one is.
    """
    tried: list[Repair] = []
    for way in ways:
        try:
            file = way.convert()
            passed, relative = check(file)
        except (ValueError, RuntimeError) as error:
            tried.append(Repair(way.what, False, None, None, " ".join(str(error).split())[:200]))
            continue
        tried.append(Repair(way.what, passed, relative, file.size))
        if passed:
            return tuple(tried), file
    return tuple(tried), None


def _named(model: keras.Model, columns: Sequence[np.ndarray]) -> Any:
    if len(columns) == 1:
        return columns[0]
    return dict(zip((tensor.name for tensor in model.inputs), columns, strict=True))
