"""Checks of techniques: zeros and values are counted, outputs compared, training goes on."""

from typing import Any

import keras
import numpy as np
from coverage_checks.cells import (
    Check,
    Silent,
    Subject,
    file_inputs,
    kernels,
    largest_difference,
    outputs_of,
    require,
)
from masked_models import half_removed
from model_kinds import answers, batches, flat

import tfnas
from tfnas.graph.functional import walk
from tfnas.keras_private import all_layers
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_masks import mask_channels
from tfnas.pruning.structured.slicing import slice_channels
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.quantize_aware import quantize_aware_partly

CLUSTERS = 4
_PRECISIONS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def train(model: keras.Model, subject: Subject) -> None:
    """Trains for one epoch."""
    model.compile(keras.optimizers.Adam(0.01), subject.loss, jit_compile=False)
    history = model.fit(batches(subject.x, subject.y), verbose=0, shuffle=False).history
    require(np.isfinite(history["loss"]).all(), f"the loss is {history['loss']}")


def count_zeros(arrays: list[np.ndarray]) -> int:
    return sum(int((each == 0).sum()) for each in arrays)


def is_masked(new: np.ndarray, old: np.ndarray) -> bool:
    """Whether an array is another one with zeros in it."""
    return new.shape == old.shape and bool(((new == old) | (new == 0)).all())


def pruned(subject: Subject, **options: Any) -> tuple[keras.Model, str]:
    """Prunes half of the weights and counts zeros."""
    smaller, report = tfnas.prune(subject.model, 0.5, **options)
    before, after = kernels(subject.model), kernels(smaller)
    if report.zeros == 0:
        raise Silent(f"no zeros; skipped: {[str(each) for each in report.skipped]}")
    zeros, total = count_zeros(after), sum(each.size for each in before)
    require(zeros == report.zeros, f"{zeros} zeros, {report.zeros} in the report")
    named = " ".join(each.name for each in report.skipped)
    require(zeros >= 0.45 * total or named, f"{zeros} zeros of {total} weights, none skipped")
    for new in after:  # of opened blocks in another order
        places = [i for i, old in enumerate(before) if is_masked(new, old)]
        require(places, "a weight that stays has another value")
        del before[places[0]]
    return smaller, f"{zeros} zeros of {total} weights"


def prune(subject: Subject) -> str:
    """`prune`, half of the weights by magnitude: zeros counted, other weights unchanged."""
    return pruned(subject)[1]


def prune_by_gradient(subject: Subject) -> str:
    """`prune` by the first-order change of the loss that the model is compiled with: as above."""
    data = batches(subject.x, subject.y)
    return pruned(subject, criterion="taylor", data=data)[1]


def prune_and_train(subject: Subject) -> str:
    """`prune`, then an epoch: the same weights are zero, others moved."""
    smaller, _ = pruned(subject)
    before = kernels(smaller)
    train(smaller, subject)
    after = kernels(smaller)
    kept = all(((new == 0) >= (old == 0)).all() for old, new in zip(before, after, strict=True))
    require(kept, "zeros are lost in training")
    moved = sum(int((new != old).sum()) for old, new in zip(before, after, strict=True))
    require(moved, "no weight moved in training")
    return f"{count_zeros(after)} zeros after training, {moved} weights moved"


def prune_channels(subject: Subject) -> str:
    """`prune_channels`: the report's weights and MACs are those of the smaller model, outputs keep
    their shape; with half of the channels removed the model equals the one that ignores them."""
    smaller, report = tfnas.prune_channels(subject.model, 0.3)
    before, after = subject.model.count_params(), smaller.count_params()
    if after == before:
        raise Silent("as many weights as before")
    require(report.parameters[1] == after < before, f"{report.parameters} weights, {after} found")
    require(report.macs[1] == tfnas.profile(smaller).macs, f"MACs {report.macs}")
    expected = outputs_of(subject)
    found = answers(smaller, subject.x)
    require([a.shape for a in found] == [b.shape for b in expected], "outputs of another shape")
    model = tfnas.as_functional(subject.model, subject.x)
    dependencies = trace(model)
    removed = half_removed(dependencies, seed=0)
    sliced = answers(slice_channels(model, dependencies, removed), subject.x)
    masked = answers(mask_channels(model, dependencies, removed), subject.x)
    scale = max(1.0, *(float(np.abs(each).max()) for each in masked))
    error = largest_difference(sliced, masked) / scale
    bound = 0.05 if subject.halves else 2e-5
    require(error <= bound, f"pruned differs from masked by {error:.2g}")
    return f"{before} to {after} weights; pruned equals masked to {error:.1g}"


def clustered(subject: Subject) -> keras.Model:
    """Clusters, and counts values."""
    found, report = tfnas.cluster(subject.model, CLUSTERS, fold=False)
    before, after = kernels(subject.model), kernels(found)
    values = [len(np.unique(each)) for each in after]
    skipped = [each.name for each in report.skipped]
    many = [count for count in values if count > CLUSTERS]
    require(len(many) <= len(skipped), f"kernels of {many} values, skipped: {skipped}")
    if len(many) == len(values) or all((a == b).all() for a, b in zip(before, after, strict=True)):
        raise Silent(f"no kernel has fewer values; skipped: {skipped}")
    return found


def cluster(subject: Subject) -> str:
    """`cluster`: each kernel has at most 4 values, or is named as skipped."""
    values = [len(np.unique(each)) for each in kernels(clustered(subject))]
    return f"kernels of {', '.join(map(str, values))} values"


