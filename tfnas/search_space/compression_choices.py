"""Search spaces of compressions.

A compression adds decisions to those of the network, which are mutated, crossed over and learned in
the same way. It is added to a space of networks (`MobileNetV2Space(compression=...)`) or to any
keras_tuner hypermodel (`TunerConfig(compression=...)`), as hyperparameters whose names begin with
"compression_".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.search_space.compression import (
    MODES,
    STAGED_MODES,
    TRAINED_MODES,
    WEIGHTS,
    Compression,
    check_choice,
)
from tfnas.search_space.search_space import ConditionedDecision, Decision

if TYPE_CHECKING:
    import keras_tuner

PREFIX = "compression_"
MODE = f"{PREFIX}mode"
_FIELDS = ("sparsity", "clusters", "low_rank", "distill")


@dataclasses.dataclass(frozen=True)
class CompressionSpace:
    """The choices of each field of a compression; a field with one choice is fixed.

    Example:
        >>> choices = CompressionSpace(("float32", "int8"), sparsity=(None, 0.5, 0.75))
        >>> [decision.name for decision in choices.decisions()][:2]
        ['compression_mode', 'compression_aware']
        >>> choices.sparsity
        (0.0, 0.5, 0.75)

    Args:
        modes: Number formats of the file; see :func:`tfnas.to_tflite`.
        aware: Whether quantization-aware training is used (:func:`tfnas.quantize_aware`); applies
            only to modes with integer activations.
        stage_weights: Formats of the weights of each stage, "int8" and "int4"; applies only to
            the modes "int8", "dynamic" and "weights8", and to spaces with stages. Empty: the
            format of the mode.
        sparsity: Fractions of each layer's weights that are set to zero, in [0, 1), except in
            depthwise kernels; 0 or None: no pruning.
        clusters: Largest numbers of distinct values of a kernel, at least 2; 0 or None: no
            clustering.
        low_rank: Fractions of the multiply-accumulates that are left after low-rank factorization,
            in (0, 1]; 1 or None: no factorization.
        distill: Whether the tuner's `teacher` is distilled.
        more: Amounts of further techniques by name, such as `{"round_dense": (0.01, 0.1)}`; None
            among the amounts: the technique is not used. See
            :mod:`tfnas.compression.techniques.registry`.

    Raises:
        ValueError: A choice is outside its rule; the message names the argument.
    """

    modes: tuple[str, ...] = ("int8",)
    aware: tuple[bool, ...] = (False,)
    stage_weights: tuple[str, ...] = ()
    sparsity: tuple[float, ...] = (0.0,)
    clusters: tuple[int, ...] = (0,)
    low_rank: tuple[float, ...] = (1.0,)
    distill: tuple[bool, ...] = (False,)
    more: Any = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "more":
                choices = _choices(field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, choices)
        object.__setattr__(self, "more", _amounts(dict(self.more)))
        if any(self.aware) and not set(self.modes) & set(TRAINED_MODES):
            raise ValueError(
                f"aware needs one of {', '.join(TRAINED_MODES)} among the modes, "
                f"got {', '.join(self.modes)}"
            )
        if self.stage_weights and not set(self.modes) & set(STAGED_MODES):
            raise ValueError(
                f"stage_weights need one of {', '.join(STAGED_MODES)} among the modes, "
                f"got {', '.join(self.modes)}"
            )

    def decisions(self) -> tuple[Decision, ...]:
        """Returns the decisions except those of stages, parents before children.

        Example:
            >>> mode, aware, sparsity, *_ = CompressionSpace(sparsity=(0, 0.5)).decisions()
            >>> sparsity.name, sparsity.choices
            ('compression_sparsity', (0.0, 0.5))
        """
        mode = Decision(MODE, self.modes)
        trained = tuple(mode for mode in self.modes if mode in TRAINED_MODES)
        aware = Decision(f"{PREFIX}aware", self.aware, MODE, trained)
        more = [Decision(PREFIX + name, amounts) for name, amounts in self.more]
        return (mode, aware, *(Decision(PREFIX + f, getattr(self, f)) for f in _FIELDS), *more)

    def stage_decisions(
        self, index: int, parent: str, blocks: Sequence[str]
    ) -> tuple[Decision, ...]:
        """Returns the decisions on a stage's weights; none if they have the mode's format.

        Example:
            >>> choices = CompressionSpace(stage_weights=("int8", "int4"))
            >>> [d.name for d in choices.stage_decisions(1, "stage1_kind", ["inverted_residual"])]
            ['stage1_weights']

        Args:
            index: Number of the stage, from 1.
            parent: Name of the decision on the kind of the stage.
            blocks: Kinds that have weights.
        """
        if not self.stage_weights:
            return ()
        modes = tuple(mode for mode in self.modes if mode in STAGED_MODES)
        conditions = ((MODE, modes), (parent, tuple(blocks)))
        name = f"stage{index}_weights"
        return (ConditionedDecision(name, self.stage_weights, parent, tuple(blocks), conditions),)

    def of(self, values: Mapping[str, Any], stages: int = 0) -> Compression:
        """Returns the compression that decided values describe.

        Example:
            >>> choices = CompressionSpace(sparsity=(0, 0.5))
            >>> values = {d.name: d.choices[-1] for d in choices.decisions()}
            >>> print(choices.of(values))
            int8, 50% zeros

        Args:
            values: Values by the names of decisions; others are ignored.
            stages: Number of stages of the network.
        """
        weights = tuple(values.get(f"stage{i}_weights") or "" for i in range(1, stages + 1))
        return Compression(
            mode=values[MODE],
            aware=bool(values.get(f"{PREFIX}aware", False)) and values[MODE] in TRAINED_MODES,
            stage_weights=weights if any(weights) else (),
            more=tuple(
                (name, values[PREFIX + name]) for name, _ in self.more if values[PREFIX + name]
            ),
            **{field: values[PREFIX + field] for field in _FIELDS},
        )

    def _more(self, values: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
        amounts = {name: values[PREFIX + name] for name, _ in self.more}
        return tuple((name, amount) for name, amount in amounts.items() if amount)

    def values(self, compression: Compression | None) -> dict[str, Any]:
        """Returns the values of the decisions of a compression.

        Example:
            >>> choices = CompressionSpace(sparsity=(0, 0.5))
            >>> choices.values(Compression("int8", sparsity=0.5))["compression_sparsity"]
            0.5

        Args:
            compression: The compression.

        Raises:
            ValueError: It is None.
        """
        if compression is None:
            raise ValueError("compression of an architecture of this space must be set, got None")
        decided: dict[str, Any] = {MODE: compression.mode}
        if compression.mode in TRAINED_MODES:
            decided[f"{PREFIX}aware"] = compression.aware
        decided |= {PREFIX + field: getattr(compression, field) for field in _FIELDS}
        amounts = dict(compression.more)
        decided |= {PREFIX + name: amounts.get(name, 0.0) for name, _ in self.more}
        named = enumerate(compression.stage_weights, 1)
        return decided | {f"stage{i}_weights": weights for i, weights in named if weights}

    def declare(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the choices as keras_tuner hyperparameters.

        Example:
            >>> import keras_tuner
            >>> hp = keras_tuner.HyperParameters()
            >>> CompressionSpace(clusters=(None, 16)).declare(hp)
            >>> hp.values["compression_clusters"]
            0

        Args:
            hp: `keras_tuner.HyperParameters`.

        Raises:
            ValueError: There are choices for stages, which a hypermodel doesn't have.
        """
        if self.stage_weights:
            raise ValueError(
                "stage_weights need a space with stages such as tfnas.MobileNetV2Space, got "
                f"{', '.join(self.stage_weights)} for a hypermodel"
            )
        for decision in self.decisions():
            if decision.parent is None:
                hp.Choice(decision.name, list(decision.choices))
            elif decision.parent_values:
                with hp.conditional_scope(decision.parent, list(decision.parent_values)):
                    hp.Choice(decision.name, list(decision.choices))


