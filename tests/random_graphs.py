"""Random functional Keras models: branches, shared layers, splits, permutations, several outputs.

`random_model(seed)` returns a small model of images, sequences and vectors; the same seed gives the
same graph and weights. Each step takes one of the tensors so far and adds another. Two thirds of
the steps go on from the latest tensor, so that graphs are deep as well as wide.

    model = random_model(7)
    model = random_model(7, without=RECURRENT)   # other kinds of layers alone

`examples(model)` returns inputs for it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Tensor = Any
Step = Callable[["Graph", Tensor], Tensor | None]


class Graph:
    """A model under construction.

    Args:
        seed: Seed of all choices.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.names = 0

    def width(self, multiple: int = 1) -> int:
        """Returns a random number of channels."""
        return multiple * int(self.rng.integers(2, 6))

    def choice(self, options: Sequence[Any]) -> Any:
        """Returns one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def alike(self, x: Tensor, without: int | None = None) -> Tensor:
        """Returns an earlier tensor of the same shape; of any size along the axis `without`."""

        def shape(tensor: Tensor) -> list[int | None]:
            return [n for axis, n in enumerate(tensor.shape) if axis != without]

        same = [t for t in self.tensors if len(t.shape) == len(x.shape) and shape(t) == shape(x)]
        return self.choice(same)

    def name(self) -> str:
        """Returns a name for a layer."""
        self.names += 1
        return f"layer{self.names}"


def _conv(g: Graph, x: Tensor) -> Tensor:
    activation = g.choice([None, "relu", "tanh"])
    kwargs = {"padding": "same", "activation": activation, "name": g.name()}
    return layers.Conv2D(g.width(2), g.choice([1, 3]), **kwargs)(x)


def _grouped(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[-1] % 2:
        return None
    return layers.Conv2D(g.width(2), 3, groups=2, padding="same", name=g.name())(x)


def _depthwise(g: Graph, x: Tensor) -> Tensor:
    multiplier = g.choice([1, 2]) if x.shape[-1] < 12 else 1
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier, name=g.name())(x)


def _separable(g: Graph, x: Tensor) -> Tensor:
    return layers.SeparableConv2D(g.width(), 3, padding="same", name=g.name())(x)


def _transposed(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[1] > 6:
        return None
    return layers.Conv2DTranspose(g.width(), 2, strides=2, padding="same", name=g.name())(x)


def _shared(g: Graph, x: Tensor) -> Tensor:
    layer = layers.Conv2D(x.shape[-1], 3, padding="same", name=g.name())
    return layer(ops.relu(layer(x)))


def _norm(g: Graph, x: Tensor) -> Tensor:
    kinds = [layers.BatchNormalization, layers.LayerNormalization, layers.RMSNormalization]
    if x.shape[-1] % 2 == 0:
        kinds.append(lambda name: layers.GroupNormalization(x.shape[-1] // 2, name=name))
    return g.choice(kinds)(name=g.name())(x)


def _activation(g: Graph, x: Tensor) -> Tensor:
    return g.choice([layers.ReLU(), layers.LeakyReLU(), layers.ELU(), ops.sigmoid, ops.gelu])(x)


def _prelu(g: Graph, x: Tensor) -> Tensor:
    shared = list(range(1, len(x.shape) - 1))
    return layers.PReLU(shared_axes=shared or None, name=g.name())(x)


def _pool(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[1] < 4:
        return None
    return g.choice([layers.MaxPooling2D, layers.AveragePooling2D])(2)(x)


def _merge(g: Graph, x: Tensor) -> Tensor:
    other = g.alike(x)
    return g.choice([lambda a, b: a + b, ops.maximum, lambda a, b: a * ops.tanh(b)])(x, other)


def _concatenate(g: Graph, x: Tensor) -> Tensor | None:
    axis = g.choice(range(1, len(x.shape)))
    other = g.alike(x, without=axis)
    if x.shape[axis] + other.shape[axis] > 16:
        return None
    return layers.Concatenate(axis=axis)([x, other])


def _split(g: Graph, x: Tensor) -> Tensor | None:
    axis = len(x.shape) - 1
    if x.shape[axis] % 2:
        return None
    one, other = ops.split(x, 2, axis=axis)
    g.tensors.append(one)
    return g.choice([other, one * ops.sigmoid(other)])


def _slice(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[-1] < 4:
        return None
    last = x.shape[-1]
    keys = [slice(0, last - 1), slice(1, None), slice(None, None, 2), slice(None, None, -1)]
    return x[..., g.choice(keys)]


def _places(g: Graph, x: Tensor) -> Tensor | None:
    return x[:, 1:] if x.shape[1] and x.shape[1] > 2 and len(x.shape) > 2 else None


def _roll(g: Graph, x: Tensor) -> Tensor:
    return ops.roll(x, 1, axis=g.choice(range(1, len(x.shape))))


def _stacked(g: Graph, x: Tensor) -> Tensor | None:
    if len(x.shape) > 3:
        return None
    both = ops.stack([x, g.alike(x)], axis=1)
    first, second = ops.unstack(both, 2, axis=1)
    return first - second


def _swapped(g: Graph, x: Tensor) -> Tensor | None:
    if len(x.shape) < 3:
        return None
    order = [0, *(1 + g.rng.permutation(len(x.shape) - 1))]
    back = np.argsort(order).tolist()
    middle = ops.transpose(x, [int(axis) for axis in order])
    g.tensors.append(middle)
    return ops.transpose(ops.relu(middle), back)


def _gate(g: Graph, x: Tensor) -> Tensor:
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(g.width(), activation="relu", name=g.name())(gate)
    gate = layers.Dense(x.shape[-1], activation="sigmoid", name=g.name())(gate)
    return x * layers.Reshape((1, 1, x.shape[-1]))(gate)


def _shuffle(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[1] > 6:
        return None
    wide = layers.Conv2D(4 * g.width(), 1, name=g.name())(x)
    if g.choice([True, False]):
        return ops.depth_to_space(wide, 2)
    _, rows, columns, channels = wide.shape
    apart = ops.reshape(wide, (-1, rows, columns, 2, 2, channels // 4))
    apart = ops.transpose(apart, (0, 1, 3, 2, 4, 5))
    return ops.reshape(apart, (-1, 2 * rows, 2 * columns, channels // 4))


def _tokens(g: Graph, x: Tensor) -> Tensor:
    return layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x)


def _global(g: Graph, x: Tensor) -> Tensor:
    if len(x.shape) == 3:
        return g.choice([lambda t: ops.mean(t, axis=1), layers.GlobalMaxPooling1D()])(x)
    kinds = [layers.GlobalAveragePooling2D(), lambda t: ops.max(t, axis=(1, 2))]
    return g.choice(kinds)(x)


def _flatten(g: Graph, x: Tensor) -> Tensor:
    return layers.Dense(g.width(), name=g.name())(layers.Flatten()(x))


def _dense(g: Graph, x: Tensor) -> Tensor:
    return layers.Dense(g.width(2), activation=g.choice([None, "relu"]), name=g.name())(x)


def _mixed_tokens(g: Graph, x: Tensor) -> Tensor:
    turned = layers.Permute((2, 1))(x)
    hidden = layers.Dense(g.width(), activation="relu", name=g.name())(turned)
    return layers.Permute((2, 1))(layers.Dense(x.shape[1], name=g.name())(hidden))


def _heads(g: Graph, x: Tensor) -> Tensor:
    sizes = {"num_heads": g.choice([2, 3]), "key_dim": g.width(), "value_dim": g.width()}
    return layers.MultiHeadAttention(**sizes, name=g.name())(x, x)


def _grouped_heads(g: Graph, x: Tensor) -> Tensor:
    return layers.GroupQueryAttention(g.width(), 4, 2, name=g.name())(x, x)


def _written_attention(g: Graph, x: Tensor) -> Tensor:
    heads, size, places = 2, g.width(), x.shape[1]
    joint = layers.Dense(3 * heads * size, name=g.name())(x)
    joint = ops.reshape(joint, (-1, places, 3, heads, size))
    query, key, value = ops.unstack(ops.transpose(joint, (2, 0, 3, 1, 4)), 3, axis=0)
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), axis=-1)
    mixed = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return layers.Dense(g.width(), name=g.name())(ops.reshape(mixed, (-1, places, heads * size)))


def _einsum(g: Graph, x: Tensor) -> Tensor:
    wide = layers.EinsumDense("abc,cde->abde", (None, 2, g.width()), name=g.name())(x)
    return layers.EinsumDense("abde,def->abf", (None, g.width()), bias_axes="f", name=g.name())(
        ops.relu(wide)
    )


def _products(g: Graph, x: Tensor) -> Tensor:
    one, other = (layers.Dense(4, name=g.name())(x) for _ in range(2))
    return ops.einsum("btc,bsc->bts", one, other)


def _conv1d(g: Graph, x: Tensor) -> Tensor:
    return layers.Conv1D(g.width(), 3, padding="causal", name=g.name())(x)


def _recurrent(g: Graph, x: Tensor) -> Tensor:
    kind = g.choice([layers.LSTM, layers.GRU, layers.SimpleRNN])
    return kind(g.width(), return_sequences=True, name=g.name())(x)


def _both_ways(g: Graph, x: Tensor) -> Tensor:
    inner = layers.GRU(g.width(), return_sequences=True)
    return layers.Bidirectional(inner, merge_mode=g.choice(["concat", "sum"]), name=g.name())(x)


def _image(g: Graph, x: Tensor) -> Tensor:
    channels = g.width()
    wide = layers.Dense(9 * channels, activation="relu", name=g.name())(x)
    return layers.Conv2DTranspose(g.width(), 3, name=g.name())(
        layers.Reshape((3, 3, channels))(wide)
    )


def _repeated(g: Graph, x: Tensor) -> Tensor:
    return g.choice([layers.RepeatVector(3), lambda t: ops.repeat(ops.expand_dims(t, 1), 3, 1)])(x)


RECURRENT = (_recurrent, _both_ways)
ANY: tuple[Step, ...] = (_activation, _merge, _concatenate, _split, _slice, _roll, _swapped)
STEPS: dict[int, tuple[Step, ...]] = {
    4: (
        *(_conv, _conv, _grouped, _depthwise, _separable, _transposed, _shared, _norm, _prelu),
        *(_pool, _places, _gate, _shuffle, _tokens, _global, _flatten),
    ),
    3: (
        *(_dense, _dense, _mixed_tokens, _heads, _grouped_heads, _written_attention, _einsum),
        *(_products, _conv1d, *RECURRENT, _norm, _places, _stacked, _global, _flatten),
    ),
    2: (_dense, _dense, _image, _repeated, _norm, _stacked),
}


def random_model(seed: int, steps: int = 8, without: Iterable[Step] = ()) -> keras.Model:
    """Returns a random model with random weights.

    Args:
        seed: Seed of the graph and its weights.
        steps: Number of steps; most add one to three layers.
        without: Steps that are left out.
    """
    keras.utils.set_random_seed(seed)
    g, left_out = Graph(seed), set(without)
    inputs = [keras.Input((6, 6, 3)), keras.Input((5, 4))][:: g.choice([1, -1])]
    inputs = inputs[: g.choice([1, 1, 2])]
    g.tensors += inputs
    taken = 0
    while taken < steps:
        recent = g.rng.random() < 2 / 3
        x = g.tensors[-1] if recent and taken else g.choice(g.tensors)
        options = [s for s in (*ANY, *STEPS[len(x.shape)]) if s not in left_out]
        y = g.choice(options)(g, x)
        if y is not None and None not in y.shape[1:]:
            g.tensors.append(y)
            taken += 1
    ends = [g.tensors[-1], *(g.choice(g.tensors) for _ in range(g.choice([0, 1])))]
    outputs = [layers.Dense(3, name=f"output{i}")(x) for i, x in enumerate(ends)]
    # Inputs that no output uses would be no part of the model.
    outputs += [ops.mean(x, axis=-1) for x in inputs[1:]]
    single = outputs[0] if len(outputs) == 1 else outputs
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], single)
    _randomize(model, g.rng)
    return model


def _randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Random values also for weights that begin as zeros or ones."""
    for variable in model.variables:
        shape = tuple(variable.shape)
        if "seed" in variable.name:
            continue
        if len(shape) > 1 and "kernel" in variable.name:
            variable.assign(rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))) * 1.5)
        else:
            variable.assign(rng.uniform(0.5, 1.0, shape) * (1 if "var" in variable.name else 0.7))


def examples(model: keras.Model, count: int = 3) -> np.ndarray | list[np.ndarray]:
    """Returns inputs for a model, as it takes them: an array, or a list of one for each input.

    Args:
        model: The model.
        count: Number of examples.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        is_float = "float" in tensor.dtype
        values = rng.normal(size=shape) if is_float else rng.integers(0, 10, shape)
        arrays.append(values.astype(tensor.dtype))
    return arrays if len(arrays) > 1 else arrays[0]
