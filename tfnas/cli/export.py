"""`tfnas export`."""

from __future__ import annotations

import pathlib

from absl import flags

from tfnas.cli.common import define_image_size

SUMMARY = "convert a .keras model to a checked .tflite file"
POSITIONAL = "MODEL.keras"
EXAMPLE = "example: tfnas export model.keras --mode=int8 --dataset=fashion_mnist"
_CALIBRATION = 300


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_enum(
        "mode",
        "float32",
        ["float32", "float16", "dynamic", "int8", "int16x8"],
        "numbers that the file computes with",
        **common,
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "data to calibrate int8 and int16x8 with, and to test the file on",
        **common,
    )
    flags.DEFINE_bool(
        "sparse", False, "store pruned kernels without their zeros, where the mode can", **common
    )
    define_image_size(common)
    flags.DEFINE_string("output", None, "the file; default: beside the model", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data
    from tfnas.bench.evaluate import evaluate, score
    from tfnas.export.sparsity import file_sparsity
    from tfnas.export.tflite import to_tflite
    from tfnas.quantization.loading import load_model

    source = pathlib.Path(positional[0])
    mode = values["mode"].value
    target = values["output"].value or source.with_name(f"{source.stem}_{mode}.tflite")
    split = None
    if values["dataset"].value:
        size = data.parse_size(values["image_size"].value)
        split = data.load(values["dataset"].value, image_size=size)
    model = load_model(source)
    artifact = to_tflite(
        model,
        mode,
        None if split is None else data.spread(split.x_train, _CALIBRATION),
        sparse=values["sparse"].value,
    )
    path = artifact.save(target)
    print(f"{path}: {artifact.size:,} bytes, gzipped {artifact.gzip_size:,}")
    for what, tensors in (("input", artifact.inputs), ("output", artifact.outputs)):
        for tensor in tensors:
            print(f"  {what} {tensor.name}: {tensor.dtype} {list(tensor.shape)}")
    zeros = file_sparsity(artifact)
    print(f"  {zeros.zeros:,} of {zeros.weights:,} weights are zero ({zeros.sparsity:.1%})")
    print(f"  {zeros.verdict}")
    if split is not None:
        keras_score = score(split.y_test, model.predict(split.x_test, verbose=0))
        print(f"  test part, Keras model: {keras_score}")
        print(f"  test part, this file:   {evaluate(artifact, split.x_test, split.y_test)}")
    return 0
