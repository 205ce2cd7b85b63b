"""Are float32 files of KerasHub's detectors and segmenters the models?

    python benchmarks/kerashub_vision.py [--models=RetinaNet,...] [--cells=FOLDER]

Networks of KerasHub, made small by the arguments of their constructors: random weights, statistics
of BatchNormalization of random images. `tfnas.verify` compares each file with Keras on random
inputs and at the ends of their ranges, and names the operator that departs first and the repair
where the file is not verified. A network that can't be built or converted has the reason.

SAM takes any number of points, boxes and masks, and chooses by their number what it computes. So
it is also measured with 2 points, a box and a mask an image, without the output of positions, which
depends on no input; and so with its decoder. That needs TF_ENABLE_ONEDNN_OPTS=0 in the environment:
in TensorFlow 2.21 on x86, oneDNN's product of matrices of (16, 1, 2, 2) and (2, 4), which Keras
computes for SAM, writes beyond its memory and ends the process.

Needs keras_hub. Each model is kept in a file of --cells: what is there is not measured again.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.keras_private import all_layers
from tfnas.table import table

CELLS = flags.DEFINE_string("cells", "build/kerashub_vision", "folder of what is measured already")
EXAMPLES, SIZE = 4, 64
IMAGE = (SIZE, SIZE, 3)
POSITIONS = "prompt_dense_positional_embeddings"  # an output of SAM that depends on no input
_REASON = 160  # characters of an error


def hub() -> Any:
    import keras_hub

    return keras_hub


def resnet(image_shape: tuple = IMAGE) -> keras.Model:
    return hub().models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64] * 4,
        stackwise_num_blocks=[1] * 4,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=image_shape,
    )


def mixed_transformer() -> keras.Model:
    return hub().models.MiTBackbone(
        image_shape=IMAGE,
        num_layers=4,
        hidden_dims=[8, 16, 24, 32],
        layerwise_depths=[1, 1, 1, 1],
        layerwise_num_heads=[1, 2, 2, 4],
        layerwise_sr_ratios=[8, 4, 2, 1],
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        max_drop_path_rate=0.1,
    )


def retinanet() -> keras.Model:
    backbone = hub().models.RetinaNetBackbone(
        image_encoder=resnet(), min_level=3, max_level=5, use_p5=False, image_shape=IMAGE
    )
    return hub().models.RetinaNetObjectDetector(
        backbone, num_classes=3, pre_logits_num_conv_layers=1
    )


def deeplab() -> keras.Model:
    backbone = hub().models.DeepLabV3Backbone(
        image_encoder=resnet(),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[2, 4],
        projection_filters=8,
        image_shape=IMAGE,
    )
    return hub().models.DeepLabV3ImageSegmenter(backbone, num_classes=3)


def segformer() -> keras.Model:
    backbone = hub().models.SegFormerBackbone(mixed_transformer(), projection_filters=16)
    return hub().models.SegFormerImageSegmenter(backbone, num_classes=3)


def window_transformer() -> keras.Model:
    return hub().models.ViTDetBackbone(
        hidden_size=16,
        num_layers=2,
        intermediate_dim=32,
        num_heads=2,
        global_attention_layer_indices=[1],
        patch_size=16,
        num_output_channels=8,
        window_size=2,
        image_shape=IMAGE,
    )


def segment_anything() -> keras.Model:
    prompts = hub().layers.SAMPromptEncoder(
        hidden_size=8,
        image_embedding_size=(SIZE // 16, SIZE // 16),
        input_image_size=(SIZE, SIZE),
        mask_in_channels=16,
    )
    decoder = hub().layers.SAMMaskDecoder(
        num_layers=2,
        hidden_size=8,
        intermediate_dim=32,
        num_heads=2,
        embedding_dim=8,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=8,
    )
    parts = {"prompt_encoder": prompts, "mask_decoder": decoder}
    return hub().models.SAMBackbone(image_encoder=window_transformer(), **parts)


def segment_anything_fixed(decodes: bool = False) -> keras.Model:
    shapes = {
        "images": IMAGE,
        "points": (2, 2),
        "labels": (2,),
        "boxes": (1, 2, 2),
        "masks": (1, SIZE // 4, SIZE // 4, 1),
    }
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    backbone = segment_anything()
    if decodes:
        return keras.Model(inputs, hub().models.SAMImageSegmenter(backbone)(inputs))
    outputs = backbone(inputs)
    return keras.Model(inputs, {name: outputs[name] for name in outputs if name != POSITIONS})


def basnet() -> keras.Model:
    backbone = hub().models.BASNetBackbone(
        resnet((None, None, 3)), num_classes=1, projection_filters=64, image_shape=IMAGE
    )
    return hub().models.BASNetImageSegmenter(backbone)


def hgnet() -> keras.Model:
    return hub().models.HGNetV2Backbone(
        stem_channels=[3, 8, 8],
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        depths=[1, 1],
        hidden_sizes=[16, 32],
        embedding_size=8,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=IMAGE,
        out_features=["stage1", "stage2"],
    )


def d_fine() -> keras.Model:
    backbone = hub().models.DFineBackbone(
        backbone=hgnet(),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=3,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=8,
        anchor_image_size=(SIZE, SIZE),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[16, 32],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=32,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=IMAGE,
    )
    return hub().models.DFineObjectDetector(backbone, num_classes=3)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "RetinaNet": retinanet,
    "D-FINE": d_fine,
    "DeepLabV3+": deeplab,
    "SegFormer": segformer,
    "BASNet": basnet,
    "image encoder of SAM": window_transformer,
    "SAM": segment_anything,
    "SAM of fixed sizes": segment_anything_fixed,
    "SAM of fixed sizes with its decoder": lambda: segment_anything_fixed(decodes=True),
}
CHOSEN = flags.DEFINE_list("models", list(MODELS), "models of the table")


def main(argv: list[str]) -> None:
    rows = [cell(name) for name in CHOSEN.value]
    print(table(list(rows[0]), [list(row.values()) for row in rows], right=1))
    notes = [f"Images of {SIZE}x{SIZE}; errors on {EXAMPLES} random inputs."]
    notes.append(f"KerasHub {hub().__version__}.")
    if left := [name for name in MODELS if name not in CHOSEN.value]:
        notes.append(f"Not measured: {', '.join(left)}.")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        notes.append("oneDNN is off.")
    record.write("kerashub_vision", rows, seed=0, notes=notes)


def cell(name: str) -> dict[str, Any]:
    """Returns the row of a model, measured before or now."""
    path = pathlib.Path(CELLS.value) / f"{name.replace(' ', '_')}.json"
    return record.kept_cell(path, lambda: measured(name))


def measured(name: str) -> dict[str, Any]:
    """Returns a row of the table."""
    keras.utils.set_random_seed(0)
    columns = ("weights", "relative", "largest", "relative, extreme", "verified", "departs")
    row: dict[str, Any] = {"model": name, **dict.fromkeys((*columns, "repair"), "")}
    try:
        model = MODELS[name]()
        x = inputs_of(model)
        row["weights"] = model.count_params()
        norms = keras.layers.BatchNormalization
        if any(isinstance(layer, norms) for layer in all_layers(model)):
            tfnas.recalibrate_batchnorm(model, x)
        file = tfnas.to_tflite(model)
        found = tfnas.verify(model, file, x, repair=True)
    except Exception as error:  # whatever stands in the way is what the table tells
        reason = " ".join(str(error).split())[:_REASON]
        return {**row, "verified": "no file", "departs": f"{type(error).__name__}: {reason}"}
    worst, extreme = found.worst(), found.worst("ends of ranges")
    repaired = next((each.what for each in found.repairs if each.passed), "none")
    return {
        **row,
        "relative": f"{worst.relative:.2g}",
        "largest": f"{worst.largest:.2g}",
        "relative, extreme": f"{extreme.relative:.2g}",
        "verified": found.passed,
        "departs": str(found.departure or "") or failures(found),
        "repair": "" if found.passed else repaired,
    }


def failures(found: tfnas.Verification) -> str:
    """Returns the errors above their bounds; empty where there is none."""
    return "; ".join(
        f"{name} error of {check.output} on {check.case}: {getattr(check, name):.2g}"
        for check in found.checks
        for name in check.excesses
    )


def inputs_of(model: keras.Model) -> Any:
    """Returns random inputs of a model: images of 0 to 255, points and boxes in them."""
    rng = np.random.default_rng(0)

    def values(tensor: Any) -> np.ndarray:
        shape = (EXAMPLES, *(size or 1 for size in tensor.shape[1:]))
        ends = {"labels": 1, "masks": 1, "points": SIZE, "boxes": SIZE}
        return rng.uniform(0, ends.get(tensor.name, 255), shape).round(2).astype(tensor.dtype)

    found = keras.tree.map_structure(values, model.input)
    if isinstance(found, dict) and "labels" in found:
        found["labels"] = found["labels"].round()
    return found


if __name__ == "__main__":
    app.run(main)
