"""Checks of what the commands call: costs, quality, other runtimes, errors by layer, jobs."""

import pathlib
import tempfile
from typing import Any

import numpy as np
from coverage_checks.cells import (
    Check,
    Silent,
    Subject,
    file_inputs,
    largest_difference,
    outputs_of,
    require,
)
from coverage_checks.file_checks import operators_in
from coverage_checks.technique_checks import count_zeros, kernels
from model_kinds import CLASSIFICATION, answers, flat

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly


def multiplies(subject: Subject) -> bool:
    """Whether a model has kernels, not tables alone."""
    return any(variable.name.endswith("kernel") for variable in subject.model.variables)


def profile(subject: Subject) -> str:
    """`profile` of the model: weights are Keras', MACs counted, what is not counted is named."""
    cost = tfnas.profile(subject.model)
    parameters = subject.model.count_params()
    require(cost.parameters == parameters, f"{cost.parameters} weights for {parameters}")
    for name in cost.uncounted:
        require(f"{name} " in str(cost), f"{name} is not named")
    if multiplies(subject) and not cost.macs and not cost.uncounted:
        raise Silent("0 MACs, nothing named")
    return f"{cost.macs} MACs, {parameters} weights, not counted: {list(cost.uncounted) or 'none'}"


def profile_of_file(subject: Subject) -> str:
    """`profile` of the float32 file: its MACs are the model's, or both name what is not counted;
    its bytes are the file's."""
    file = tfnas.to_tflite(subject.model)
    cost, own = tfnas.profile(file), tfnas.profile(subject.model)
    if multiplies(subject) and not cost.macs and not cost.uncounted:
        raise Silent("0 MACs, nothing named")
    counted = not cost.uncounted and not own.uncounted
    near = cost.macs <= 1.05 * own.macs and own.macs <= 1.05 * cost.macs
    require(not counted or near, f"{cost.macs} MACs in the file, {own.macs} in the model")
    return f"{cost.macs} MACs in the file, {own.macs} in the model"


def metric_of(loss: Any) -> str:
    return "accuracy" if loss == CLASSIFICATION else "mse"


def value_of(metric: str, found: np.ndarray, y: np.ndarray) -> float:
    """Returns a metric computed by hand."""
    if metric == "accuracy":
        return float((found.argmax(axis=-1) == y).mean())
    return float(np.square(found - np.asarray(y, np.float64)).mean())


def evaluate(subject: Subject) -> str:
    """`evaluate` of the float32 file: the metric is that of Keras' outputs, computed by hand."""
    file = tfnas.to_tflite(subject.model)
    x = file_inputs(subject.model, subject.x)
    found = subject.model(subject.x, training=False)
    if isinstance(subject.loss, dict):
        metrics = {name: metric_of(loss) for name, loss in subject.loss.items()}
        scores = tfnas.evaluate(file, x, subject.y, metrics)
        parts = [(name, metric, found[name], subject.y[name]) for name, metric in metrics.items()]
        values = [scores[name].value for name in metrics]
    else:
        metric = metric_of(subject.loss)
        parts = [("", metric, found, subject.y)]
        values = [tfnas.evaluate(file, x, subject.y, metric).value]
    expected = [value_of(m, np.asarray(out, np.float64), y) for _, m, out, y in parts]
    for value, right in zip(values, expected, strict=True):
        bound = 0.011 if subject.halves else 1e-4
        require(abs(value - right) <= bound * max(1, abs(right)), f"{value:.4g} for {right:.4g}")
    return ", ".join(f"{m} {value:.3g}" for (_, m, _, _), value in zip(parts, values, strict=True))


def micro(subject: Subject) -> str:
    """`check_micro`, `run_micro` of the float32 file: outputs are LiteRT's to 1e-4."""
    file = tfnas.to_tflite(subject.model)
    tfnas.check_micro(file)
    x = file_inputs(subject.model, subject.x)
    error = largest_difference(flat(tfnas.run_micro(file, x)), flat(file.predict(x)))
    require(error <= 1e-4, f"differs by {error:.2g}")
    return f"equal to {error:.1g}; {operators_in(file)}"


def reload(subject: Subject) -> str:
    """`quantize_aware`, saved, and `load_model`: outputs are the same."""
    trainable = quantize_aware_partly(subject.model, data=subject.x)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        trainable.save(path)
        again = tfnas.load_model(path, safe_mode=False)
    error = largest_difference(answers(again, subject.x), answers(trainable, subject.x))
    require(error <= (2e-3 if subject.halves else 1e-6), f"differs by {error:.2g}")
    return f"equal to {error:.1g}"


def error_by_layer(subject: Subject) -> str:
    """`quantization_error` of the weights8 file: one output error each, finite, operators named."""
    file = tfnas.to_tflite(subject.model, "weights8")
    found = tfnas.quantization_error(subject.model, file, subject.x, keep_float=[])
    require(len(found.outputs) == len(outputs_of(subject)), f"{len(found.outputs)} outputs")
    require(found.layers, "no operator")
    require(not any(np.isnan(each.sqnr) for each in found.outputs), "an SQNR is NaN")
    return f"{min(each.sqnr for each in found.outputs):.1f} dB, {len(found.layers)} operators"


def job(subject: Subject) -> str:
    """`run_techniques` (the commands' call) with `prune` and one epoch: zeros of the model that it
    returns counted, the file it writes runs and its score is in the result."""
    settings = tfnas.FineTuneSettings(epochs=1)
    model = subject.model
    with tempfile.TemporaryDirectory() as folder:
        result = tfnas.run_techniques(
            *(model, [("prune", {"sparsity": 0.5})], (subject.x, subject.y)),
            directory=folder,
            settings=settings,
            verbose=0,
        )
        files = sorted(path.name for path in pathlib.Path(folder).glob("*.tflite"))
        require(files, "no file is written")
        tfnas.Artifact.load(pathlib.Path(folder) / files[0]).interpreter()
    found = kernels(result.outcomes[-1].model)
    zeros, total = count_zeros(found), sum(each.size for each in found)
    require(zeros >= 0.45 * total, f"{zeros} zeros of {total} weights")
    scores = "; ".join(f"{row.label}: {row.score}" for row in result.rows)
    return f"{zeros} zeros of {total} weights; {scores}"


COMMANDS: dict[str, Check] = {
    "profile": profile,
    "profile, file": profile_of_file,
    "evaluate": evaluate,
    "TFLite Micro": micro,
    "reload": reload,
    "error by layer": error_by_layer,
    "job": job,
}
