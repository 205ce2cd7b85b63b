"""The output of TFLite's `benchmark_model`, as records."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from tfnas.runtime.external_programs import last_lines
from tfnas.table import table

_NUMBER = r"([-+\d.e]+)"
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_STATISTICS = re.compile(r"^(?:INFO: )?(count=\d+ .*)$", re.MULTILINE)
_FIELD = re.compile(rf"(\w+)={_NUMBER}")
# The growth of the process's peak memory; older versions write "Peak memory footprint".
_MEMORY = re.compile(rf"[Mm]emory footprint.*\(MB\): init=\S+ overall={_NUMBER}")
_PROFILE = "Operator-wise Profiling Info"
_DELEGATE = "Delegate internal:"
_RUN_ORDER = re.compile(r"^=+ Run Order =+$")


@dataclasses.dataclass(frozen=True)
class PhoneOperator:
    """One operator of the profile on the phone.

    Args:
        kind: The operator, such as "CONV_2D", or a delegate's own name for it.
        name: The name of its output, or the delegate's number.
        average_ms: Mean time per inference, in ms.
        inside: Whether a delegate runs it; the delegate's own row includes its time.
    """

    kind: str
    name: str
    average_ms: float
    inside: bool = False


@dataclasses.dataclass(frozen=True)
class PhoneRun:
    """The result of one run of the benchmark tool on a file.

    Args:
        average_ms: Mean time of one inference, in ms.
        median_ms: Median, in ms; None if the tool is too old to report it.
        p5_ms: 5th percentile, in ms; None likewise.
        p95_ms: 95th percentile, in ms; None likewise.
        min_ms: Shortest time, in ms.
        max_ms: Longest time, in ms.
        init_ms: Time to load and prepare the file, in ms.
        first_ms: Time of the first inference, in ms.
        memory_mb: Growth of the process's peak memory, in MB; None if it is not reported.
        operators: The profile, in the order of execution.
        runs: Number of timed inferences.
    """

    average_ms: float
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None
    min_ms: float
    max_ms: float
    init_ms: float
    first_ms: float
    memory_mb: float | None
    operators: tuple[PhoneOperator, ...] = dataclasses.field(repr=False)
    runs: int

    @property
    def ms(self) -> float:
        """Returns the median time in ms, or the mean if the tool does not report the median."""
        return self.average_ms if self.median_ms is None else self.median_ms

    def profile(self) -> str:
        """Returns the operators as a table, slowest first; those of a delegate are indented."""
        return table(["operator", "output", "ms"], self._profile_rows(), right=2)

    def _profile_rows(self) -> list[list[str]]:
        return [
            [("  " if op.inside else "") + op.kind, op.name, f"{op.average_ms:.3f}"]
            for op in sorted(self.operators, key=lambda op: -op.average_ms)
        ]


def parse_benchmark(output: str) -> PhoneRun:
    """Returns the tool's output, of old and new versions, as a record.

    Args:
        output: The entire output.

    Raises:
        RuntimeError: There are no timings in it.
    """
    timings, statistics = _TIMINGS.search(output), _STATISTICS.findall(output)
    if timings is None or not statistics:
        raise RuntimeError(f"benchmark_model must report its timings, got {last_lines(output)}")
    init, first, _, average = (float(number) / 1000 for number in timings.groups())
    # The last statistics are those after warm-up. If all runs took equally long, the tool
    # reports "curr" alone.
    fields = {name: float(number) for name, number in _FIELD.findall(statistics[-1])}
    ms = {name: value / 1000 for name, value in fields.items()}
    memory = _MEMORY.search(output)
    return PhoneRun(
        average_ms=average,
        median_ms=ms.get("median"),
        p5_ms=ms.get("p5"),
        p95_ms=ms.get("p95"),
        min_ms=ms.get("min", average),
        max_ms=ms.get("max", average),
        init_ms=init,
        first_ms=first,
        memory_mb=None if memory is None else float(memory[1]),
        operators=tuple(_operators(output.partition(_PROFILE)[2])),
        runs=int(fields["count"]),
    )


def _operators(output: str) -> Iterator[PhoneOperator]:
    """The rows of the "Run Order" tables; their columns differ between versions."""
    columns: list[str] = []
    inside = reading = False
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.removeprefix("INFO: ").split("\t")]
        inside |= line.strip().endswith(_DELEGATE)
        if _RUN_ORDER.match(cells[0]):
            reading, columns = True, []
        elif reading and cells == [""]:
            reading = False
        elif reading and not columns:
            columns = cells
        elif reading and len(cells) == len(columns):
            yield _operator(dict(zip(columns, cells, strict=True)), inside)


def _operator(row: dict[str, str], inside: bool) -> PhoneOperator:
    """A row of the table; its time is per call, and some operators are called several times."""
    try:
        average = float(row["[avg ms]"]) * float(row.get("[times called]", 1))
        return PhoneOperator(row["[node type]"], _name(row["[Name]"]), average, inside)
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"benchmark_model must report a profile, got the row {row}") from error


def _name(cell: str) -> str:
    """A name without the tool's brackets and number: "[relu]:3" is "relu"."""
    return re.sub(r"^\[(.*)\](?::\d+)?$", r"\1", cell)
