"""`tfnas bench`."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_signature
from tfnas.runtime.argument_rules import check_choice

if TYPE_CHECKING:
    from tfnas.measure.elsewhere.timing_device import TimingDevice
    from tfnas.measure.measurement import Latency
    from tfnas.targets.android import PhoneLatency
    from tfnas.targets.ethos_u import VelaReport
    from tfnas.tflite.artifact import Artifact

SUMMARY = "measure the latency of .tflite files side by side"
POSITIONAL = "FILE..."
_LATENCY_COLUMNS = ["file", "reference", "95% interval", "median ms", "p90 ms"]
_COUNTS = ("batch_sizes", "thread_counts")
EXAMPLES = (
    ("two files, measured in turns", "tfnas bench a.tflite b.tflite --threads=2"),
    (
        "examples per second for batches and threads",
        "tfnas bench a.tflite --throughput --batch_sizes=1,8,64 --thread_counts=1,4",
    ),
    (
        "a Raspberry Pi, a phone and a browser too",
        "tfnas bench a.tflite b.tflite --measure_on=ssh:pi@raspberrypi --measure_on=adb "
        "--measure_on=browser",
    ),
    (
        "a connected phone with its operators",
        "tfnas bench a.tflite --adb --adb_binary=android_aarch64_benchmark_model",
    ),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_integer("rounds", 50, "rounds of the measurement", lower_bound=6, **common)
    flags.DEFINE_integer("threads", 1, "threads of the interpreter", lower_bound=1, **common)
    flags.DEFINE_bool("xnnpack", True, "use the XNNPACK delegate", **common)
    flags.DEFINE_string("json", None, "also write the measurements to this file", **common)
    text = "also measure examples per second for --batch_sizes and --thread_counts"
    flags.DEFINE_bool("throughput", False, text, **common)
    text = "batch sizes of --throughput"
    flags.DEFINE_list("batch_sizes", ["1", "8", "32"], text, **common)
    flags.DEFINE_list("thread_counts", ["1", "2"], "thread counts of --throughput", **common)
    text = "also compile for this Arm NPU, such as ethos-u55-128, and print Vela's estimates"
    flags.DEFINE_string("vela", None, text, **common)
    flags.DEFINE_bool("adb", False, "also measure on a phone; needs --adb_binary", **common)
    text = "path of TFLite's benchmark_model for the phone's processor, for --adb"
    flags.DEFINE_string("adb_binary", None, text, **common)
    text = "serial number of the phone if several are connected, for --adb"
    flags.DEFINE_string("serial", None, text, **common)
    text = (
        "also measure on this device: ssh:USER@HOST, adb, adb:SERIAL or browser, perhaps with "
        "options such as ,python=venv/bin/python"
    )
    flags.DEFINE_multi_string("measure_on", [], text, **common)
    define_signature(common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    import json

    from tfnas.measure.latency import benchmark, provenance
    from tfnas.measure.measurement import Measurement
    from tfnas.runtime.files import write_atomically
    from tfnas.table import table
    from tfnas.tflite.artifact import Artifact

    files = [Artifact.load(path, values["signature"].value) for path in positional]
    reports = _compiled(files, values)
    devices = _devices(values)
    for device in devices:
        device.check()
    on_phone = _on_phone(files, values)
    options = {name: values[name].value for name in ("rounds", "threads", "xnnpack")}
    latencies = benchmark(files, **options)
    elsewhere = {str(device): benchmark(files, **options, measure_on=device) for device in devices}
    rows = [
        [
            *_latency_cells(path, latency),
            f"{file.size:,}",
            f"{file.gzip_size:,}",
        ]
        for path, file, latency in zip(positional, files, latencies, strict=True)
    ]
    print(table([*_LATENCY_COLUMNS, "bytes", "gzip"], rows))
    where = provenance()
    print(f"\n{_conditions(where['cpu'], latencies[0])}")
    for found in elsewhere.values():
        cells = [_latency_cells(*each) for each in zip(positional, found, strict=True)]
        print(f"\n{table(_LATENCY_COLUMNS, cells)}\n\n{_conditions(found[0].device, found[0])}")
    if values["throughput"].value:
        _print_throughput(positional, files, values)
    for path, report in zip(positional, reports, strict=False):  # no reports without --vela
        print(f"\n{pathlib.Path(path).name}\n{report}")
    if on_phone:
        _print_phone(positional, on_phone)
    if values["json"].value:
        records = {
            path: Measurement(
                *(file.size, file.gzip_size, file.sha256),
                latency=latency,
                provenance=where,
                phone=on_phone[i].to_dict() if on_phone else None,
                vela=reports[i].to_dict() if reports else None,
                elsewhere={name: found[i] for name, found in elsewhere.items()} or None,
            ).to_dict()
            for i, (path, file, latency) in enumerate(
                zip(positional, files, latencies, strict=True)
            )
        }
        write_atomically(values["json"].value, json.dumps(records, indent=2))
    return 0


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before anything is measured."""
    from tfnas.measure.elsewhere.phone import check_binary
    from tfnas.targets.ethos_u import ACCELERATORS

    for path in positional:
        early_checks.check_file(path)
    early_checks.check_written(values, "json")
    for device in _devices(values):
        device.check_options(values["threads"].value, values["xnnpack"].value)
    if values["vela"].value is not None:
        check_choice("vela", values["vela"].value, list(ACCELERATORS))
    adb, binary, serial = (values[name].value for name in ("adb", "adb_binary", "serial"))
    if adb and not binary:
        raise ValueError("adb_binary must be given with adb, got none")
    if not adb and (binary or serial):
        raise ValueError("adb_binary and serial need adb, got no adb")
    if adb:
        try:
            check_binary(binary)
        except FileNotFoundError as error:  # its message begins with "binary"
            raise ValueError(f"adb_{error}") from error
    for name in _COUNTS:
        _integers(name, values)
        if values[name].present and not values["throughput"].value:
            raise ValueError(f"{name} needs throughput, got no throughput")


