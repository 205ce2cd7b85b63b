"""Products in the notation of einsum, as the integer operators compute them.

TFLite has two: FULLY_CONNECTED, of rows and a kernel, and BATCH_MATMUL, of two activations. An
EinsumDense becomes the first (or a convolution of size 1), an einsum or a Dot of two tensors the
second (:mod:`tfnas.quantization.einsum_forms`), between transpositions and reshapes, which change
no number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclasses.dataclass(frozen=True)
class Product:
    """The axes of a product of two tensors, as letters.

    Args:
        first: Of the first tensor.
        second: Of the second tensor.
        output: Of the product.
    """

    first: str
    second: str
    output: str

    @property
    def batch(self) -> str:
        """Axes that both tensors and the product have, in the order of the product."""
        return "".join(a for a in self.output if a in self.first and a in self.second)

    @property
    def summed(self) -> str:
        """Axes that are summed over, in the order of the second tensor."""
        return "".join(a for a in self.second if a in self.first and a not in self.output)

    def own(self, letters: str) -> str:
        """Returns the axes of one tensor that the product has and the other tensor has not."""
        return "".join(a for a in self.output if a in letters and a not in self.batch)

    @property
    def is_plain(self) -> bool:
        """Whether no axis repeats in a tensor, or is summed over in one of them alone."""
        parts = (self.first, self.second, self.output)
        once = all(len(set(part)) == len(part) for part in parts)
        known = set(self.output) | set(self.summed)
        return once and set(self.first) | set(self.second) == known


def product(equation: str, ranks: Sequence[int]) -> Product | None:
    """Returns the axes of an equation of two tensors; None where it is no plain product of two.

    Args:
        equation: As of `keras.ops.einsum`, with an output.
        ranks: Number of axes of each tensor.
    """
    equation = equation.replace(" ", "")
    sides = equation.split("->")
    terms = sides[0].split(",")
    if len(sides) != 2 or len(terms) != 2 or len(ranks) != 2:
        return None
    missing = max(r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True))
    dots = "".join(letter for letter in LETTERS if letter not in equation)[: max(missing, 0)]
    parts = []
    for term, rank in zip(terms, ranks, strict=True):
        own = rank - len(term.replace("...", ""))
        parts.append(term.replace("...", dots[len(dots) - own :] if own else ""))
    if any(len(part) != rank for part, rank in zip(parts, ranks, strict=True)):
        return None
    found = Product(parts[0], parts[1], sides[1].replace("...", dots))
    return found if found.is_plain else None


def dense_axes(layer: Any) -> Product | None:
    """Returns the axes of an EinsumDense that is one FULLY_CONNECTED; None for others.

    Args:
        layer: A built EinsumDense layer.
    """
    rank = len(layer.kernel.shape)
    terms = layer.equation.replace(" ", "").split("->")[0].split(",")
    x_rank = layer.input_spec.ndim if layer.input_spec is not None else len(terms[0])
    axes = product(layer.equation, (x_rank, rank))
    if axes is None or axes.batch or not axes.summed:
        return None
    if layer.bias is None:
        return axes
    of_bias = axes.output[len(axes.output) - len(layer.bias.shape) :]
    return axes if set(of_bias) <= set(axes.own(axes.second)) else None


def output_sizes(layer: Any, x: Any) -> dict[str, Any]:
    """Returns the configuration of an EinsumDense's copy that knows the sizes of its output.

    Those inside an attention layer leave the length of the sequence open. {} for other layers.

    Args:
        layer: A built layer.
        x: Its input.
    """
    axes = dense_axes(layer) if type(layer).__name__ == "EinsumDense" else None
    if axes is None or "." in layer.equation:  # Keras reads the sizes behind an ellipsis alone
        return {}
    sizes = dict(zip(axes.second, layer.kernel.shape, strict=True))
    sizes.update(zip(axes.first, x.shape, strict=True))
    return {"output_shape": tuple(sizes[a] for a in axes.output[1:])}


def dense_product(
    axes: Product, x: Any, kernel: Any, bias: Any, product: Callable[[Any, Any, Any], Any]
) -> Any:
    """Returns an EinsumDense's output without its activation.

    Args:
        axes: Its :func:`dense_axes`.
        x: Its input.
        kernel: Its kernel.
        bias: Its bias or None.
        product: Returns x times the kernel, plus the bias, of matrices (rows, inputs) and
            (inputs, outputs) and a bias (outputs,) or None.
    """
    summed, rows, columns = axes.summed, axes.own(axes.first), axes.own(axes.second)
    sizes = dict(zip(axes.first, sizes_of(x), strict=True))
    sizes.update(zip(axes.second, (int(n) for n in kernel.shape), strict=True))
    inner, outer = count(sizes, summed), count(sizes, columns)
    x = tf.reshape(ordered(x, axes.first, rows + summed), [-1, inner])
    kernel = tf.reshape(ordered(kernel, axes.second, summed + columns), [inner, outer])
    if bias is not None:
        bias = tf.reshape(tf.broadcast_to(bias, [sizes[a] for a in columns]), [outer])
    found = shaped(product(x, kernel, bias), [sizes[a] for a in rows + columns])
    return ordered(found, rows + columns, axes.output)


def ordered(x: Any, letters: str, order: str) -> Any:
    """Returns a tensor with its axes in another order."""
    return x if letters == order else tf.transpose(x, [letters.index(a) for a in order])


def shaped(x: Any, sizes: list[Any]) -> Any:
    """Reshapes to sizes of which one may be a scalar tensor; it is left to the operator then."""
    unknown = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    if len(unknown) == 1:
        sizes = [-1 if i in unknown else size for i, size in enumerate(sizes)]
    return tf.reshape(x, sizes)


def count(sizes: dict[str, Any], letters: str) -> Any:
    """Returns the product of the sizes of some axes."""
    found: Any = 1
    for letter in letters:
        found = found * sizes[letter]
    return found


def sizes_of(x: Any) -> list[Any]:
    """Sizes of a tensor's dimensions: numbers where they are known, else scalar tensors."""
    return [tf.shape(x)[i] if n is None else int(n) for i, n in enumerate(x.shape)]
