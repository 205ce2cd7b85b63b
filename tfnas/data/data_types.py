"""Types of data that arguments of tfnas take, for annotations. They import no TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    import numpy as np
    import tensorflow as tf

    from tfnas.data.representative_dataset import RepresentativeDataset

# One array, or one for each input or output of a model; examples are along the first axis.
Arrays: TypeAlias = "np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]"
# Inputs alone.
InputData: TypeAlias = "Arrays | tf.data.Dataset | keras.utils.PyDataset"
# Inputs, or a tuple of inputs and targets; see tfnas.data.reading.
ExampleData: TypeAlias = "Arrays | tuple[Arrays, Arrays] | tf.data.Dataset | keras.utils.PyDataset"
# Inputs for the ranges of activations.
CalibrationData: TypeAlias = "InputData | RepresentativeDataset | tf.lite.RepresentativeDataset"
