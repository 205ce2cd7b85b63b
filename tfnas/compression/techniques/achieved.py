"""Keeps zeros and shared values of earlier techniques through a later training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from tfnas.clustering.clustering_callback import ClusteringCallback


def keep_achieved(
    model: keras.Model, trained: keras.Model, before: Sequence[str] = ()
) -> list[ClusteringCallback]:
    """Keeps the zeros and shared values of a model while a copy of it is trained.

    Args:
        model: A float model that may have been pruned or clustered before.
        trained: The model to train: the same, or its quantization-aware copy.
        before: Names of the techniques before, which count where the kernels are too small to
            tell.

    Returns:
        Callbacks that the training needs for that.
    """
    from tfnas.clustering.clustering_callback import ClusteringCallback
    from tfnas.graph.kernel_state import model_compression
    from tfnas.pruning.mask_constraint import keep_zeros

    found = model_compression(model)
    if "clusters" in found or "cluster" in before:
        return [ClusteringCallback(None)]  # keeps zeros too
    if "zeros" in found or "prune" in before:
        keep_zeros(trained)
    return []
