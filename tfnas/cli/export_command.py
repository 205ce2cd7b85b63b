"""`tfnas export`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli.common import define_image_size, define_layers, parse_layers
from tfnas.optional import require
from tfnas.quantization.spec import MODES

if TYPE_CHECKING:
    from tfnas.data.datasets import DataSplit
    from tfnas.tflite.artifact import Artifact

SUMMARY = "convert a .keras or .h5 model to a checked .tflite file"
POSITIONAL = "MODEL.keras"
EXAMPLE = "example: tfnas export model.keras --mode=int8 --dataset=fashion_mnist"
MIXED = "mixed"
_CALIBRATION, _EXAMINED = 300, 128


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_enum(
        "mode",
        "float32",
        [*MODES, MIXED],
        "numbers that the file computes with; mixed: a format a layer, chosen for --size",
        **common,
    )
    define_layers(common)
    flags.DEFINE_float(
        "size", None, "mixed: bytes that the file may have; below 1: a share of float32's", **common
    )
    flags.DEFINE_enum(
        "activations", "float32", ["float32", "int8"], "mixed: format of activations", **common
    )
    flags.DEFINE_string(
        "recipe", None, "instead of a mode: a recipe of ai-edge-quantizer, or its .json", **common
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "data to calibrate integer activations with, and to test the file on",
        **common,
    )
    flags.DEFINE_bool(
        "correct", False, "integers: correct the shift that rounding brings", **common
    )
    flags.DEFINE_bool(
        "sparse", False, "store pruned kernels without their zeros, where the mode can", **common
    )
    flags.DEFINE_bool(
        "slim", False, "hold once what the file says twice: fewer bytes, the same numbers", **common
    )
    flags.DEFINE_bool(
        "errors", False, "tell and draw what quantization costs, layer by layer", **common
    )
    flags.DEFINE_bool(
        "c", False, "write a C source too, for TFLite Micro, and tell what it needs", **common
    )
    text = "also write the model as a SavedModel to this folder, for servers without .tflite"
    flags.DEFINE_string("saved_model", None, text, **common)
    define_image_size(common)
    flags.DEFINE_string("output", None, "the file; default: beside the model", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data
    from tfnas.loading import load_model

    _check(values)
    source = pathlib.Path(positional[0])
    name = values["recipe"].value or values["mode"].value
    target = values["output"].value or source.with_name(
        f"{source.stem}_{pathlib.Path(name).stem}.tflite"
    )
    split = None
    if values["dataset"].value:
        size = data.parse_size(values["image_size"].value)
        split = data.load(values["dataset"].value, image_size=size)
    model = load_model(source)
    images = None if split is None else data.spread(split.x_train, _CALIBRATION)
    artifact, found = _converted(model, images, values)
    artifact = artifact.minified() if values["slim"].value else artifact
    if values["c"].value:
        _check_micro(artifact, pathlib.Path(target))
    path = artifact.save(target)
    _tell(artifact, path)
    if values["c"].value:
        _tell_micro(artifact, path)
    if values["saved_model"].value:
        _save_for_servers(model, values["saved_model"].value)
    if found is not None:
        print(found)
    if values["errors"].value:
        _tell_errors(model, artifact, images, path)
    if split is not None:
        _tell_accuracy(model, artifact, split)
    return 0


def _check(values: flags.FlagValues) -> None:
    """Flags that don't go together, before anything is loaded."""
    mode, recipe, size = (values[name].value for name in ("mode", "recipe", "size"))
    if (size is None) != (mode != MIXED):
        raise ValueError(
            f"size goes with mode 'mixed' and must be given there, got {size} for {mode!r}"
        )
    if values["activations"].value != "float32" and mode != MIXED:
        raise ValueError(
            f"activations goes with mode 'mixed', got {values['activations'].value!r} for {mode!r}"
        )
    if values["correct"].value and (recipe or mode == MIXED):
        raise ValueError(f"correct goes with a mode of integer activations, got {recipe or mode!r}")
    if recipe and (mode != "float32" or values["layers"].value or values["sparse"].value):
        raise ValueError(
            f"recipe goes without mode, layers and sparse, got {recipe!r} and {mode!r}"
        )
    if mode == MIXED and (values["layers"].value or values["sparse"].value):
        raise ValueError("mode 'mixed' goes without layers and sparse: it chooses them")
    if values["errors"].value and mode == "float32" and not (recipe or values["layers"].value):
        raise ValueError("errors goes with a mode that quantizes, got 'float32'")
    if values["errors"].value:
        require("matplotlib", "the picture of errors")
    if (mode == MIXED or values["errors"].value) and not values["dataset"].value:
        raise ValueError("dataset must be given for mode 'mixed' and for errors, got none")
    if values["saved_model"].value:
        from tfnas.tflite.saved_model import check_saved_model_folder

        check_saved_model_folder(values["saved_model"].value)


