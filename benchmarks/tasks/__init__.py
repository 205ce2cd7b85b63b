"""Eight small problems of other kinds than images with one label, as plain Keras code.

Each module holds one problem: its data, its model, its training and how its test examples are
judged. Nothing in them depends on tfnas; they are what a user brings to it.

- `data(folder)` returns the training, the validation and the test part, each as `(x, y)`,
  `(x, y, sample_weight)` or a `tf.data.Dataset` of such batches. `folder` holds the files of
  data; problems of scikit-learn's own data ignore it.
- `model()` returns a compiled `keras.Model`.
- `train(model, data, epochs)` trains it.
- `quality(y, outputs)` returns the number that is reported, from targets and outputs of the test
  part; `METRIC` is its name, `HIGHER_IS_BETTER` its direction.
- `LIMIT` is the loss of quality that a compression of the model may cost.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# By how long they train, the short ones first.
NAMES = (
    "table",
    "autoencoder",
    "japanese_vowels",
    "trec",
    "etth1",
    "spoken_digits",
    "blood_cells",
    "camvid",
)


def problem(name: str) -> ModuleType:
    """Returns the module of a problem.

    Args:
        name: One of `NAMES`.

    Raises:
        ValueError: There is no such problem.
    """
    if name not in NAMES:
        raise ValueError(f"task must be one of {', '.join(NAMES)}, got {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
