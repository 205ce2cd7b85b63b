"""Latency on an Android phone, with TFLite's `benchmark_model` and the Android debug bridge (adb).

The tool, the file and the reference model that tfnas ships are pushed to a folder on the phone
that is removed afterwards. The reference runs before and after the file, and the result is the
file's time as a ratio to the mean of both; their difference shows whether the phone slowed down
as it got warm. Operators are profiled in the same run, so times are a little longer than without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from tfnas.measure.latency import reference_artifact
from tfnas.table import Tabular, TextTable, table
from tfnas.targets.external_programs import check_timeout, last_lines, plain_record
from tfnas.tflite.artifact import Artifact, as_artifact

FOLDER = "/data/local/tmp/tfnas"
_BINARY, _MODEL, _REFERENCE = "benchmark_model", "model.tflite", "reference.tflite"
_STATUS = "tfnas-exit-status"
_WRONG_ARCHITECTURE = ("exec format error", "not executable", "bad elf", "no such file")

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


@dataclasses.dataclass(frozen=True, repr=False)
class PhoneLatency(Tabular, PhoneRun):
    """Time of one inference on a phone, in ms and as a ratio to a reference model.

    Args:
        device: The phone's model, such as "Pixel 6".
        abi: Its application binary interface, such as "arm64-v8a".
        threads: Threads of the interpreter.
        xnnpack: Whether the XNNPACK delegate was allowed.
        reference: sha256 of the reference file.
        reference_ms: Time of the reference before and after the file, in ms.
    """

    device: str
    abi: str
    threads: int
    xnnpack: bool
    reference: str
    reference_ms: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Returns the file's time over the mean of the reference's two, no unit."""
        return self.ms / (sum(self.reference_ms) / 2)

    @property
    def ratio_low(self) -> float:
        """Returns the ratio to the slower one of the reference's two runs."""
        return self.ms / max(self.reference_ms)

    @property
    def ratio_high(self) -> float:
        """Returns the ratio to the faster one of the reference's two runs."""
        return self.ms / min(self.reference_ms)

    def to_dict(self) -> dict[str, Any]:
        """Returns the latency as plain dictionaries, lists, strings and numbers."""
        ratios = {name: getattr(self, name) for name in ("ratio", "ratio_low", "ratio_high")}
        return plain_record(self, **ratios)

    def tables(self) -> list[TextTable]:
        """Returns the times and the profile of the operators, slowest first."""
        milliseconds = {
            "median": self.median_ms,
            "mean": self.average_ms,
            "5th percentile": self.p5_ms,
            "95th percentile": self.p95_ms,
            "shortest": self.min_ms,
            "longest": self.max_ms,
            "first": self.first_ms,
            "initialization": self.init_ms,
            "reference before": self.reference_ms[0],
            "reference after": self.reference_ms[1],
        }
        times = [[name, f"{ms:.4g}"] for name, ms in milliseconds.items() if ms is not None]
        return [
            TextTable(["time", "ms"], times, title=f"{self._line()}, {self.abi}"),
            TextTable(["operator", "output", "ms"], self._profile_rows(), right=2),
        ]

    def _line(self) -> str:
        return (
            f"{self.ms:.4g} ms, {self.ratio:.3f}x reference "
            f"[{self.ratio_low:.3f}, {self.ratio_high:.3f}] on {self.device}"
        )

    def __str__(self) -> str:
        return self._line()


def benchmark_on_phone(
    file: Artifact | str | os.PathLike[str],
    binary: str | os.PathLike[str],
    *,
    serial: str | None = None,
    adb: str = "adb",
    threads: int = 1,
    runs: int = 50,
    warmup_runs: int = 1,
    use_xnnpack: bool = True,
    timeout: float = 300,
) -> PhoneLatency:
    """Measures the time of one inference (batch 1) on a connected Android phone.

    Example:
        >>> import tfnas
        >>> latency = tfnas.benchmark_on_phone(  # doctest: +SKIP
        ...     "model.tflite", "android_aarch64_benchmark_model"
        ... )
        >>> print(latency.ratio, latency.profile())  # doctest: +SKIP

    Args:
        file: An artifact or the path of a file.
        binary: Path of TFLite's `benchmark_model`, built for the phone's processor.
        serial: The phone's serial number as `adb devices` lists it; required if several phones
            are connected.
        adb: Name or path of the Android debug bridge.
        threads: Threads of the interpreter.
        runs: Least number of timed inferences; the tool runs for at least a second.
        warmup_runs: Least number of untimed inferences before; at least half a second.
        use_xnnpack: Whether the XNNPACK delegate may run.
        timeout: Time limit of each of the three runs, in seconds.

    Returns:
        The latency, with the profile of the operators.

    Raises:
        FileNotFoundError: There is no `adb`, no `binary` or no `file`.
        RuntimeError: No phone can be used, or the tool failed or its output can't be parsed.
        TimeoutError: The phone did not finish in time.
        ValueError: An argument is outside its rule; the message names it.

    References:
        TensorFlow, `tensorflow/lite/tools/benchmark/README.md`.
    """
    counts = (("threads", threads, 1), ("runs", runs, 1), ("warmup_runs", warmup_runs, 0))
    for name, value, least in counts:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    check_timeout(timeout)
    check_binary(binary)
    artifact = as_artifact(file)
    reference = reference_artifact()
    phone = _Phone(adb, serial, timeout)
    flags = [f"--num_threads={threads}", f"--num_runs={runs}", f"--warmup_runs={warmup_runs}"]
    flags += [f"--use_xnnpack={str(use_xnnpack).lower()}", "--enable_op_profiling=true"]
    with phone.pushed(binary, artifact, reference):
        before, found, after = (
            _parse(phone.benchmark(graph, flags)) for graph in (_REFERENCE, _MODEL, _REFERENCE)
        )
    return PhoneLatency(
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        device=phone.model,
        abi=phone.abi,
        threads=threads,
        xnnpack=use_xnnpack,
        reference=reference.sha256,
        reference_ms=(before.ms, after.ms),
    )


