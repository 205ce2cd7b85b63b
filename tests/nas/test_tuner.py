"""The tuner on real trainings, conversions and measurements, as small as they can be."""

import json
import shutil

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from tuner_settings import arranged

import tfnas
from tfnas.measure.measurement import Latency
from tfnas.nas import trial_runner
from tfnas.nas import tuner as tuner_module
from tfnas.nas.search_callbacks import TrialCallbacks

TARGET, EXPONENT = 0.02, -0.1


@pytest.fixture(scope="module")
def images():
    split = tfnas.data.load("digits").limited(200)
    return split.x_train, split.y_train, split.x_val, split.y_val


@pytest.fixture(scope="module")
def space():
    stage = tfnas.StageChoices((8, 16), (1,), 2, ("inverted_residual",), (3, 5), (1, 2))
    return tfnas.MobileNetV2Space(
        (8, 8, 1),
        10,
        "microcontroller",
        stages=[stage],
        width_multipliers=(1.0,),
        fixed=tfnas.FixedLayers(stem_filters=8, head_filters=16),
    )


def make_tuner(space, directory, **kwargs):
    settings = {"max_trials": 3, "population_size": 2, "tournament_size": 2, "seed": 0, "rounds": 6}
    settings |= {"target_latency_ratio": TARGET, "latency_exponent": EXPONENT}
    arguments = arranged(tfnas.EvolutionSampler, {**settings, **kwargs})
    return tfnas.EvolutionTuner(space, directory=str(directory), project_name="p", **arguments)


def run(tuner, images, epochs=1, **kwargs):
    x, y, x_val, y_val = images
    tuner.search(
        x, y, validation_data=(x_val, y_val), epochs=epochs, batch_size=32, verbose=0, **kwargs
    )


class Events(TrialCallbacks):
    def __init__(self):
        self.began, self.epochs, self.ended = [], [], []

    def trial_began(self, trial):
        self.began.append(trial.trial_id)

    def epoch_ended(self, trial, epoch):
        self.epochs.append((trial.trial_id, epoch))

    def trial_ended(self, trial):
        self.ended.append((trial.trial_id, str(trial.status)))


@pytest.fixture(scope="module")
def searched(space, images, tmp_path_factory):
    tuner = make_tuner(space, tmp_path_factory.mktemp("search"))
    tuner.trial_callbacks = Events()
    run(tuner, images)
    return tuner


def values(trial):
    return {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics}


def test_all_trials_completed_and_differ(searched):
    candidates = searched.candidates()
    assert [c.trial_id for c in candidates] == ["0", "1", "2"]
    assert len({c.architecture for c in candidates}) == 3
    assert searched.trial_callbacks.began == ["0", "1", "2"]
    assert searched.trial_callbacks.epochs == [(name, 0) for name in "012"]
    assert searched.trial_callbacks.ended == [(name, "COMPLETED") for name in "012"]


def test_trials_report_what_the_file_does(searched):
    for candidate in searched.candidates():
        trial = searched.oracle.get_trial(candidate.trial_id)
        metrics, measured = values(trial), candidate.measurement
        file = candidate.path.read_bytes()
        assert metrics["file_accuracy"] == measured.score.value
        assert metrics["latency_ratio"] == measured.latency.ratio
        assert metrics["latency_ms"] == measured.latency.median_ms
        assert metrics["size_bytes"] == measured.size_bytes == len(file)
        assert metrics["gzip_bytes"] == measured.gzip_bytes < len(file)
        assert metrics["macs"] == measured.macs > 0
        assert metrics["parameters"] == measured.parameters > 0
        assert measured.architecture == candidate.architecture.key
        assert measured.latency.rounds == 6
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(metrics)


def test_reward_is_the_formula_of_mnasnet(searched):
    for candidate in searched.candidates():
        metrics = values(searched.oracle.get_trial(candidate.trial_id))
        expected = metrics["file_accuracy"] * (metrics["latency_ratio"] / TARGET) ** EXPONENT
        assert metrics["reward"] == pytest.approx(expected, rel=1e-12)
        assert candidate.objective == metrics["reward"]


