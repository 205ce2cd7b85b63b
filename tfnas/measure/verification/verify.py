"""Verification: whether a `.tflite` file computes what its Keras model computes.

Model and file get the same inputs: real ones, the ends of their ranges, other batch sizes, and
other sizes where the file leaves them open. Each output's error is compared with a bound, which
depends on the file's format unless it is set. Where an error is above it, the first operator that
departs is named, with the reason where a computation shows it, and other conversions are tried on
request.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.functional_form import opaque_form
from tfnas.graph.model_class import plain
from tfnas.graph.traversal import flat_outputs
from tfnas.measure.model_and_file import without_preprocessing
from tfnas.measure.verification.bounds import DEFAULT_BOUNDS, Bound, format_of
from tfnas.measure.verification.cases import EXTREME, REAL, Case
from tfnas.measure.verification.departure import Departure, first_departure, noisiest
from tfnas.measure.verification.output_errors import OutputCheck, changed_examples, errors
from tfnas.measure.verification.repairs import Repair, attempts, ways
from tfnas.measure.verification.verified_file import VerifiedFile, verified_file
from tfnas.quantization.float32_model import other_precisions, to_float32
from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.passes.read_calibration import as_inputs

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData

EXAMPLES = 256
_BATCH = 64
_INTEGERS = ("int8", "int8x4", "int16x8", "dynamic", "int4")


@dataclasses.dataclass(frozen=True, repr=False)
class Verification(Tabular):
    """Whether a file computes what its model computes. Prints as tables, the answer first.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> found = tfnas.verify(model, tfnas.to_tflite(model), np.ones((8, 4), "float32"))
        >>> found.worst().passed
        True

    Args:
        model: Name of the model.
        mode: Format of the file, one of :class:`tfnas.QuantSpec`'s.
        bound: The bounds of the errors.
        checks: A record for each case and output.
        skipped: Cases that were not run, and why.
        departure: Where the file departs; None: nowhere, or not known.
        repairs: The conversions that were tried.
        repaired: The file of the one that is verified.
        precisions: Those of the model's layers other than float32. The file is compared with the
            same model in float32 then, from which files are made.
    """

    model: str
    mode: str
    bound: Bound
    checks: tuple[OutputCheck, ...]
    skipped: tuple[str, ...] = ()
    departure: Departure | None = None
    repairs: tuple[Repair, ...] = ()
    repaired: Artifact | None = None
    precisions: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether each output of each case is within the bounds."""
        return all(check.passed for check in self.checks)

    def worst(self, case: str = REAL) -> OutputCheck:
        """Returns the output with the largest relative error.

        Args:
            case: Which inputs, as in `checks`.

        Raises:
            ValueError: No such case was run.
        """
        found = [check for check in self.checks if check.case == case]
        if not found:
            known = ", ".join(dict.fromkeys(check.case for check in self.checks))
            raise ValueError(f"case must be one of {known}, got {case!r}")
        return max(found, key=lambda check: check.relative)

    def answer(self) -> str:
        """Returns the result in one sentence."""
        if self.passed:
            worst = self.worst()
            return (
                f"verified: the {self.mode} file computes what {self.model!r} computes, within "
                f"{worst.relative:.2g} (bound {self.bound.relative:g})"
            )
        failed = next(check for check in self.checks if not check.passed)
        limits = self.bound.limits(failed.case == EXTREME)
        above = [
            f"{name} {getattr(failed, name):.2g} (bound {limits[name]:g})"
            for name in failed.excesses
        ]
        return (
            f"not verified: output {failed.output!r} of the {self.mode} file differs from that of "
            f"{self.model!r} on {failed.case}: {', '.join(above)}"
        )

    def tables(self) -> list[TextTable]:
        """Returns the table of the errors, and that of the repairs."""
        headers = ["inputs", "output", "relative", "largest", "absolute", "changed", "verified"]
        rows = [
            [
                check.case,
                check.output,
                f"{check.relative:.2g}",
                f"{check.largest:.2g}",
                f"{check.absolute:.2g}",
                self._changed(check),
                "yes" if check.passed else f"no: {', '.join(check.excesses)}",
            ]
            for check in self.checks
        ]
        found = [TextTable(headers, rows, right=2, title=self.answer())]
        if self.repairs:
            rows = [
                [
                    repair.what,
                    "yes" if repair.passed else f"no {repair.note}".strip(),
                    "-" if repair.relative is None else f"{repair.relative:.2g}",
                    "-" if repair.size is None else f"{repair.size:,}",
                ]
                for repair in self.repairs
            ]
            titles = ["repair", "verified", "relative", "bytes"]
            found.append(TextTable(titles, rows, right=2))
        return found

    def notes(self) -> list[str]:
        """Returns where the file departs, what its bounds are, and what was not run."""
        found = [] if self.departure is None else [str(self.departure)]
        usual = self.bound == DEFAULT_BOUNDS[self.mode]
        of = f"of {self.mode}, the format of the file's tensors" if usual else "as given"
        found.append(f"verified, in a row: each error within its bound; bounds {of}: {self.bound}")
        if self.precisions:
            found.append(
                f"layers compute in {' and '.join(self.precisions)}: compared with the same model "
                "in float32, from which files are made"
            )
        if any(check.case == EXTREME and check.changed for check in self.checks):
            found.append(
                "(changed): not judged, since no example lies at the ends of all ranges at once"
            )
        if any(check.case != EXTREME and self._is_known_change(check) for check in self.checks):
            found.append(
                "(changed) of a batch: not judged, since these examples change among the real "
                "inputs too; of another size: since no example has it"
            )
        return [*found, *(f"not run: {line}" for line in self.skipped)]

    def _changed(self, check: OutputCheck) -> str:
        """The share of changed classes; in parentheses where not judged, "-" without classes."""
        if check.changed is None:
            return "-"
        text = f"{100 * check.changed:.1f}%"
        return f"({text})" if self._is_known_change(check) else text

    def _is_known_change(self, check: OutputCheck) -> bool:
        """Whether a share of changed classes is not judged."""
        if check.case == REAL or not check.changed or "changed" in check.excesses:
            return False
        return check.case == EXTREME or check.changed > self.bound.changed

    def to_json(self) -> str:
        """Returns the record as JSON text, without the repaired file."""
        fields = {**dataclasses.asdict(dataclasses.replace(self, repaired=None))}
        del fields["repaired"]
        return json.dumps({"passed": self.passed, **fields})


