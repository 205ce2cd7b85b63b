"""A weight-sharing search on real trainings and files, as small as they can be."""

import json
import shutil

import keras
import numpy as np
import pytest

import tfnas
from tfnas.nas.objectives import metric_text
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.supernet.rank_correlation import RankCorrelation


class Phases(TrialCallbacks):
    def __init__(self):
        self.phases = []

    def phase_progressed(self, phase):
        self.phases.append(phase)


def make_tuner(space, directory, max_trials=1, **arguments):
    arguments = {
        "objective": ["file_accuracy", "macs"],
        "supernet": tfnas.SupernetConfig(
            epochs=3, evaluations=6, random_members=1, learning_rate=0.01
        ),
        "config": tfnas.TunerConfig(rounds=6),
        **arguments,
    }
    return tfnas.SupernetTuner(
        space, max_trials=max_trials, seed=0, directory=directory, project_name="p", **arguments
    )


def fit_arguments(split, epochs=1):
    return {
        "x": split.x_train,
        "y": split.y_train,
        "validation_data": (split.x_val, split.y_val),
        "epochs": epochs,
        "batch_size": 20,
        "verbose": 0,
    }


@pytest.fixture(scope="module")
def searched(space, split, tmp_path_factory):
    tuner = make_tuner(space, tmp_path_factory.mktemp("search"))
    tuner.trial_callbacks = Phases()
    tuner.search(**fit_arguments(split))
    return tuner


