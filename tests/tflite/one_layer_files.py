"""Files of one layer, whose operators a writer of ours puts between an input and an output."""

from collections.abc import Callable
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.graph_writer import GraphWriter, NumberFormat


def model_of_a_layer(
    write: Callable[[GraphWriter, int, int], None],
    shapes: tuple[tuple[int | None, ...], tuple[int | None, ...]],
    forms: tuple[NumberFormat, NumberFormat],
) -> tuple[Any, GraphWriter]:
    """Returns the model of a file, not packed, and its main graph.

    Args:
        write: Takes the main graph and the tensors of input and output, and writes the operators.
        shapes: Shapes of the input and of the output.
        forms: Number formats of both.
    """
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [], [schema.BufferT()]
    model.operatorCodes = []
    main = GraphWriter(model, scope="net/memory_1/")
    x, y = (main.tensor(*each) for each in zip(shapes, forms, ("x", "y"), strict=True))
    write(main, x, y)
    main.finish([x], [y])
    return model, main