def _amounts(more: Mapping[str, Any]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """The amounts of further techniques; 0: the technique is not used."""
    found = []
    for name, amounts in more.items():
        if isinstance(amounts, str) or not isinstance(amounts, Sequence) or not amounts:
            raise ValueError(f"more must hold a sequence of amounts of {name!r}, got {amounts!r}")
        values = tuple(float(amount or 0) for amount in amounts)
        if len(set(values)) < len(values):
            raise ValueError(f"more must hold no amount of {name!r} twice, got {amounts!r}")
        found.append((name, values))
    return tuple(found)


def _choices(name: str, choices: Any) -> tuple[Any, ...]:
    """The choices of a field, each in the type of the field."""
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise ValueError(f"{name} must be a sequence of choices, got {choices!r}")
    if not choices and name != "stage_weights":
        raise ValueError(f"{name} must hold at least one choice, got none")
    known = {"modes": MODES, "stage_weights": WEIGHTS}.get(name)
    if known is None:
        choices = [check_choice(name, value) for value in choices]
    elif unknown := [value for value in choices if value not in known]:
        raise ValueError(f"{name} must be some of {', '.join(known)}, got {unknown[0]!r}")
    if len(set(choices)) < len(choices):
        raise ValueError(f"{name} must hold no choice twice, got {tuple(choices)}")
    return tuple(choices)
