"""Recurrent layers in the two forms that TensorFlow's converter takes.

Keras collects the outputs of a recurrent layer in a TensorArray. The converter can't write it for
an open batch size, and writes a loop with copies of its lists for a fixed one. So a layer is
traced for conversion as one of these:

- a loop over the time steps (WHILE), for every recurrent layer and batch size. The file has no
  state, so nothing must be reset between its examples.
- the fused operator UNIDIRECTIONAL_SEQUENCE_LSTM, where the batch size and the number of steps
  are fixed (`keras.Input(batch_shape=(1, steps, features))`): for an LSTM of Keras' standard
  activations that starts from zeros, has no mask, and of which only the outputs are used. It is
  smaller. Its state is a variable tensor of the file, which an application must reset before each
  sequence (`Interpreter.reset_all_variables`). It can't be resized to another batch size.

The converter recognizes the fused operator by an attribute of the function that it replaces, as
Keras 2 writes it.

References:
    TensorFlow's `compiler/mlir/lite/transforms/prepare_composite_functions_tf.cc`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.graph.batchnorm import layers_of
from tfnas.keras_private import all_layers
from tfnas.tflite.flatbuffer import read_graphs

if TYPE_CHECKING:
    import tensorflow as tf

    Step = Callable[[Any, tuple[tf.Tensor, ...]], tuple[Any, Any]]


def recurrent_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model that loop over time steps.

    Args:
        model: A built Keras 3 model.
    """
    return layers_of(model, keras.layers.RNN)


def may_be_fused(model: keras.Model) -> bool:
    """Returns whether a model holds an LSTM, and fixes all sizes of its inputs.

    Args:
        model: A built Keras 3 model with known inputs.
    """
    lstm = layers_of(model, keras.layers.LSTM)
    return bool(lstm) and all(None not in tensor.shape for tensor in model.inputs)


def form_in_file(content: bytes) -> str:
    """Returns which form the recurrent layers have in a file, in words.

    Args:
        content: A `.tflite` file of a model with recurrent layers, not validated yet.
    """
    operators = {op.name for graph in read_graphs(content) for op in graph.operators}
    forms = []
    if "UNIDIRECTIONAL_SEQUENCE_LSTM" in operators:
        forms.append(
            "fused operators with a state, which must be reset before each sequence "
            "(Interpreter.reset_all_variables)"
        )
    if "WHILE" in operators:
        forms.append("loops over the time steps, without a state")
    if "ASSIGN_VARIABLE" in operators:
        forms.append("variables that keep the state of stateful=True")
    return "; ".join(forms) or "unrolled"


def functions_for_conversion() -> dict[str, Callable[..., Any]]:
    """Returns the functions of Keras' backend that conversion replaces, by their names."""
    others = ("gru", "bidirectional_lstm", "bidirectional_gru")
    return {"rnn": loop, "lstm": _fused_lstm, **dict.fromkeys(others, _no_other_form)}


@contextlib.contextmanager
def states_at_rest(model: Any) -> Iterator[None]:
    """Has the states of stateful layers at 0 while it is open: a file begins with what it finds.

    Args:
        model: A Keras 3 model; one of tf_keras stays as it is.
    """
    layers = all_layers(model) if isinstance(model, keras.Model) else []
    stateful = (each.states for each in layers if getattr(each, "stateful", False))
    states = [state for each in stateful for state in keras.tree.flatten(each)]
    before = [keras.ops.convert_to_numpy(state) for state in states]
    try:
        for state in states:
            state.assign(keras.ops.zeros_like(state))
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)


