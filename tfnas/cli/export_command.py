"""`tfnas export`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import (
    define_data_file,
    define_fit_for,
    define_image_size,
    define_layers,
    loading_of,
)
from tfnas.compression.techniques.quantized_models import (
    COPIES_HELP,
    DENSE_SCALES_HELP,
    EQUALIZE_HELP,
    RESIDUAL_HELP,
    SMOOTH_HELP,
    parse_formats,
)
from tfnas.optional import require
from tfnas.quantization.spec import DENSE_SCALES, MODES, RANGES, ROUNDINGS, QuantSpec

if TYPE_CHECKING:
    from tfnas.data.data_split import DataSplit
    from tfnas.tflite.artifact import Artifact

SUMMARY = "convert a .keras or .h5 model to a checked .tflite file"
POSITIONAL = "MODEL.keras"
EXAMPLES = (
    (
        "8-bit integers, calibrated on the data",
        "tfnas export model.keras --mode=int8 --data=fashion_mnist",
    ),
    (
        "4-bit weights without training, and C source for TFLite Micro",
        "tfnas export model.keras --mode=int8x4 --rounding=second_order --data=calibration.npz --c",
    ),
    (
        "a third of the bytes of float32, each layer in the format that hurts least",
        "tfnas export model.keras --mode=mixed --size=0.33 --data=fashion_mnist",
    ),
    (
        "for a phone's GPU: operators that it refuses are rewritten, with equal outputs",
        "tfnas export model.keras --mode=float16 --fit_for=gpu",
    ),
)
MIXED = "mixed"
_RANGES = [name for name in RANGES if name != "learned"]  # those need training
_CALIBRATION, _EXAMINED = 300, 128
_PRUNED = 0.25  # share of zeros from which a model was probably pruned


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    _define_formats(common)
    text = "store pruned kernels without their zeros if the mode supports it"
    flags.DEFINE_bool("sparse", False, text, **common)
    text = (
        "write a file that takes one frame and the state after those before, and returns both, of "
        "a model of recurrent layers or causal convolutions"
    )
    flags.DEFINE_bool("streaming", False, text, **common)
    define_fit_for(common)
    text = (
        "examples that the file takes at once; TFLite Micro needs 1 for recurrent and attention "
        "layers; default: any number"
    )
    flags.DEFINE_integer("batch_size", None, text, lower_bound=1, **common)
    text = "minify: remove redundant data from the file, which computes the same numbers"
    flags.DEFINE_bool("slim", False, text, **common)
    text = "print and plot the quantization error of each layer"
    flags.DEFINE_bool("errors", False, text, **common)
    text = "also write C source for TFLite Micro, and print the operators and memory it needs"
    flags.DEFINE_bool("c", False, text, **common)
    text = "also write a SavedModel to this folder, for servers without .tflite support"
    flags.DEFINE_string("saved_model", None, text, **common)
    define_image_size(common)
    text = "path of the .tflite file; default: beside the model"
    flags.DEFINE_string("output", None, text, **common)
    return values


def _define_formats(common: dict[str, Any]) -> None:
    """Declares the flags of number formats, rounding and ranges."""
    flags.DEFINE_enum(
        "mode",
        "float32",
        [*MODES, MIXED],
        "number formats of the file; mixed: one for each layer, chosen for --size; a model that "
        "was trained quantization-aware has its own where none are given",
        **common,
    )
    define_layers(common)
    text = "largest size of the file of mode mixed, in bytes; below 1: a fraction of float32's"
    flags.DEFINE_float("size", None, text, **common)
    text = "format of the activations of mode mixed"
    flags.DEFINE_enum("activations", "float32", ["float32", "int8"], text, **common)
    text = "quantize with a recipe of ai-edge-quantizer, by name or .json file, instead of a mode"
    flags.DEFINE_string("recipe", None, text, **common)
    define_data_file(common, "inputs that calibrate integer activations, and labels if any: ")
    text = "bias correction: correct the mean shift that rounding of integer modes causes"
    flags.DEFINE_bool("correct", False, text, **common)
    text = (
        "rounding of the weights of integer modes: each to its nearest step, or second_order: so "
        "that the outputs of each layer on --data change least (4 bits need it)"
    )
    flags.DEFINE_enum("rounding", "nearest", list(ROUNDINGS), text, **common)
    text = (
        "with --rounding: largest share of 4-bit weights that keep 8 bits; depthwise, first and "
        "last layers come first, then those that 4 bits hurt most per weight"
    )
    share = QuantSpec().eight_bit_share
    flags.DEFINE_float("eight_bit_share", share, text, **common)
    text = "with --rounding: seconds after which the layers that are left are rounded to nearest"
    flags.DEFINE_float("budget_seconds", None, text, **common)
    text = (
        "how the ranges of integer activations are found on --data: from the least to the largest "
        "number, without the farthest of them (percentile), or those of least squared error (mse)"
    )
    flags.DEFINE_enum("ranges", QuantSpec().ranges, list(_RANGES), text, **common)
    text = "with --ranges=percentile: percentage of the numbers that lie within the range"
    flags.DEFINE_float("percentile", QuantSpec().percentile, text, **common)
    flags.DEFINE_float("smooth", None, SMOOTH_HELP, **common)
    flags.DEFINE_bool("equalize", False, EQUALIZE_HELP, **common)
    flags.DEFINE_enum("residual_bits", "8", ["8", "16"], RESIDUAL_HELP, **common)
    scales = list(DENSE_SCALES)
    flags.DEFINE_enum("dense_scales", scales[0], scales, DENSE_SCALES_HELP, **common)
    flags.DEFINE_integer("calibration_copies", 1, COPIES_HELP, lower_bound=1, **common)


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data

    source, size = pathlib.Path(positional[0]), data.parse_size(values["image_size"].value)
    model, split, typical = loading_of(values).load(source), None, None
    _take_trained_formats(model, values)
    target = _target(positional, values)
    if values["data"].value:
        names = {name: values[name].value for name in ("inputs", "targets")}
        inputs, split = data.load_calibration(model, values["data"].value, image_size=size, **names)
        typical = data.spread(inputs, _CALIBRATION)
        if (copies := values["calibration_copies"].value) > 1:
            typical = data.augmented(typical, copies)
    evened = _evened(model, typical, values)
    calibration = None if _is_for_results_alone(evened, split, values) else typical
    artifact, report = _convert(evened, calibration, values)
    rounded = artifact.origin.get("rounding", [])
    artifact = artifact.minified() if values["slim"].value else artifact
    if values["c"].value:
        _check_micro(artifact)
    path = artifact.save(target)
    _print_artifact(artifact, path, values["sparse"].value)
    if rounded:
        _print_rounding(rounded)
    if values["c"].value:
        _write_c_source(artifact, path)
    if values["saved_model"].value:
        _write_saved_model(model, values["saved_model"].value)
    if report is not None:
        print(report)
    if values["errors"].value:
        _write_errors(evened, artifact, typical, path)
    if split is not None and not values["streaming"].value:  # labels are those of sequences
        _print_accuracy(model, artifact, split)
    return 0


def _is_for_results_alone(model: Any, split: DataSplit | None, values: flags.FlagValues) -> bool:
    """Whether --data is for accuracy and errors: a quantization-aware model has its ranges."""
    from tfnas.quantization.aware_models import trained_formats

    if values["calibration_copies"].value > 1 or not _calibrates(values["mode"].value):
        return False
    shown = values["errors"].value or (split is not None and not values["streaming"].value)
    return bool(shown) and trained_formats(model) is not None


def _take_trained_formats(model: Any, values: flags.FlagValues) -> None:
    """Sets --mode, where it is not given, to what a quantization-aware model was trained for."""
    from tfnas.quantization.aware_models import trained_formats

    if values["mode"].present or values["recipe"].value:
        return
    trained = trained_formats(model)
    if trained is not None:
        values["mode"].value = trained.mode
        if not values["quiet"].value:
            print(f"{model.name!r} is quantization-aware: --mode={trained.mode}")
    _check_formats(values)


def _target(positional: list[str], values: flags.FlagValues) -> pathlib.Path:
    """Where the file is written to: beside the model where --output does not say it."""
    source, name = pathlib.Path(positional[0]), values["recipe"].value or values["mode"].value
    beside = source.with_name(f"{source.stem}_{pathlib.Path(name).stem}.tflite")
    return pathlib.Path(values["output"].value or beside)


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before TensorFlow is loaded."""
    formats_given = values["mode"].present or values["recipe"].value
    if formats_given or not early_checks.may_be_quantization_aware(positional[0]):
        _check_formats(values)  # else when the model is loaded, which says its formats
    early_checks.check_data(values)
    early_checks.check_model(positional[0])
    early_checks.check_written(values, "output")
    if values["c"].value:
        _check_c_target(_target(positional, values))