def check_binary(binary: str | os.PathLike[str]) -> None:
    """Checks that the benchmark tool's file exists.

    Args:
        binary: Path of TFLite's `benchmark_model` for Android.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not pathlib.Path(binary).is_file():
        raise FileNotFoundError(
            "binary must be the path of TFLite's benchmark_model, got "
            f"{os.fspath(binary)!r}, where there is no file"
        )


# --- the phone


class _Phone:
    """A connected phone, driven through adb."""

    def __init__(self, adb: str, serial: str | None, timeout: float) -> None:
        self._adb, self._timeout = adb, timeout
        self._serial = _chosen(self._call("devices"), serial)
        self._folder = f"{FOLDER}-{_run_name()}"
        self.model = self._property("ro.product.model") or "unknown phone"
        self.abi = self._property("ro.product.cpu.abi") or "unknown processor"

    @contextlib.contextmanager
    def pushed(
        self, binary: str | os.PathLike[str], file: Artifact, reference: Artifact
    ) -> Iterator[None]:
        """Pushes the tool and the files to the phone, and removes them on exit."""
        try:
            self._shell(f"mkdir -p {self._folder}")
            with tempfile.TemporaryDirectory() as folder:
                here = pathlib.Path(folder)
                sources = (
                    binary,
                    file.save(here / "model.tflite"),
                    reference.save(here / "reference.tflite"),
                )
                for source, name in zip(sources, (_BINARY, _MODEL, _REFERENCE), strict=True):
                    self._on_phone("push", os.fspath(source), f"{self._folder}/{name}")
            self._shell(f"chmod +x {self._folder}/{_BINARY}")
            yield
        except TimeoutError:
            with contextlib.suppress(RuntimeError, OSError):  # or it runs on and heats the phone
                self._shell(f"pkill -f '{self._folder}/[b]enchmark_model'")  # [b]: not this shell
            raise
        finally:
            with contextlib.suppress(RuntimeError, OSError):  # an earlier error is what matters
                names = (_BINARY, _MODEL, _REFERENCE)
                paths = " ".join(f"{self._folder}/{name}" for name in names)
                self._shell(f"rm -f {paths}; rmdir {self._folder}")

    def benchmark(self, graph: str, flags: Sequence[str]) -> str:
        """Runs the tool on a file of the phone and returns its output."""
        where = self._folder
        command = " ".join([f"{where}/{_BINARY}", f"--graph={where}/{graph}", *flags])
        # adb does not return the exit status on phones before Android 7.
        output = self._on_phone("shell", f"{command} 2>&1; echo {_STATUS}=$?")
        text, mark, status = output.rpartition(f"{_STATUS}=")
        if mark and status.strip() == "0":
            return text
        code = status.strip() if mark else "unknown"
        mismatch = any(words in output.lower() for words in _WRONG_ARCHITECTURE)
        hint = f"; it must be built for the phone's processor, {self.abi}" if mismatch else ""
        raise RuntimeError(
            f"benchmark_model failed on {self.model} with exit code {code}{hint}: "
            f"{last_lines(text)}"
        )

    def _property(self, name: str) -> str:
        return self._on_phone("shell", f"getprop {name}").strip()

    def _shell(self, command: str) -> None:
        self._on_phone("shell", command)

    def _on_phone(self, *arguments: str) -> str:
        return self._call("-s", self._serial, *arguments)

    def _call(self, *arguments: str) -> str:
        """Runs adb and returns its output."""
        try:
            done = subprocess.run(
                [self._adb, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=self._timeout,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise FileNotFoundError(
                f"adb must be the Android debug bridge, of Android's platform-tools, "
                f"got {self._adb!r}, which is no program"
            ) from error
        except subprocess.TimeoutExpired as error:
            command = next((a for a in arguments if a in ("devices", "push", "shell")), "")
            raise TimeoutError(
                f"adb {command} must end within {self._timeout:g} s, got no result"
            ) from error
        output = done.stdout.replace("\r\n", "\n")
        if done.returncode:
            raise RuntimeError(f"adb failed with exit code {done.returncode}: {last_lines(output)}")
        return output


def _run_name() -> str:
    """A unique suffix: two runs on one phone must not share a folder."""
    return uuid.uuid4().hex[:8]


def _chosen(output: str, serial: str | None) -> str:
    """The serial number to use, of those in the output of `adb devices`."""
    lines = output.partition("List of devices attached")[2].splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip()]
    states = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    if serial is None:
        if not states:
            raise RuntimeError("a phone must be connected, with USB debugging on, got none")
        if len(states) > 1:
            raise RuntimeError(
                f"serial must name one of several phones, got None: {_listed(states)}"
            )
        [serial] = states
    elif serial not in states:
        raise RuntimeError(
            f"serial must be that of a connected phone, got {serial!r}: {_listed(states)}"
        )
    if states[serial] == "unauthorized":
        raise RuntimeError(f"phone {serial} is unauthorized: allow USB debugging on its screen")
    if states[serial] != "device":
        raise RuntimeError(f"phone {serial} must be ready, got {states[serial]!r}")
    return serial


def _listed(states: dict[str, str]) -> str:
    return ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"


# --- the tool's output


def _parse(output: str) -> PhoneRun:
    """Parses the tool's output, of old and new versions.

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