def _devices(values: flags.FlagValues) -> list[TimingDevice]:
    """The devices of --measure_on."""
    from tfnas.measure.elsewhere.named_device import timing_device

    found = map(timing_device, values["measure_on"].value)
    return [device for device in found if device is not None]


def _latency_cells(path: str, latency: Latency) -> list[str]:
    return [
        pathlib.Path(path).name,
        f"{latency.ratio:.4f}x",
        f"[{latency.ratio_low:.4f}, {latency.ratio_high:.4f}]",
        f"{latency.median_ms:.4f}",
        f"{latency.p90_ms:.4f}",
    ]


def _conditions(where: str, latency: Latency) -> str:
    """How latencies were measured, in a line."""
    return (
        f"{where}, {latency.threads} thread(s), XNNPACK {'on' if latency.xnnpack else 'off'}, "
        f"{latency.rounds} rounds, reference model {latency.reference_ms:.4f} ms"
    )


def _integers(name: str, values: flags.FlagValues) -> list[int]:
    """The integers of a list flag."""
    texts = values[name].value
    if not texts or not all(text.strip().isdecimal() and int(text) for text in texts):
        raise ValueError(f"{name} must hold whole numbers >= 1, got {','.join(texts)!r}")
    return [int(text) for text in texts]


def _print_throughput(
    paths: Sequence[str], files: Sequence[Artifact], values: flags.FlagValues
) -> None:
    from tfnas.measure.throughput import Throughput, throughput
    from tfnas.table import table

    rows = throughput(
        files,
        None,
        *(_integers(name, values) for name in _COUNTS),
        rounds=values["rounds"].value,
        xnnpack=values["xnnpack"].value,
    )
    names = [pathlib.Path(path).name for path in paths]
    print(f"\n{table(Throughput.headers(), [row.row(names[row.file]) for row in rows])}")


def _compiled(files: Sequence[Artifact], values: flags.FlagValues) -> list[VelaReport]:
    from tfnas.targets.ethos_u import vela

    accelerator = values["vela"].value
    return [] if accelerator is None else [vela(file, accelerator) for file in files]


def _on_phone(files: Sequence[Artifact], values: flags.FlagValues) -> list[PhoneLatency]:
    from tfnas.targets.android import benchmark_on_phone

    if not values["adb"].value:
        return []
    return [
        benchmark_on_phone(
            file,
            values["adb_binary"].value,
            serial=values["serial"].value,
            threads=values["threads"].value,
            runs=values["rounds"].value,
            use_xnnpack=values["xnnpack"].value,
        )
        for file in files
    ]


def _print_phone(paths: Sequence[str], latencies: Sequence[PhoneLatency]) -> None:
    from tfnas.table import table

    rows = [
        [
            pathlib.Path(path).name,
            f"{latency.ratio:.4f}x",
            f"[{latency.ratio_low:.4f}, {latency.ratio_high:.4f}]",
            f"{latency.ms:.4f}",
            "-" if latency.p95_ms is None else f"{latency.p95_ms:.4f}",
            f"{latency.init_ms:.1f}",
            "-" if latency.memory_mb is None else f"{latency.memory_mb:.1f}",
        ]
        for path, latency in zip(paths, latencies, strict=True)
    ]
    first = latencies[0]
    average = "mean ms" if first.median_ms is None else "median ms"
    headers = ["file", "reference", "range", average, "p95 ms", "init ms", "memory MB"]
    print(f"\n{table(headers, rows)}")
    print(
        f"\n{first.device} ({first.abi}), {first.threads} thread(s), XNNPACK "
        f"{'on' if first.xnnpack else 'off'}, reference model {first.reference_ms[0]:.4f} and "
        f"{first.reference_ms[1]:.4f} ms"
    )
    for path, latency in zip(paths, latencies, strict=True):
        if latency.operators:
            print(f"\n{pathlib.Path(path).name} on the phone\n{latency.profile()}")