def _check_formats(values: flags.FlagValues) -> None:
    """Raises where flags do not fit the number formats."""
    _check_combinations(values)
    _spec(values)


def _check_combinations(values: flags.FlagValues) -> None:
    mode, recipe, size = (values[name].value for name in ("mode", "recipe", "size"))
    if (size is None) != (mode != MIXED):
        raise ValueError(
            f"size must be given with mode 'mixed', and only there, got {size} for {mode!r}"
        )
    if values["activations"].value != "float32" and mode != MIXED:
        raise ValueError(
            f"activations needs mode 'mixed', got {values['activations'].value!r} for {mode!r}"
        )
    if values["correct"].value and (recipe or mode == MIXED):
        raise ValueError(f"correct needs a mode of integer activations, got {recipe or mode!r}")
    rounding = values["rounding"].value
    if rounding != "nearest" and (recipe or mode == MIXED):
        raise ValueError(
            f"rounding {rounding!r} needs a mode of integer activations, got {recipe or mode!r}"
        )
    _check_ranges(values)
    if recipe and (mode != "float32" or values["layers"].value or values["sparse"].value):
        raise ValueError(f"recipe excludes mode, layers and sparse, got {recipe!r} and {mode!r}")
    if mode == MIXED and values["layers"].value:
        raise ValueError(
            "layers must not be given with mode 'mixed', which chooses the format of each layer, "
            f"got {','.join(values['layers'].value)!r}"
        )
    if mode == MIXED and values["sparse"].value:
        raise ValueError("sparse must not be given with mode 'mixed', whose files keep all zeros")
    if values["streaming"].value and (recipe or mode == MIXED or values["errors"].value):
        raise ValueError(
            f"streaming excludes recipe, mode 'mixed' and errors, got {recipe or mode!r}"
        )
    if values["fit_for"].value and (recipe or mode == MIXED or values["sparse"].value):
        raise ValueError(
            f"fit_for excludes recipe, mode 'mixed' and sparse, got {recipe or mode!r}"
        )
    if values["fit_for"].value and values["streaming"].value:
        raise ValueError(f"fit_for excludes streaming, got {values['fit_for'].value!r}")
    if values["batch_size"].value and (recipe or mode == MIXED or values["streaming"].value):
        raise ValueError(
            f"batch_size excludes recipe, mode 'mixed' and streaming, got {recipe or mode!r}"
        )
    if values["errors"].value and mode == "float32" and not (recipe or values["layers"].value):
        raise ValueError("errors needs a mode that quantizes, got 'float32'")
    if values["errors"].value:
        require("matplotlib", "the plot of errors")
    if (mode == MIXED or values["errors"].value) and not values["data"].value:
        raise ValueError("data must be given for mode 'mixed' and for errors, got none")
    if values["saved_model"].value:
        from tfnas.tflite.saved_model import check_saved_model_folder

        check_saved_model_folder(values["saved_model"].value)


