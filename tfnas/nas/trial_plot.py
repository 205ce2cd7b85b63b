"""What a plot of the trials of a search shows."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.drawing.pareto_plot import MEASURED, ParetoLabels, ParetoPlot
from tfnas.nas.measured_trial import MeasuredTrial, last_measured


def plot_of_trials(
    candidates: Sequence[MeasuredTrial],
    front: Sequence[MeasuredTrial],
    over: Sequence[str],
    *,
    chosen: MeasuredTrial | None = None,
    title: str = "",
    labels: ParetoLabels | None = None,
    objectives: Sequence[str] = (),
) -> ParetoPlot:
    """Returns what a plot of trials shows: their files on the validation part.

    Args:
        candidates: All trials that ended well.
        front: Those on the Pareto front; their measurements are shown instead of those of
            `candidates`.
        over: "latency", "bytes" or both: a panel for each.
        chosen: The best; None: none is marked.
        title: Title of the plot; "": the number of trials.
        labels: Words on the axes; None: those of the trials' score.
        objectives: Objectives of the search; fewer than two: the front is that of accuracy,
            latency and size.
    """
    shown = last_measured(candidates, front)
    best = {trial.trial_id for trial in front}
    names = [trial.trial_id for trial in shown]
    labels = labels or _labels(shown)
    found = [trial.measurement for trial in shown]
    memory = [each.peak_activation_bytes for each in found]
    return ParetoPlot(
        [trial.objectives() for trial in shown],
        [i for i, name in enumerate(names) if name in best],
        None if chosen is None else names.index(chosen.trial_id),
        title or f"{len(shown)} trials",
        labels,
        objectives if len(objectives) > 1 else (labels.metric, *MEASURED[1:]),
        over=over,
        names=[f"trial {name}" for name in names],
        more={
            "RAM, KiB": [None if each is None else each / 1024 for each in memory],
            "MACs": [each.macs for each in found],
        },
    )


def _labels(trials: Sequence[MeasuredTrial]) -> ParetoLabels:
    """The words of the metric that the files were judged by."""
    score = trials[0].measurement.score if trials else None
    if score is None:
        return ParetoLabels()
    return ParetoLabels(score.name, higher_is_better=trials[0].higher_is_better)
