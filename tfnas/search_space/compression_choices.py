"""The part of a search space that says how a network is compressed.

Its choices are decisions like those of the network: evolution mutates and crosses them,
policies learn them, and two trials that differ in them alone are two trials. Joined to a
space of networks (`MobileNetV2Space(compression=...)`) or to any keras_tuner hypermodel
(`EvolutionTuner(build, compression=...)`), where they are plain hyperparameters whose names
begin with "compression_".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.search_space.compression import (
    MODES,
    STAGED_MODES,
    TRAINED_MODES,
    WEIGHTS,
    Compression,
    check_choice,
)
from tfnas.search_space.search_space import ConditionedDecision, Decision

PREFIX = "compression_"
MODE = f"{PREFIX}mode"
_FIELDS = ("sparsity", "clusters", "low_rank", "distill")


@dataclasses.dataclass(frozen=True)
class CompressionSpace:
    """Which compressions a search may choose from. One choice fixes a decision.

    Example:
        >>> choices = CompressionSpace(("float32", "int8"), sparsity=(None, 0.5, 0.75))
        >>> [decision.name for decision in choices.decisions()][:2]
        ['compression_mode', 'compression_aware']
        >>> choices.sparsity
        (0.0, 0.5, 0.75)

    Args:
        modes: Number formats of the file; see :func:`tfnas.to_tflite`.
        aware: Whether a network is trained for its format (:func:`tfnas.quantize_aware`);
            asked only of modes with integer activations.
        stage_weights: Formats of the weights of each stage, "int8" and "int4"; asked of the
            modes "int8", "dynamic" and "weights8". Empty: the mode's. Of a space with stages.
        sparsity: Shares of each layer's weights that are zero, in [0, 1), depthwise kernels left
            alone; 0 or None: not pruned.
        clusters: Most distinct values of a kernel, from 2 on; 0 or None: not clustered.
        low_rank: Shares of the multiply-accumulates that stay when layers are factorized, in
            (0, 1]; 1 or None: not factorized.
        distill: Whether the tuner's `teacher` is learned from beside the labels.

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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _choices(field.name, getattr(self, field.name)))
        if any(self.aware) and not set(self.modes) & set(TRAINED_MODES):
            raise ValueError(
                f"aware goes with one of {', '.join(TRAINED_MODES)} among the modes, "
                f"got {', '.join(self.modes)}"
            )
        if self.stage_weights and not set(self.modes) & set(STAGED_MODES):
            raise ValueError(
                f"stage_weights go with one of {', '.join(STAGED_MODES)} among the modes, "
                f"got {', '.join(self.modes)}"
            )

    def decisions(self) -> tuple[Decision, ...]:
        """Returns the decisions but for those of stages, parents before children."""
        mode = Decision(MODE, self.modes)
        trained = tuple(mode for mode in self.modes if mode in TRAINED_MODES)
        aware = Decision(f"{PREFIX}aware", self.aware, MODE, trained)
        return (mode, aware, *(Decision(PREFIX + f, getattr(self, f)) for f in _FIELDS))

    def stage_decisions(
        self, index: int, parent: str, blocks: Sequence[str]
    ) -> tuple[Decision, ...]:
        """Returns the decision on a stage's weights, none where they are the mode's.

        Args:
            index: Number of the stage, from 1 on.
            parent: Name of the decision on its kind.
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

        Args:
            values: Values by the decisions' names; others are ignored.
            stages: Number of stages of the network, 0 where it has none.
        """
        weights = tuple(values.get(f"stage{i}_weights") or "" for i in range(1, stages + 1))
        return Compression(
            mode=values[MODE],
            aware=bool(values.get(f"{PREFIX}aware", False)) and values[MODE] in TRAINED_MODES,
            stage_weights=weights if any(weights) else (),
            **{field: values[PREFIX + field] for field in _FIELDS},
        )

    def values(self, compression: Compression | None) -> dict[str, Any]:
        """Returns the decided values of a compression.

        Raises:
            ValueError: There is none.
        """
        if compression is None:
            raise ValueError("compression must be given in this space, got None")
        decided: dict[str, Any] = {MODE: compression.mode}
        if compression.mode in TRAINED_MODES:
            decided[f"{PREFIX}aware"] = compression.aware
        decided |= {PREFIX + field: getattr(compression, field) for field in _FIELDS}
        named = enumerate(compression.stage_weights, 1)
        return decided | {f"stage{i}_weights": weights for i, weights in named if weights}

    def declare(self, hp: Any) -> None:
        """Declares the choices as keras_tuner hyperparameters.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Raises:
            ValueError: There are choices of stages, which a hypermodel doesn't have.
        """
        if self.stage_weights:
            raise ValueError(
                "stage_weights go with a space of stages such as tfnas.MobileNetV2Space, got "
                f"{', '.join(self.stage_weights)} for a hypermodel"
            )
        for decision in self.decisions():
            if decision.parent is None:
                hp.Choice(decision.name, list(decision.choices))
            elif decision.parent_values:
                with hp.conditional_scope(decision.parent, list(decision.parent_values)):
                    hp.Choice(decision.name, list(decision.choices))


def _choices(name: str, given: Any) -> tuple[Any, ...]:
    """The choices of one field, each in its own type."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"{name} must be a sequence of choices, got {given!r}")
    if not given and name != "stage_weights":
        raise ValueError(f"{name} must hold at least one choice, got none")
    known = {"modes": MODES, "stage_weights": WEIGHTS}.get(name)
    if known is None:
        given = [check_choice(name, value) for value in given]
    elif unknown := [value for value in given if value not in known]:
        raise ValueError(f"{name} must be some of {', '.join(known)}, got {unknown[0]!r}")
    if len(set(given)) < len(given):
        raise ValueError(f"{name} must hold no choice twice, got {tuple(given)}")
    return tuple(given)