def _check_ranges(values: flags.FlagValues) -> None:
    """Checks the flags of ranges and of even channels."""
    mode, recipe, smooth = (values[name].value for name in ("mode", "recipe", "smooth"))
    ranges, default = values["ranges"].value, QuantSpec()
    if ranges != default.ranges and (recipe or not _calibrates(mode)):
        raise ValueError(
            f"ranges {ranges!r} needs a mode of integer activations, got {recipe or mode!r}"
        )
    usuals = {"residual_bits": "8", "dense_scales": default.dense_scales, "calibration_copies": 1}
    for name, usual in usuals.items():
        value = values[name].value
        if value != usual and (recipe or not _calibrates(mode)):
            raise ValueError(
                f"{name} {value} needs a mode of integer activations, got {recipe or mode!r}"
            )
    if values["percentile"].value != default.percentile and ranges != "percentile":
        raise ValueError(f"percentile needs ranges 'percentile', got {ranges!r}")
    for name, asked in (("smooth", smooth is not None), ("equalize", values["equalize"].value)):
        if asked and mode in ("float32", "float16") and not recipe:
            raise ValueError(f"{name} needs a mode that quantizes, got {mode!r}")
    if smooth is not None and not 0 <= smooth <= 1:
        raise ValueError(f"smooth must be in [0, 1], got {smooth}")
    if smooth is not None and not values["data"].value:
        raise ValueError(f"data must be given for smooth, got none and smooth={smooth}")