def loop(
    step: Step,
    inputs: Any,
    initial_states: Sequence[tf.Tensor],
    go_backwards: bool = False,
    mask: tf.Tensor | None = None,
    constants: Sequence[tf.Tensor] | None = None,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
    return_all_outputs: bool = True,
    **_: Any,
) -> tuple[Any, Any, list[tf.Tensor]]:
    """Iterates over time steps as `keras.src.backend.rnn` does, without a TensorArray.

    Args:
        step: Function of (the input at a step, states), returning (output, new states).
        inputs: A tensor (batch, steps, ...), or a structure of them.
        initial_states: The states before the first step, each (batch, ...).
        go_backwards: Whether the last step comes first; outputs are in the order of computation.
        mask: Where an example's step counts, (batch, steps); elsewhere the states stay.
        constants: What each step gets after the states.
        time_major: Whether steps are the first dimension, and the batch the second.
        zero_output_for_mask: Whether the output of a masked step is 0, not the one before.
        return_all_outputs: Whether the outputs of all steps are returned.
        **_: Keras' `unroll` and `input_length`, which change nothing in the result.

    Returns:
        The last output (batch, ...), all outputs (batch, steps, ...), or the last one where they
        are not requested, and the last states.
    """
    import tensorflow as tf

    tree, constants = keras.tree, tuple(constants or ())
    if not time_major:
        inputs = tree.map_structure(_swapped, inputs)
        mask = None if mask is None else _swapped(tf.cast(mask, tf.bool))
    first = tree.flatten(inputs)[0]
    batch = tf.shape(first)[1] if first.shape[1] is None else first.shape[1]
    steps = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    states = tuple(initial_states)
    # Traced for its shapes alone: the converter removes it.
    example, _ = step(tree.map_structure(lambda x: x[0], inputs), states + constants)

    def zeros(like: tf.Tensor, *sizes: Any) -> tf.Tensor:
        return tf.zeros([*sizes, batch, *like.shape[1:]], like.dtype)

    def body(place: tf.Tensor, done: Any, before: Any, *states: tf.Tensor) -> tuple[Any, ...]:
        at = steps - 1 - place if go_backwards else place
        part = tree.map_structure(lambda x: tf.gather(x, at), inputs)
        output, new = step(part, tuple(states) + constants)
        new = tree.pack_sequence_as(states, tree.flatten(new))
        if mask is not None:
            counts = tf.gather(mask, at)
            masked = tree.map_structure(tf.zeros_like, output) if zero_output_for_mask else before
            output = tree.map_structure(lambda *pair: _where(counts, *pair), output, masked)
            new = tree.map_structure(lambda *pair: _where(counts, *pair), new, states)
        if return_all_outputs:
            here = tf.equal(tf.range(steps), place)
            done = tree.map_structure(lambda all_, one: _where(here, one[None], all_), done, output)
        return (place + 1, done, output, *new)

    collected = tree.map_structure(lambda x: zeros(x, steps), example) if return_all_outputs else ()
    start = (tf.constant(0), collected, tree.map_structure(zeros, example), *states)
    _, done, last, *new = tf.while_loop(lambda place, *_: place < steps, body, start)
    outputs = done if return_all_outputs else tree.map_structure(lambda x: x[None], last)
    if not time_major:
        outputs = tree.map_structure(_swapped, outputs)
    return last, outputs, list(new)


def _fused_lstm(
    inputs: tf.Tensor,
    initial_state_h: tf.Tensor,
    initial_state_c: tf.Tensor,
    mask: tf.Tensor | None,
    *,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any,
    activation: Callable[[Any], Any],
    recurrent_activation: Callable[[Any], Any],
    **options: Any,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """`keras.src.backend.lstm` as a function that the converter replaces by its operator.

    Where a state is used outside, the converter does not replace the function, but converts what
    it computes: a loop.

    Raises:
        NotImplementedError: The operator computes something else; Keras takes its loop then.
    """
    import tensorflow as tf

    activations = keras.activations.tanh, keras.activations.sigmoid
    standard = (activation, recurrent_activation) == activations
    go_backwards = bool(options.get("go_backwards"))
    starts_from_zeros = all(map(_is_zero, (initial_state_h, initial_state_c)))
    if mask is not None or None in inputs.shape or not standard or not starts_from_zeros:
        raise NotImplementedError

    def lstm(x: Any, h: Any, c: Any, kernel: Any, recurrent: Any, bias: Any) -> tuple[Any, ...]:
        def step(x: Any, states: tuple[Any, ...]) -> tuple[Any, list[Any]]:
            sums = tf.matmul(x, kernel) + tf.matmul(states[0], recurrent) + bias
            enter, keep, new, show = tf.split(sums, 4, axis=1)
            c = tf.sigmoid(keep) * states[1] + tf.sigmoid(enter) * tf.tanh(new)
            h = tf.sigmoid(show) * tf.tanh(c)
            return h, [h, c]

        last, outputs, (h, c) = loop(step, x, (h, c), go_backwards=go_backwards)
        return last, outputs, h, c, tf.constant(0.0)  # Keras 2 returns the device as the fifth

    weights = [tf.convert_to_tensor(weight) for weight in (kernel, recurrent_kernel)]
    weights.append(tf.zeros(weights[0].shape[1]) if bias is None else tf.convert_to_tensor(bias))
    function = tf.function(
        lstm,
        autograph=False,
        experimental_attributes={
            "api_implements": f"lstm_{uuid.uuid4()}",
            "time_major": False,
            "go_backwards": go_backwards,
        },
    )
    # The converter leaves only the second output of the function a value.
    _, outputs, _, c, _ = function(inputs, initial_state_h, initial_state_c, *weights)
    last = outputs[:, -1]
    return last, outputs, [last, c]


def _no_other_form(*arguments: Any, **options: Any) -> None:
    """Keras' own forms for GPUs don't convert; it takes its loop then."""
    raise NotImplementedError


def _is_zero(tensor: tf.Tensor) -> bool:
    import tensorflow as tf

    value = tf.get_static_value(tensor)
    return value is not None and not np.any(value)


def _swapped(tensor: tf.Tensor) -> tf.Tensor:
    """A tensor with its first two dimensions exchanged: batch and steps."""
    import tensorflow as tf

    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])


def _where(condition: tf.Tensor, value: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """`tf.where` with a condition for each item of the first dimension."""
    import tensorflow as tf

    return tf.where(tf.reshape(condition, [-1, *[1] * (len(value.shape) - 1)]), value, other)
