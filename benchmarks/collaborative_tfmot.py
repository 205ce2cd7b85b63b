"""tensorflow-model-optimization's pruned, clustered and quantized ResNet8, as a file.

    python benchmarks/collaborative_tfmot.py --output=FILE.tflite

Run by `collaborative.py` in a process of its own, with the same images, targets, sparsity,
clusters, epochs and rates: prune_low_magnitude, cluster_weights that preserve sparsity,
quantization-aware training that preserves both (PCQAT).
"""

from __future__ import annotations

import pathlib
from typing import Any

import collaborative
import numpy as np
import resnet8
from absl import app, flags

import tfnas

OUTPUT = flags.DEFINE_string("output", None, "where the file goes", required=True)


def main(argv: list[str]) -> None:
    tfmot = tfnas.legacy.tfmot()
    original = resnet8.load_model()
    x, y, _, _ = resnet8.load_images()
    steps = collaborative.EPOCHS.value * (len(x) // collaborative.BATCH.value)
    model = tfnas.legacy.to_tf_keras(original)

    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0, collaborative.SPARSITY.value, begin_step=0, end_step=steps // 2, frequency=50
    )
    model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    train(model, original, x, y, [tfmot.sparsity.keras.UpdatePruningStep()])
    model = tfmot.sparsity.keras.strip_pruning(model)

    model = clustered(tfmot, model)
    train(model, original, x, y, rate=collaborative.RATE.value / 3)
    model = tfmot.clustering.keras.strip_clustering(model)

    model = aware(tfmot, model)
    train(model, original, x, y, rate=collaborative.RATE.value / 10)
    model = tfmot.experimental.combine.strip_clustering_cqat(model)
    file = tfnas.to_tflite(model, "int8", x[:500].astype(np.float32))
    file.save(pathlib.Path(OUTPUT.value))


def train(
    model: Any,
    original: Any,
    x: np.ndarray,
    y: np.ndarray,
    callbacks: Any = (),
    rate: float = 0.0,
) -> None:
    """Trains in place, as `collaborative.py` does."""
    lib = tfnas.legacy.tf_keras()
    lib.utils.set_random_seed(collaborative.SEED.value)
    steps = collaborative.EPOCHS.value * (len(x) // collaborative.BATCH.value)
    decay = lib.optimizers.schedules.CosineDecay(rate or collaborative.RATE.value, steps)
    model.compile(lib.optimizers.Adam(decay), "categorical_crossentropy")
    data = collaborative.batches(original, x, y, distill=1 - collaborative.ALPHA.value)
    model.fit(data, epochs=collaborative.EPOCHS.value, verbose=2, callbacks=list(callbacks))


def clustered(tfmot: Any, model: Any) -> Any:
    """With at most so many values a kernel, zeros among them."""
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    return cluster.cluster_weights(
        model, collaborative.CLUSTERS.value, start, preserve_sparsity=True
    )


def aware(tfmot: Any, model: Any) -> Any:
    """Quantization-aware, keeping clusters and zeros."""
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    schemes = tfmot.experimental.combine
    scheme = schemes.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    return tfmot.quantization.keras.quantize_apply(annotated, scheme)


if __name__ == "__main__":
    app.run(main)
