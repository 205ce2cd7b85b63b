"""What Arm's compiler makes of a file for an Ethos-U accelerator, and what it expects of it.

ethos-u-vela joins the operators that the accelerator (the NPU) has into one custom operator
and leaves the rest to the processor beside it. Its numbers are estimates of the NPU's part alone,
at the clock of a system that its configuration describes: compare them with each other. It
runs in a process of its own, in a folder that is removed afterwards.
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
from tfnas.table import table
from tfnas.targets.external_programs import check_timeout, last_lines, plain_record
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.operator_rules.tflite_micro import for_accelerator

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
_AREAS = ("sram", "dram", "on_chip_flash", "off_chip_flash")
_LISTED = re.compile(r"^ +(CPU|NPU): (.+?) = (.+) \((?:inputs|outputs) .*\)$", re.MULTILINE)
_REASON = re.compile(r"operator: \S+, ofm: '(.+)'\s*\n\s*Reason: (.+)")


class VelaError(RuntimeError):
    """The compiler failed, or did not end in its time; the message tells what it said."""


@dataclasses.dataclass(frozen=True)
class VelaCycles:
    """Clock cycles that one inference takes on the NPU, by what is busy.

    Args:
        total: What the inference takes; parts overlap, so it is no sum.
        npu: Those in which the NPU computes.
        sram: Those of access to this memory, and so on.
        dram: See `sram`.
        on_chip_flash: See `sram`.
        off_chip_flash: See `sram`.
    """

    total: int
    npu: int
    sram: int
    dram: int
    on_chip_flash: int
    off_chip_flash: int


@dataclasses.dataclass(frozen=True)
class VelaMemory:
    """Bytes of each memory that the NPU's part takes: activations, and weights as encoded.

    Args:
        sram: Bytes of this memory, and so on.
        dram: See `sram`.
        on_chip_flash: See `sram`.
        off_chip_flash: See `sram`.
    """

    sram: int
    dram: int
    on_chip_flash: int
    off_chip_flash: int


@dataclasses.dataclass(frozen=True)
class VelaOperator:
    """One operator as the compiler lists it.

    Args:
        kind: What it is: TFLite's name on the CPU, the compiler's own on the NPU, where one
            of TFLite may have become several.
        name: The name of its output.
        reason: Why it stays on the CPU, where the compiler says so.
    """

    kind: str
    name: str
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class VelaReport:
    """What the compiler expects of a file.

    Args:
        accelerator: The NPU, such as "ethos-u55-128".
        system_config: Name of the system that its numbers are for.
        memory_mode: Name of how it uses the memories.
        clock_mhz: The NPU's clock, in MHz.
        inference_ms: Time of the NPU's part of one inference, in ms; 0 where it has none.
        cycles: Cycles of that part.
        memory: Bytes of that part.
        macs: Multiply-accumulates of that part.
        npu_operators: What the NPU runs.
        cpu_operators: What the processor beside it must run.
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
    compiled: Artifact = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain dictionaries, lists, strings and numbers; of the file its bytes."""
        return plain_record(self, compiled=self.compiled.size)

    def __str__(self) -> str:
        memory = dataclasses.asdict(self.memory).items()
        timed = bool(self.npu_operators)
        rows = [
            ["time, ms", f"{self.inference_ms:.4g}" if timed else "- (nothing runs on the NPU)"],
            ["cycles", f"{self.cycles.total:,}"],
            ["  computing", f"{self.cycles.npu:,}"],
            *([f"bytes of {_words(area)}", f"{size:,}"] for area, size in memory if size),
            ["MACs", f"{self.macs:,}"],
            ["operators on the NPU, as it splits them", f"{len(self.npu_operators):,}"],
            ["operators on the CPU", f"{len(self.cpu_operators):,}"],
            ["bytes of the compiled file", f"{self.compiled.size:,}"],
        ]
        where = f"{self.system_config}, {self.memory_mode}: estimates of the NPU's part alone"
        lines = [table([f"{self.accelerator}, {self.clock_mhz:g} MHz", ""], rows), where]
        return "\n".join([*lines, *self._left()])

    def _left(self) -> list[str]:
        """A line for each kind of operator that the CPU keeps, and each reason."""
        counts: dict[tuple[str, str], int] = {}
        for op in self.cpu_operators:
            what = op.kind, re.sub(r" \(.*\)$", "", op.reason)
            counts[what] = counts.get(what, 0) + 1
        return [
            f"on the CPU: {count} x {kind}{f' ({reason})' if reason else ''}"
            for (kind, reason), count in counts.items()
        ]


def vela(
    file: Artifact | str | os.PathLike[str],
    accelerator: str = "ethos-u55-128",
    *,
    system_config: str | None = None,
    memory_mode: str | None = None,
    timeout: float = 120,
) -> VelaReport:
    """Compiles a file for an Arm Ethos-U accelerator and tells what the compiler expects.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
        >>> file = tfnas.to_tflite(model, "int8", np.zeros((8, 16)))
        >>> report = tfnas.vela(file, "ethos-u55-64")
        >>> report.macs, report.cpu_operators
        (128, ())

    Args:
        file: An artifact or the path of a file. Only integers run on the NPU: a float file is
            compiled too, and all of it is told in `cpu_operators`.
        accelerator: The NPU and its multiply-accumulates a cycle, such as "ethos-u85-256".
        system_config: A system of the compiler's `Arm/vela.ini`, which has clock and memories,
            such as "Ethos_U55_Deep_Embedded". Default: the compiler's for the accelerator.
        memory_mode: How memories are used, a name there such as "Sram_Only". Default: the
            compiler's for the accelerator.
        timeout: Time that the compiler may take, in seconds.

    Returns:
        The report, and in it the compiled file.

    Raises:
        ImportError: The package ethos-u-vela is not installed.
        VelaError: The compiler failed (a `RuntimeError`; its last lines are told), or took too
            long.
        ValueError: The accelerator is unknown, the content is no `.tflite` file, or it is one that
            the compiler can't take: 4-bit numbers, or compiled before.

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
        said = _run([*flags, "model.tflite"], here, timeout)
        summaries = list(here.glob("out/*_summary_*.csv"))
        compiled = here / "out" / "model_vela.tflite"
        if len(summaries) != 1 or not compiled.exists():
            raise VelaError(f"ethos-u-vela must write a summary and a file, got {last_lines(said)}")
        with summaries[0].open(newline="", encoding="utf-8") as lines:
            [summary] = csv.DictReader(lines)
        origin = {**artifact.origin, "accelerator": accelerator}
        made = Artifact(compiled.read_bytes(), "vela", origin)
        return _report(artifact, accelerator, summary, said, _described_as(artifact, made))


