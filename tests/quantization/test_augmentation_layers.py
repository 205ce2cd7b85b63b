"""Augmentation layers of the user's model train, and leave no operator in the file."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.graph import idle_layers

AUGMENTATION = idle_layers._AUGMENTATION


@pytest.mark.parametrize("name", sorted(AUGMENTATION))
def test_they_do_nothing_in_inference(name):
    kind = getattr(layers, name)
    factor = {"factor": 0.5} if name not in ("RandomFlip", "AugMix", "CutMix", "MixUp") else {}
    if name in ("RandomTranslation", "RandomZoom"):
        factor = dict.fromkeys(("height_factor",), 0.5)
        factor |= {"width_factor": 0.5}
    if name == "RandomShear":
        factor = {"x_factor": 0.5, "y_factor": 0.5}
    if name in ("RandomElasticTransform", "RandAugment", "RandomColorJitter"):
        factor = {}
    if name == "RandomPosterization":
        factor = {"factor": 4}
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(kind(**factor)(images, training=False)), images)


def network(*augmentation):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *augmentation,
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu", name="c"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax", name="d"),
        ]
    )


def operators(model):
    details = tfnas.to_tflite(model, "int8").interpreter()._get_ops_details()
    return [detail["op_name"] for detail in details]


def test_quantization_aware_training_passes_them_by():
    augmented = network(layers.RandomFlip("horizontal"), layers.RandomContrast(0.2))
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype("float32")
    aware, plain = (
        tfnas.quantize_aware(model, "int8", data=images) for model in (augmented, network())
    )
    flipped = [np.asarray(aware(images, training=flag)) for flag in (True, False)]
    assert not np.allclose(*flipped)  # they still train
    assert operators(aware) == operators(plain)
