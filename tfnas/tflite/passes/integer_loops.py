"""Pass: loops of integers in the places that the converter has left for recurrent layers.

The converter writes DEQUANTIZE, a custom operator and QUANTIZE for a
:class:`~tfnas.quantization.recurrent_forms.QuantizedRecurrent`. A loop takes the place of the three
(:mod:`tfnas.tflite.loop_writer`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.quantization.recurrent_forms import PLACEHOLDER, step_layers
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.flatbuffer import integers, pack, unpack
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.loop_writer import LoopWriter
from tfnas.tflite.passes.conversion_state import Conversion


def write_integer_loops(conversion: Conversion) -> Conversion:
    """Writes the loops of quantization-aware recurrent layers.

    Args:
        conversion: The converter's file.

    Returns:
        The conversion, with the changed `content`.

    Raises:
        ConversionError: A layer's output has no integer format in the file.
    """
    layers = {layer.name: layer for layer in step_layers(conversion.model)}
    if not layers:
        return conversion
    model = unpack(conversion.content)
    for place in placeholders(model):
        layer = layers[place.name]
        writer = GraphWriter(model, place.graph, f"{conversion.model.name}/{layer.layer.name}_1/")
        LoopWriter(writer, layer, place.x, place.output).write()
        place.replace(writer.operators)
    remove_unused(model)
    return dataclasses.replace(conversion, content=pack(model))


@dataclasses.dataclass
class Placeholder:
    """A custom operator that stands for a layer, with the integer tensors around it.

    Args:
        graph: The graph that it is in.
        name: Name of the layer.
        operator: The operator.
        x: Index of its input, before a DEQUANTIZE.
        output: Index of its output, after a QUANTIZE.
    """

    graph: Any
    name: str
    operator: Any
    x: int
    output: int

    def replace(self, operators: list[Any]) -> None:
        """Puts operators in the place of this one and of the QUANTIZE behind it.

        Args:
            operators: The new operators.
        """
        graph = self.graph
        place = next(i for i, op in enumerate(graph.operators) if op is self.operator)
        graph.operators[place : place + 1] = operators
        written = self.operator.outputs[0]
        graph.operators = [
            op
            for op in graph.operators
            if not (written in integers(op.inputs) and self.output in integers(op.outputs))
        ]


def placeholders(model: Any) -> list[Placeholder]:
    """Returns the operators of a file that stand for layers, in order.

    Args:
        model: The file, see :func:`tfnas.tflite.flatbuffer.unpack`.

    Raises:
        ConversionError: There is no format for a layer's output, or there are several.
    """
    found = []
    for graph in model.subgraphs:
        producers = {index: op for op in graph.operators for index in integers(op.outputs)}
        for operator in graph.operators:
            name = _placeholder_name(model, operator)
            if name is None:
                continue
            x = int(operator.inputs[0])
            before = producers.get(x)
            if before is not None and _is(model, before, "DEQUANTIZE"):
                x = int(before.inputs[0])
            output = _integer_output(model, graph, operator, name)
            found.append(Placeholder(graph, name, operator, x, output))
    return found


def _integer_output(model: Any, graph: Any, operator: Any, name: str) -> int:
    """Where the output of a placeholder is quantized: one tensor, or several of one format."""
    written = int(operator.outputs[0])
    users = [op for op in graph.operators if written in integers(op.inputs)]
    outputs = [int(op.outputs[0]) for op in users if _is(model, op, "QUANTIZE")]
    formats = {NumberFormat.of_tensor(graph.tensors[index]) for index in outputs}
    if len(outputs) != len(users) or len(formats) != 1 or written in integers(graph.outputs):
        raise ConversionError(
            f"layer {name!r} must have one number format for its output in the file, got "
            f"{', '.join(sorted(map(str, formats))) or 'none'} for {len(users)} operators"
        )
    for op in graph.operators:  # of several equal ones the first is kept
        op.inputs = [outputs[0] if i in outputs[1:] else i for i in integers(op.inputs)]
    graph.outputs = [outputs[0] if i in outputs[1:] else i for i in integers(graph.outputs)]
    return outputs[0]


def _is(model: Any, operator: Any, name: str) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    number = getattr(schema.BuiltinOperator, name)
    return bool(max(code.builtinCode, code.deprecatedBuiltinCode) == number)


def _placeholder_name(model: Any, operator: Any) -> str | None:
    custom = (model.operatorCodes[operator.opcodeIndex].customCode or b"").decode()
    return custom.removeprefix(PLACEHOLDER) if custom.startswith(PLACEHOLDER) else None


def remove_unused(model: Any) -> None:
    """Removes operators without a use, codes of operators and tensors that are not in a graph.

    Args:
        model: The file; changed in place.
    """
    for number, graph in enumerate(model.subgraphs):
        _remove_operators(graph)
        _remove_tensors(model, graph, number)
    used = sorted({op.opcodeIndex for graph in model.subgraphs for op in graph.operators})
    places = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for graph in model.subgraphs:
        for op in graph.operators:
            op.opcodeIndex = places[op.opcodeIndex]


def _remove_operators(graph: Any) -> None:
    """Removes operators whose outputs nothing reads."""
    while True:
        read = {index for op in graph.operators for index in integers(op.inputs)}
        read |= set(integers(graph.outputs))
        outputs = [set(integers(op.outputs)) for op in graph.operators]
        pairs = zip(graph.operators, outputs, strict=True)
        kept = [op for op, own in pairs if read & own or not own]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def _remove_tensors(model: Any, graph: Any, number: int) -> None:
    used = {*integers(graph.inputs), *integers(graph.outputs)}
    for op in graph.operators:
        used |= {*integers(op.inputs), *integers(op.outputs), *integers(op.intermediates)} - {-1}
    places = {old: new for new, old in enumerate(sorted(used))}
    places[-1] = -1
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    graph.inputs = [places[i] for i in integers(graph.inputs)]
    graph.outputs = [places[i] for i in integers(graph.outputs)]
    for op in graph.operators:
        op.inputs = [places[i] for i in integers(op.inputs)]
        op.outputs = [places[i] for i in integers(op.outputs)]
        op.intermediates = [places[i] for i in integers(op.intermediates)]
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == number:
            for tensor in (*(signature.inputs or ()), *(signature.outputs or ())):
                tensor.tensorIndex = places[tensor.tensorIndex]
