"""Which operators of a file an accelerator would take, judged before anything is deployed.

Each runtime is judged by what can be judged here: the GPU delegate by the rules in its source,
TFLite Micro by its tables of kernels, an Ethos-U by Arm's compiler. For any other the verdict is
"unknown", never a guess.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

from tfnas.table import Tabular, TextTable
from tfnas.targets.ethos_u import ACCELERATORS, vela
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.delegation import Delegation, Faults, delegation, macs_of_operators, share_of
from tfnas.tflite.operator_layers import layer_of
from tfnas.tflite.operator_rules.gpu_delegate import gpu_faults
from tfnas.tflite.operator_rules.tflite_micro import micro_faults

GPU, MICRO = "gpu", "micro"
RUNTIMES = (GPU, MICRO)
_SOURCES = {
    GPU: "TensorFlow's rules for the GPU delegate (gpu_compatibility.cc)",
    MICRO: "TFLite Micro's tables of kernels",
}


@dataclasses.dataclass(frozen=True)
class Fallback:
    """An operator that a runtime leaves to the CPU, or can't run.

    Args:
        operator: TFLite's name of it.
        layer: Path of the Keras layer that it came from, by the names in the file.
        place: Its place in the file, from 0.
        macs: Its multiply-accumulates; None: unknown.
        reasons: Why; empty: the compiler gives no reason.
    """

    operator: str
    layer: str
    place: int
    macs: int | None
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RuntimeVerdict:
    """What one runtime takes of a file.

    Args:
        runtime: "gpu", "micro", or an accelerator such as "ethos-u55-128".
        known: Whether the runtime can be judged here.
        source: What the verdict rests on; where it is unknown, why.
        operators: Number of the file's operators.
        partitions: Number of connected parts that it takes: between two parts data goes back to
            the CPU. None: unknown.
        macs: Multiply-accumulates of the file; None: some can't be counted.
        delegated_macs: Those of the operators that it takes; None: some can't be counted.
        fallbacks: The operators that it does not take.
        largest_share: Share of the multiply-accumulates in the part of most operators, in [0, 1],
            where the runtime takes one part unless it is told otherwise, as the GPU delegate does
            (`max_delegated_partitions`); None: unknown, or all parts are taken.
    """

    runtime: str
    known: bool
    source: str
    operators: int = 0
    partitions: int | None = None
    macs: int | None = None
    delegated_macs: int | None = None
    fallbacks: tuple[Fallback, ...] = ()
    largest_share: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the runtime takes every operator."""
        return self.known and not self.fallbacks

    @property
    def share(self) -> float | None:
        """Share of the multiply-accumulates in all parts, in [0, 1]; None: unknown."""
        return share_of(self.delegated_macs, self.macs, self.complete) if self.known else None

    @property
    def share_by_default(self) -> float | None:
        """The same of what the runtime takes unless it is told otherwise; None: unknown."""
        return self.share if self.largest_share is None else self.largest_share


@dataclasses.dataclass(frozen=True, repr=False)
class Readiness(Tabular):
    """What runtimes take of a file. Prints as tables.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> tfnas.readiness(tfnas.to_tflite(model), ["gpu"]).complete
        True

    Args:
        verdicts: One for each runtime.
    """

    verdicts: tuple[RuntimeVerdict, ...]

    def of(self, runtime: str) -> RuntimeVerdict:
        """Returns the verdict of a runtime.

        Args:
            runtime: Its name.

        Raises:
            ValueError: It was not judged.
        """
        known = {verdict.runtime: verdict for verdict in self.verdicts}
        if runtime not in known:
            raise ValueError(f"runtime must be one of {', '.join(known)}, got {runtime!r}")
        return known[runtime]

    @property
    def complete(self) -> bool:
        """Whether every runtime takes every operator."""
        return all(verdict.complete for verdict in self.verdicts)

    def tables(self) -> list[TextTable]:
        """Returns a table of the runtimes, and one of the operators that they do not take."""
        headers = ["runtime", "takes all", "operators", "parts", "share of MACs", "largest part"]
        rows = [_row(verdict) for verdict in self.verdicts]
        found = [TextTable(headers, rows, right=2)]
        fallbacks = [
            [verdict.runtime, each.operator, each.layer, "; ".join(each.reasons) or "not told"]
            for verdict in self.verdicts
            for each in verdict.fallbacks
        ]
        if fallbacks:
            titles = ["runtime", "operator", "layer", "why it stays on the CPU"]
            found.append(TextTable(titles, fallbacks, right=4))
        return found

    def notes(self) -> list[str]:
        """Returns what each verdict rests on."""
        return [f"{verdict.runtime}: {verdict.source}" for verdict in self.verdicts]

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(
            [{**dataclasses.asdict(each), "share": each.share} for each in self.verdicts]
        )