def _calibrates(mode: str) -> bool:
    return mode != MIXED and QuantSpec.of(mode).needs_calibration


def _spec(values: flags.FlagValues) -> QuantSpec:
    """The number formats of a mode; those of mode mixed are chosen later."""
    mode, layers = values["mode"].value, parse_formats(values["layers"].value)
    names = "correct", "rounding", "eight_bit_share", "ranges", "percentile", "dense_scales"
    options = {name: values[name].value for name in names}
    spec = QuantSpec.of("float32" if mode == MIXED else mode)
    bits = int(values["residual_bits"].value)
    return dataclasses.replace(spec, layers=layers, residual_bits=bits, **options)


def _evened(model: Any, inputs: Any, values: flags.FlagValues) -> Any:
    """The model, or an equal one that loses less as integers; says what was done."""
    smooth, equalize = values["smooth"].value, values["equalize"].value
    if smooth is None and not equalize:
        return model
    from tfnas.quantization.even_channels import even_channels

    residual = values["residual_bits"].value == "16"
    model, lines = even_channels(model, inputs, smooth=smooth, equalize=equalize, residual=residual)
    if not values["quiet"].value:
        print("\n".join(lines))
    return model


def _convert(model: Any, inputs: Any, values: flags.FlagValues) -> tuple[Artifact, Any]:
    """The file of a model, and the report of mode mixed or None."""
    from tfnas.tflite.conversion_error import NoCalibration
    from tfnas.tflite.convert import to_tflite
    from tfnas.tflite.mixed_precision import mixed_precision
    from tfnas.tflite.quantizer_recipes import apply_recipe

    mode = values["mode"].value
    if mode == MIXED:
        activations = values["activations"].value
        return mixed_precision(model, values["size"].value, inputs, activations=activations)
    if values["recipe"].value:
        return apply_recipe(to_tflite(model, "float32"), values["recipe"].value, inputs), None
    more = {
        name: values[name].value
        for name in ("sparse", "budget_seconds", "streaming", "fit_for", "batch_size")
    }
    try:
        with _progress_printed(enabled=not values["quiet"].value):
            return to_tflite(model, _spec(values), inputs, **more), None
    except NoCalibration as error:
        raise ValueError(
            f"data must be given for mode {mode!r}, got none: the ranges of integer "
            "activations are calibrated on it"
        ) from error


