"""A file in operators that TFLite's GPU delegate takes, with the same outputs.

The file is rewritten, not the Keras model: it has the same weights and scales, whatever it was made
of, and is not converted a second time. Only operators that the delegate refuses are replaced, and
only by a form that it takes, or whose multiply-accumulates it takes. The result is kept where more
is predicted to be delegated and the outputs are equal.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.runtime.argument_rules import check_choice
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.delegation import Delegation, delegation
from tfnas.tflite.flatbuffer import OperatorInfo
from tfnas.tflite.gpu_forms import arithmetic_rules, movement_rules
from tfnas.tflite.gpu_forms.broadcasts import without_broadcasts
from tfnas.tflite.gpu_forms.equal_outputs import EQUAL, largest_difference
from tfnas.tflite.gpu_forms.graph_rewriter import GraphRewriter, NotRewritable
from tfnas.tflite.gpu_forms.known_shapes import with_known_shapes
from tfnas.tflite.metadata import attached_files, with_files
from tfnas.tflite.operator_rules.gpu_delegate import gpu_faults

FIT_FOR = ("gpu",)
_LOG = logging.getLogger(__name__)
Rule = Callable[[GraphRewriter, OperatorInfo, schema.OperatorT], None]
_ELEMENTWISE = """
    ABS ADD CAST CEIL COS DEQUANTIZE DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD GELU GREATER
    GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC MAXIMUM MINIMUM
    MUL NEG NOT_EQUAL POW QUANTIZE RELU RELU6 RELU_N1_TO_1 RSQRT SELECT SELECT_V2 SIGN SIN SQRT
    SQUARE SQUARED_DIFFERENCE SUB TANH
"""
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), arithmetic_rules.elementwise),
    **dict.fromkeys(
        ("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), arithmetic_rules.reduce
    ),
    **dict.fromkeys(("EXPAND_DIMS", "SQUEEZE"), movement_rules.reshape),
    **dict.fromkeys(("BROADCAST_TO", "TILE"), movement_rules.tile),
    **dict.fromkeys(("MIRROR_PAD", "PAD", "PADV2"), movement_rules.pad),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), movement_rules.cut),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), movement_rules.split),
    "BATCH_MATMUL": arithmetic_rules.batch_matmul,
    "CONCATENATION": movement_rules.concatenate,
    "DEPTHWISE_CONV_2D": arithmetic_rules.depthwise,
    "FULLY_CONNECTED": arithmetic_rules.fully_connected,
    "GATHER": movement_rules.gather,
    "LOG_SOFTMAX": arithmetic_rules.log_softmax,
    "PACK": movement_rules.pack,
    "REVERSE_V2": movement_rules.reverse,
    "SOFTMAX": arithmetic_rules.last_axis,
    "TRANSPOSE": movement_rules.transpose,
    "UNPACK": movement_rules.unpack,
}


@dataclasses.dataclass(frozen=True)
class GpuFit:
    """What became of a file that is to run on a GPU.

    Args:
        before: What the delegate takes of the file as it was.
        after: What it takes of the one that is kept.
        rewritten: Names of the operators that are gone or have another form, and how many.
        difference: Largest difference of an output, as a fraction of the largest output; None:
            nothing was compared.
        note: Why the file stays as it was; empty where it does not, or is taken whole.
    """

    before: Delegation
    after: Delegation
    rewritten: dict[str, int] = dataclasses.field(default_factory=dict)
    difference: float | None = None
    note: str = ""

    def record(self) -> dict[str, Any]:
        """Returns it as an entry of an artifact's `origin`."""
        pairs = (("before", self.before), ("after", self.after))
        return {
            "runtime": "gpu",
            **{f"share_{when}": found.share for when, found in pairs},
            **{f"largest_share_{when}": found.largest_share for when, found in pairs},
            **{f"partitions_{when}": found.partitions for when, found in pairs},
            **{f"fallbacks_{when}": found.left for when, found in pairs},
            "rewritten": self.rewritten,
            "difference": self.difference,
            "note": self.note,
            "summary": str(self),
        }

    def __str__(self) -> str:
        parts = [
            f"{_percent(found.share)} of the MACs in {found.partitions} "
            f"part{'s' if found.partitions != 1 else ''}, {found.left} operators left"
            for found in (self.before, self.after)
        ]
        return parts[0] if self.note or not self.rewritten else f"{parts[0]}; now {parts[1]}"


def check_fit_for(fit_for: str) -> None:
    """Raises ValueError where there is no accelerator of a name that files are rewritten for.

    Args:
        fit_for: The name.
    """
    check_choice("fit_for", fit_for, FIT_FOR)


