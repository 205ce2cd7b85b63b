"""Trials whose files compute in patches, where they need them to keep the limit of memory."""

import dataclasses

import keras
import keras_tuner as kt
import numpy as np
import pytest

import tfnas
from tfnas.measure.profile import profile
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.trial_failures import InfeasibleTrialError
from tfnas.nas.trial_patches import TrialPatches
from tfnas.nas.trial_runner import TrialRunner, TrialTask
from tfnas.search_space.hyperparameters import HyperParameterValues

RAM = 56 * 1024  # the network needs 76 KiB without patches
X = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
Y = np.arange(8) % 2
FIT = {"epochs": 1, "batch_size": 8, "verbose": 0, "validation_data": (X, Y), "callbacks": []}
ARCH = HyperParameterValues((("filters", 16),))


class Hyper(kt.HyperModel):
    def build(self, hp):
        conv = keras.layers.Conv2D
        body = [
            conv(16, 3, padding="same", activation="relu", name="wide"),
            conv(8, 5, strides=4, padding="same", name="narrow"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(2, "softmax", name="classes"),
        ]
        model = keras.Sequential([keras.Input((32, 32, 3), name="image"), *body], name="network")
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        return model


def run(folder, ratio, device=None, **limits):
    objectives = Objectives.of(
        objective_of(["file_accuracy", "macs"]), {"ram_bytes": RAM, **limits}
    )
    config = tfnas.TunerConfig(mode="float32", rounds=6, patch_macs_ratio=ratio)
    runner = TrialRunner(Hyper(), objectives, config, device or tfnas.Device())
    hp = kt.HyperParameters()
    task = TrialTask(hp, ARCH, folder, str(folder / "w.weights.h5"), 0)
    model = Hyper().build(hp)
    return runner, model, runner.run(task, model, (X, Y), FIT)


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    return folder, *run(folder, 1.5)


def test_a_network_that_fits_in_patches_is_a_trial(patched):
    folder, _, model, metrics = patched
    file = tfnas.Artifact.load(folder / "model.tflite")
    assert tfnas.planned_arena(file) < metrics["ram_bytes"] <= RAM  # with the patches' records
    assert metrics["patches"] > 1
    plain = profile(model).macs
    assert plain < metrics["macs"] <= 1.5 * plain
    measured = tfnas.Measurement.from_json((folder / "measurement.json").read_text())
    assert measured.macs == metrics["macs"]
    assert measured.provenance["patches"].endswith("patches of narrow")


def test_the_file_of_the_rebuilt_network_has_the_same_patches(patched):
    folder, runner, model, _ = patched
    trial = tfnas.Artifact.load(folder / "model.tflite")
    again, report = runner.patches.apply(tfnas.to_tflite(model))
    by_hand, _ = tfnas.patch_based(tfnas.to_tflite(model), RAM, count_records=True)
    names = [[op.name for op in file.graph.operators] for file in (trial, again, by_hand)]
    assert names[0] == names[1] == names[2]
    assert report.patch_rows * report.patch_columns == patched[-1]["patches"]
    expected = tfnas.to_tflite(model).predict(X, reference=True)
    np.testing.assert_allclose(trial.predict(X, reference=True), expected, atol=1e-6)


def test_without_patches_the_limit_costs_no_training(tmp_path):
    with pytest.raises(InfeasibleTrialError, match="ram_bytes 77824 breaks ram_bytes"):
        run(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_what_patches_cost_counts_for_other_limits(tmp_path, patched):
    with pytest.raises(InfeasibleTrialError, match=r"macs .* breaks macs"):
        run(tmp_path, 1.5, macs=profile(patched[2]).macs)


def test_a_file_that_no_patches_bring_below_the_limit_is_as_it_was(patched):
    model = patched[2]
    file = tfnas.to_tflite(model)
    assert TrialPatches(10_000, 1.5).apply(file) == (file, None)
    assert TrialPatches(200_000, 1.5).apply(file) == (file, None)
    assert TrialPatches(200_000, 1.5).metrics(None) == {"patches": 1.0}
    assert TrialPatches().metrics(None) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {"size_bytes": 9000}}, "patch_macs_ratio needs a limit of ram_bytes"),
        ({"patch_macs_ratio": 0.5}, r"patch_macs_ratio must be .* got 0.5"),
        ({"latency_seconds": 5.0}, "patch_macs_ratio must be None with latency_seconds"),
        ({"algorithm": "supernet"}, "patch_macs_ratio must not be given with the algorithm"),
    ],
)
def test_settings_that_patches_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(
            "digits", **{"patch_macs_ratio": 1.5, "limits": {"ram_bytes": RAM}, **settings}
        )


def test_tuners_refuse_the_same(tmp_path):
    space = tfnas.MobileNetV2Space((8, 8, 1), 2, "microcontroller")
    where = {"directory": str(tmp_path), "project_name": "refused"}
    config = tfnas.TunerConfig(patch_macs_ratio=1.5)
    with pytest.raises(ValueError, match="patch_macs_ratio needs a limit of ram_bytes"):
        tfnas.EvolutionTuner(space, config=config, **where)
    with pytest.raises(ValueError, match="patch_macs_ratio must be None with shared weights"):
        tfnas.SupernetTuner(
            space, ["file_accuracy"], limits={"ram_bytes": RAM}, config=config, **where
        )
    with pytest.raises(ValueError, match="patch_macs_ratio must be None with predicted latencies"):
        dataclasses.replace(config, latency_seconds=5.0)
