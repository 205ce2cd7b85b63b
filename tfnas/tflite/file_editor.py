"""Changes of a file's operators and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import kind_of, unpack
from tfnas.tflite.sharing_builder import pack_as

_TYPE = schema.TensorType


class FileEditor:
    """Adds tensors and operators to the main graph of a file.

    Args:
        content: The file.

    Raises:
        ValueError: It is no valid file.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self.model = content, unpack(content)
        self.graph = self.model.subgraphs[0]
        for buffer in self.model.buffers:
            if buffer.offset > 1:  # behind the flatbuffer, as ai-edge-quantizer writes them
                end = buffer.offset + buffer.size
                buffer.data = np.frombuffer(content[buffer.offset : end], np.uint8)
                buffer.offset = buffer.size = 0

    def packed(self) -> bytes:
        """Returns the file."""
        return pack_as(self._content, self.model)

    def kind(self, op: Any) -> int:
        """Returns the operator's code."""
        return kind_of(self.model, op)

    def name(self, index: int) -> str:
        """Returns a tensor's name."""
        return (self.graph.tensors[index].name or b"").decode()

    def opcode(self, kind: int, version: int) -> int:
        """Returns the index of an operator's code of a version, which is added if it is new."""
        for number, code in enumerate(self.model.operatorCodes):
            if (code.builtinCode, code.version) == (kind, version):
                return number
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = kind, version
        code.deprecatedBuiltinCode = min(kind, 127)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def operator(self, kind: int, version: int, inputs: list[int], outputs: list[int]) -> Any:
        """Returns a new operator without options."""
        return self.operator_of(self.opcode(kind, version), inputs, outputs)

    def operator_of(self, opcode: int, inputs: list[int], outputs: list[int]) -> Any:
        """Returns a new operator of a code that the file has."""
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = opcode, inputs, outputs
        return op

    def insert_after(self, op: Any, *added: Any) -> None:
        """Puts operators behind another one."""
        place = next(i for i, each in enumerate(self.graph.operators) if each is op)
        self.graph.operators[place + 1 : place + 1] = added

    def tensor_like(self, tensor: Any, suffix: str, kind: int, last: int | None = None) -> int:
        """Adds a tensor of another one's shape, with `last` as its last size."""
        added = schema.TensorT()
        added.shape, added.shapeSignature = np.array(tensor.shape), tensor.shapeSignature
        if tensor.shapeSignature is not None:
            added.shapeSignature = np.array(tensor.shapeSignature)
        if last is not None:
            added.shape[-1] = last
            if added.shapeSignature is not None:
                added.shapeSignature[-1] = last
        added.name, added.type, added.buffer = (tensor.name or b"") + suffix.encode(), kind, 0
        self.graph.tensors.append(added)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: np.ndarray) -> int:
        """Adds a constant of floats."""
        tensor, buffer = schema.TensorT(), schema.BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.name, tensor.type, tensor.shape = name.encode(), _TYPE.FLOAT32, list(values.shape)
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def store(self, tensor: Any, integers: np.ndarray, bits: int) -> None:
        """Gives a tensor integers of 8 or 4 bits, in a buffer of its own."""
        flat = integers.reshape(-1).astype(np.int8)
        data: np.ndarray = flat.view(np.uint8)
        if bits == 4:
            nibbles = np.append(data, np.zeros(len(data) % 2, np.uint8)) & 15
            data = nibbles[::2] | (nibbles[1::2] << 4)
        tensor.type = _TYPE.INT8 if bits == 8 else _TYPE.INT4
        tensors = [each for graph in self.model.subgraphs for each in graph.tensors]
        if sum(each.buffer == tensor.buffer for each in tensors) == 1:
            self.model.buffers[tensor.buffer].data = data
            return
        buffer = schema.BufferT()
        buffer.data = data
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1
