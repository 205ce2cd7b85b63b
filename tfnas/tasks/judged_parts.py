"""What :func:`tfnas.evaluate` computes of a file's predictions, batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.data.examples import Nested, joined
from tfnas.measure.accuracy import score
from tfnas.measure.measurement import Score
from tfnas.tasks.assessment import Assessment, Metric, checked_values, rows_of
from tfnas.tasks.target_forms import class_labels

Judge = Metric | Callable[[Any, Any], Any]  # a function takes (y_true, y_pred)
_Difference = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The quality of a file, overall and by groups, with the differences to another file.

    Example:
        >>> from tfnas import Metric
        >>> found = Evaluation(Metric("accuracy"), Score("accuracy", 0.8, 0.7, 0.9, 100),
        ...     groups={"f": Score("accuracy", 0.9, 0.8, 0.95, 50),
        ...             "m": Score("accuracy", 0.7, 0.6, 0.8, 50)})
        >>> found.worst, round(found.spread, 2)
        ('m', 0.2)

    Args:
        metric: The metric.
        score: Its value for all examples, with a 95% interval.
        difference: The file minus the baseline, paired, with its 95% interval:
            (value, low, high), not scaled; None without a baseline.
        groups: The metric of each group.
        differences: The difference of each group.
    """

    metric: Metric
    score: Score
    difference: _Difference | None = None
    groups: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    differences: Mapping[str, _Difference] = dataclasses.field(default_factory=dict)

    @property
    def worst(self) -> str | None:
        """The group with the worst value; None without groups."""
        known = {name: each.value for name, each in self.groups.items() if each.value == each.value}
        if not known:
            return None
        return (min if self.metric.higher_is_better else max)(known, key=lambda name: known[name])

    @property
    def spread(self) -> float:
        """The difference of the best and the worst group's value; 0 without groups."""
        known = [each.value for each in self.groups.values() if each.value == each.value]
        return max(known) - min(known) if known else 0.0

    def warnings(self) -> list[str]:
        """Returns the groups that lost more than the examples overall.

        A group is listed if all of the interval of its difference is a loss, and is worse than
        the interval of the difference of all examples.
        """
        if self.difference is None:
            return []
        lost = [sorted(self.metric.drop(end) for end in self.difference[1:])]
        found = []
        for name, difference in self.differences.items():
            own = sorted(self.metric.drop(end) for end in difference[1:])
            if own[0] > max(0.0, lost[0][1]):
                text = self.metric.text(self.metric.drop(difference[0]))
                found.append(f"{name} loses {text} of {self.metric.name}, more than overall")
        return found

    def __str__(self) -> str:
        lines = [str(self.score) + self._change(self.difference)]
        for name, each in self.groups.items():
            lines.append(f"  {name}: {each}{self._change(self.differences.get(name))}")
        if self.groups:
            lines.append(f"worst {self.worst}, spread {self.spread:.4f}")
        return "\n".join([*lines, *self.warnings()])

    def _change(self, difference: _Difference | None) -> str:
        """The difference in words, in the metric's unit as in all tables."""
        if difference is None:
            return ""
        scale, digits = self.metric.scale, self.metric.digits
        value, low, high = (f"{scale * each:+.{digits}f}" for each in difference)
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        return f", {value}{unit} [{low}, {high}] to the baseline"


