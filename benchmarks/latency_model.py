"""How well is the latency of unseen networks predicted after a minute of profiling?

    python benchmarks/latency_model.py [--seconds=60] [--networks=50] [--rounds=40] [--seed=0]

For float32 and int8: fits a latency model to a space, then predicts random networks that it
never saw, and measures the files that the converter makes of them, twice. Prints how far the
predictions lie from the mean of both measurements, beside a model that knows the
multiply-accumulates alone, and beside how far the second measurement lies from the first: no
prediction can be closer than that. "ratio" is what `tfnas.benchmark` reports, a median;
"undisturbed" is the 10th percentile over the reference's, from the same samples, which holds
still where other programs share the processor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.measure.latency import provenance, reference_artifact
from tfnas.measure.latency_model.features import macs_features
from tfnas.measure.latency_model.profiling import SAMPLE_MS
from tfnas.measure.latency_model.regression import LatencyErrors, price
from tfnas.table import table

SECONDS = flags.DEFINE_float("seconds", 60, "time of profiling a mode, in seconds")
NETWORKS = flags.DEFINE_integer("networks", 50, "number of unseen random networks")
ROUNDS = flags.DEFINE_integer("rounds", 40, "interleaved rounds of each of two measurements")
SEED = flags.DEFINE_integer("seed", 0, "of the networks, profiled and unseen")
PRESET = flags.DEFINE_string("preset", "mobile", "of the space")
MODES = flags.DEFINE_list("modes", ["float32", "int8"], "number formats")
TOGETHER = 5  # files a measurement: few, so that the reference is measured often


def main(argv: list[str]) -> None:
    space = tfnas.MobileNetV2Space((32, 32, 3), 10, PRESET.value)
    rng = np.random.default_rng([SEED.value, 1])  # the fit draws from another stream
    archs = [space.sample(rng) for _ in range(NETWORKS.value)]
    files = _convert(space, archs)
    rows, notes = [], []
    for mode in MODES.value:
        model = tfnas.LatencyModel(mode).fit(space, SECONDS.value, seed=SEED.value)
        fitted = model.fitted
        start = time.perf_counter()
        predicted = [model(arch) for arch in archs]
        took = (time.perf_counter() - start) / len(archs) * 1000
        sweeps = [_measure(files[mode], seed) for seed in (1, 2)]
        by_macs = [price(macs_features(_macs(space, arch)), fitted.macs_costs) for arch in archs]
        for place, truth in enumerate(("ratio", "undisturbed")):
            first, second = (sweep[:, place] for sweep in sweeps)
            measured = np.sqrt(first * second)
            for name, numbers, target in (
                ("latency model", predicted, measured),
                ("MACs alone", by_macs, measured),
                ("measured again", second, first),
            ):
                errors = LatencyErrors.of(list(numbers), list(target))
                rows.append([mode, truth, name, *_cells(errors)])
        for name, errors in (("latency model", fitted.errors), ("MACs alone", fitted.macs_errors)):
            rows.append([mode, "fit's own", f"{name}, cross-validated", *_cells(errors)])
        notes.append(
            f"{mode}: {fitted.errors.networks} networks in {fitted.seconds:.0f} s, "
            f"ratios {measured.min():.2f} to {measured.max():.2f}, {took:.2f} ms a prediction"
        )
    print("\n$ python", " ".join(sys.argv))
    headers = ["mode", "measured", "predicted", "within 10%", "median", "90th", "R2", "rank"]
    print(table(headers, rows, right=3))
    found = record.table_rows(headers, rows)
    record.write("latency_model", found, seed=SEED.value, notes=[f"{note}." for note in notes])
    print("\n".join(notes))
    where = provenance()
    print(f"{where['cpu']}, {where['cores']} cores, LiteRT {where['ai-edge-litert']}")


def _convert(space: tfnas.MobileNetV2Space, archs: Sequence[tfnas.Architecture]) -> dict:
    noise = np.random.default_rng(0).uniform(0, 255, (8, *space.input_shape)).astype("float32")
    files: dict = {mode: [] for mode in MODES.value}
    for arch in archs:
        model = space.build(arch)
        for mode in MODES.value:
            files[mode].append(tfnas.to_tflite(model, mode, None if "float" in mode else noise))
    return files


def _measure(files: Sequence[tfnas.Artifact], seed: int) -> np.ndarray:
    """(files, 2): ratio and undisturbed ratio; in groups, interleaved beside the reference."""
    ratios = []
    for start in range(0, len(files), TOGETHER):
        group = [reference_artifact(), *files[start : start + TOGETHER]]
        reference, *found = tfnas.benchmark(
            group, rounds=ROUNDS.value, sample_ms=SAMPLE_MS, seed=seed
        )
        ratios += [(latency.ratio, latency.p10_ms / reference.p10_ms) for latency in found]
    return np.array(ratios)


def _macs(space: tfnas.MobileNetV2Space, arch: tfnas.Architecture) -> int:
    return tfnas.profile(space.build(arch)).macs


def _cells(errors: LatencyErrors) -> list[str]:
    return [
        f"{errors.within_10:.0%}",
        f"{errors.median:.1%}",
        f"{errors.p90:.1%}",
        f"{errors.r2:.4f}",
        f"{errors.spearman:.4f}",
    ]


if __name__ == "__main__":
    app.run(main)
