"""What Keras computes in another form while a model is traced for TensorFlow's converter.

TFLite has no kernel for some operations whose values other ones compute exactly: recurrent layers
(:mod:`tfnas.tflite.recurrent_layers`), a roll, which is two slices that change places, the place
of the largest or smallest number, which Keras finds with bitwise operations, and repeated places of
an axis, as of UpSampling2D, whose operation loses the number of channels where sizes are open.
Numbers that are added along the second axis are a bias of channels to Keras, which the converter
takes for images alone. Pooling in three dimensions is one in two and one in the third.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.keras_private import backend_function, backend_functions_replaced
from tfnas.quantization.recurrent_forms import placeholders_for_steps
from tfnas.tflite.recurrent_layers import functions_for_conversion

if TYPE_CHECKING:
    import tensorflow as tf


@contextlib.contextmanager
def traced_for_conversion() -> Iterator[None]:
    """Traces operations of this thread in the forms of this module while it is open."""
    functions = functions_for_conversion()
    functions |= {"numpy.argmax": largest_place, "numpy.argmin": smallest_place}
    functions |= {"numpy.roll": roll, "numpy.repeat": repeat, "numpy.add": add}
    for name in ("nn.max_pool", "nn.average_pool"):
        functions[name] = functools.partial(pooled, backend_function(name))
    with backend_functions_replaced(functions), placeholders_for_steps():
        yield


def add(x: Any, y: Any) -> tf.Tensor:
    """Adds as `keras.ops.add` does, without a bias whose channels are the second axis.

    Example:
        >>> import numpy as np
        >>> add(np.zeros((1, 2, 3), "float32"), np.float32([[1], [2]])).numpy()
        array([[[1., 1., 1.],
                [2., 2., 2.]]], dtype=float32)

    Args:
        x: A tensor of any shape.
        y: A tensor that can be broadcast to it, or the other way around.

    Returns:
        The sums, of the broadcast shape.
    """
    shape: Sequence[int | None] = getattr(x, "shape", ())
    sizes = [size for size in getattr(y, "shape", ()) if size != 1]
    if len(sizes) == 1 < len(shape) != 4 and None is not sizes[0] == shape[1] != shape[-1]:
        x, y = backend_function("numpy.reshape")(y, (sizes[0], *(1,) * (len(shape) - 2))), x
    return backend_function("numpy.add")(x, y)


def pooled(
    pool: Callable[..., tf.Tensor],
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> tf.Tensor:
    """Pools as `keras.ops.max_pool` or `average_pool` does, in at most two dimensions at a time.

    Example:
        >>> import keras, numpy as np
        >>> video = np.arange(8.0).reshape(1, 2, 2, 2, 1)
        >>> pooled(keras.ops.average_pool, video, 2).numpy().ravel().tolist()
        [3.5]

    Args:
        pool: The function of Keras.
        inputs: A tensor, (batch, sizes..., channels).
        pool_size: The window.
        strides: Its steps; None: as large as the window.
        padding: "valid" or "same".
        data_format: As of Keras' function.

    Returns:
        As Keras' function returns it.
    """
    import keras

    shape = tuple(inputs.shape)
    first = keras.config.image_data_format() if data_format is None else data_format
    if len(shape) != 5 or None in shape[1:] or first != "channels_last":
        return pool(inputs, pool_size, strides, padding, data_format)
    window = (pool_size,) * 3 if isinstance(pool_size, int) else tuple(pool_size)
    steps = window if strides is None else strides
    steps = (steps,) * 3 if isinstance(steps, int) else tuple(steps)
    reshape = backend_function("numpy.reshape")
    pictures = reshape(inputs, (-1, *shape[2:]))
    pictures = pool(pictures, window[1:], steps[1:], padding, "channels_last")
    rows, columns = pictures.shape[1:3]
    series = reshape(pictures, (-1, shape[1], rows * columns, shape[4]))
    series = pool(series, (window[0], 1), (steps[0], 1), padding, "channels_last")
    return reshape(series, (-1, series.shape[1], rows, columns, shape[4]))


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> tf.Tensor:
    """Rolls a tensor as `keras.ops.roll` does, by slices.

    Example:
        >>> import numpy as np
        >>> roll(np.array([[1, 2, 3]]), 1, axis=1).numpy()
        array([[3, 1, 2]])

    Args:
        x: A tensor of any shape.
        shift: By how many places, for each axis.
        axis: The axes; None: all values in one row.

    Returns:
        A tensor of the same shape.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    if axis is None:
        return tf.reshape(roll(tf.reshape(x, [-1]), shift, 0), tf.shape(x))
    axes = [axis] if isinstance(axis, int) else list(axis)
    shifts = [shift] * len(axes) if isinstance(shift, int) else list(shift)
    for places, one in zip(shifts, axes, strict=True):
        size = x.shape[one]
        if size is None:
            size = tf.shape(x)[one]
        first = size - places % size
        start, end = tf.split(x, [first, size - first], axis=one)
        x = tf.concat([end, start], axis=one)
    return x


def repeat(x: Any, repeats: Any, axis: int | None = None) -> tf.Tensor:
    """Repeats places as `keras.ops.repeat` does, and keeps the sizes that are known.

    Example:
        >>> import numpy as np
        >>> repeat(np.array([[1, 2]]), 2, axis=1).numpy()
        array([[1, 1, 2, 2]], dtype=int32)

    Args:
        x: A tensor of any shape.
        repeats: How often: a number, or one for each place.
        axis: The axis; None: all values in one row.

    Returns:
        A tensor of the same type.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    if axis is None or not isinstance(repeats, int):
        return tf.repeat(x, repeats, axis=axis)
    rank = len(x.shape)
    axis %= rank
    sizes = [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]
    sizes[axis] = sizes[axis] * repeats
    times = [repeats if place == axis + 1 else 1 for place in range(rank + 1)]
    return tf.reshape(tf.tile(tf.expand_dims(x, axis + 1), times), sizes)


def largest_place(x: Any, axis: int | None = None, keepdims: bool = False) -> tf.Tensor:
    """Returns the place of the largest number as `keras.ops.argmax` does, where 0.0 equals -0.0.

    Example:
        >>> import numpy as np
        >>> largest_place(np.array([[1.0, 3.0, 2.0]]), axis=1).numpy()
        array([1], dtype=int32)

    Args:
        x: A tensor of any shape.
        axis: The axis; None: all values in one row.
        keepdims: Whether the axis stays, with the size 1.

    Returns:
        Places, int32.
    """
    import tensorflow as tf

    return _place(tf.argmax, x, axis, keepdims)


def smallest_place(x: Any, axis: int | None = None, keepdims: bool = False) -> tf.Tensor:
    """Returns the place of the smallest number; as :func:`largest_place`.

    Args:
        x: A tensor of any shape.
        axis: The axis; None: all values in one row.
        keepdims: Whether the axis stays, with the size 1.
    """
    import tensorflow as tf

    return _place(tf.argmin, x, axis, keepdims)


def _place(find: Callable[..., Any], x: Any, axis: int | None, keepdims: bool) -> tf.Tensor:
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    values = tf.reshape(x, [-1]) if axis is None else x
    places = find(values, 0 if axis is None else axis, output_type=tf.int32)
    if not keepdims:
        return places
    return tf.reshape(places, [1] * len(x.shape)) if axis is None else tf.expand_dims(places, axis)