class JudgedParts:
    """The values of metrics, batch by batch; for plain functions targets and predictions.

    Args:
        judges: Metrics, or functions of (y_true, y_pred), by name.
        by_output: Whether the names are those of outputs.
        names: Names of the outputs.
        classes: Whether the classes of the targets are the groups.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        by_output: bool,
        names: Sequence[str],
        classes: bool,
    ):
        self.judges, self.names, self.classes = judges, names, classes
        self.by_output = by_output
        self.values: dict[str, list[list[np.ndarray]]] = {name: [] for name in judges}
        self.pairs: dict[str, list[tuple[Nested, Nested]]] = {name: [] for name in judges}
        self.labels: list[np.ndarray] = []

    def add(self, y: Nested, answers: Sequence[Nested]) -> None:
        """Judges a batch.

        Args:
            y: Targets.
            answers: Predictions of each file.
        """
        for name, judge in self.judges.items():
            true, guesses = y, answers
            if self.by_output:
                true = self._targets(y)[name]
                guesses = [_by_output(each, self.names)[name] for each in answers]
            if isinstance(judge, Metric):
                self.values[name].append([_values(judge, true, each) for each in guesses])
            else:
                self.pairs[name].append((true, guesses[0]))
        if self.classes:
            self.labels.append(_classes(y, answers[0]))

    def _targets(self, y: Nested) -> Mapping[str, Nested]:
        found = y if isinstance(y, Mapping) else _by_output(y, self.names)
        if missing := sorted(set(self.judges) - set(found)):
            raise ValueError(
                f"y must hold the targets of {', '.join(missing)}, got {sorted(found)}"
            )
        return found

    def score(self, name: str) -> Score:
        """Returns a metric of the first file."""
        judge = self.judges[name]
        if isinstance(judge, Metric):
            return self._assessments(name)[0].score
        true, guesses = (joined(*column) for column in zip(*self.pairs[name], strict=True))
        return score(true, guesses, judge)

    def evaluation(self, name: str, members: Mapping[str, np.ndarray]) -> Evaluation:
        """Returns a metric of the first file with its groups and the differences to the second.

        Args:
            name: Name of the metric.
            members: Numbers of the examples of each group.
        """
        return evaluation_of(self._assessments(name), members)

    def _assessments(self, name: str) -> list[Assessment]:
        judge = self.judges[name]
        assert isinstance(judge, Metric)
        columns = zip(*self.values[name], strict=True)
        return [Assessment(judge, rows_of(column)) for column in columns]

    def members(self, groups: Sequence[Any] | np.ndarray | str | None) -> dict[str, np.ndarray]:
        """Returns the numbers of the examples of each group.

        Args:
            groups: Group of each example, "class", or None.

        Raises:
            ValueError: There is not one group for each example.
        """
        if groups is None:
            return {}
        if isinstance(groups, str) and groups != "class":
            raise ValueError(f"groups must be a group for each example or 'class', got {groups!r}")
        column = np.concatenate(self.labels) if self.classes else np.asarray(groups)
        count = sum(len(each[0]) for each in next(iter(self.values.values())))
        if column.shape != (count,):
            raise ValueError(
                f"groups must hold a group for each of {count} examples, of shape ({count},), got "
                f"{column.shape}"
            )
        return members_of(column)


def members_of(groups: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the numbers of the examples of each group.

    Example:
        >>> members_of(np.array(["f", "m", "f"]))
        {'f': array([0, 2]), 'm': array([1])}

    Args:
        groups: Group of each example, (examples,).

    Raises:
        ValueError: A group is NaN, or groups of several kinds can't be sorted.
    """
    is_nan = groups != groups  # also among objects
    if np.any(is_nan):
        raise ValueError(
            f"groups must name a group for each example, got NaN in example "
            f"{int(np.argmax(is_nan))}"
        )
    try:
        names = np.unique(groups)
    except TypeError as error:
        kinds = sorted({type(each).__name__ for each in groups.tolist()})
        raise ValueError(f"groups must be of one kind, got {', '.join(kinds)}") from error
    return {str(each): np.flatnonzero(groups == each) for each in names}


def evaluation_of(
    assessments: Sequence[Assessment], members: Mapping[str, np.ndarray]
) -> Evaluation:
    """Returns the quality of a file by groups, with the differences to another one.

    Args:
        assessments: Of the file, then perhaps of the other one, on the same examples.
        members: Numbers of the examples of each group.
    """
    own, *others = assessments
    groups = {
        group: [Assessment(each.metric, each.values[index]) for each in assessments]
        for group, index in members.items()
    }
    return Evaluation(
        own.metric,
        own.score,
        own.minus(others[0]) if others else None,
        {group: each[0].score for group, each in groups.items()},
        {group: each[0].minus(each[1]) for group, each in groups.items()} if others else {},
    )


def _values(metric: Metric, y: Nested, predictions: Nested) -> np.ndarray:
    if metric.values is None:
        raise ValueError(f"metric {metric.name!r} must have values, got None")
    found = np.asarray(metric.values(y, predictions))
    return checked_values(found, metric, y, predictions, f"values of metric {metric.name!r}")


def _classes(y: Nested, answers: Nested) -> np.ndarray:
    if isinstance(y, Mapping | list | tuple) or isinstance(answers, Mapping | list | tuple):
        raise ValueError(
            "groups must hold a group for each example of several outputs, got 'class'"
        )
    y, answers = np.asarray(y), np.asarray(answers)
    labels = class_labels(y, answers.shape if answers.ndim > 1 else (*answers.shape, 1))
    if labels.ndim != 1:
        raise ValueError(
            "groups must hold a group for each example where targets have positions, got 'class'"
        )
    return labels


def _by_output(nested: Nested, names: Sequence[str]) -> Mapping[str, Nested]:
    if isinstance(nested, Mapping):
        return nested
    items = list(nested) if isinstance(nested, list | tuple) else [nested]
    if len(items) != len(names):
        raise ValueError(f"y must hold {len(names)} targets, one per output, got {len(items)}")
    return dict(zip(names, items, strict=True))
