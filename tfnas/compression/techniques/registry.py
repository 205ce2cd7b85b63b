"""The table of techniques: one row each."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from tfnas.compression.techniques.technique import Technique

# Module and class of each technique. A row here is all that a new technique needs.
_ROWS = (
    ("channel_pruning", "ChannelPruningTechnique"),
    ("low_rank_factors", "LowRankFactors"),
    ("low_rank_factors", "DenseFactors"),
    ("longer_training", "LongerTraining"),
    ("weight_pruning", "WeightPruning"),
    ("weight_clustering", "WeightClustering"),
    ("quantization_aware", "QuantizationAware"),
    ("post_training_quantization", "PostTrainingQuantization"),
)
# Field of a tfnas.Compression -> technique.
OF_FIELDS = {"low_rank": "factorize", "sparsity": "prune", "clusters": "cluster", "aware": "qat"}
_TECHNIQUES: dict[str, Technique[Any]] = {}


def register(technique: Technique[Any]) -> None:
    """Adds a technique, or replaces the one of its name.

    Args:
        technique: The technique.

    Raises:
        ValueError: Another technique has its rank.
    """
    for other in _TECHNIQUES.values():
        if other.rank == technique.rank and other.name != technique.name:
            raise ValueError(
                f"rank must be another one than that of {other.name!r}, got {technique.rank}"
            )
    _TECHNIQUES[technique.name] = technique


def unregister(name: str) -> None:
    """Removes a technique.

    Args:
        name: Its name.
    """
    _TECHNIQUES.pop(name, None)


def techniques() -> list[Technique[Any]]:
    """Returns all techniques in the order of a row."""
    return sorted(_TECHNIQUES.values(), key=lambda technique: technique.rank)


def technique(name: str) -> Technique[Any]:
    """Returns the technique of a name.

    Example:
        >>> technique("prune").summary
        'set weights of a .keras model to zero, with or without training'

    Args:
        name: Its name.

    Raises:
        ValueError: There is none.
    """
    if name not in _TECHNIQUES:
        near = difflib.get_close_matches(name, _TECHNIQUES, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        names = ", ".join(each.name for each in techniques())
        raise ValueError(f"technique must be one of {names}, got {name!r}{hint}")
    return _TECHNIQUES[name]


for _module, _name in _ROWS:
    register(getattr(importlib.import_module(f"tfnas.compression.techniques.{_module}"), _name)())
