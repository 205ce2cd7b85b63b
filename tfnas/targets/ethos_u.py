"""Compiles a file for an Arm Ethos-U accelerator (NPU) and reports the compiler's estimates.

ethos-u-vela fuses the operators that the NPU supports into one custom operator and leaves the
rest to the CPU beside it. Its estimates are of the NPU's part alone, for the clock and memories
of a system in its configuration, so compare them with each other only. The compiler runs in a
process of its own, in a folder that is removed afterwards.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.optional import require
from tfnas.runtime.external_programs import check_timeout, last_lines, plain_record
from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.metadata import move_metadata
from tfnas.tflite.operator_rules.tflite_micro import COMPILED, for_accelerator

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
_AREAS = ("sram", "dram", "on_chip_flash", "off_chip_flash")
_STEP = re.compile(r"^ +NPU: (.+?) = (.+) \((?:inputs|outputs) .*\)$", re.MULTILINE)
_REASON = re.compile(r"operator: \S+, ofm: '(.+)'\s*\n\s*Reason: (.+)")


class VelaError(RuntimeError):
    """The compiler failed or timed out; the message has the last lines of its output."""


@dataclasses.dataclass(frozen=True)
class VelaCycles:
    """Clock cycles of one inference on the NPU.

    Args:
        total: Cycles of the inference; the parts below overlap, so it is not their sum.
        npu: Cycles in which the NPU computes.
        sram: Cycles of access to SRAM.
        dram: Cycles of access to DRAM.
        on_chip_flash: Cycles of access to on-chip flash.
        off_chip_flash: Cycles of access to off-chip flash.
    """

    total: int
    npu: int
    sram: int
    dram: int
    on_chip_flash: int
    off_chip_flash: int


@dataclasses.dataclass(frozen=True)
class VelaMemory:
    """Memory of the NPU's part: activations, and weights as the compiler encodes them.

    Args:
        sram: SRAM, in bytes.
        dram: DRAM, in bytes.
        on_chip_flash: On-chip flash, in bytes.
        off_chip_flash: Off-chip flash, in bytes.
    """

    sram: int
    dram: int
    on_chip_flash: int
    off_chip_flash: int


@dataclasses.dataclass(frozen=True)
class VelaOperator:
    """An operator of the file, or a step that the compiler made of one.

    Args:
        kind: TFLite's name of the operator, such as "CONV_2D"; of a step the compiler's own.
        name: The name of its output.
        reason: Why it stays on the CPU, if the compiler reports it.
    """

    kind: str
    name: str
    reason: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class VelaReport(Tabular):
    """The compiler's estimates of a file on an NPU, and the compiled file.

    Args:
        accelerator: The NPU, such as "ethos-u55-128".
        system_config: Name of the system that the estimates are for.
        memory_mode: Name of the memory mode.
        clock_mhz: The NPU's clock, in MHz.
        inference_ms: Time of the NPU's part of one inference, in ms; 0 without such a part.
        cycles: Clock cycles of the NPU's part.
        memory: Memory of the NPU's part.
        macs: Multiply-accumulates of the NPU's part.
        npu_operators: Operators of the file that the NPU runs.
        cpu_operators: Operators that the CPU beside it runs, as the compiled file has them.
        npu_steps: The NPU's part as the compiler lists it: one operator may become several steps,
            and steps of several operators one. Its listing may be empty, where the compiled file
            nevertheless has a part for the NPU.
        compiled: The compiled file; on a microcontroller it runs in TFLite Micro.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    clock_mhz: float
    inference_ms: float
    cycles: VelaCycles
    memory: VelaMemory
    macs: int
    npu_operators: tuple[VelaOperator, ...] = dataclasses.field(repr=False)
    cpu_operators: tuple[VelaOperator, ...] = dataclasses.field(repr=False)
    npu_steps: tuple[VelaOperator, ...] = dataclasses.field(repr=False)
    compiled: Artifact = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries; `compiled` is the size in bytes."""
        return plain_record(self, compiled=self.compiled.size)

    def tables(self) -> list[TextTable]:
        """Returns the estimates as a table."""
        memory = dataclasses.asdict(self.memory).items()
        timed, steps = bool(self.npu_operators), f"{len(self.npu_steps):,}"
        rows = [
            ["time, ms", f"{self.inference_ms:.4g}" if timed else "- (nothing runs on the NPU)"],
            ["cycles", f"{self.cycles.total:,}"],
            ["  computing", f"{self.cycles.npu:,}"],
            *([f"bytes of {_area_name(area)}", f"{size:,}"] for area, size in memory if size),
            ["MACs", f"{self.macs:,}"],
            ["operators on the NPU", f"{len(self.npu_operators):,}"],
            *([["  steps in the compiler's listing", steps]] if self.npu_steps else []),
            ["operators on the CPU", f"{len(self.cpu_operators):,}"],
            ["bytes of the compiled file", f"{self.compiled.size:,}"],
        ]
        return [TextTable([f"{self.accelerator}, {self.clock_mhz:g} MHz", ""], rows)]

    def notes(self) -> list[str]:
        """Returns the system, and each kind of operator on the CPU with the reason."""
        system = f"{self.system_config}, {self.memory_mode}: estimates of the NPU's part alone"
        counts: dict[tuple[str, str], int] = {}
        for op in self.cpu_operators:
            key = op.kind, re.sub(r" \(.*\)$", "", op.reason)
            counts[key] = counts.get(key, 0) + 1
        return [
            system,
            *(
                f"on the CPU: {count} x {kind}{f' ({reason})' if reason else ''}"
                for (kind, reason), count in counts.items()
            ),
        ]


def vela(
    file: Artifact | str | os.PathLike[str],
    accelerator: str = "ethos-u55-128",
    *,
    system_config: str | None = None,
    memory_mode: str | None = None,
    timeout: float = 120,
) -> VelaReport:
    """Compiles a file for an Arm Ethos-U accelerator and returns the compiler's estimates.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
        >>> file = tfnas.to_tflite(model, "int8", np.zeros((8, 16)))
        >>> report = tfnas.vela(file, "ethos-u55-64")
        >>> report.macs, report.cpu_operators
        (128, ())

    Args:
        file: An artifact or the path of a file. The NPU runs integers only: all operators of a
            float file stay on the CPU and are listed in `cpu_operators`.
        accelerator: The NPU and its multiply-accumulates per cycle, such as "ethos-u85-256".
        system_config: A system of the compiler's `Arm/vela.ini`, with clock and memories, such
            as "Ethos_U55_Deep_Embedded". Default: the compiler's for the accelerator.
        memory_mode: A memory mode of `Arm/vela.ini`, such as "Sram_Only". Default: the
            compiler's for the accelerator.
        timeout: Time limit of the compiler, in seconds.

    Returns:
        The report, which includes the compiled file.

    Raises:
        ImportError: The package ethos-u-vela is not installed.
        VelaError: The compiler failed or timed out (a `RuntimeError`; the message has the last
            lines of its output).
        ValueError: The accelerator is unknown, the content is no `.tflite` file, or the compiler
            can't take it: it has 4-bit tensors or is already compiled.

    References:
        Arm, "Vela Compiler", OPTIONS.md and PERFORMANCE.md of ethos-u-vela.
    """
    if accelerator not in ACCELERATORS:
        raise ValueError(f"accelerator must be one of {', '.join(ACCELERATORS)}, got {accelerator}")
    check_timeout(timeout)
    artifact = as_artifact(file)
    _check_file(artifact)
    check_package()
    flags = [f"--accelerator-config={accelerator}", "--show-cpu-operations", "--output-dir=out"]
    flags += [f"--system-config={system_config}"] if system_config else []
    flags += [f"--memory-mode={memory_mode}"] if memory_mode else []
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        artifact.save(here / "model.tflite")
        output = _run([*flags, "model.tflite"], here, timeout)
        summaries = list(here.glob("out/*_summary_*.csv"))
        compiled = here / "out" / "model_vela.tflite"
        if len(summaries) != 1 or not compiled.exists():
            raise VelaError(
                f"ethos-u-vela must write a summary and a file, got {last_lines(output)}"
            )
        with summaries[0].open(newline="", encoding="utf-8") as lines:
            [summary] = csv.DictReader(lines)
        origin = {**artifact.origin, "accelerator": accelerator}
        # The compiler keeps the metadata's buffer, but not the labels behind it.
        content = move_metadata(compiled.read_bytes(), artifact.content)
        result = Artifact(content, "vela", origin)
        return _report(artifact, accelerator, summary, output, result)


def check_package() -> None:
    """Raises ImportError if the compiler is not installed."""
    require("ethosu.vela", "estimates for accelerators")


def _check_file(file: Artifact) -> None:
    """Raises ValueError for files that the compiler crashes on or leaves unchanged."""
    if for_accelerator(file):
        raise ValueError("file must not be compiled yet, got one compiled for an Ethos-U")
    if any(tensor.dtype == "int4" for tensor in file.graph.tensors):
        raise ValueError(
            "file must have no 4-bit tensors, which ethos-u-vela can't compile, got some"
        )


def _run(arguments: Sequence[str], folder: pathlib.Path, timeout: float) -> str:
    """Runs the compiler and returns its output."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ethosu.vela", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise VelaError(f"ethos-u-vela must end within {timeout:g} s, got no result") from error
    if done.returncode:
        ended = (
            f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        )
        raise VelaError(f"ethos-u-vela failed with {ended}: {last_lines(done.stdout)}")
    return done.stdout


