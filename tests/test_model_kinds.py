"""Each kind of model through each technique: right, or refused with the reason.

A cell is checked on what comes out: zeros and values are counted, outputs are compared. `REFUSED`
lists the cells that are refused, with what the message names.
"""

import keras
import numpy as np
import pytest
from keras import ops
from model_kinds import KINDS, answers, batches, trained

import tfnas

RECURRENT = ("LSTM", "GRU", "Bidirectional")
# (kind, call) -> what the message names.
REFUSED = {
    ("detector", "distill"): "Detector with a train_step of its own",
}
# Kinds whose cells are checked in each run, and those of them that are trained again in it.
QUICK = (
    "shared layers",
    "subclassed",
    "Sequential without Input",
    "several outputs",
    "dict inputs",
    "text with pooling",
    "table",
    "Lambda",
)
TRAINED_AGAIN = ("subclassed", "table")


def kinds(quick=QUICK):
    """All kinds; those that are not quick are slow tests."""
    return [pytest.param(kind, marks=() if kind in quick else pytest.mark.slow) for kind in KINDS]


def cell(kind, call):
    """Whether a cell is refused: what its message names, or None."""
    return REFUSED.get((kind, call))


def checked(kind, call, run):
    """Runs a cell; returns None where it is refused as expected."""
    reason = cell(kind, call)
    if reason is None:
        return run()
    with pytest.raises(ValueError, match=reason):
        run()
    return None


def outcome(run):
    """Returns the result, or the refusal."""
    try:
        return run()
    except (ValueError, tfnas.ConversionError) as refusal:
        return refusal


def kernels(model):
    """The kernels and tables of a model, as arrays."""
    return [
        np.asarray(ops.convert_to_numpy(variable))
        for variable in model.trainable_variables
        if variable.name == "embeddings" or variable.name.endswith("kernel")
    ]


def largest_difference(found, expected):
    assert [a.shape for a in found] == [b.shape for b in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def file_inputs(model, x):
    """Inputs as the file of a model takes them."""
    front, _ = tfnas.split_preprocessing(tfnas.as_functional(model))
    if front is None:
        return x
    return keras.tree.map_structure(ops.convert_to_numpy, front(x))


def flat(outputs):
    return [np.asarray(each, np.float64) for each in keras.tree.flatten(outputs)]


@pytest.mark.parametrize("kind", kinds())
def test_prune(kind):
    model, _, _ = trained(kind)
    pruned, report = checked(kind, "prune", lambda: tfnas.prune(model, 0.5))
    assert report.sparsity == pytest.approx(0.5, abs=0.05)
    zeros = sum(int((each == 0).sum()) for each in kernels(pruned))
    assert zeros == report.zeros
    assert zeros >= 0.45 * sum(each.size for each in kernels(model))


@pytest.mark.parametrize("kind", kinds())
def test_cluster(kind):
    model, _, _ = trained(kind)
    clustered, _ = checked(kind, "cluster", lambda: tfnas.cluster(model, 4, fold=False))
    assert len(kernels(clustered)) == len(kernels(model))
    for each in kernels(clustered):
        assert len(np.unique(each)) <= 4


@pytest.mark.parametrize("kind", kinds())
def test_factorize(kind):
    model, x, _ = trained(kind)
    smaller, report = checked(kind, "factorize", lambda: tfnas.factorize(model, rank=1))
    assert report.layers or not any("dense" in s.name for s in report.skipped)
    assert smaller.count_params() <= model.count_params()
    assert all(np.isfinite(each).all() for each in answers(smaller, x))
    same, _ = tfnas.factorize(model, energy=1.0)
    bound = 0.02 if "mixed" in kind else 1e-4
    assert largest_difference(answers(same, x), answers(model, x)) < bound


@pytest.mark.parametrize("kind", kinds())
def test_prune_channels(kind):
    model, x, _ = trained(kind)
    found = outcome(lambda: tfnas.prune_channels(model, 0.3))
    if isinstance(found, Exception):
        assert kind in RECURRENT  # nothing but their units, and the classes that stay
        assert "can't be met" in str(found)
        return
    smaller, report = found
    assert smaller.count_params() < model.count_params()
    assert report.macs[1] < report.macs[0]
    expected = [each.shape for each in answers(model, x)]
    assert [each.shape for each in answers(smaller, x)] == expected


@pytest.mark.parametrize("kind", kinds(TRAINED_AGAIN))
def test_quantize_aware(kind):
    model, x, y = trained(kind)
    trainable = tfnas.quantize_aware(model)
    trainable.compile("adam", KINDS[kind].loss, jit_compile=False)
    history = trainable.fit(batches(x, y), verbose=0, shuffle=False).history
    assert np.isfinite(history["loss"]).all()
    if kind in RECURRENT:
        assert any(kind in layer.kind for layer in tfnas.unquantized_layers(trainable))
        return
    file = tfnas.to_tflite(trainable, "int8")
    found = flat(file.predict(file_inputs(trainable, x)))
    steps = 3 * max(each.scale or 0.01 for each in file.outputs)
    assert largest_difference(found, answers(trainable, x)) < steps
    assert file.size < 4 * model.count_params() + 20_000


@pytest.mark.parametrize("kind", kinds(TRAINED_AGAIN))
def test_distill(kind):
    model, x, y = trained(kind)
    student, _ = tfnas.prune(model, 0.5)

    def run():
        distiller = tfnas.Distiller(model, student, student_loss=KINDS[kind].loss)
        distiller.compile("adam", jit_compile=False)
        return distiller.fit(batches(x, y), verbose=0, shuffle=False).history

    history = checked(kind, "distill", run)
    if history is not None:
        assert np.isfinite(history["distillation_loss"]).all()


@pytest.mark.parametrize("kind", kinds())
def test_to_tflite(kind):
    model, x, _ = trained(kind)
    file = outcome(lambda: tfnas.to_tflite(model))
    if isinstance(file, Exception):
        assert kind in RECURRENT
        assert "in layer" in str(file)
        return
    bound = 2e-3 if "mixed" in kind else 1e-5
    found = flat(file.predict(file_inputs(model, x)))
    assert largest_difference(found, answers(model, x)) < bound


@pytest.mark.parametrize("kind", kinds())
def test_profile(kind):
    model, _, _ = trained(kind)
    cost = tfnas.profile(model)
    assert cost.parameters == model.count_params()
    assert cost.macs > 0
    for name in cost.uncounted:
        assert f"{name} " in str(cost)


def test_there_are_many_kinds():
    assert len(KINDS) >= 22
    assert {*QUICK, *TRAINED_AGAIN} <= set(KINDS)