def fitted_for(artifact: Artifact, fit_for: str | None) -> Artifact:
    """Returns a file in operators that an accelerator takes, with a record in its `origin`.

    Args:
        artifact: The file.
        fit_for: "gpu"; None: the file is returned as it is.
    """
    if fit_for is None:
        return artifact
    fitted, found = fitted_for_gpu(artifact)
    level = logging.WARNING if found.note else logging.INFO
    note = f"; it stays as it is: {found.note}" if found.note else ""
    name = artifact.origin.get("model", "the file")
    _LOG.log(level, "%s for the GPU delegate: %s%s", name, found, note)
    origin = {**artifact.origin, "fit_for": found.record()}
    return dataclasses.replace(fitted, origin=origin)


def fitted_for_gpu(artifact: Artifact) -> tuple[Artifact, GpuFit]:
    """Returns a file in operators that the GPU delegate takes, for a batch of 1.

    Args:
        artifact: The file.

    Returns:
        The rewritten file, where the delegate is predicted to take more of it and its outputs are
        equal; else the file itself. And what was done.
    """
    before = delegation(artifact, gpu_faults)
    if not before.left:
        return artifact, GpuFit(before, before)
    try:
        rewritten = gpu_form(artifact)
        after = delegation(rewritten, gpu_faults)
        if _rank(after) <= _rank(before):
            return artifact, GpuFit(before, before, note="no operator has a form that is taken")
        difference = largest_difference(artifact, rewritten)
    except (ValueError, RuntimeError) as error:  # open sizes, or what the interpreter refuses
        return artifact, GpuFit(before, before, note=" ".join(str(error).split()))
    if not difference <= EQUAL:
        note = f"the outputs of the rewritten file differ by {difference:.2g}"
        return artifact, GpuFit(before, before, difference=difference, note=note)
    return rewritten, GpuFit(before, after, _gone(artifact, rewritten), difference)


def gpu_form(artifact: Artifact) -> Artifact:
    """Returns the file with other forms of the operators that the delegate refuses, unchecked.

    Args:
        artifact: The file.

    Raises:
        OpenSizes: Its sizes are not known.
        RuntimeError: The interpreter can't run it.
    """
    content = without_broadcasts(with_known_shapes(artifact))
    rewritten, in_vain = _rewritten(artifact, content, frozenset())
    if in_vain:
        rewritten, _ = _rewritten(artifact, content, in_vain)
    return rewritten


def _rewritten(
    artifact: Artifact, content: bytes, kept: frozenset[int]
) -> tuple[Artifact, frozenset[int]]:
    """The file with other forms, and the places of operators whose other form gains nothing.

    `kept` are places of operators that stay as they are.
    """
    graph = GraphRewriter(content)
    new: dict[int, int] = {}  # id of an operator of another form -> place of the one before
    for place, (info, op) in enumerate(zip(graph.info.operators, graph.old, strict=True)):
        rule = _RULES.get(info.name)
        done = len(graph.writer.operators)
        if rule is not None and place not in kept and gpu_faults(info, graph.info):
            try:
                rule(graph, info, op)
                new |= {id(each): place for each in graph.writer.operators[done:]}
                continue
            except NotRewritable:
                del graph.writer.operators[done:]
        graph.writer.operators.append(op)
    content = with_files(graph.packed(), attached_files(artifact.content))
    made = dataclasses.replace(artifact, content=content)
    places = [new.get(id(op)) for op in graph.operators]
    return made, _in_vain(places, delegation(made, gpu_faults))


def _in_vain(places: Sequence[int | None], found: Delegation) -> frozenset[int]:
    """Operators whose other form is refused too, and no multiply-accumulates of it are taken.

    `places` are those of the operators that the new ones have replaced; None: it is none.
    """
    refused, useful = set(), set()
    for place, reasons, macs in zip(places, found.reasons, found.macs, strict=True):
        if place is not None and reasons:
            refused.add(place)
        elif place is not None and macs:
            useful.add(place)
    return frozenset(refused - useful)


def _rank(found: Delegation) -> tuple[float, float, int, int]:
    """A file with more multiply-accumulates on the GPU is better, then one with fewer fallbacks.

    Those of the largest part count first, which the delegate takes by default.
    """
    return (found.largest_share or 0.0, found.share or 0.0, -found.left, -found.partitions)


def _gone(before: Artifact, after: Artifact) -> dict[str, int]:
    """How many operators of each kind the delegate refuses no more."""
    refused = [
        Counter(op.name for op in file.graph.operators if gpu_faults(op, file.graph))
        for file in (before, after)
    ]
    return dict(sorted((refused[0] - refused[1]).items()))


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{100 * share:.1f}%"