def readiness(
    file: Artifact | str | os.PathLike[str], runtimes: Sequence[str] = RUNTIMES
) -> Readiness:
    """Returns which operators of a file each runtime takes, and why it does not take the others.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        >>> found = tfnas.readiness(tfnas.to_tflite(model), ["gpu"])
        >>> found.of("gpu").share, found.of("gpu").partitions
        (1.0, 1)

    Args:
        file: An artifact or the path of a file.
        runtimes: "gpu" (TFLite's GPU delegate), "micro" (TFLite Micro), an accelerator of
            :func:`tfnas.vela` such as "ethos-u55-128"; any other is unknown.

    Returns:
        A verdict for each runtime: operators, parts, the share of multiply-accumulates, and for
        each operator that is not taken its layer and the reasons.

    Raises:
        ValueError: There is no runtime, or the file is no valid `.tflite` file.
        ImportError: An accelerator needs the package ethos-u-vela, which is not installed.
        VelaError: The compiler failed.
    """
    if isinstance(runtimes, str) or not runtimes:
        raise ValueError(f"runtimes must be a list of at least one name, got {runtimes!r}")
    artifact = as_artifact(file)
    return Readiness(tuple(_verdict(artifact, runtime) for runtime in runtimes))


def _verdict(artifact: Artifact, runtime: str) -> RuntimeVerdict:
    if runtime == GPU:
        return _by_rules(artifact, runtime, gpu_faults)
    if runtime == MICRO:
        return _by_rules(artifact, runtime, lambda op, _: list(dict.fromkeys(micro_faults(op))))
    if runtime in ACCELERATORS:
        return _by_vela(artifact, runtime)
    return RuntimeVerdict(runtime, False, "unknown: no rules for it are known here")


def _by_rules(artifact: Artifact, runtime: str, faults: Faults) -> RuntimeVerdict:
    found = delegation(artifact, faults)
    rows = zip(artifact.graph.operators, found.macs, found.reasons, strict=True)
    fallbacks = [
        Fallback(op.name, layer_of(artifact.graph, op), place, cost, reasons)
        for place, (op, cost, reasons) in enumerate(rows)
        if reasons
    ]
    return _verdict_of(runtime, _SOURCES[runtime], found, fallbacks)


def _by_vela(artifact: Artifact, runtime: str) -> RuntimeVerdict:
    report = vela(artifact, runtime)
    graph, macs = artifact.graph, macs_of_operators(artifact)
    places = {op.outputs[0].name: place for place, op in enumerate(graph.operators) if op.outputs}
    fallbacks = []
    for each in report.cpu_operators:
        place = places.get(each.name, -1)
        layer = layer_of(graph, graph.operators[place]) if place >= 0 else ""
        cost = macs[place] if place >= 0 else None
        reasons = (each.reason,) if each.reason else ()
        fallbacks.append(Fallback(each.kind, layer, place, cost, reasons))
    left = {each.place for each in fallbacks}
    refused = [("by the compiler",) if n in left else () for n in range(len(graph.operators))]
    found = Delegation(tuple(refused), macs)
    return _verdict_of(runtime, f"ethos-u-vela, {report.system_config}", found, fallbacks)


def _verdict_of(
    runtime: str, source: str, found: Delegation, fallbacks: Sequence[Fallback]
) -> RuntimeVerdict:
    return RuntimeVerdict(
        runtime,
        True,
        source,
        len(found.reasons),
        found.partitions,
        found.total,
        found.delegated,
        tuple(fallbacks),
        found.largest_share if runtime == GPU else None,
    )


def _row(verdict: RuntimeVerdict) -> list[str]:
    if not verdict.known:
        return [verdict.runtime, "unknown", "-", "-", "-", "-"]
    taken = verdict.operators - len(verdict.fallbacks)
    share = "unknown" if verdict.share is None else f"{100 * verdict.share:.1f}%"
    largest = "-" if verdict.largest_share is None else f"{100 * verdict.largest_share:.1f}%"
    return [
        verdict.runtime,
        "yes" if verdict.complete else "no",
        f"{taken} of {verdict.operators}",
        "-" if verdict.partitions is None else str(verdict.partitions),
        share,
        largest,
    ]
