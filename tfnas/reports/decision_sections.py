"""Which decisions of a search mattered, and what the trials decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.reports.content import Section, Table, paragraphs
from tfnas.reports.parallel import parallel_of

_FEWEST = 6  # trials: of fewer, the shares are chance
_AXES = 7  # decisions that are drawn
_BINS = 3  # groups of the values of a real number
_EXPLAINED = (
    "How much of the differences between {count} trials a decision explains by itself: the share "
    "of the variance between groups of trials with the same value, less what as many groups "
    "explain by chance. Decisions that work together are counted apart, and few trials show only "
    "what matters much."
)
_DRAWN = (
    "What the trials decided, and what came of it. A line is a trial: the best is dashed, those on "
    "the front are thick."
)


def decisions_of(record: Mapping[str, Any]) -> dict[str, object]:
    """Returns the decisions of an architecture by name, each stage's apart.

    Example:
        >>> decisions_of({"width": 0.5, "stages": [{"filters": 8}, {"filters": 16}]})
        {'width': 0.5, 'stage 1 filters': 8, 'stage 2 filters': 16}

    Args:
        record: The architecture, as its `to_dict` returns it.
    """
    found: dict[str, object] = {}
    for name, value in record.items():
        if name == "stages":
            for number, stage in enumerate(value, 1):
                found |= {f"stage {number} {field}": each for field, each in stage.items()}
        elif isinstance(value, Mapping):
            found |= {field: _plain(each) for field, each in value.items()}
        else:
            found[name] = _plain(value)
    return found


def explained(decided: Sequence[object], measured: Sequence[float]) -> float | None:
    """Returns the share of the variance of a measured value that a decision explains.

    Example:
        >>> explained(["a", "a", "b", "b"], [1.0, 1.0, 2.0, 2.0])
        1.0
        >>> explained(["a", "b", "a", "b"], [1.0, 1.0, 2.0, 2.0])
        0.0

    Args:
        decided: The value of the decision in each trial; those of a real number are put into three
            groups of about the same size.
        measured: What was measured in each trial.

    Returns:
        Epsilon squared, from 0 to 1; None where each trial has a value of its own.

    References:
        Kelley, "An unbiased correlation ratio measure", PNAS, 1935.
    """
    values = np.asarray(measured, float)
    groups = _groups(decided)
    total = ((values - values.mean()) ** 2).sum()
    count, kinds = len(values), len(set(groups))
    if kinds < 2 or count <= kinds or total == 0:
        return None if count <= kinds else 0.0
    members = [values[[each == group for each in groups]] for group in sorted(set(groups), key=str)]
    within = sum(((each - each.mean()) ** 2).sum() for each in members)
    share = 1 - (within / (count - kinds)) / (total / (count - 1))
    return round(float(max(0.0, share)), 12)


def decision_sections(
    decisions: Sequence[Mapping[str, object]],
    measured: Mapping[str, Sequence[float]],
    names: Sequence[str],
    kinds: Sequence[str],
) -> list[Section]:
    """Returns the sections on the decisions of a search; nothing where there are few trials.

    Args:
        decisions: Name of a decision -> its value, for each trial.
        measured: Name of a measured value -> its value in each trial; the first is what matters.
        names: Names of the trials.
        kinds: Their kinds, keys of :data:`tfnas.reports.chart.SHAPES`.
    """
    columns = _varied(decisions)
    if len(names) < _FEWEST or not columns:
        return []
    shares = {
        name: [explained(values, each) for each in measured.values()]
        for name, values in columns.items()
    }
    ordered = sorted(columns, key=lambda name: -(shares[name][0] or 0.0))
    rows = [
        [
            name,
            *(None if share is None else 100 * share for share in shares[name]),
            _tried(columns[name]),
        ]
        for name in ordered
    ]
    headers = ["decision", *(f"explains % of {name}" for name in measured), "values tried"]
    bars, last = range(1, len(measured) + 1), len(headers) - 1
    drawn = {name: columns[name] for name in ordered[:_AXES]}
    table = Table(headers, rows, bars=bars, prose=[last])
    picture = parallel_of(_DRAWN, drawn, measured, names, kinds)
    text = _EXPLAINED.format(count=len(names))
    return [Section("Which decisions mattered", [*paragraphs(text), table, picture])]


def _varied(decisions: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Returns the values of each decision that not all trials have alike."""
    names = dict.fromkeys(name for each in decisions for name in each)
    columns = {name: [each.get(name, "none") for each in decisions] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _tried(values: Sequence[object]) -> str:
    """Returns the values that were tried, of many the ends."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > _AXES:
        return f"{min(numbers):.4g} to {max(numbers):.4g}"
    return ", ".join(sorted(set(map(str, values)), key=lambda text: (len(text), text)))


def _groups(decided: Sequence[object]) -> list[object]:
    """Returns the group of each trial: its value, or the range of its number."""
    numbers = [v for v in decided if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(decided) or len(set(numbers)) <= max(_BINS, len(decided) // 2):
        return [str(value) for value in decided]
    edges = np.quantile(numbers, np.arange(1, _BINS) / _BINS)
    return [int(group) for group in np.searchsorted(edges, numbers)]


def _plain(value: object) -> object:
    """Returns a value that can be told apart from others."""
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else value
