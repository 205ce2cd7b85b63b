"""What is a file's latency through ssh and in a browser, beside the local interpreter's?

    npm install @litertjs/core
    python benchmarks/elsewhere.py --ssh=ssh:localhost --browser=browser [--adb=adb:SERIAL]

MobileNetV2 0.35 at 96x96, float32 and int8, random weights. Each device measures the reference
model of tfnas beside both files in the same rounds, so ratios can be compared where ms can't. With
ssh to the machine itself the same processor measures twice: what differs is noise.
"""

from __future__ import annotations

import os
import re
import sys

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.measure.measurement import Latency
from tfnas.table import table

SSH = flags.DEFINE_string("ssh", None, "text of a machine reached by ssh, as of --measure_on")
BROWSER = flags.DEFINE_string("browser", None, "text of a browser, as of --measure_on")
ADB = flags.DEFINE_string("adb", None, "text of a phone, as of --measure_on")
ROUNDS = flags.DEFINE_integer("rounds", 30, "interleaved rounds on each device")

COLUMNS = ["file", "measured by", "on", "ratio [95%]", "median ms", "p10 to p90", "reference ms"]


def main(argv: list[str]) -> None:
    load = os.getloadavg()[0]
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10)
    x = np.random.default_rng(0).uniform(-1, 1, (16, 96, 96, 3)).astype("float32")
    files = {mode: tfnas.to_tflite(model, mode, x) for mode in ("float32", "int8")}
    where = {
        "the local interpreter": None,
        "ssh": SSH.value,
        "a browser, WebAssembly": BROWSER.value,
        "adb, benchmark_model": ADB.value,
    }
    rows = []
    for name, text in where.items():
        if text is None and name != "the local interpreter":
            continue
        found = tfnas.benchmark(list(files.values()), rounds=ROUNDS.value, measure_on=text)
        for mode, latency in zip(files, found, strict=True):
            machine = latency.device.rpartition(": ")[2] or "this machine"
            rows.append([mode, name, machine, *cells(latency)])
    print(table(COLUMNS, rows))
    notes = [
        "Each ratio is to the reference model on the same device; it is the median over "
        f"{ROUNDS.value} interleaved rounds, with its 95% interval.",
        f"The machine has {os.cpu_count()} cores and had a load of {load:.1f} when it began.",
        "In the browser the files have a batch of one and float32 ends, which LiteRT for the web "
        "needs (tfnas.for_browser); its time includes the call from JavaScript.",
    ]
    record.write(
        "elsewhere",
        record.table_rows(COLUMNS, rows),
        seed=0,
        notes=notes,
        command=record.command_line(list(map(without_folders, sys.argv))),
    )


def cells(latency: Latency) -> list[str]:
    """The numbers of a row."""
    return [
        f"{latency.ratio:.3f} [{latency.ratio_low:.3f}, {latency.ratio_high:.3f}]",
        f"{latency.median_ms:.3f}",
        f"{latency.p10_ms:.3f} to {latency.p90_ms:.3f}",
        f"{latency.reference_ms:.3f}",
    ]


def without_folders(argument: str) -> str:
    """An argument whose options have of paths the last part alone."""
    return re.sub(r"(,\w+=)[^,]*/", r"\1", argument)


if __name__ == "__main__":
    app.run(main)