def verify(
    model: keras.Model,
    file: Artifact | str | os.PathLike[str],
    data: ExampleData,
    *,
    bound: Bound | float | None = None,
    repair: bool = False,
    seed: int = 0,
) -> Verification:
    """Compares the outputs of a `.tflite` file with those of its Keras model.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
        >>> file = tfnas.to_tflite(model)
        >>> tfnas.verify(model, file, x).passed
        True
        >>> model.get_layer("d").set_weights([w + 1 for w in model.get_layer("d").get_weights()])
        >>> tfnas.verify(model, file, x).departure.layer
        'd'

    Args:
        model: The Keras 3 model, float or quantization-aware.
        file: Its file or the file's path, of any origin and format. A file of
            `to_tflite(model, streaming=True)` gets each sequence frame by frame.
        data: Typical inputs, examples first; targets are ignored. 256 examples are used at most,
            of a stream as many as have 20,000 frames.
        bound: The largest errors: a number is the bound of the relative error alone. None: by the
            file's format, `tfnas.measure.verification.bounds.DEFAULT_BOUNDS`.
        repair: Whether to try other conversions where the file is not verified; the first one that
            is verified is `repaired` in the result.
        seed: Seed of the extreme inputs.

    Returns:
        The errors of each output: relative, largest (both without unit) and absolute (in the
        output's unit), on real and extreme inputs, other batch sizes and, where the file leaves
        them open, other sizes; where the file departs, and what repairs it.

    Raises:
        ValueError: The model is no Keras model, the file has other inputs or outputs, the data
            does not fit, or `bound` is negative.
        RuntimeError: The interpreter can't run the file.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    artifact = as_artifact(file)
    mode = format_of(artifact)
    limits = _bound(bound, mode)
    opened = opaque_form(model, data)  # only the layer that departs needs the graph
    columns = fitting_columns(opened, data, EXAMPLES)
    inner, (columns,) = without_preprocessing(opened, columns)  # type: ignore[assignment]
    inner, precisions = _in_float32(inner)
    if precisions:  # its inputs are float32 then
        columns = fitting_columns(inner, columns)
    runs = verified_file(inner, artifact)
    columns = runs.used(columns)
    checks, skipped, extremes = _checked(inner, runs, columns, limits, seed)
    result = Verification(model.name, mode, limits, checks, skipped, precisions=precisions)
    if result.passed:
        return result
    # The tensors of a stream are those of one frame, which no tensor of the model is.
    departure = None if runs.streaming else _departure(inner, artifact, columns, mode, limits)
    departure = departure or _reordered(inner, runs, columns, limits)
    tried: tuple[Repair, ...] = ()
    repaired = None
    if repair:

        def check(other: Artifact) -> tuple[bool, float]:
            checks, _, _ = _checked(inner, verified_file(inner, other), columns, limits, seed)
            real = [each.relative for each in checks if each.case == REAL]
            return all(each.passed for each in checks), max(real)

        found = ways(inner, mode, departure, columns, extremes, streaming=runs.streaming)
        tried, repaired = attempts(found, check)
    return dataclasses.replace(result, departure=departure, repairs=tried, repaired=repaired)


def _in_float32(model: keras.Model) -> tuple[keras.Model, tuple[str, ...]]:
    """Returns a model as files are made of it, and the precisions that its layers have otherwise.

    A model that can't be computed in float32 is compared as it is.
    """
    precisions = other_precisions(model)
    try:
        return (to_float32(plain(model)) if precisions else model), precisions
    except ValueError:
        return model, ()


def _bound(bound: Bound | float | None, mode: str) -> Bound:
    if bound is None:
        return DEFAULT_BOUNDS[mode]
    return bound if isinstance(bound, Bound) else Bound(relative=bound)


def _checked(
    model: keras.Model,
    runs: VerifiedFile,
    columns: Sequence[np.ndarray],
    bound: Bound,
    seed: int,
) -> tuple[tuple[OutputCheck, ...], tuple[str, ...], Sequence[np.ndarray]]:
    """The errors of all cases, the cases that were not run, and the extreme inputs."""
    checks: list[OutputCheck] = []
    skipped: list[str] = []
    extremes = [column[:0] for column in columns]
    real: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for case in runs.cases(columns, seed):
        if case.name == EXTREME:
            extremes = list(case.columns)
        try:
            expected = _keras_outputs(model, case.columns)
        except Exception as error:  # what the user's layers raise for other sizes
            skipped.append(f"{case.name}: Keras raises {type(error).__name__}")
            continue
        checks += _case_checks(runs, case, expected, bound, real)
    return tuple(checks), tuple(skipped), extremes


def _case_checks(
    runs: VerifiedFile,
    case: Case,
    expected: Sequence[np.ndarray],
    bound: Bound,
    real: dict[str, tuple[np.ndarray, np.ndarray | None]],
) -> list[OutputCheck]:
    """The errors of a case; those of a batch are fractions of all real outputs of the model.

    Args:
        runs: The file.
        case: The inputs.
        expected: Keras' outputs of the case.
        bound: The largest errors.
        real: Name of an output -> Keras' outputs of the real inputs, and whose class changes; set
            by the case of the real inputs.
    """
    found, checks = runs.outputs(case), []
    for name, one, other in zip(runs.names, expected, found, strict=True):
        if one.shape != other.shape and one.size == other.size:
            other = other.reshape(one.shape)
        if one.shape != other.shape:
            raise ValueError(
                f"file must give outputs of the model's shapes, got {other.shape} of output "
                f"{name!r} for {one.shape} on {case.name}"
            )
        known = real.get(name) if case.real else None
        measured = errors(one, other, size_of=None if known is None else known[0])
        judged = measured.copy()
        judged["changed"] = _judged_changes(case, name, one, other, real)
        excesses = bound.excesses(judged, case.extreme)
        checks.append(OutputCheck(case.name, name, **measured, excesses=excesses))
    return checks


def _judged_changes(
    case: Case,
    name: str,
    one: np.ndarray,
    other: np.ndarray,
    real: dict[str, tuple[np.ndarray, np.ndarray | None]],
) -> float | None:
    """The share of changed classes that a bound is for.

    A batch has few examples, all of them real ones: the share of those that change there alone
    says what the batch changes, however close to each other the classes of an example are.
    """
    places = changed_examples(one, other) if case.real else None
    if case.name == REAL:
        real[name] = one, places
    if places is None:
        return None
    known = real[name][1] if name in real else None
    if case.name != REAL and known is not None:
        places = places & ~known[: len(places)]
    return float(places.mean())


def _keras_outputs(model: keras.Model, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    parts: list[list[Any]] = []
    for start in range(0, len(columns[0]), _BATCH):
        batch = as_inputs(model, [column[start : start + _BATCH] for column in columns])
        parts.append([keras.ops.convert_to_numpy(each) for each in flat_outputs(model, batch)])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _departure(
    model: keras.Model,
    artifact: Artifact,
    columns: Sequence[np.ndarray],
    mode: str,
    bound: Bound,
) -> Departure | None:
    if mode in _INTEGERS:
        return noisiest(model, artifact, columns)
    limit = min(bound.largest, DEFAULT_BOUNDS[mode].largest)
    return first_departure(model, artifact, columns, limit)


def _reordered(
    model: keras.Model, runs: VerifiedFile, columns: Sequence[np.ndarray], bound: Bound
) -> Departure | None:
    """A file whose outputs are the model's in another order."""
    case = Case(REAL, tuple(columns))
    expected = _keras_outputs(model, columns)
    found = runs.outputs(case)
    order = []
    for one in expected:
        fitting = [
            place
            for place, other in enumerate(found)
            if other.shape == one.shape and not bound.excesses(errors(one, other))
        ]
        order.append(next((place for place in fitting if place not in order), None))
    if None in order or order == sorted(order):  # type: ignore[type-var]
        return None
    names = runs.names
    place = next(n for n, other in enumerate(order) if n != other)
    error = errors(expected[place], found[place])["relative"]  # of one shape: they were compared
    found_at = (runs.own_names[other] for other in order if other is not None)
    pairs = ", ".join(f"{name} is {other}" for name, other in zip(names, found_at, strict=True))
    reason = f"the file has the outputs in another order: {pairs}"
    return Departure(names[place], "", 0.0, error, reason)
