"""Integer forms of tables whose rows are looked up.

With 8 bits a table has one scale, which is that of the rows too: an integer GATHER moves numbers,
so its output needs no rounding of its own, and a scale for each row would be lost in it.

With 4 bits 15 steps for the whole table would be too coarse, since rows differ in size (those of
rare words stay where training began). So each row has a scale of its own, and these are a second
table, of 8 bits: the output is the product of both lookups, with a range of its own. No integer
operator takes what a GATHER of 4 bits gives: :mod:`tfnas.tflite.table_lookups` puts two weights
into a byte of the file's table, and takes them apart behind the lookup.

A ReversibleEmbedding also multiplies by its table, which gives each row a score. That is a
FULLY_CONNECTED, whose kernel has one scale: such a table has 8 bits, and the file holds it once.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.functional import Call, LayerCopies
from tfnas.graph.known_sizes import product, times
from tfnas.graph.registered_layers import register_layer
from tfnas.keras_private import set_mask
from tfnas.quantization.call_forms import looks_rows_up
from tfnas.quantization.quantized_kernel import (
    FLOAT32_STEP,
    PACKAGE,
    QuantizedKernel,
    placed_as,
    zeros_to_ones,
)

# A table of few bits as the converter takes it: in steps of 8-bit integers. It would write an
# int4 constant for 4 bits.
_STEPS_8 = 127.0
_SCALE_STEPS = 255.0
_ALMOST_NOTHING = 1e-4  # of a step: a scale that is on the grid stays where it is


def table_bits(layer: keras.layers.Embedding, bits: int, is_kernel: bool = False) -> int:
    """Returns the requested bits; 8 for a table of an odd number of columns, which has no halves.

    Args:
        layer: The layer of the table.
        bits: 8 or 4.
        is_kernel: Whether the layer multiplies by its table too, which then has 8 bits.
    """
    return 8 if is_kernel or layer.output_dim % 2 else bits


def opened_table(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    """The output of a ReversibleEmbedding, its mask known and its bound by layers; None for others.

    Keras finds the mask of a lookup only when it computes.

    Args:
        call: The call.
        tensors: Its inputs.
        copies: Makes the layers.
    """
    if call.kind != "ReversibleEmbedding":
        return None
    cap = getattr(call.operation, "logit_soft_cap", None)
    settings = ("logit_soft_cap", "reverse_dtype")
    asked = [name for name in settings if getattr(call.operation, name, None) is not None]
    layer = copies.of(call.operation, **dict.fromkeys(asked))
    if looks_rows_up(call):
        rows = layer(tensors[0])
        if layer.mask_zero:
            set_mask(rows, keras.ops.not_equal(tensors[0], 0))
        return rows
    scores = layer(tensors[0], reverse=True)
    if cap is None:
        return scores
    name = call.operation.name
    scores = keras.layers.Rescaling(1.0 / cap, name=copies.unique(f"{name}_scores"))(scores)
    bounded = keras.layers.Activation("tanh", name=copies.unique(f"{name}_bounded"))(scores)
    return keras.layers.Rescaling(cap, name=copies.unique(f"{name}_cap"))(bounded)


def _table_macs(layer: QuantizedTable, x: Any, y: Any) -> int | None:
    """0 for a lookup; a product has as many dimensions as its input."""
    return 0 if len(y) > len(x) else times(x[-1], product(y[1:]))


@register_layer(macs=_table_macs)
@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedTable(QuantizedKernel):
    """Looks rows up in the rounded table of an Embedding layer, or multiplies by it.

    Args:
        layer: An Embedding or ReversibleEmbedding layer.
        **options: As of :class:`~tfnas.quantization.quantized_kernel.QuantizedKernel`.
    """

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, x: Any, use: int = 0, reverse: bool = False) -> Any:
        """Returns the rows of the rounded table, or the product with it.

        Args:
            x: Numbers of rows, of any shape; with `reverse` a tensor, (batch, ..., columns).
            use: Index of the call, where a model calls the layer several times.
            reverse: Whether to multiply: the output is (batch, ..., rows).
        """
        if reverse:
            return self._scores(x, use)
        if not self.active:
            return self.layer(x)
        numbers = x if x.dtype in (tf.int32, tf.int64) else tf.cast(x, tf.int32)
        table = tf.convert_to_tensor(self.layer.embeddings)
        if self.bits == 8:
            rows = tf.gather(self._on_grid(table, use, whole=True), numbers)
        else:
            rounded, scales = self._rows_and_scales(tf.cast(table, tf.float32), use)
            rows = tf.gather(rounded, numbers) * tf.gather(scales, numbers)
        return tf.cast(rows, self.compute_dtype)

    def _scores(self, x: Any, use: int) -> Any:
        """The product with the table."""
        if not self.active:
            return self.layer(x, reverse=True)
        tied = self.layer.tie_weights
        table = self.layer.embeddings if tied else self.layer.reverse_embeddings
        kernel = tf.cast(self._on_grid(table.value, use, whole=True), x.dtype)
        rows = tf.reshape(x, [-1, x.shape[-1]])
        return placed_as(x, tf.matmul(rows, kernel, transpose_b=tied))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the mask of a lookup of numbers; None of a product."""
        if "float" in str(inputs.dtype) and hasattr(self.layer, "tie_weights"):
            return None
        return keras.layers.Embedding.compute_mask(self.layer, inputs, previous_mask)

    def compute_output_spec(self, x: Any, use: int = 0, reverse: bool = False) -> Any:
        """Returns the output's shape and type."""
        layer = self.layer
        shape = (*x.shape[:-1], layer.input_dim) if reverse else (*x.shape, layer.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def _rows_and_scales(self, table: Any, use: int) -> tuple[Any, Any]:
        """The rows in units of their scales, (rows, columns), and the scales, (rows, 1).

        The converter rounds no constant that two lookups share: each use has ranges of its own,
        as those of :meth:`~tfnas.quantization.quantized_kernel.QuantizedKernel.rounded`.
        """
        widening = 1.0 + use * FLOAT32_STEP
        fixed = tf.stop_gradient(table)
        ends = tf.reduce_max(tf.abs(fixed), axis=1, keepdims=True)
        largest = zeros_to_ones(tf.reduce_max(ends))
        step = largest / _SCALE_STEPS
        # Rounded up: no weight is beyond the end of its row.
        scales = tf.math.ceil(ends / step - _ALMOST_NOTHING) * step
        rows = table / zeros_to_ones(scales)
        steps = 2.0 ** (self.bits - 1) - 1.0
        on_grid = tf.round(tf.clip_by_value(rows, -1.0, 1.0) * steps) / steps
        rows = rows + tf.stop_gradient(on_grid - rows)
        end = _STEPS_8 / steps * widening
        rows = tf.quantization.fake_quant_with_min_max_vars(rows, -end, end, narrow_range=True)
        return rows, tf.quantization.fake_quant_with_min_max_vars(scales, 0.0, largest * widening)
