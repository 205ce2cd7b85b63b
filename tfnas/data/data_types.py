"""Types of the data that tfnas reads, for annotations. They need no import of TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    import numpy as np
    import tensorflow as tf

# One array, or one for each input or output of a model; examples are along the first axis.
Arrays: TypeAlias = "np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]"
# Inputs, or a tuple of inputs and targets; see tfnas.data.datasets.
Examples: TypeAlias = "Arrays | tuple[Arrays, Arrays] | tf.data.Dataset | keras.utils.PyDataset"