def test_files_are_int8_and_their_accuracy_measures_again(searched, images):
    _, _, x_val, y_val = images
    for candidate in searched.candidates():
        artifact = candidate.artifact()
        assert candidate.path.name == "model.tflite"
        assert np.dtype(artifact.inputs[0].dtype) == np.int8
        assert np.dtype(artifact.outputs[0].dtype) == np.int8
        right = artifact.predict(x_val).argmax(axis=1) == y_val
        assert right.mean() == candidate.measurement.score.value
        assert artifact.sha256 == candidate.measurement.sha256
        folder = candidate.path.parent
        kept = tfnas.Architecture.from_json((folder / "architecture.json").read_text())
        assert kept == candidate.architecture


def test_pareto_front_against_brute_force(searched):
    def beats(a, b):
        return a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2] and (a[0] > b[0] or a[1:] != b[1:])

    rows = {c.trial_id: c.objectives() for c in searched.candidates()}
    expected = {name for name, row in rows.items() if not any(beats(o, row) for o in rows.values())}
    front = searched.pareto_front()
    assert {c.trial_id for c in front} == expected
    ratios = [c.measurement.latency.ratio for c in front]
    assert ratios == sorted(ratios)


def test_results_summary_prints_the_reward(searched, capsys):
    searched.results_summary(2)
    text = capsys.readouterr().out
    best = max(searched.candidates(), key=lambda c: c.objective)
    assert 'Objective(name="reward", direction="max")' in text
    assert str(best.objective) in text


def test_best_model_is_the_one_behind_the_best_file(searched, images):
    x, _, x_val, _ = images
    best = max(searched.candidates(), key=lambda c: c.objective)
    [model] = searched.get_best_models()
    again = tfnas.to_tflite(model, "int8", x[:200])
    np.testing.assert_array_equal(again.predict(x_val), best.artifact().predict(x_val))


def test_a_reloaded_project_continues_without_repeating_trials(
    searched, space, images, tmp_path, capsys
):
    shutil.copytree(searched.project_dir, tmp_path / "p")
    tuner = make_tuner(space, tmp_path, max_trials=4, seed=5)
    tuner.trial_callbacks = Events()
    assert "Reloading Tuner" in capsys.readouterr().out
    assert tuner.remaining_trials == 1
    before = [(c.trial_id, c.architecture, c.objective) for c in searched.candidates()]
    assert [(c.trial_id, c.architecture, c.objective) for c in tuner.candidates()] == before
    run(tuner, images)
    assert tuner.trial_callbacks.began == ["3"]
    assert len({c.architecture for c in tuner.candidates()}) == 4
    run(tuner, images)
    assert tuner.trial_callbacks.began == ["3"]


HISTORY = []


def _note(epoch, logs):
    HISTORY.append(logs["val_accuracy"])


def _broken_at_the_end(epoch, rate):
    return 100.0 if epoch == 11 else rate


@pytest.mark.slow
def test_data_sets_and_val_accuracy_measure_the_best_epoch(space, images, tmp_path):
    """The last epoch wrecks the weights; what is measured is the best one's."""
    HISTORY.clear()
    x, y, x_val, y_val = images
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    val = tf.data.Dataset.from_tensor_slices((x_val, y_val)).batch(20)
    tuner = make_tuner(space, tmp_path, objective="val_accuracy", max_trials=1, mode="float32")
    callbacks = [
        keras.callbacks.LearningRateScheduler(_broken_at_the_end),
        keras.callbacks.LambdaCallback(on_epoch_end=_note),
    ]
    tuner.search(
        train, validation_data=val, epochs=12, verbose=0, shuffle=False, callbacks=callbacks
    )
    [candidate] = tuner.candidates()
    assert len(HISTORY) == 12
    best = max(HISTORY)
    assert best > HISTORY[11] + 2 / len(x_val), "otherwise this test shows nothing"
    metrics = values(tuner.oracle.get_trial("0"))
    assert candidate.objective == metrics["val_accuracy"] == pytest.approx(best)
    assert metrics["file_accuracy"] == pytest.approx(best, abs=1.01 / len(x_val))
    assert candidate.measurement.score.examples == len(x_val)


@pytest.fixture(scope="module")
def one_failed(space, images, tmp_path_factory):
    """Two trials of up to 5 epochs that stop early; the first one can't be converted."""
    tuner = make_tuner(space, tmp_path_factory.mktemp("failed"), max_trials=2, mode="float32")
    tuner.trial_callbacks = Events()
    real, calls = trial_runner.to_tflite, []

    def first_fails(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise tfnas.ConversionError("no such operator: FANCY")
        return real(*args, **kwargs)

    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=1e9, patience=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_runner, "to_tflite", first_fails)
        run(tuner, images, epochs=5, callbacks=[stop])
    assert len(calls) == 2
    return tuner