def read_lines(tuner):
    path = tuner.folder().joinpath("supernet", "scores.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_scores(tuner):
    return [line["metrics"] for line in read_lines(tuner)]


def test_trials_are_the_finalists(searched):
    scores = read_lines(searched)
    assert len(scores) == 6
    by_key = {each["architecture"]: each["metrics"] for each in scores}
    candidates = searched.candidates()
    assert [c.trial_id for c in candidates] == ["0"]
    for candidate in candidates:
        scored = by_key[candidate.architecture.key]
        assert candidate.metrics["supernet_accuracy"] == scored["file_accuracy"]
        assert candidate.metrics["size_bytes"] == len(candidate.path.read_bytes())
        assert candidate.metrics["file_accuracy"] == candidate.measurement.score.value
        assert candidate.metrics["macs"] == scored["macs"]


def test_trials_start_from_the_shared_weights(searched, space, split):
    for candidate in searched.candidates():
        arch = candidate.architecture
        path = searched.folder() / "supernet" / f"finalist_{arch.key}.npz"
        with np.load(path) as file:
            values = [file[name] for name in sorted(file.files)]
        model = space.build(arch)
        model.set_weights(values)
        outputs = np.asarray(model(split.x_val.astype("float32"), training=False))
        accuracy = (outputs.argmax(1) == split.y_val).mean()
        assert accuracy == pytest.approx(candidate.metrics["supernet_accuracy"], abs=0.02)


def test_phases_are_reported(searched):
    phases = searched.trial_callbacks.phases
    trained = [p for p in phases if p.text.startswith("training")]
    scored = [p for p in phases if p.text.startswith("scoring")]
    assert [(p.done, p.total) for p in trained] == [(n, 3) for n in range(4)]
    *scored, best = scored
    assert [(p.done, p.total) for p in scored] == [(n, 6) for n in range(7)]
    scores = read_scores(searched)
    accuracy, macs = max(s["file_accuracy"] for s in scores), min(s["macs"] for s in scores)
    assert best.note.startswith("best of 6 networks, with the shared weights: file_accuracy ")
    assert f"file_accuracy {metric_text(accuracy)}, macs {metric_text(macs)}" in best.note


def test_a_resumed_search_says_what_was_done_before(searched, space, split, tmp_path):
    """With the shared weights of a search, and half of its scores."""
    tuner = make_tuner(space, tmp_path)
    tuner.trial_callbacks = Phases()
    shutil.copytree(searched.folder() / "supernet", tuner.folder() / "supernet")
    scores = tuner.folder() / "supernet" / "scores.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    scores.write_text("".join(lines[:3]))
    arguments = fit_arguments(split)
    sharing = tuner.shared_weights((), arguments)
    report = tuner.trial_callbacks.phase_progressed
    [best] = sharing.finalists(1, report)
    found = [(p.done, p.total, p.unit, p.note) for p in tuner.trial_callbacks.phases]
    traced = "the next network takes longest, as it is traced"
    assert found == [
        (3, 3, "epoch", "all 3 epochs were done before"),
        (3, 6, "network", f"3 of 6 networks were done before; {traced}"),
        *((done, 6, "network", "") for done in (4, 5, 6)),
        (0, 0, "epoch", searched.trial_callbacks.phases[-1].note),
    ]
    assert scores.read_text() == "".join(lines)
    assert best.architecture == searched.candidates()[0].architecture


def test_a_search_that_has_ended_does_nothing_again(searched, space, split):
    again = make_tuner(space, searched.folder().parent)
    again.trial_callbacks = Phases()
    again.search(**fit_arguments(split))
    assert again.trial_callbacks.phases == []
    assert [c.metrics for c in again.candidates()] == [c.metrics for c in searched.candidates()]


def test_other_settings_of_the_shared_weights_are_refused(searched, space):
    with pytest.raises(ValueError, match="supernet of the search"):
        make_tuner(space, searched.folder().parent, supernet=tfnas.SupernetConfig(epochs=4))


def test_overwriting_removes_the_shared_weights(space, tmp_path):
    tuner = make_tuner(space, tmp_path)
    folder = tuner.folder() / "supernet"
    folder.mkdir()
    for name in ("shared_weights.npz", "scores.jsonl", "finalist_0.npz", "mine.txt"):
        folder.joinpath(name).write_text("old")
    make_tuner(space, tmp_path, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_latency_model_is_fitted_where_a_latency_is_needed(space, tmp_path):
    tuner = make_tuner(space, tmp_path, objective=None)
    assert tuner.latency_predictor.seconds == 20
    assert make_tuner(space, tmp_path / "b").latency_predictor is None
    config = tfnas.TunerConfig(latency_seconds=3)
    limits = {"latency_ratio": 0.1}
    own = make_tuner(space, tmp_path / "c", config=config, limits=limits)
    assert own.latency_predictor.seconds == 3


def build(hp):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [2, 4]))])
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": tfnas.TunerConfig(halving=2)}, "halving must not be set"),
        ({"config": tfnas.TunerConfig(inherit=True)}, "inherit must not be set"),
        ({"objective": "val_accuracy"}, "objective must be a metric that is known of shared"),
        ({"max_trials": None}, "max_trials must be the number of finalists"),
        ({"supernet": {"epochs": 3}}, "supernet must be a tfnas.SupernetConfig"),
        ({"sampler": "evolution"}, "sampler must be a tfnas"),
        ({"overwrit": True}, "did you mean 'overwrite'"),
    ],
)
def test_arguments_that_can_not_be_used(space, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_tuner(space, tmp_path, **arguments)


def test_hypermodels_without_shared_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"networks can share weights.*FunctionHyperModel"):
        make_tuner(build, tmp_path)
    compressed = tfnas.MobileNetV2Space((8, 8, 1), 10, compression=tfnas.CompressionSpace())
    with pytest.raises(ValueError, match=r"space without compression.*tfnas\.compress"):
        make_tuner(compressed, tmp_path)


def test_the_chief_of_keras_tuner_is_refused(space, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with pytest.raises(ValueError, match="executor"):
        make_tuner(space, tmp_path)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"label_weight must be in \[0, 1\], got 2"):
        tfnas.SupernetConfig(label_weight=2)
    with pytest.raises(ValueError, match="evaluations must be a whole number >= 1, got 0"):
        tfnas.SupernetConfig(evaluations=0)


@pytest.mark.slow
def test_rank_correlation_of_networks_trained_alone(searched, split):
    assert searched.measured_correlation() is None
    found = searched.rank_correlation(3, **fit_arguments(split))
    assert found.networks == 3
    assert -1 <= found.tau <= 1
    path = searched.folder() / "supernet" / "trained_alone.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 3
    assert found == RankCorrelation.of(
        *zip(*((x["shared"], x["alone"]) for x in lines), strict=True)
    )
    assert searched.measured_correlation() == found
    assert searched.rank_correlation(3, **fit_arguments(split)) == found  # nothing is trained
    with pytest.raises(ValueError, match="networks must be at least 3"):
        searched.rank_correlation(2, **fit_arguments(split))
