"""Writes a plan of patches into a `.tflite` file."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import integers, kind_of, unpack
from tfnas.tflite.metadata import attached_files, with_files
from tfnas.tflite.patches.patch_plan import Key, PatchOperator, PatchPlan
from tfnas.tflite.patches.windows import RESIZES
from tfnas.tflite.sharing_builder import pack_as

_VALID = 1  # the schema's Padding.VALID
_CODE = schema.BuiltinOperator
_WINDOWED = (_CODE.CONV_2D, _CODE.DEPTHWISE_CONV_2D, _CODE.MAX_POOL_2D, _CODE.AVERAGE_POOL_2D)
_RESIZES = tuple(getattr(_CODE, name) for name in RESIZES)
# Operator -> its version by the type of its numbers; others are 1.
_VERSIONS = {
    "SLICE": {schema.TensorType.INT8: 2, schema.TensorType.INT16: 4},
    "PAD": {schema.TensorType.INT8: 2, schema.TensorType.INT16: 3},
    "CONCATENATION": {schema.TensorType.INT8: 2, schema.TensorType.INT16: 3},
}
_OPTIONS = {
    "SLICE": (schema.BuiltinOptions.SliceOptions, schema.SliceOptionsT),
    "PAD": (schema.BuiltinOptions.PadOptions, schema.PadOptionsT),
    "CONCATENATION": (schema.BuiltinOptions.ConcatenationOptions, schema.ConcatenationOptionsT),
}


def write_patches(content: bytes, plan: PatchPlan) -> bytes:
    """Returns the file whose first operators compute in patches.

    Args:
        content: The file's bytes.
        plan: The plan, made of this file's graph.
    """
    model = unpack(content)
    _Writer(model).replace(plan)
    return with_files(pack_as(content, model), attached_files(content))


class _Writer:
    """Adds tensors and operators to the first graph of a file."""

    def __init__(self, model: Any) -> None:
        self._model, self._graph = model, model.subgraphs[0]
        self._tensors = list(self._graph.tensors)
        self._places: dict[Key, int] = {}
        self._unused: list[int] = []
        self._constants: dict[tuple[tuple[int, ...], ...], int] = {}

    def replace(self, plan: PatchPlan) -> None:
        """Puts the plan's operators in the place of the stage's."""
        old = list(self._graph.operators)
        # TFLite Micro reserves memory for each tensor of the file, also where no operator uses it:
        # new tensors take the places of those that are no longer used.
        self._unused = [int(op.outputs[0]) for op in old[: plan.last]]
        new = [self._operator(op, old) for op in plan.operators]
        self._graph.operators = [*new, *old[plan.last + 1 :]]

    def _operator(self, op: PatchOperator, old: list[Any]) -> Any:
        inputs = [self._place(key) for key in op.inputs]
        output = self._output(op)
        if op.source is not None:
            made = self._copied(old[op.source], inputs, output)
            if kind_of(self._model, made) in _RESIZES:
                made.inputs[1] = self._constant((op.size,))
            return made
        kind = self._tensors[op.like].type
        made = schema.OperatorT()
        made.opcodeIndex = self._code(op.name, kind)
        made.builtinOptionsType, options = _OPTIONS[op.name]
        made.builtinOptions = options()
        if op.name == "SLICE":
            inputs += [self._constant(((0, *op.begin, 0),)), self._constant(((-1, *op.size, -1),))]
        elif op.name == "PAD":
            inputs += [self._constant(((0, 0), *op.pads, (0, 0)))]
        else:
            made.builtinOptions.axis = op.axis
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        return made

    def _copied(self, original: Any, inputs: list[int], output: int) -> Any:
        """An operator of the file with other images; its padding is done before it."""
        made = copy.copy(original)
        left = iter(inputs)
        made.inputs = np.array(
            [index if self._is_constant(index) else next(left) for index in integers(made.inputs)],
            np.int32,
        )
        made.outputs = np.array([output], np.int32)
        if kind_of(self._model, original) in _WINDOWED:
            made.builtinOptions = copy.copy(original.builtinOptions)
            made.builtinOptions.padding = _VALID
        return made

    def _is_constant(self, index: int) -> bool:
        if index < 0:
            return True
        data = self._model.buffers[self._tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _place(self, key: Key) -> int:
        return int(key[1]) if key[0] == "file" else self._places[key]

    def _output(self, op: PatchOperator) -> int:
        if op.output[0] == "file":
            return int(op.output[1])
        tensor = copy.copy(self._tensors[op.like])
        tensor.shape = np.array([tensor.shape[0], *op.size, tensor.shape[3]], np.int32)
        if tensor.shapeSignature is not None and len(tensor.shapeSignature):
            tensor.shapeSignature = np.array(
                [tensor.shapeSignature[0], *op.size, tensor.shape[3]], np.int32
            )
        # The first operation of the name, by which the layer is found.
        first = (tensor.name or b"").decode().split(";")[0]
        tensor.name = f"{first}_patch{len(self._places)}".encode()
        tensor.buffer = 0
        self._places[op.output] = self._added(tensor)
        return self._places[op.output]

    def _constant(self, values: tuple[tuple[int, ...], ...]) -> int:
        """A tensor of int32 numbers: one row is a vector."""
        if values not in self._constants:
            array = np.array(values if len(values) > 1 else values[0], np.int32)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor = schema.TensorT()
            tensor.shape = np.array(array.shape, np.int32)
            tensor.type = schema.TensorType.INT32
            tensor.buffer = len(self._model.buffers) - 1
            tensor.name = f"patch_constant_{len(self._constants)}".encode()
            self._constants[values] = self._added(tensor)
        return self._constants[values]

    def _added(self, tensor: Any) -> int:
        if self._unused:
            place = self._unused.pop(0)
            self._graph.tensors[place] = tensor
            return place
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, name: str, kind: int) -> int:
        """The place of an operator's code; a new one where the file has none of its version."""
        number = getattr(_CODE, name)
        version = _VERSIONS[name].get(kind, 1)
        for place, code in enumerate(self._model.operatorCodes):
            known = max(code.builtinCode, code.deprecatedBuiltinCode)
            if known == number and code.version >= version:
                return place
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = number, version
        code.deprecatedBuiltinCode = min(number, 127)
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1