def test_a_failed_conversion_fails_its_trial_only(one_failed):
    failed, done = (one_failed.oracle.get_trial(name) for name in "01")
    assert failed.status == "FAILED"
    assert "no such operator: FANCY" in failed.message
    assert done.status == "COMPLETED"
    assert one_failed.trial_callbacks.ended == [("0", "FAILED"), ("1", "COMPLETED")]
    assert [c.trial_id for c in one_failed.candidates()] == ["1"]
    assert [c.trial_id for c in one_failed.pareto_front()] == ["1"]


def test_keras_callbacks_work(one_failed):
    """EarlyStopping with patience 1 and no progress: two of the five epochs."""
    assert one_failed.trial_callbacks.epochs == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]


def test_target_ms_becomes_a_ratio_once(space, images, tmp_path, monkeypatch):
    calls = []

    def measured(artifacts, **kwargs):
        calls.append(artifacts)
        latency = dict.fromkeys(Latency.__dataclass_fields__, 1.0) | {
            "reference_ms": 0.25 / len(calls)
        }
        return [Latency(**latency)]

    monkeypatch.setattr(tuner_module, "benchmark", measured)
    monkeypatch.setattr(kt.Tuner, "search", lambda self, *args, **kwargs: None)
    settings = {"target_latency_ratio": None, "target_latency_ms": 0.05}
    tuner = make_tuner(space, tmp_path, **settings)
    assert tuner.target_ratio is None
    run(tuner, images)
    assert tuner.target_ratio == 0.2
    run(tuner, images)
    again = make_tuner(space, tmp_path, **settings)
    assert again.target_ratio == 0.2
    run(again, images)
    assert again.target_ratio == 0.2
    assert len(calls) == 1
    assert json.loads((tmp_path / "p" / "tuner0.json").read_text())["target_ratio"] == 0.2