@contextlib.contextmanager
def _progress_printed(enabled: bool) -> Iterator[None]:
    """Prints the progress of rounding, which a library only logs."""
    if not enabled:
        yield
        return
    log = logging.getLogger("tfnas.quantization.round_model")
    handler, level, propagate = logging.StreamHandler(sys.stdout), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _print_artifact(artifact: Artifact, path: pathlib.Path, sparse: bool) -> None:
    """Prints the file's sizes, its ends, and its zeros where the model was made sparse."""
    from tfnas.tflite.file_sparsity import file_sparsity

    print(f"{path}: {artifact.size:,} bytes, gzipped {artifact.gzip_size:,}")
    for kind, tensors in (("input", artifact.inputs), ("output", artifact.outputs)):
        for tensor in tensors:
            print(f"  {kind} {tensor}")
    report = file_sparsity(artifact)
    if sparse or report.sparsity >= _PRUNED:
        print(f"  {report.zeros:,} of {report.weights:,} weights are zero ({report.sparsity:.1%})")
        print(f"  {report.verdict}")
    if "fit_for" in artifact.origin:
        print(f"  for the GPU delegate: {artifact.origin['fit_for']['summary']}")


def _print_rounding(rounded: list[dict[str, Any]]) -> None:
    """Prints what became of each kernel that was rounded by second moments."""
    from tfnas.compression.techniques.post_training_quantization import RoundingReport
    from tfnas.quantization.round_model import RoundedLayer

    print(RoundingReport(tuple(RoundedLayer(**layer) for layer in rounded)))


def _check_c_target(target: pathlib.Path) -> None:
    if target.suffix in (".c", ".h"):
        raise ValueError(
            f"output must not have the suffix of the C source, got {os.fspath(target)!r}"
        )


def _check_micro(artifact: Artifact) -> None:
    """Checks that TFLite Micro can run the file before anything is written."""
    from tfnas.tflite.operator_rules.tflite_micro import check_micro

    check_micro(artifact)


def _write_c_source(artifact: Artifact, path: pathlib.Path) -> None:
    from tfnas.targets.tflite_micro.interpreter import planned_arena
    from tfnas.tflite.c_source import c_name
    from tfnas.tflite.operator_rules.tflite_micro import resolver_code

    name = c_name(path.stem)
    source, header = artifact.save_c(path.with_suffix(".c"), name)
    print(f"{source}, {header.name}: the file as the array {name}")
    print("\n".join(f"  {line}" for line in resolver_code(artifact).splitlines()))
    print(f"  planned arena: {planned_arena(artifact):,} bytes of activations")


def _write_saved_model(model: Any, folder: str) -> None:
    from tfnas.tflite.saved_model import to_saved_model

    path = to_saved_model(model, folder)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: a SavedModel of {size:,} bytes, which computes with float32")


def _write_errors(model: Any, artifact: Artifact, inputs: Any, path: pathlib.Path) -> None:
    from tfnas.data import sliced
    from tfnas.measure.quantization_debugger.quantization_error import quantization_error
    from tfnas.reports.plots import quantization_picture
    from tfnas.runtime.files import write_atomically

    errors = quantization_error(model, artifact, sliced(inputs, slice(_EXAMINED)))
    print(errors)
    write_atomically(path.with_suffix(".errors.json"), errors.to_json())
    picture = write_atomically(path.with_suffix(".errors.png"), quantization_picture(errors))
    print(f"plotted in {picture}")


def _print_accuracy(model: Any, artifact: Artifact, split: DataSplit) -> None:
    from tfnas.measure.accuracy import score
    from tfnas.tasks.evaluation import evaluate

    keras_score = score(split.y_test, model.predict(split.x_test, verbose=0))
    print(f"  test part, Keras model: {keras_score}")
    print(f"  test part, this file:   {evaluate(artifact, split.x_test, split.y_test)}")
