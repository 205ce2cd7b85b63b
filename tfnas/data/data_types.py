"""Types of data that arguments of tfnas take, for annotations only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    import keras
    import numpy as np
    import tensorflow as tf

    from tfnas.data.representative_dataset import RepresentativeDataset

    # Of shape (examples, ...): one array, or one for each input of a model.
    InputArrays: TypeAlias = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
    InputData: TypeAlias = InputArrays | tf.data.Dataset | keras.utils.PyDataset
    CalibrationData: TypeAlias = InputData | RepresentativeDataset | tf.lite.RepresentativeDataset