@pytest.mark.parametrize("arguments", [{}, {"validation_data": None}])
def test_missing_validation_data_is_an_error_before_any_training(
    space, images, tmp_path, arguments
):
    tuner = make_tuner(space, tmp_path)
    tuner.trial_callbacks = Events()
    with pytest.raises(ValueError, match=r"validation_data must be given, got None"):
        tuner.search(*images[:2], epochs=1, **arguments)
    assert tuner.trial_callbacks.began == []
    assert tuner.oracle.trials == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"target_latency_ms": 1.0},
            r"target_latency_ms and target_latency_ratio must not both be given",
        ),
        ({"target_latency_ratio": 0.0}, r"target_latency_ratio must be above 0, got 0\.0"),
        (
            {"target_latency_ratio": None, "target_latency_ms": float("nan")},
            r"target_latency_ms must be above 0, got nan",
        ),
        ({"latency_exponent": 0.1}, r"exponent must be at most 0, got 0\.1"),
        ({"mode": "int7"}, r"int7"),
        ({"objective": ["reward", "reward"]}, r"objective must hold no name twice, got reward"),
        (
            {"executor": 3},
            r"executor must be an executor of concurrent.futures or a function .*, got 3",
        ),
        ({"parallel": 0}, r"parallel must be a whole number >= 1, got 0"),
        ({"tournament_size": 3}, r"tournament_size must be from 1 to population_size \(2\), got 3"),
    ],
)
def test_argument_errors(space, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_tuner(space, tmp_path, **arguments)
    assert not (tmp_path / "p").exists()


def test_hypermodel_of_a_wrong_type(tmp_path):
    with pytest.raises(ValueError, match=r"hypermodel must be a search space .* got int"):
        make_tuner(3, tmp_path)


@pytest.mark.parametrize(
    ("objective", "direction"),
    [(None, "max"), ("file_accuracy", "max"), ("latency_ratio", "min"), ("size_bytes", "min")],
)
def test_our_own_metrics_know_their_direction(space, tmp_path, objective, direction):
    tuner = make_tuner(space, tmp_path, objective=objective)
    assert tuner.oracle.objective.name == (objective or "reward")
    assert tuner.oracle.objective.direction == direction


def test_without_a_target_the_front_of_accuracy_and_latency_is_searched_for(space, tmp_path):
    tuner = tfnas.RandomTuner(space, directory=tmp_path)
    assert tuner.oracle.objectives.names == ("file_accuracy", "latency_ratio")
    assert tuner.oracle.objectives.directions == ("max", "min")


@pytest.fixture(scope="module")
def two_objectives(space, images, tmp_path_factory):
    """Accuracy and size, with a limit on MACs, weights inherited."""
    tuner = make_tuner(
        space,
        tmp_path_factory.mktemp("two"),
        objective=["file_accuracy", "size_bytes"],
        limits={"macs": 30_000, "file_accuracy": 0.0},
        inherit=True,
        children=4,
    )
    tuner.trial_callbacks = Events()
    run(tuner, images)
    return tuner


def test_several_objectives_return_their_pareto_front(two_objectives):
    rows = [(-e.losses[0], e.losses[1]) for e in two_objectives.oracle.records]
    best = {
        row for row in rows if not any(o != row and o[0] >= row[0] and o[1] <= row[1] for o in rows)
    }
    front = two_objectives.pareto_front()
    found = {(c.measurement.score.value, float(c.measurement.size_bytes)) for c in front}
    assert found == best
    assert two_objectives.oracle.get_best_trials(1)[0].status == "COMPLETED"
    [axes] = two_objectives.plot(over=["bytes"]).axes
    labels = axes.get_legend_handles_labels()[1]
    assert f"Pareto front: {', '.join(two_objectives.oracle.objectives.names)}" in labels


def test_proposals_known_to_break_a_limit_are_not_tried(two_objectives):
    trials = two_objectives.oracle.trials.values()
    assert all(t.status == "COMPLETED" for t in trials)
    assert all(t.metrics.get_best_value("macs") <= 30_000 for t in trials)


def test_children_report_the_fraction_of_inherited_weights(two_objectives):
    oracle = two_objectives.oracle
    shares = {}
    for trial_id, trial in oracle.trials.items():
        shares[trial_id] = trial.metrics.get_best_value("inherited")
        assert (shares[trial_id] > 0) == (oracle.parent(trial_id) is not None)
    assert max(shares.values()) > 0.5


def test_limits_that_no_architecture_keeps_are_an_error(space, images, tmp_path):
    tuner = make_tuner(space, tmp_path, limits={"parameters": 1})
    tuner.trial_callbacks = Events()
    with pytest.raises(
        RuntimeError, match=r"limits parameters <= 1 must leave a feasible architecture"
    ):
        run(tuner, images)
    assert tuner.trial_callbacks.began == []


def test_a_file_that_is_too_large_costs_no_training(space, images, tmp_path, capfd):
    tuner = make_tuner(space, tmp_path, max_trials=2, limits={"size_bytes": 100})
    tuner.trial_callbacks = Events()
    run(tuner, images)
    assert tuner.trial_callbacks.epochs == []
    for trial in tuner.oracle.trials.values():
        assert trial.status == "FAILED"
        assert trial.message.startswith("infeasible: size_bytes")
    assert "Traceback" not in capfd.readouterr().err


def test_weights_overlap():
    def net(kernel, filters):
        conv = keras.layers.Conv2D(filters, kernel, padding="same", name="c", use_bias=False)
        return keras.Sequential([keras.Input((8, 8, 1)), conv])

    from tfnas.nas.weight_inheritance import inherit_weights

    parent, child = net(5, 3), net(3, 4)
    before = child.layers[0].kernel.numpy()
    assert inherit_weights(child, parent) == pytest.approx(3 / 4)
    kernel = child.layers[0].kernel.numpy()
    assert (kernel[..., :3] == parent.layers[0].kernel.numpy()[1:4, 1:4]).all()
    assert (kernel[..., 3] == before[..., 3]).all()


def test_a_trial_that_broke_a_limit_is_not_tried_near_again(tmp_path):
    def build(hp):
        units = hp.Int("units", 8, 16, step=4)
        rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
        model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
        return model

    x = np.zeros((8, 4), "float32")
    for seed in range(3):
        folder = {"directory": tmp_path, "project_name": str(seed)}
        tuner = tfnas.EvolutionTuner(
            build, "val_loss", 3, seed, limits={"parameters": 45}, **folder
        )
        tuner.oracle.verbose = 0
        x_and_y = (x, np.zeros((8, 8), "float32"))
        tuner.search(*x_and_y, validation_data=x_and_y, verbose=0)
        assert 8 in [each.hyperparameters["units"] for each in tuner.oracle.trials.values()]