def check_package() -> None:
    """Raises ImportError where the compiler is not installed."""
    require("ethosu.vela", "numbers of accelerators")


def _check_file(file: Artifact) -> None:
    """Raises ValueError for files that the compiler crashes on, or leaves as they are."""
    if for_accelerator(file):
        raise ValueError("file must not be compiled yet, got one compiled for an Ethos-U")
    if any(tensor.dtype == "int4" for tensor in file.graph.tensors):
        raise ValueError(
            "file must hold no 4-bit numbers, which ethos-u-vela can't compile, got some"
        )


def _described_as(file: Artifact, compiled: Artifact) -> Artifact:
    """A compiled file with the labels of the one given.

    The compiler keeps the metadata's own buffer, but not the labels behind it.
    """
    told = file.metadata
    return compiled if told is None else compiled.with_metadata(**dataclasses.asdict(told))


def _run(arguments: Sequence[str], folder: pathlib.Path, timeout: float) -> str:
    """Runs the compiler and returns what it said."""
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
    file: Artifact, accelerator: str, summary: Mapping[str, str], said: str, compiled: Artifact
) -> VelaReport:
    npu, cpu = _operators(file, said)
    cycles = {name: _whole(summary[f"cycles_{name}_access"]) for name in _AREAS}
    return VelaReport(
        accelerator=accelerator,
        system_config=summary["system_config"],
        memory_mode=summary["memory_mode"],
        clock_mhz=float(summary["core_clock"]) / 1e6,
        inference_ms=float(summary["inference_time"]) * 1e3,
        cycles=VelaCycles(_whole(summary["cycles_total"]), _whole(summary["cycles_npu"]), **cycles),
        # It tells KiB.
        memory=VelaMemory(**{a: _whole(summary[f"{a}_memory_used"], 1024) for a in _AREAS}),
        macs=_whole(summary["nn_macs"]),
        npu_operators=npu,
        cpu_operators=cpu,
        compiled=compiled,
    )


def _operators(
    file: Artifact, said: str
) -> tuple[tuple[VelaOperator, ...], tuple[VelaOperator, ...]]:
    """What runs on the NPU and on the CPU, in the order of the compiler's listing."""
    # What it leaves alone it calls "Passthrough": the file knows better.
    kinds = {op.outputs[0].name: op.name for op in file.graph.operators if op.outputs}
    reasons = dict(_REASON.findall(said))
    listed = _LISTED.findall(said)
    npu = tuple(VelaOperator(kind, name) for where, kind, name in listed if where == "NPU")
    cpu = tuple(
        VelaOperator(kinds.get(name, kind), name, reasons.get(name, "").strip())
        for where, kind, name in listed
        if where == "CPU"
    )
    return npu, cpu


def _whole(text: str, unit: int = 1) -> int:
    return round(float(text) * unit)


def _words(area: str) -> str:
    return area.replace("_", "-", 1).replace("_", " ") if "flash" in area else area.upper()