def cluster_and_train(subject: Subject) -> str:
    """`cluster`, then an epoch: kernels have as few values, and other ones."""
    found = clustered(subject)
    before = kernels(found)
    train(found, subject)
    after = kernels(found)
    for old, new in zip(before, after, strict=True):
        require(len(np.unique(new)) <= len(np.unique(old)), "clusters are lost in training")
    moved = any((new != old).any() for old, new in zip(before, after, strict=True))
    require(moved, "no value moved in training")
    return f"kernels of {', '.join(str(len(np.unique(each))) for each in after)} values"


def factorize(subject: Subject) -> str:
    """`factorize`: of full rank the outputs are the same; of rank 1 the model is smaller, or each
    layer is named with the reason why it stays."""
    same, _ = tfnas.factorize(subject.model, energy=1.0)
    error = largest_difference(answers(same, subject.x), outputs_of(subject))
    require(error < (0.02 if subject.halves else 1e-4), f"full rank differs by {error:.2g}")
    smaller, report = tfnas.factorize(subject.model, rank=1)
    largest_difference(answers(smaller, subject.x), outputs_of(subject))
    before, after = subject.model.count_params(), smaller.count_params()
    if not report.layers:
        if not report.left:
            raise Silent("no layer factorized, none named")
        return f"no layer is smaller in factors: {report.left[0].reason}"
    require(after < before, f"{before} to {after} weights")
    return f"full rank equal to {error:.1g}; rank 1: {before} to {after} weights"


def roundings(model: keras.Model) -> int:
    """Returns the largest number of roundings on a path through a quantization-aware model."""
    flow = walk(model)
    depth = dict.fromkeys(flow.inputs, 0)
    for call in flow.calls:
        rounds = isinstance(call.operation, FakeQuant)
        deepest = max((depth.get(value, 0) for value in call.inputs), default=0) + rounds
        depth.update(dict.fromkeys(call.outputs, deepest))
    return max(depth[value] for value in flow.outputs)


def steps_apart(trainable: keras.Model, file: tfnas.Artifact, x: Any) -> tuple[float, float, int]:
    """Compares a quantization-aware model with its file on reference kernels.

    Args:
        trainable: The model.
        file: Its file.
        x: Inputs of the model.

    Returns:
        The median of the differences in steps of the output, of the worst output; the largest; and
        the roundings on the longest path. A step of a float output is 1/255 of its range; no step
        is finer than the floats that the model computes in.
    """
    inputs = file_inputs(trainable, x)
    try:
        found = flat(file.predict(inputs, reference=True))
    except ValueError as error:
        # The reference kernels lack ELU and the newest TILE.
        if "Didn't find op" not in str(error):
            raise
        found = flat(file.predict(inputs))
    expected = answers(trainable, x)
    largest_difference(found, expected)
    dtypes = {layer.compute_dtype for layer in all_layers(trainable)}
    # A model of 16-bit floats is no finer than these, its file is.
    precision = max(_PRECISIONS.get(dtype, 0.0) for dtype in dtypes)
    medians, worst = [], []
    for a, b, tensor in zip(found, expected, file.outputs, strict=True):
        step = tensor.scale or max(float(np.ptp(b)) / 255, 1e-6)
        step = max(step, precision * float(np.abs(b).max()))
        medians.append(float(np.median(np.abs(a - b))) / step)
        worst.append(float(np.abs(a - b).max()) / step)
    return max(medians), max(worst), roundings(trainable)


def quantize_aware_as(spec: str) -> Check:
    def check(subject: Subject) -> str:
        trainable = quantize_aware_partly(subject.model, spec)
        left = {each.name: each.reason for each in tfnas.unquantized_layers(trainable)}
        if not fake_quants(trainable) and not left:
            raise Silent("nothing is rounded, and no layer is named")
        train(trainable, subject)
        file = tfnas.to_tflite(trainable, spec)
        if not left:
            floats = [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
            require(not floats, f"{len(floats)} float tensors, no layer named: {floats[:2]}")
        median, most, depth = steps_apart(trainable, file, subject.x)
        bound = max(3, depth)
        text = f"{median:.2g} steps apart at the median, {most:.2g} at most, {depth} roundings"
        require(median <= 1.001 and most <= bound + 0.001, text)
        return f"{text}; float: {', '.join(left)}" if left else text

    check.__doc__ = (
        f"`quantize_aware` of {spec}, an epoch, its file: outputs on reference kernels within a "
        "step at the median and a step a rounding in the model's depth (3 where it is flatter); "
        "layers that stay float are named."
    )
    return check


def distill(subject: Subject) -> str:
    """`Distiller`, an epoch of a pruned student: the loss is finite, weights move, zeros stay."""
    student, _ = tfnas.prune(subject.model, 0.5)
    before = kernels(student)
    distiller = tfnas.Distiller(subject.model, student, student_loss=subject.loss)
    distiller.compile("adam", jit_compile=False)
    history = distiller.fit(batches(subject.x, subject.y), verbose=0, shuffle=False).history
    loss = history["distillation_loss"][0]
    require(np.isfinite(loss), f"the distillation's loss is {loss}")
    after = kernels(student)
    require(any((a != b).any() for a, b in zip(before, after, strict=True)), "no weight moved")
    require(count_zeros(after) >= count_zeros(before), "zeros are lost")
    return f"loss {loss:.3g}"


TECHNIQUES: dict[str, Check] = {
    "prune": prune,
    "prune, gradient": prune_by_gradient,
    "prune, train": prune_and_train,
    "channels": prune_channels,
    "cluster": cluster,
    "cluster, train": cluster_and_train,
    "factorize": factorize,
    "QAT int8": quantize_aware_as("int8"),
    "QAT int8x4": quantize_aware_as("int8x4"),
    "QAT int16x8": quantize_aware_as("int16x8"),
    "distill": distill,
}
