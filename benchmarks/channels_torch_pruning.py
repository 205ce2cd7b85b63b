"""What half of the channels costs in the 52 shapes of Torch-Pruning's tests, rebuilt in Keras.

    python benchmarks/channels_torch_pruning.py [--shapes=LSTM,...]

Small models with random weights (benchmarks/pruning_shapes.py). Each loses half of the channels of
each group by `tfnas.prune_channels(model, 0.5, scope="group")`. The smaller model has to compute
what the model with zeros for the removed channels does, and no model may stay whole. The table has
multiply-accumulates and parameters before and after, the groups that lost channels, the largest
difference of outputs relative to their largest value, and why groups stay.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from pruning_shapes import SHAPES

import tfnas
from tfnas.pruning.structured.channel_groups import MODEL_OUTPUT
from tfnas.pruning.structured.channel_masks import mask_channels
from tfnas.pruning.structured.slicing import removal_of, trace_of
from tfnas.table import table

CHOSEN = flags.DEFINE_list("shapes", list(SHAPES), "shapes of models")
HEADERS = [
    *("shape", "MACs", "MACs after", "parameters", "parameters after", "groups", "difference"),
    "what stays",
]
TOLERANCE = 1e-5


def main(argv: list[str]) -> None:
    rows = []
    for name in CHOSEN.value:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        rows.append(halved(name, SHAPES[name]()))
        print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    print(table(HEADERS, rows))
    found = record.table_rows(HEADERS, rows)
    note = f"Outputs equal those of the model with zeros to {TOLERANCE:g} in all {len(rows)}."
    if list(SHAPES) == CHOSEN.value:
        record.write("channels_torch_pruning", found, seed=0, notes=[note])


def halved(name: str, model: Any) -> list[str]:
    """A line of the table."""
    randomize(model)
    smaller, report = tfnas.prune_channels(model, 0.5, scope="group")
    dependencies = trace_of(model, report)
    masked = mask_channels(model, dependencies, removal_of(dependencies, report))
    inputs = inputs_of(model)
    difference = largest_difference(smaller, masked, inputs)
    assert difference < TOLERANCE, (name, difference)
    assert largest_difference(masked, model, inputs) > 1000 * TOLERANCE, (name, "zeros do nothing")
    (macs, macs_after), (weights, weights_after) = report.macs, report.parameters
    assert weights_after < weights, (name, "stays whole")
    cut = sum(bool(group.removed) for group in report.groups)
    reasons = {r for group in report.locked for r in group.reason.split("; ")} - {MODEL_OUTPUT}
    return [
        name,
        f"{macs:,}",
        f"{macs_after / macs:.3f}",
        f"{weights:,}",
        f"{weights_after / weights:.3f}",
        f"{cut} of {len(report.groups)}",
        f"{difference:.0e}",
        "; ".join(sorted({reason.split(" '")[0] for reason in reasons})),
    ]


def randomize(model: Any) -> None:
    """Random values also for weights that begin as zeros or ones."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) < 2 and variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.0, variable.shape))


def inputs_of(model: Any) -> list[np.ndarray]:
    """Three random examples."""
    rng = np.random.default_rng(1)
    arrays = []
    for tensor in model.inputs:
        shape = (3, *tensor.shape[1:])
        if "float" in tensor.dtype:
            arrays.append(rng.normal(size=shape).astype("float32"))
        else:
            arrays.append(rng.integers(0, 20, shape))
    return arrays


def largest_difference(one: Any, other: Any, inputs: list[np.ndarray]) -> float:
    """The largest difference of the outputs, relative to their largest absolute value."""
    found = []
    for got, expected in zip(outputs(one, inputs), outputs(other, inputs), strict=True):
        assert np.isfinite(expected).all()
        found.append(float(np.abs(got - expected).max() / np.abs(expected).max()))
    return max(found)


def outputs(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model as arrays."""
    results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(each) for each in keras.tree.flatten(results)]


if __name__ == "__main__":
    app.run(main)
