"""The rows of single layers: a model of each class of keras.layers, with random inputs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from coverage_checks.cells import Check, NothingToDo, Subject, kernels
from coverage_checks.command_checks import profile
from coverage_checks.file_checks import MODE_CHECKS
from coverage_checks.technique_checks import cluster, prune
from keras import layers
from layer_models import (
    APART,
    COUNTED,
    IMAGE,
    MOVIE,
    NO_MODEL,
    SERIES,
    classes,
    listed,
    model_of,
    of,
)

EXAMPLES = 24


def before_dense(layer: Any, *inputs: Any) -> Callable[[], keras.Model]:
    """Preprocessing stays out of the file, so that a Dense layer follows."""

    def build() -> keras.Model:
        tensor = layer(inputs[0] if len(inputs) == 1 else inputs)
        if "float" not in tensor.dtype:
            tensor = keras.ops.cast(tensor, "float32")
        return keras.Model(list(inputs), layers.Dense(8)(tensor))

    return build


def _integers(*shape: int) -> Any:
    return keras.Input(shape, dtype="int64")


def _words() -> Any:
    return keras.Input((1,), dtype="string")


def own_models() -> dict[str, Callable[[], keras.Model]]:
    """Models of the classes that are called in a way of their own."""
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    vocabulary = ["0", "1", "2"]
    return {
        "LSTM": of(layers.LSTM(4, return_sequences=True), SERIES),
        "GRU": of(layers.GRU(4), SERIES),
        "SimpleRNN": of(layers.SimpleRNN(4), SERIES),
        "RNN": of(layers.RNN(layers.LSTMCell(4)), SERIES),
        "LSTMCell": of(layers.RNN(layers.LSTMCell(4)), SERIES),
        "GRUCell": of(layers.RNN(layers.GRUCell(4)), SERIES),
        "SimpleRNNCell": of(layers.RNN(layers.SimpleRNNCell(4)), SERIES),
        "StackedRNNCells": of(layers.RNN(cells), SERIES),
        "Bidirectional": of(layers.Bidirectional(layers.LSTM(4)), SERIES),
        "ConvLSTM1D": of(layers.ConvLSTM1D(2, 3), (4, 7, 3)),
        "ConvLSTM2D": of(layers.ConvLSTM2D(2, 3), MOVIE),
        "ConvLSTM3D": of(layers.ConvLSTM3D(2, 3, padding="same"), (2, 4, 4, 4, 2)),
        "TimeDistributed": of(layers.TimeDistributed(layers.Conv2D(2, 3)), MOVIE),
        "AdditiveAttention": listed(layers.AdditiveAttention(), (6, 5), (7, 5)),
        "ReversibleEmbedding": of(layers.ReversibleEmbedding(11, 4), (6,)),
        "Lambda": of(layers.Lambda(lambda x: 2.0 * x), IMAGE),
        "MelSpectrogram": of(layers.MelSpectrogram(fft_length=8, sequence_stride=4), (40,)),
        "CategoryEncoding": before_dense(layers.CategoryEncoding(9), _integers(1)),
        "Discretization": before_dense(layers.Discretization([0.0, 1.0]), keras.Input((3,))),
        "Hashing": before_dense(layers.Hashing(5), _words()),
        "HashedCrossing": before_dense(layers.HashedCrossing(5), _words(), _words()),
        "IntegerLookup": before_dense(layers.IntegerLookup(vocabulary=[1, 2, 3]), _integers(1)),
        "StringLookup": before_dense(layers.StringLookup(vocabulary=vocabulary), _words()),
        "TextVectorization": before_dense(
            layers.TextVectorization(vocabulary=vocabulary, output_sequence_length=3), _words()
        ),
    }


def layer_names() -> list[str]:
    """Returns the rows: all classes of keras.layers of which a model can be made."""
    return sorted(classes().keys() - NO_MODEL)


def layer_subject(name: str) -> Subject:
    """Returns the model of a class, with random inputs."""
    keras.utils.set_random_seed(0)
    own = own_models()
    if name in own:
        model = own[name]()
    else:
        assert name not in APART, name
        model = COUNTED[name]() if name in COUNTED else model_of(classes()[name])
    rng = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = (EXAMPLES, *tensor.shape[1:])
        integers = tensor.dtype.startswith("int") or name in ("Embedding", "ReversibleEmbedding")
        values = rng.integers(0, 4, shape) if integers else rng.random(shape)
        if tensor.dtype == "string":
            values = rng.choice(["0", "1", "2"], shape).astype(object)
            arrays.append(values)
        else:
            arrays.append(values.astype(tensor.dtype))
    return Subject(name, model, arrays if len(arrays) > 1 else arrays[0])


def with_kernels(check: Check) -> Check:
    """Returns the check of layers that have kernels; others have nothing to prune or cluster."""

    def run(subject: Subject) -> str:
        if not kernels(subject.model):
            raise NothingToDo("no kernel")
        return check(subject)

    run.__doc__ = check.__doc__
    return run


LAYER_CHECKS: dict[str, Check] = {
    "float32": MODE_CHECKS["float32"],
    "profile": profile,
    "prune": with_kernels(prune),
    "cluster": with_kernels(cluster),
    "int8": MODE_CHECKS["int8"],
}
