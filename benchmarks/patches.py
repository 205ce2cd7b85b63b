"""Memory of patch-based files in TFLite Micro, beside the files that they are made of.

    python benchmarks/patches.py [--ratio=1.2] [--shares=0.5,0.3333]

MobileNetV1 0.25 for images of 96x96 and MobileNetV2 0.35 for 160x160, with random weights, as int8
files. Of each the plan of fewest multiply-accumulates (at most --ratio times the file's) for limits
that are shares of the file's arena of activations, and that of least memory. Prints the arena that
TFLite Micro allocates on this machine ("shared": activations and scratch buffers, "stays": its
records, of 64 bits here), the input's own bytes, multiply-accumulates, bytes of the minified files,
and the largest difference of outputs on reference kernels in steps. Memory does not depend on
weights.
"""

from __future__ import annotations

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.table import table

RATIO = flags.DEFINE_float("ratio", 1.2, "most multiply-accumulates, as a ratio")
SHARES = flags.DEFINE_list(
    "shares", ["0.75", "0.5", "0.4", "0.3333"], "limits: shares of the file's arena of activations"
)
EXAMPLES = 8


def networks() -> dict[str, keras.Model]:
    """Returns the networks by their names, for batches of 1."""
    keras.utils.set_random_seed(0)
    made = {}
    for name, network, size, alpha in (
        ("MobileNetV1 0.25, 96x96", keras.applications.MobileNet, 96, 0.25),
        ("MobileNetV2 0.35, 160x160", keras.applications.MobileNetV2, 160, 0.35),
    ):
        body = network((size, size, 3), alpha=alpha, weights=None, classes=10)
        inputs = keras.Input(batch_shape=(1, size, size, 3))
        made[name] = keras.Model(inputs, body(inputs))
    return made


def main(argv: list[str]) -> None:
    rows = []
    rng = np.random.default_rng(0)
    for name, model in networks().items():
        x = rng.random((EXAMPLES, *model.input_shape[1:])).astype("float32")
        tfnas.recalibrate_batchnorm(model, x)  # else all numbers are near 0, and so all scales
        file = tfnas.to_tflite(model, "int8", x).minified()
        whole = tfnas.micro_memory(file)
        rows.append({"network": name, "limit": "", "patches": "none", **memory(file, whole, whole)})
        for share in [*map(float, SHARES.value), None]:
            limit = None if share is None else int(share * whole.non_persistent)
            try:
                smaller, report = tfnas.patch_based(file, limit, max_macs_ratio=RATIO.value)
            except ValueError as error:
                print(f"{name}, {share}: {error}")
                rows.append({"network": name, "limit": limit, "patches": "none keeps the limit"})
                continue
            outputs = [each.predict(x, batch_size=1, reference=True) for each in (file, smaller)]
            steps = np.abs(outputs[0] - outputs[1]).max() / file.graph.outputs[0].scales[0]
            rows.append(
                {
                    "network": name,
                    "limit": "least memory" if limit is None else limit,
                    "patches": f"{report.patch_rows}x{report.patch_columns} of {report.layer}",
                    **memory(smaller, tfnas.micro_memory(smaller), whole),
                    "MACs, ratio": round(report.macs_after / report.macs_before, 3),
                    "off, steps": float(steps),
                }
            )
    headers = list(max(rows, key=len))
    rows = [{key: row.get(key, "") for key in headers} for row in rows]
    print(table(headers, [list(row.values()) for row in rows], right=2))
    record.write("patches", rows, seed=0)


def memory(file: tfnas.Artifact, found: object, whole: object) -> dict[str, object]:
    """Returns the columns of a file's memory, in bytes, and its arena as a ratio."""
    inputs = int(np.prod(file.inputs[0].shape))
    return {
        "arena": found.arena,  # type: ignore[attr-defined]
        "arena, ratio": round(found.arena / whole.arena, 3),  # type: ignore[attr-defined]
        "shared": found.non_persistent,  # type: ignore[attr-defined]
        "shared, ratio": round(found.non_persistent / whole.non_persistent, 3),  # type: ignore[attr-defined]
        "stays": found.persistent,  # type: ignore[attr-defined]
        "input": inputs,
        "file": file.size,
    }


if __name__ == "__main__":
    app.run(main)
