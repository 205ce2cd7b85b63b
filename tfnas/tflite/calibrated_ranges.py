"""Ranges that TensorFlow's calibration found, before its quantizer reads them."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import layer_name


def check_calibrated(content: bytes) -> None:
    """Raises where the numbers of a tensor have no grid of integers.

    TensorFlow's quantizer ends the process there.

    Args:
        content: The calibrated file.

    Raises:
        ValueError: A tensor had infinite numbers, or its range is wider than float32 can say.
    """
    model = schema.Model.GetRootAs(content, 0)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            found = tensor.Quantization()
            if found is None or not found.MinLength() or not found.MaxLength():
                continue
            low, high = found.MinAsNumpy().min(), found.MaxAsNumpy().max()
            with np.errstate(over="ignore", invalid="ignore"):
                width = high - low
            if not np.isfinite(width):
                name = layer_name(tensor.Name().decode())
                raise ValueError(
                    f"calibration data must give finite numbers in all layers, got {low:.3g} to "
                    f"{high:.3g} in {name!r}"
                )
