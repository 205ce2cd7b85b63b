"""Name, shape, element type and quantization of the inputs and outputs of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TensorDetails:
    """An input or output of an artifact.

    Args:
        name: Name of the Keras input, or "output_0" and so on.
        index: Index of the tensor in the file.
        shape: Shape with the batch dimension first; -1 for an open dimension.
        dtype: Element type, such as "int8".
        scale: Quantization scale, 0.0 for floats: value = (q - zero_point) * scale.
        zero_point: The quantized integer that stands for 0.0.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        sizes = ", ".join("any" if n == -1 else str(n) for n in self.shape)
        shape = f"({sizes},)" if len(self.shape) == 1 else f"({sizes})"
        rounding = f", scale {self.scale:.4g}, zero point {self.zero_point}" if self.scale else ""
        return f"{self.name}: {self.dtype} {shape}{rounding}"

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Returns real numbers in this tensor's element type, rounded and clipped.

        Example:
            >>> import numpy as np
            >>> tensor = TensorDetails("x", 0, (-1, 2), "int8", scale=0.5, zero_point=10)
            >>> tensor.quantize(np.array([[0.0, 1.0], [-2.0, 1000.0]])).tolist()
            [[10, 12], [6, 127]]

        Args:
            x: Real numbers of any shape.

        Returns:
            An array of the same shape and of type `dtype`.
        """
        if not self.scale:
            return np.asarray(x).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        q = np.round(np.asarray(x, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(q, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Returns the real numbers that this tensor's elements stand for.

        Example:
            >>> import numpy as np
            >>> tensor = TensorDetails("x", 0, (-1, 2), "int8", scale=0.5, zero_point=10)
            >>> tensor.dequantize(np.array([[10, 12]], np.int8)).tolist()
            [[0.0, 1.0]]

        Args:
            q: Elements of the tensor, of any shape.

        Returns:
            A float32 array of the same shape; `q` itself where the tensor isn't quantized.
        """
        if not self.scale:
            return q
        return (q.astype(np.float32) - self.zero_point) * np.float32(self.scale)


def tensor_details(name: str, details: Mapping[str, Any]) -> TensorDetails:
    """Returns the details of a tensor as LiteRT's interpreter gives them.

    Args:
        name: The tensor's name.
        details: An item of `Interpreter.get_input_details()`, or of the same of its outputs or
            of a signature.

    Returns:
        The details.
    """
    signature = details.get("shape_signature")
    shape = signature if signature is not None and len(signature) else details["shape"]
    scale, zero_point = details["quantization"]
    return TensorDetails(
        name,
        int(details["index"]),
        tuple(int(n) for n in shape),
        np.dtype(details["dtype"]).name,
        float(scale),
        int(zero_point),
    )