def _converted(model: Any, images: Any, values: flags.FlagValues) -> tuple[Artifact, Any]:
    from tfnas.quantization.spec import QuantSpec
    from tfnas.tflite.conversion_error import NoCalibration
    from tfnas.tflite.convert import to_tflite
    from tfnas.tflite.mixed_precision import mixed_precision
    from tfnas.tflite.quantizer_recipes import apply_recipe

    mode, layers = values["mode"].value, parse_layers(values["layers"].value)
    if mode == MIXED:
        activations = values["activations"].value
        return mixed_precision(model, values["size"].value, images, activations=activations)
    if values["recipe"].value:
        return apply_recipe(to_tflite(model), values["recipe"].value, images), None
    correct = values["correct"].value
    spec = dataclasses.replace(QuantSpec.of(mode), layers=layers, correct=correct)
    try:
        return to_tflite(model, spec, images, sparse=values["sparse"].value), None
    except NoCalibration as error:
        raise ValueError(
            f"dataset must be given for mode {mode!r}, got none: typical inputs tell the ranges "
            "of its integers"
        ) from error


def _tell(artifact: Artifact, path: pathlib.Path) -> None:
    from tfnas.tflite.file_sparsity import file_sparsity

    print(f"{path}: {artifact.size:,} bytes, gzipped {artifact.gzip_size:,}")
    for what, tensors in (("input", artifact.inputs), ("output", artifact.outputs)):
        for tensor in tensors:
            print(f"  {what} {tensor.name}: {tensor.dtype} {list(tensor.shape)}")
    zeros = file_sparsity(artifact)
    print(f"  {zeros.zeros:,} of {zeros.weights:,} weights are zero ({zeros.sparsity:.1%})")
    print(f"  {zeros.verdict}")


def _check_micro(artifact: Artifact, target: pathlib.Path) -> None:
    """Raises before anything is written where no microcontroller could run the file."""
    from tfnas.tflite.operator_rules.tflite_micro import check_micro

    if target.suffix in (".c", ".h"):
        raise ValueError(f"output must not be named as the C source is, got {os.fspath(target)!r}")
    check_micro(artifact)


def _tell_micro(artifact: Artifact, path: pathlib.Path) -> None:
    from tfnas.targets.tflite_micro.interpreter import planned_arena
    from tfnas.tflite.c_source import c_name
    from tfnas.tflite.operator_rules.tflite_micro import resolver_code

    name = c_name(path.stem)
    source, header = artifact.save_c(path.with_suffix(".c"), name)
    print(f"{source}, {header.name}: the file as the array {name}")
    print("\n".join(f"  {line}" for line in resolver_code(artifact).splitlines()))
    print(f"  planned arena: {planned_arena(artifact):,} bytes of activations")


def _save_for_servers(model: Any, folder: str) -> None:
    from tfnas.tflite.saved_model import to_saved_model

    path = to_saved_model(model, folder)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: a SavedModel of {size:,} bytes, which computes with float32")


def _tell_errors(model: Any, artifact: Artifact, images: Any, path: pathlib.Path) -> None:
    from tfnas.measure.quantization_debugger.quantization_error import quantization_error
    from tfnas.reports.plots import quantization_picture
    from tfnas.runtime.files import write_atomically

    errors = quantization_error(model, artifact, images[:_EXAMINED])
    print(errors)
    write_atomically(path.with_suffix(".errors.json"), errors.to_json())
    picture = write_atomically(path.with_suffix(".errors.png"), quantization_picture(errors))
    print(f"drawn in {picture}")


def _tell_accuracy(model: Any, artifact: Artifact, split: DataSplit) -> None:
    from tfnas.measure.accuracy import evaluate, score

    keras_score = score(split.y_test, model.predict(split.x_test, verbose=0))
    print(f"  test part, Keras model: {keras_score}")
    print(f"  test part, this file:   {evaluate(artifact, split.x_test, split.y_test)}")
