"""The rows of KerasHub: tiny backbones of random weights, as their constructors build them.

keras_hub is imported when a row is built: the table is there without it.
"""

from typing import Any

import keras
import numpy as np
from coverage_checks.cells import Check, Subject, require
from coverage_checks.file_checks import MODE_CHECKS
from coverage_checks.technique_checks import TECHNIQUES

import tfnas

WORDS, STEPS, WIDTH, EXAMPLES, IMAGE = 32, 8, 16, 8, (32, 32, 3)
LAYERS = {"num_layers": 2, "vocabulary_size": WORDS}
SIZES = LAYERS | {"hidden_dim": WIDTH, "intermediate_dim": 32}
TRANSFORMER = SIZES | {"num_heads": 2, "max_sequence_length": STEPS}
GROUPED = SIZES | {"num_query_heads": 4, "num_key_value_heads": 2}
PATCHES = {"image_shape": IMAGE, "patch_size": 8, "num_layers": 2, "num_heads": 2}
PATCHES |= {"hidden_dim": WIDTH}
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 64],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
    "image_shape": IMAGE,
}
MOBILENET = {
    "stackwise_expansion": [[16], [24, 24]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [16, 16]],
    "stackwise_kernel_size": [[3], [5, 5]],
    "stackwise_num_strides": [[2], [2, 1]],
    "stackwise_se_ratio": [[None], [0.25, 0.25]],
    "stackwise_activation": [["relu"], ["hard_swish", "hard_swish"]],
    "stackwise_padding": [[1], [2, 2]],
    "output_num_filters": 32,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
    "last_layer_filter": 32,
    "image_shape": IMAGE,
    "input_num_filters": 8,
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    "stackwise_strides": [1, 2],
    "stackwise_block_types": ["v1", "v1"],
    "stackwise_width_coefficients": [1.0, 1.0],
    "stackwise_depth_coefficients": [1.0, 1.0],
    "input_shape": IMAGE,
    "num_features": 32,
}
# Row -> class of keras_hub.models, and its arguments.
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "ALBERT": ("AlbertBackbone", TRANSFORMER | {"embedding_dim": 8}),
    "BART": ("BartBackbone", TRANSFORMER),
    "BERT": ("BertBackbone", TRANSFORMER),
    "DeBERTaV3": ("DebertaV3Backbone", TRANSFORMER | {"bucket_size": 4}),
    "DistilBERT": ("DistilBertBackbone", TRANSFORMER),
    "EfficientNet": ("EfficientNetBackbone", EFFICIENTNET),
    "Gemma": ("GemmaBackbone", GROUPED | {"head_dim": 4}),
    "GPT-2": ("GPT2Backbone", TRANSFORMER),
    "Llama": ("LlamaBackbone", GROUPED),
    "MobileNetV3": ("MobileNetBackbone", MOBILENET),
    "ResNet": ("ResNetBackbone", RESNET),
    "RoBERTa": ("RobertaBackbone", TRANSFORMER | {"max_sequence_length": STEPS + 2}),
    "T5": ("T5Backbone", SIZES | {"num_heads": 2}),
    "ViT": ("ViTBackbone", PATCHES | {"mlp_dim": 32}),
    "Whisper": (
        "WhisperBackbone",
        TRANSFORMER
        | {"num_mels": 4, "max_encoder_sequence_length": 2 * STEPS}
        | {"max_sequence_length": None, "max_decoder_sequence_length": STEPS},
    ),
}


def backbone_subject(name: str) -> Subject:
    """Returns a backbone of random weights, with inputs, and targets near its outputs."""
    import keras_hub

    keras.utils.set_random_seed(0)
    kind, arguments = BACKBONES[name]
    given = {key: value for key, value in arguments.items() if value is not None}
    model = getattr(keras_hub.models, kind)(**given)
    shapes = {tensor.name: sizes_of(tensor) for tensor in model.inputs}
    model = tfnas.as_functional(model, input_shape=shapes)
    x = inputs_of(model)
    rng = np.random.default_rng(1)
    y = keras.tree.map_structure(
        lambda found: (found + rng.normal(0, 0.1, found.shape)).astype("float32"),
        keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False)),
    )
    return Subject(name, model, x, y, "mse")


def sizes_of(tensor: Any) -> tuple[int, ...]:
    """Returns the sizes of an input without the batch, those that the model leaves open too."""
    places = 2 * STEPS if "float" in tensor.dtype else STEPS
    return tuple(size or places for size in tensor.shape[1:])


def inputs_of(model: keras.Model) -> Any:
    """Returns examples for each input: words, marks of those that count, pictures."""
    rng = np.random.default_rng(0)

    def values(tensor: Any) -> np.ndarray:
        shape = (EXAMPLES, *sizes_of(tensor))
        if "mask" in tensor.name:
            lengths = rng.integers(STEPS // 2, STEPS + 1, EXAMPLES)
            return (np.arange(shape[1]) < lengths[:, None]).astype(tensor.dtype)
        if "float" in tensor.dtype:
            return rng.random(shape, np.float32)
        largest = 2 if "segment" in tensor.name else WORDS
        return rng.integers(0, largest, shape).astype(tensor.dtype)

    return keras.tree.map_structure(values, model.input)


def macs(subject: Subject) -> str:
    """`profile`: multiply-accumulates are counted, or the layers are named that are not."""
    cost = tfnas.profile(subject.model)
    require(cost.macs > 0 or cost.uncounted, "no layer counts, none is named")
    named = ", ".join(cost.uncounted)
    return f"{cost.macs:,} MACs; not counted: {named}" if named else f"{cost.macs:,} MACs"


COLUMNS = ("prune", "channels", "cluster", "factorize", "QAT int8")
BACKBONE_CHECKS: dict[str, Check] = {
    "macs": macs,
    **{name: TECHNIQUES[name] for name in COLUMNS},
    **{name: MODE_CHECKS[name] for name in ("float32", "dynamic", "int8")},
}
