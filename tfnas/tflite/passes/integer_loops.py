"""Pass: integer operators in the places that the converter has left for recurrent layers.

The converter writes DEQUANTIZE, a custom operator and QUANTIZE for a
:class:`~tfnas.quantization.recurrent_forms.QuantizedRecurrent`. A loop takes the place of the three
(:mod:`tfnas.tflite.loop_writer`), or the fused operator (:mod:`tfnas.tflite.fused_lstm_writer`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.quantization.fused_lstm import QuantizedFusedLstm
from tfnas.quantization.recurrent_forms import PLACEHOLDER, step_layers
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.flatbuffer import integers, pack, unpack
from tfnas.tflite.fused_lstm_writer import write_fused_lstm
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.loop_writer import LoopWriter
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.recurrent_layers import form_in_file
from tfnas.tflite.unused_parts import remove_unused

_MOVES = ("EXPAND_DIMS", "RESHAPE", "REVERSE_V2", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE")


def write_integer_loops(conversion: Conversion) -> Conversion:
    """Writes the loops and fused operators of quantization-aware recurrent layers.

    Args:
        conversion: The converter's file.

    Returns:
        The conversion, with the changed `content`.

    Raises:
        ConversionError: A layer's output has no integer format in the file.
    """
    layers = {layer.name: layer for layer in step_layers(conversion.model)}
    if not layers or conversion.streaming:
        return conversion
    model = unpack(conversion.content)
    for place in placeholders(model):
        layer = layers[place.name]
        writer = GraphWriter(model, place.graph, f"{conversion.model.name}/{layer.layer.name}_1/")
        if isinstance(layer, QuantizedFusedLstm):
            write_fused_lstm(writer, layer, place.x, place.outputs[0])
        else:
            LoopWriter(
                writer, layer, place.x, place.outputs, mask=place.mask, states=place.states
            ).write()
        place.replace(writer.operators)
    _read_sizes_of_integers(model)
    remove_unused(model)
    content = pack(model)
    origin = {**conversion.origin, "recurrent_layers": form_in_file(content)}
    return dataclasses.replace(conversion, content=content, origin=origin)


@dataclasses.dataclass
class Placeholder:
    """A custom operator that stands for a layer, with the integer tensors around it.

    Args:
        graph: The graph that it is in.
        name: Name of the layer.
        operator: The operator.
        x: Index of its input, before a DEQUANTIZE.
        outputs: Indices of its outputs, which have the format of the QUANTIZE that was behind
            them; those that nothing reads may be floats.
        states: Indices of the states before the first step, as integers; none: zeros.
        mask: Index of the mask; None: all steps count.
    """

    graph: Any
    name: str
    operator: Any
    x: int
    outputs: Sequence[int]
    states: Sequence[int]
    mask: int | None = None

    def replace(self, operators: list[Any]) -> None:
        """Puts operators in the place of this one.

        Args:
            operators: The new operators.
        """
        graph = self.graph
        place = next(i for i, op in enumerate(graph.operators) if op is self.operator)
        graph.operators[place : place + 1] = operators


def placeholders(model: Any, floats: Container[str] = ()) -> list[Placeholder]:
    """Returns the operators of a file that stand for layers, in order, with integers around them.

    Args:
        model: The file, see :func:`tfnas.tflite.flatbuffer.unpack`; changed in place.
        floats: Names of the layers that stay float; what is around them is left as it is.

    Raises:
        ConversionError: There are several formats for a layer's output.
    """
    found = []
    for number, graph in enumerate(model.subgraphs):
        producers = {index: op for op in graph.operators for index in integers(op.outputs)}
        for operator in list(graph.operators):
            name = _placeholder_name(model, operator)
            if name is None:
                continue
            inputs, outputs = integers(operator.inputs), integers(operator.outputs)
            masks = [i for i in inputs if graph.tensors[i].type == schema.TensorType.BOOL]
            numbers = [i for i in inputs if i not in masks]
            made = name not in floats and [
                _make_integer(model, number, output, name) for output in outputs
            ]
            if made and any(made):
                numbers = [_before_dequantize(model, producers.get(i), i) for i in numbers]
            x, *states = numbers
            mask = masks[0] if masks else None
            found.append(Placeholder(graph, name, operator, x, outputs, states, mask))
    return found


def _read_sizes_of_integers(model: Any) -> None:
    """Lets each SHAPE of dequantized numbers read the integers, which have the same sizes."""
    for graph in model.subgraphs:
        producers = {index: op for op in graph.operators for index in integers(op.outputs)}
        for op in graph.operators:
            if _is(model, op, "SHAPE"):
                op.inputs = [_before_dequantize(model, producers.get(i), i) for i in op.inputs]


def _before_dequantize(model: Any, producer: Any, tensor: int) -> int:
    """The integers that a tensor of floats is made of; the tensor itself where there are none."""
    if producer is None or not _is(model, producer, "DEQUANTIZE"):
        return tensor
    return int(producer.inputs[0])


def _make_integer(model: Any, number: int, output: int, name: str) -> bool:
    """Gives the output of a placeholder the format that it is quantized to, where it is.

    The converter may put operators that move numbers before the QUANTIZE: they move integers then.
    """
    graph = model.subgraphs[number]
    moved, quantized, others = _users(model, graph, output)
    formats = {NumberFormat.of_tensor(graph.tensors[new]) for _, new in quantized}
    if not formats:
        return False
    if others or len(formats) > 1:
        found = ", ".join([*others, *map(str, formats)])
        raise ConversionError(
            f"layer {name!r} must have one number format for its output in the file, got {found}"
        )
    (form,) = formats
    for index in moved:
        form.set(graph.tensors[index])
    same = {new: old for old, new in quantized}
    graph.operators = [op for op in graph.operators if not same.keys() & set(integers(op.outputs))]
    for op in graph.operators:
        op.inputs = [same.get(i, i) for i in integers(op.inputs)]
    graph.outputs = [same.get(i, i) for i in integers(graph.outputs)]
    for signature in model.signatureDefs or ():
        for end in signature.outputs if signature.subgraphIndex == number else ():
            end.tensorIndex = same.get(end.tensorIndex, end.tensorIndex)
    return True


def _users(
    model: Any, graph: Any, tensor: int
) -> tuple[list[int], list[tuple[int, int]], list[str]]:
    """What becomes of a tensor.

    Returns:
        The tensor, and those to which it is moved; pairs of one of them and of what it is
        quantized to; names of other operators that read one of them.
    """
    moved, quantized, others = [tensor], [], []
    for index in moved:
        for op in graph.operators:
            if index not in integers(op.inputs):
                continue
            if _is(model, op, "QUANTIZE"):
                quantized.append((index, int(op.outputs[0])))
            elif any(_is(model, op, name) for name in _MOVES):
                moved += [i for i in integers(op.outputs) if i not in moved]
            else:
                others.append(f"operator {op.opcodeIndex}")
    others += ["an output of the file" for index in moved if index in integers(graph.outputs)]
    return moved, quantized, others


def _is(model: Any, operator: Any, name: str) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    number = getattr(schema.BuiltinOperator, name)
    return bool(max(code.builtinCode, code.deprecatedBuiltinCode) == number)


def _placeholder_name(model: Any, operator: Any) -> str | None:
    custom = (model.operatorCodes[operator.opcodeIndex].customCode or b"").decode()
    return custom.removeprefix(PLACEHOLDER) if custom.startswith(PLACEHOLDER) else None
