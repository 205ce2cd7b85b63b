"""What the result of a search prints, without what it has nothing to say of."""

import dataclasses
import pathlib

import pytest
import recorded_results

from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.search_result import SearchResult


@pytest.fixture
def result(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        recorded_results.search_report, "write", lambda result, *rest: found.append(result)
    )
    recorded_results.write_report("search", tmp_path, "layer")
    [result] = found
    assert isinstance(result, SearchResult)
    return result


def test_a_result_without_a_baseline_has_no_empty_paragraph(result):
    alone = dataclasses.replace(result, rows=result.rows[:1], randoms=[])
    assert "against " in str(result)
    assert "against " not in str(alone)
    for each in (result, alone):
        assert "\n\n\n" not in str(each)
        assert "<p></p>" not in each._repr_html_()


def objectives_of(*names):
    return Objectives.of(objective_of(list(names)), {"size_bytes": 1e6})


@pytest.fixture
def of_two_trials(result):
    """Two trials with rewards; the first is the winner."""
    trials = [
        dataclasses.replace(
            trial,
            path=pathlib.Path("search", f"trial_{trial.trial_id}", "model.tflite"),
            metrics={"reward": 0.8 - 0.1 * n, "size_bytes": 20_000.0, "file_accuracy": 0.9},
        )
        for n, trial in enumerate(result.candidates[:2])
    ]
    return dataclasses.replace(
        result,
        candidates=trials,
        winner=trials[0],
        front=trials,
        objectives=objectives_of("reward"),
    )


def test_a_single_objective_has_a_best_trial_and_no_front(of_two_trials):
    text, first = str(of_two_trials), of_two_trials.target_verdict()
    best = (
        "The best of the 2 trials that ended well, on the validation part, is in search/trial_00: "
        "reward 0.8, accuracy 0.9000, latency 0.500x, 19.5 KiB; size_bytes 20,000 keeps "
        "<= 1,000,000."
    )
    assert text.startswith(f"{first}\n\n{best}\n\n")
    assert "Pareto front of the" not in text
    assert text.endswith(
        "report.html has the Pareto front of accuracy, latency and size, and all trials"
    )
    assert of_two_trials._repr_html_().count("<table>") == 1


def test_a_trial_that_measured_more_than_the_chosen_one_is_named(of_two_trials):
    other = dataclasses.replace(of_two_trials, winner=of_two_trials.candidates[1])
    assert "is in search/trial_01: reward 0.7" in other.best_trial()
    assert other.best_trial().endswith(
        " In search/trial_00 reward was 0.8, which trials like it do not confirm."
    )


def test_several_objectives_have_their_front(of_two_trials):
    several = objectives_of("file_accuracy", "size_bytes")
    text = str(dataclasses.replace(of_two_trials, objectives=several))
    assert "Pareto front of the 2 trials that ended well, on the validation part:" in text
    assert "The best of the" not in text
    assert "report.html" not in text
