"""Which attention layers of a student learn from which ones of its teacher."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import keras

from tfnas.distillation.attention_taps import is_attention, unread_because
from tfnas.distillation.feature_losses import AttentionMapTransfer
from tfnas.distillation.output_checks import check_number
from tfnas.graph.functional import walk
from tfnas.runtime.argument_rules import near


def attention_map_transfers(
    student: keras.Model,
    teacher: keras.Model,
    layers: Mapping[str, str] | None = None,
    weight: float = 1.0,
) -> list[AttentionMapTransfer]:
    """Returns a loss for each attention layer of a student, for `tfnas.Distiller(features=...)`.

    Example:
        >>> import keras, tfnas
        >>> def model(blocks):
        ...     x = inputs = keras.Input((6, 8))
        ...     for i in range(blocks):
        ...         x += keras.layers.MultiHeadAttention(2, 4, name=f"look_{i}")(x, x)
        ...     return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
        >>> maps = tfnas.attention_map_transfers(model(2), model(4))
        >>> [(each.student, each.teacher) for each in maps]
        [('look_0', 'look_1'), ('look_1', 'look_3')]

    Args:
        student: A functional or Sequential model with MultiHeadAttention, GroupQueryAttention,
            Attention or AdditiveAttention.
        teacher: Another one, with any number of them.
        layers: Which layer of the teacher each layer of the student learns from, by their names or
            paths. None: layer i of n learns from layer i * N / n of the teacher's N, rounded up,
            both counted from 1: the last one from the last one. Layers that can't be read, as those
            that are called twice, are left out with a warning that names them.
        weight: Sum of the factors of all losses, above 0.

    Returns:
        A list of :class:`tfnas.AttentionMapTransfer`.

    Raises:
        ValueError: A model has no attention layer that can be read, or `layers` is no dictionary of
            the names of some.

    References:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", EMNLP 2020.
    """
    check_number("weight", weight, low=0.0, excluded={0.0})
    _check_names(layers)
    (ours, ours_left), (theirs, theirs_left) = attention_layers(student), attention_layers(teacher)
    sides = (("student", student, ours, ours_left), ("teacher", teacher, theirs, theirs_left))
    for role, model, names, left in sides:
        if not names:
            why = _reasons(left) or "a quantization-aware model has their parts instead"
            raise ValueError(
                f"{role} must have attention layers of Keras over one axis that are called once, "
                f"got {model.name!r} with none: {why}"
            )
        if left and layers is None:
            warnings.warn(
                f"attention maps of the {role} are left out: {_reasons(left)}", stacklevel=2
            )
    if layers is None:
        count, most = len(ours), len(theirs)
        pairs = [(ours[i], theirs[math.ceil((i + 1) * most / count) - 1]) for i in range(count)]
    else:
        pairs = list(layers.items())
        _check_not_swapped(pairs, ours, theirs)
        _check_known("student", [name for name, _ in pairs], ours, ours_left)
        _check_known("teacher", [name for _, name in pairs], theirs, theirs_left)
    return [AttentionMapTransfer(*pair, weight=weight / len(pairs)) for pair in pairs]


def attention_layers(model: keras.Model) -> tuple[list[str], dict[str, str]]:
    """Returns the paths of the attention layers that can be read, in order, and why others can't.

    Args:
        model: A functional or Sequential model.
    """
    calls = [call for call in walk(model).calls if is_attention(call)]
    uses = Counter(call.name for call in calls)
    read, left = list[str](), dict[str, str]()
    for call in calls:
        often = f"is called {uses[call.name]} times" if uses[call.name] > 1 else None
        reason = unread_because(call) or often
        if reason is None:
            read.append(call.name)
        else:
            left[call.name] = reason
    return read, left


def _reasons(left: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} {reason}" for name, reason in left.items())


def _check_names(layers: Mapping[str, str] | None) -> None:
    if layers is None:
        return
    if not isinstance(layers, Mapping):
        raise ValueError(
            "layers must be None or a dictionary, the student's layer -> the teacher's, got "
            f"{layers!r}"
        )
    for pair in layers.items():
        for name in pair:
            if not isinstance(name, str):
                raise ValueError(f"layers must hold names of layers, got {name!r}")
    if not layers:
        raise ValueError("layers must name at least one pair, got none")


def _check_not_swapped(
    pairs: Sequence[tuple[str, str]], ours: Sequence[str], theirs: Sequence[str]
) -> None:
    """Raises ValueError where names fit if student and teacher change places, and only then."""
    fit = all(our in ours and their in theirs for our, their in pairs)
    if not fit and all(our in theirs and their in ours for our, their in pairs):
        raise ValueError(
            "student must be the first model and teacher the second, got them swapped: "
            f"{pairs[0][0]!r}, a student's layer in layers, is one of teacher, and "
            f"{pairs[0][1]!r} one of student"
        )


def _check_known(
    role: str, names: Sequence[str], known: Sequence[str], left: Mapping[str, str]
) -> None:
    """Raises ValueError where a name is of no layer that can be read."""
    for name in names:
        if name not in known:
            why = f", which {left[name]}" if name in left else near(name, known)
            raise ValueError(
                f"layers must name attention layers of the {role}, {', '.join(known)}, got "
                f"{name!r}{why}"
            )
