"""The bridge to Keras 2: `tf_keras` and tensorflow-model-optimization (tfmot).

tfnas works with Keras 3 models. Two things still need Keras 2: files that it wrote and that Keras
3 refuses (or, worse, reads differently), and tfmot, whose quantization-aware training takes
`tf_keras` models only. Models are converted layer by layer: each layer is created again from its
config, without initializers, regularizers and constraints, and gets the weights of the original.
Then both models run on the same random inputs; if their outputs differ, an error names the first
layer whose output does.

    model = tfnas.legacy.load_h5("old.h5")        # a file of Keras 2
    other = tfnas.legacy.to_tf_keras(model)       # for tfmot and other Keras 2 code
    model = tfnas.legacy.from_tf_keras(other)     # and back

Importing this package imports neither Keras nor TensorFlow. Nothing here changes `tf.keras`: see
:func:`tfmot`. It needs `pip install ".[legacy]"`.
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
