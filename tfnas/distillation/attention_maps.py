"""Which attention layers of a student learn from which ones of its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras

from tfnas.distillation.attention_taps import attends
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
            both counted from 1: the last one from the last one.
        weight: Sum of the factors of all losses, above 0.

    Returns:
        A list of :class:`tfnas.AttentionMapTransfer`.

    Raises:
        ValueError: A model has no attention layer, or a name is of none.

    References:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", EMNLP 2020.
    """
    check_number("weight", weight, low=0.0, excluded={0.0})
    ours, theirs = attention_layers(student), attention_layers(teacher)
    for model, names, role in ((student, ours, "student"), (teacher, theirs, "teacher")):
        if not names:
            raise ValueError(
                f"{role} must have attention layers of Keras over one axis, got {model.name!r} "
                "with none: quantization-aware models have their parts"
            )
    if layers is None:
        count, most = len(ours), len(theirs)
        pairs = [(ours[i], theirs[math.ceil((i + 1) * most / count) - 1]) for i in range(count)]
    else:
        pairs = list(layers.items())
        for role, known, named in (("student", ours, 0), ("teacher", theirs, 1)):
            for pair in pairs:
                if pair[named] not in known:
                    raise ValueError(
                        f"layers must name attention layers of the {role}, {', '.join(known)}, got "
                        f"{pair[named]!r}{near(pair[named], known)}"
                    )
    if not pairs:
        raise ValueError("layers must name at least one pair, got none")
    return [AttentionMapTransfer(*pair, weight=weight / len(pairs)) for pair in pairs]


def attention_layers(model: keras.Model) -> list[str]:
    """Returns the paths of the attention layers of a model that are called once, in their order.

    Args:
        model: A functional or Sequential model.
    """
    calls = walk(model).calls
    found = [call for call in calls if attends(call)]
    return [call.name for call in found if sum(call.name == each.name for each in calls) == 1]
