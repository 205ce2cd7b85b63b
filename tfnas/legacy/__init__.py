"""The bridge to Keras 2: `tf_keras` and tensorflow-model-optimization (tfmot).

tfnas works with Keras 3 models. Two things still live on the other side: files that were
written by Keras 2 and that Keras 3 refuses (or, worse, reads differently), and tfmot, whose
quantization-aware training takes `tf_keras` models only. A model crosses layer by layer:
each is made again from its config, without initializers, regularizers and constraints, and
gets the weights of its original; then both models see the same random inputs, and the first
layer that computes something else is named.

    model = tfnas.legacy.load_h5("old.h5")        # a file of Keras 2
    other = tfnas.legacy.to_tf_keras(model)       # for tfmot and other Keras 2 code
    model = tfnas.legacy.from_tf_keras(other)     # and back

Importing this package imports neither Keras nor TensorFlow. Nothing here changes what
`tf.keras` is: see :func:`tfmot`. It needs `pip install ".[legacy]"`.
"""

from tfnas.legacy.environment import tf_keras, tfmot
from tfnas.legacy.model_files import load_h5, load_model
from tfnas.legacy.rebuild import from_tf_keras, is_tf_keras, to_tf_keras
from tfnas.legacy.tfmot_qat import quantize_aware_tfmot

__all__ = [
    "from_tf_keras",
    "is_tf_keras",
    "load_h5",
    "load_model",
    "quantize_aware_tfmot",
    "tf_keras",
    "tfmot",
    "to_tf_keras",
]