def _report(
    file: Artifact, accelerator: str, summary: Mapping[str, str], output: str, compiled: Artifact
) -> VelaReport:
    npu, cpu = _operators(file, compiled, output)
    cycles = {name: _rounded(summary[f"cycles_{name}_access"]) for name in _AREAS}
    return VelaReport(
        accelerator=accelerator,
        system_config=summary["system_config"],
        memory_mode=summary["memory_mode"],
        clock_mhz=float(summary["core_clock"]) / 1e6,
        inference_ms=float(summary["inference_time"]) * 1e3,
        cycles=VelaCycles(
            _rounded(summary["cycles_total"]), _rounded(summary["cycles_npu"]), **cycles
        ),
        # The summary is in KiB.
        memory=VelaMemory(**{a: _rounded(summary[f"{a}_memory_used"], 1024) for a in _AREAS}),
        macs=_rounded(summary["nn_macs"]),
        npu_operators=npu,
        cpu_operators=cpu,
        npu_steps=tuple(VelaOperator(kind, name) for kind, name in _STEP.findall(output)),
        compiled=compiled,
    )


def _operators(
    file: Artifact, compiled: Artifact, output: str
) -> tuple[tuple[VelaOperator, ...], tuple[VelaOperator, ...]]:
    """The operators on the NPU and on the CPU, in the order of the file.

    Where they run is in the compiled file: what it has beside the NPU's parts is the CPU's. The
    compiler's listing says it in its own names ("Passthrough"), and may count none where there is
    a part for the NPU.
    """
    reasons = {name: reason.strip() for name, reason in _REASON.findall(output)}
    on_cpu = [op for op in compiled.graph.operators if op.name != COMPILED]
    cpu = tuple(
        VelaOperator(op.name, op.outputs[0].name, reasons.get(op.outputs[0].name, ""))
        for op in on_cpu
        if op.outputs
    )
    if len(on_cpu) == len(compiled.graph.operators):
        return (), cpu
    names = {operator.name for operator in cpu}
    own = [op for op in file.graph.operators if op.outputs and op.outputs[0].name not in names]
    return tuple(VelaOperator(op.name, op.outputs[0].name) for op in own), cpu


def _rounded(text: str, unit: int = 1) -> int:
    return round(float(text) * unit)


def _area_name(area: str) -> str:
    return area.replace("_", "-", 1).replace("_", " ") if "flash" in area else area.upper()
