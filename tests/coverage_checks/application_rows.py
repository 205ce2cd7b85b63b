"""The rows of keras.applications: the smallest architecture of each family, random weights."""

import keras
import numpy as np
from coverage_checks.cells import Check, Subject
from coverage_checks.file_checks import MODE_CHECKS
from coverage_checks.technique_checks import prune_channels

# Family -> its smallest architecture, and the smallest height and width that it takes.
FAMILIES = {
    "ConvNeXt": ("ConvNeXtTiny", 32),
    "DenseNet": ("DenseNet121", 32),
    "EfficientNet": ("EfficientNetB0", 32),
    "EfficientNetV2": ("EfficientNetV2B0", 32),
    "InceptionResNetV2": ("InceptionResNetV2", 75),
    "InceptionV3": ("InceptionV3", 75),
    "MobileNet": ("MobileNet", 32),
    "MobileNetV2": ("MobileNetV2", 32),
    "MobileNetV3": ("MobileNetV3Small", 32),
    "NASNet": ("NASNetMobile", 32),
    "ResNet": ("ResNet50", 32),
    "ResNetV2": ("ResNet50V2", 32),
    "VGG16": ("VGG16", 32),
    "VGG19": ("VGG19", 32),
    "Xception": ("Xception", 71),
}


def application_subject(name: str) -> Subject:
    """Returns a family's model of 10 classes, with the statistics of its inputs."""
    keras.utils.set_random_seed(0)
    kind, size = FAMILIES[name]
    build = getattr(keras.applications, kind)
    options = {"weights": None, "classes": 10, "classifier_activation": None}
    model = build(input_shape=(size, size, 3), **options)
    x = 255 * np.random.default_rng(0).random((8, size, size, 3), np.float32)
    # The others scale their inputs by themselves.
    if not name.startswith(("ConvNeXt", "EfficientNet", "MobileNetV3")):
        x = x / 127.5 - 1
    return Subject(name, model, x)


APPLICATION_CHECKS: dict[str, Check] = {
    "float32": MODE_CHECKS["float32"],
    "channels": prune_channels,
    "int8": MODE_CHECKS["int8"],
}
