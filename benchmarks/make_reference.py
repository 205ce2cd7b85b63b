"""Writes the reference model that every latency is a ratio to.

    python benchmarks/make_reference.py

Run once; the file is part of the package and must not change, or ratios that were
stored with a search stop comparing. Its weights are random: only its time matters.
"""

from __future__ import annotations

import hashlib
import pathlib

import keras

import tfnas
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.block_spec import BlockSpec

TARGET = pathlib.Path(__file__).parent.parent / "tfnas" / "measure" / "reference.tflite"


def main() -> None:
    keras.utils.set_random_seed(0)
    stages = (
        BlockSpec(filters=16, expansion=1),
        BlockSpec(filters=24, repeats=2, stride=2, expansion=4),
        BlockSpec(filters=32, repeats=2, stride=2, expansion=4),
    )
    arch = Architecture((48, 48, 3), 10, stages, stem_filters=16, stem_stride=1, head_filters=64)
    model = tfnas.MobileNetV2Space((48, 48, 3), 10).build(arch)
    artifact = tfnas.to_tflite(model, "float32")
    if TARGET.exists():
        raise SystemExit(f"{TARGET} exists and must not change: remove it by hand if you must")
    artifact.save(TARGET)
    print(TARGET, artifact.size, "bytes", hashlib.sha256(artifact.content).hexdigest())


if __name__ == "__main__":
    main()
