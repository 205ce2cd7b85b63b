"""Searches whose trials are compressed: the measured file holds the chosen compression."""

import collections
import dataclasses
import json
import shutil

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from tuner_settings import arranged

import tfnas
from tfnas.cli import search_command as command
from tfnas.compression import trial_compression
from tfnas.compression.techniques import registry
from tfnas.compression.techniques.longer_training import LongerTraining
from tfnas.compression.techniques.technique import TechniqueOutcome
from tfnas.compression.trial_refusals import NotCompressible
from tfnas.graph.functional import clone
from tfnas.jobs.search_job import _with_latency
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.trial_failures import INFEASIBLE
from tfnas.quantization.quantize_aware import fake_quants
from tfnas.targets import device
from tfnas.tflite.flatbuffer import read_graphs


@pytest.fixture(scope="module")
def images():
    split = tfnas.data.load("digits").limited(128)
    return split.x_train, split.y_train, split.x_val, split.y_val


def run(tuner, images, epochs=1):
    x, y, x_val, y_val = images
    tuner.search(x, y, validation_data=(x_val, y_val), epochs=epochs, batch_size=32, verbose=0)


def kernels(file):
    """Operator's layer -> kernel, as the file stores it, outputs first."""
    [graph] = read_graphs(file.content)
    operators = [op for op in graph.operators if op.name == "FULLY_CONNECTED"]
    stored = {op.layer: op.inputs[1] for op in operators}
    return {
        name: np.frombuffer(tensor.constant, tensor.dtype).reshape(tensor.shape)
        for name, tensor in stored.items()
    }


def build(hp):
    """A hypermodel that trains and converts in a moment."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1 / 16, name="rescale"),
            keras.layers.Dense(hp.Choice("units", [16, 24]), "relu", name="hidden"),
            keras.layers.Dense(10, "softmax", name="classes"),
        ]
    )
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    return model


PLAIN = tfnas.CompressionSpace(("float32", "int8"), sparsity=(0, 0.75), clusters=(0, 8))


def make_tuner(directory, **kwargs):
    settings = {"max_trials": 3, "seed": 1, "rounds": 6, "compression": PLAIN}
    return tfnas.RandomTuner(
        *(build, ["file_accuracy", "gzip_bytes"]),
        **{"directory": str(directory), "project_name": "p"},
        **arranged(RandomSampler, {**settings, **kwargs}),
    )


@pytest.fixture(scope="module")
def searched(images, tmp_path_factory):
    """A search of three trials of any hypermodel."""
    tuner = make_tuner(tmp_path_factory.mktemp("search"))
    run(tuner, images)
    return tuner


def chosen(tuner, candidate):
    trial = tuner.oracle.get_trial(candidate.trial_id)
    return tuner.hypermodel.compression(trial.hyperparameters)


def test_files_hold_what_was_chosen(searched):
    candidates = searched.candidates()
    assert len(candidates) == 3
    assert len({chosen(searched, c) for c in candidates}) > 1
    for candidate in candidates:
        compression, file = chosen(searched, candidate), candidate.artifact()
        assert candidate.measurement.mode == compression.mode
        assert file.inputs[0].dtype == compression.mode
        values = kernels(file).values()
        assert len(values) == 2
        zeros = sum(int((kernel == 0).sum()) for kernel in values)
        fraction = zeros / sum(kernel.size for kernel in values)
        assert fraction >= compression.sparsity - 0.01
        if not compression.sparsity:
            assert fraction < 0.3
        for row in (row for kernel in values for row in kernel):  # each may have its own scale
            assert len(np.unique(row)) <= (compression.clusters or row.size)
        assert candidate.metrics["gzip_bytes"] == file.gzip_size


def test_the_front_is_of_gzipped_bytes(searched):
    front = searched.pareto_front()
    rows = [(c.metrics["file_accuracy"], c.metrics["gzip_bytes"]) for c in front]
    assert rows
    for accuracy, size in rows:
        assert not any(a >= accuracy and s < size for a, s in rows)


def test_latencies_measured_again_leave_the_front_of_other_objectives(searched):
    front = searched.pareto_front()
    latency = front[0].measurement.latency
    slower = dataclasses.replace(latency, ratio=9.0, median_ms=3.0)
    again = [_with_latency(front[0], slower), *front[1:]]
    assert searched.front_of(again) == again
    assert again[0].metrics["latency_ratio"] == 9.0
    assert again[0].metrics["latency_ms"] == 3.0
    assert again[0].objectives()[1] == 9.0


def test_the_model_behind_a_file_is_kept(searched, images):
    x, _, x_val, _ = images
    for candidate in searched.candidates():
        model = searched.load_model(searched.oracle.get_trial(candidate.trial_id))
        again = tfnas.to_tflite(model, chosen(searched, candidate).mode, x)
        np.testing.assert_array_equal(again.predict(x_val), candidate.artifact().predict(x_val))


def test_a_resumed_search_keeps_its_choices_and_the_same_seed_is_the_same_search(
    searched, images, tmp_path
):
    kept = tmp_path / "kept"
    shutil.copytree(searched.project_dir, kept / "p")
    shutil.rmtree(kept / "p" / "trial_2")
    resumed = make_tuner(kept)
    before = [chosen(searched, c) for c in searched.candidates()]
    assert [chosen(resumed, c) for c in resumed.candidates()] == before[:2]
    run(resumed, images)
    assert [chosen(resumed, c) for c in resumed.candidates()] == before
    hashes = [[c.measurement.sha256 for c in t.candidates()] for t in (searched, resumed)]
    assert hashes[0] == hashes[1], "the third trial, trained again, gave the same file"


@pytest.fixture(scope="module")
def everything(images, tmp_path_factory):
    """(tuner, its one trial, how often a distiller trained): all techniques at once."""
    choices = tfnas.CompressionSpace(
        ("int8",), (True,), (), (0.5,), clusters=(16,), low_rank=(0.6,), distill=(True,)
    )
    teacher = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    uses = collections.Counter()

    class Counted(tfnas.Distiller):
        def __init__(self, own_teacher, student, **kwargs):
            super().__init__(own_teacher, student, **kwargs)
            uses["distilled"] += own_teacher is teacher

        def fit(self, *args, **kwargs):
            uses["epochs"] += kwargs["epochs"] - kwargs["initial_epoch"]
            return super().fit(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_compression, "Distiller", Counted)
        tuner = make_tuner(
            tmp_path_factory.mktemp("everything"),
            max_trials=1,
            compression=choices,
            teacher=teacher,
            limits={"ram_bytes": 64 * 1024, "flash_bytes": 64 * 1024},
            runtime_flash=1000,
            runtime_ram=500,
        )
        run(tuner, images)
    [candidate] = tuner.candidates()
    return tuner, candidate, uses


def test_all_techniques_in_one_trial(everything):
    tuner, candidate, uses = everything
    assert str(chosen(tuner, candidate)) == (
        "int8 trained, low rank 0.6, 50% zeros, 16 values, distilled"
    )
    file = candidate.artifact()
    found = kernels(file)
    assert len(found) == 3
    assert sum("_first" in name for name in found) == 1, "one of two layers has become two"
    zeros = sum(int((kernel == 0).sum()) for kernel in found.values())
    assert zeros >= 0.499 * sum(kernel.size for kernel in found.values())
    assert max(len(np.unique(kernel)) for kernel in found.values()) <= 16
    assert {tensor.dtype for tensor in (*file.inputs, *file.outputs)} == {"int8"}
    units = candidate.architecture.to_dict()["units"]
    assert 0 < candidate.measurement.macs <= 0.6 * (64 * units + units * 10)
    assert uses["distilled"] == uses["epochs"] == 5, "an epoch each, all with the teacher"


def test_flash_and_ram_are_the_files(everything):
    _, candidate, _ = everything
    file = candidate.artifact()
    assert candidate.metrics["flash_bytes"] == file.size + 1000
    assert candidate.metrics["ram_bytes"] == tfnas.planned_arena(file) + 500


def test_the_network_before_compression_is_kept_for_children(everything):
    tuner, candidate, _ = everything
    network = tuner.network(tuner.oracle.get_trial(candidate.trial_id))
    assert [layer.name for layer in network.layers][-2:] == ["hidden", "classes"]
    assert all(np.isfinite(weight).all() for weight in network.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"ram_bytes": 100}, {"flash_bytes": 1000}])
def test_a_limit_that_nothing_keeps_costs_no_training(images, tmp_path, monkeypatch, limits):
    def trained(*args, **kwargs):
        raise AssertionError("trained all the same")

    monkeypatch.setattr(keras.Model, "fit", trained)
    fast = tfnas.CompressionSpace(("float32",))
    tuner = make_tuner(tmp_path, max_trials=2, limits=limits, compression=fast)
    run(tuner, images)
    assert tuner.candidates() == []
    [[name, bound]] = limits.items()
    for trial in tuner.oracle.trials.values():
        assert trial.status == "FAILED"
        assert f"{INFEASIBLE}{name} " in trial.message
        assert f"breaks {name} <= {bound}" in trial.message


@pytest.mark.slow
def test_the_whole_job_says_which_limit_nothing_keeps(npz, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(RuntimeError, match=r"none of 1 trials .* limits \(ram_bytes <= 100\)"):
        tfnas.search(
            str(npz),
            directory=tmp_path / "out",
            preset="microcontroller",
            max_trials=1,
            limits={"ram_bytes": 100},
            compression=tfnas.CompressionSpace(("float32",)),
        )


def test_a_network_that_cannot_be_factorized_so_far_is_infeasible(images, tmp_path):
    choices = tfnas.CompressionSpace(low_rank=(0.0001,))
    tuner = make_tuner(tmp_path, max_trials=1, compression=choices)
    run(tuner, images)
    [trial] = tuner.oracle.trials.values()
    assert f"{INFEASIBLE}target_macs can't be met" in trial.message


def test_operators_without_a_tflite_micro_kernel_are_infeasible(images, tmp_path):
    choices = tfnas.CompressionSpace(("dynamic",))
    limits = {"ram_bytes": 1e6}
    tuner = make_tuner(tmp_path, max_trials=1, compression=choices, limits=limits)
    run(tuner, images)
    [trial] = tuner.oracle.trials.values()
    assert INFEASIBLE in trial.message


class Report:
    inference_ms, cycles = 0.25, collections.namedtuple("C", "total")(7)
    memory = collections.namedtuple("M", "sram on_chip_flash off_chip_flash")(90, 20, 3)
    npu_operators, cpu_operators = ("another",), ("one",)


def test_numbers_of_the_accelerator(monkeypatch):
    calls = []
    monkeypatch.setattr(device, "vela", lambda *args: calls.append(args) or Report())
    found = device.Device("ethos-u65-256").metrics("file", {*device.VELA, "macs"})
    assert calls == [("file", "ethos-u65-256")]
    assert found == {
        **{"vela_ms": 0.25, "vela_cycles": 7.0, "vela_sram_bytes": 90.0, "vela_flash_bytes": 23.0},
        "vela_cpu_operators": 1.0,
    }
    assert device.Device().metrics("file", {"macs"}) == {}


def test_a_limit_of_the_accelerator_costs_no_training(images, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "check_package", lambda: None)
    monkeypatch.setattr(device, "vela", lambda *args: Report())
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: pytest.fail("trained"))
    tuner = make_tuner(tmp_path, max_trials=1, limits={"vela_cpu_operators": 0})
    run(tuner, images)
    [trial] = tuner.oracle.trials.values()
    assert "vela_cpu_operators 1 breaks vela_cpu_operators <= 0" in trial.message


def test_a_package_that_is_missing_is_told_before_the_search(tmp_path, monkeypatch):
    def missing():
        raise ImportError("accelerators need the package ethos-u-vela")

    monkeypatch.setattr(device, "check_package", missing)
    with pytest.raises(ImportError, match="ethos-u-vela"):
        make_tuner(tmp_path, limits={"vela_ms": 1.0})
    make_tuner(tmp_path / "without", limits={"ram_bytes": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compression": "int8"}, r"compression must be a tfnas\.CompressionSpace, got 'int8'"),
        (
            {"compression": tfnas.CompressionSpace(distill=(True,))},
            r"teacher must be given if the compression may distill, got None",
        ),
        ({"teacher": "t"}, r"teacher needs a compression that may distill"),
        (
            {"compression": tfnas.CompressionSpace(distill=(True,)), "teacher": "t"},
            r"teacher must be a built Keras 3 model, got str",
        ),
        ({"accelerator": "ethos-u1"}, r"accelerator must be one of ethos-u55-32, .*, got 'ethos"),
        ({"runtime_ram": -1}, r"runtime_ram must be a whole number of bytes >= 0, got -1"),
        (
            {"limits": {"rom": 1}},
            r"limits must name objectives or metrics .*ram_bytes.*, got 'rom'",
        ),
    ],
)
def test_wrong_arguments(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_tuner(tmp_path, **settings)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"prune_chanels": (None, 0.5)},
            r"more of the compression: technique must be one of .*, got 'prune_chanels': did you "
            r"mean 'prune_channels'\?",
        ),
        (
            {"cluster": (0, 1)},
            r"more of the compression: clusters must be .*, got 1",
        ),
        (
            {"ptq": (None, 4)},
            "more of the compression: ptq 4 needs int8x4 among the modes, got int8$",
        ),
    ],
)
def test_further_techniques_are_checked_before_the_search(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        make_tuner(tmp_path, compression=tfnas.CompressionSpace(more=more))
    choices = tfnas.CompressionSpace(more=more)
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller", compression=choices)
    with pytest.raises(ValueError, match=message):
        tfnas.RandomTuner(space, directory=str(tmp_path), max_trials=1)


@pytest.mark.slow
@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_search_removes_channels_by_gradients(as_dataset, images, tmp_path):
    choices = tfnas.CompressionSpace(("float32",), more={"prune_channels": (None, 0.5)})
    tuner = make_tuner(tmp_path, max_trials=2, compression=choices, seed=0)
    x, y, *validation = images
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32) if as_dataset else x
    own = {} if as_dataset else {"y": y, "batch_size": 32}
    tuner.search(data, validation_data=tuple(validation), epochs=2, verbose=0, **own)
    found = {}
    for candidate in tuner.candidates():
        trial = tuner.oracle.get_trial(candidate.trial_id)
        hidden = tuner.load_model(trial).get_layer("hidden").units
        more = chosen(tuner, candidate).more
        found[more] = hidden / trial.hyperparameters.get("units")
    assert set(found) == {(), (("prune_channels", 0.5),)}
    assert found[()] == 1
    assert found[("prune_channels", 0.5),] <= 0.5


class Rounds(LongerTraining):
    """A technique that trains several times."""

    name, rank = "rounds", 54
    epochs_of_rounds = (1, 1)

    def run(self, model, settings, context):
        copy = clone(model)
        for number, epochs in enumerate(self.epochs_of_rounds, 1):
            context.fine_tune(copy, epochs=epochs, name=f"training {number}")
        return TechniqueOutcome(self.name, settings, copy, [])


@pytest.fixture
def rounds(monkeypatch):
    registry.register(Rounds())
    yield lambda *epochs: monkeypatch.setattr(Rounds, "epochs_of_rounds", epochs)
    registry.unregister("rounds")


def compressed(more, images, targets=None, **fields):
    """Returns the (first, last) epochs of each training of a trial of 12."""
    x, y, *_ = images
    hp, trained = keras_tuner.HyperParameters(), []

    def fit(model, callbacks, initial_epoch, epochs):
        trained.append((initial_epoch, epochs))
        few = {"epochs": epochs, "initial_epoch": initial_epoch, "callbacks": callbacks}
        return model.fit(x[:32], y[:32], verbose=0, **few)

    training = trial_compression.CompressedTraining(fit, x[:32], targets=targets)
    found = training.run(build(hp), tfnas.Compression(more=more, **fields), 12)
    if "ptq" in dict(more):
        assert (len(fake_quants(found.model)) > 0, fake_quants(found.plain)) == (True, [])
    return trained


def test_the_rounds_of_a_technique_share_its_epochs(rounds, images):
    assert compressed((("rounds", 1.0),), images) == [(0, 10), (10, 11), (11, 12)]
    rounds(1, 2)
    with pytest.raises(NotCompressible, match="epochs of rounds must be from 1 to the 1 that are"):
        compressed((("rounds", 1.0),), images)
    rounds(1)
    with pytest.raises(
        NotCompressible, match=r"rounds must train all 2 epochs of its part .* got 1"
    ):
        compressed((("rounds", 1.0),), images)


def test_quantization_without_training_takes_no_epochs(images):
    more = (("ptq", 4.0),)
    assert compressed(more, images, mode="int8x4") == [(0, 12)]
    with pytest.raises(NotCompressible, match="mode must be 'int8x4' with ptq, got 'int8'"):
        compressed(more, images, mode="int8")
    with pytest.raises(NotCompressible, match="technique 'qat' must be the last"):
        compressed(more, images, mode="int8x4", aware=True)


def test_scores_by_gradient_need_targets_of_the_network_s_loss(images):
    more = (("prune_channels", 0.5),)
    with pytest.raises(NotCompressible, match="targets must be given where a technique scores by"):
        compressed(more, images)
    assert compressed(more, images, targets=images[1][:32]) == [(0, 10), (10, 12)]


def test_a_space_has_its_own_compression_and_a_teacher_of_its_shape(tmp_path):
    choices = tfnas.CompressionSpace(distill=(False, True))
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller", compression=choices)
    settings = {"directory": str(tmp_path), "max_trials": 1}
    with pytest.raises(
        ValueError, match="compression of a search space must be an argument of the space"
    ):
        tfnas.RandomTuner(space, config=tfnas.TunerConfig(compression=choices), **settings)
    stranger = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="teacher"):
        tfnas.RandomTuner(space, config=tfnas.TunerConfig(teacher=stranger), **settings)


def test_settings_of_the_whole_job(npz, tmp_path):
    distilling = tfnas.CompressionSpace(distill=(True,))
    with pytest.raises(ValueError, match="teacher must be given if and only if a choice"):
        tfnas.search(str(npz), directory=tmp_path / "out", compression=distilling)
    with pytest.raises(ValueError, match="teacher must be given if and only if a choice"):
        tfnas.search(str(npz), directory=tmp_path / "out", teacher="t.keras")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("size_bytes=60000", ("size_bytes", 60000.0)),
        ("ram_bytes<=64KiB", ("ram_bytes", 65536.0)),
        ("flash_bytes <= 1.5MB", ("flash_bytes", 1.5e6)),
        ("file_accuracy>=0.9", ("file_accuracy", 0.9)),
        ("macs=1e6", ("macs", 1e6)),
    ],
)
def test_limits_on_the_command_line(text, limit):
    assert command._limit(text) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ram_bytes", "--limit must be metric=number"),
        ("ram_bytes=64k", "--limit must be metric=number"),
        ("ram_bytes>=64KiB", "--limit of ram_bytes must be ram_bytes<=number"),
        ("file_accuracy<=0.5", "--limit of file_accuracy must be file_accuracy>=number"),
    ],
)
def test_wrong_limits_on_the_command_line(text, message):
    with pytest.raises(ValueError, match=message):
        command._limit(text)


def test_compression_on_the_command_line():
    choices = ["modes=float32,int8", "aware=false,true", "sparsity=none,0.5", "clusters=0,16"]
    assert command._compression([*choices, "low_rank=1,0.75", "stage_weights=int8,int4"]) == (
        tfnas.CompressionSpace(
            *(("float32", "int8"), (False, True), ("int8", "int4"), (0.0, 0.5), (0, 16)),
            low_rank=(1.0, 0.75),
        )
    )
    assert command._compression([]) is None
    for wrong in (["zeal=1"], ["sparsity"], ["sparsity=0", "sparsity=0.5"]):
        with pytest.raises(ValueError, match="--compression must be field=choices, each of modes"):
            command._compression(wrong)
    with pytest.raises(ValueError, match="--compression=sparsity must hold numbers, got 'lots'"):
        command._compression(["sparsity=lots"])


@pytest.mark.slow
def test_the_whole_job_compressed(npz, tmp_path, tfnas_command):
    teacher = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
    model = teacher.build(teacher.sample(np.random.default_rng(0)))
    model.save(tmp_path / "teacher.keras")
    flags = [
        *("--preset=microcontroller", "--max_trials=2", "--epochs=1", "--final_epochs=1"),
        *("--random_candidates=1", "--objectives=file_accuracy,gzip_bytes", "--nobaseline"),
        *("--compression=modes=int8", "--compression=aware=true,false", "--inherit"),
        *("--compression=clusters=16", "--compression=low_rank=0.8"),
        *("--compression=sparsity=0.5", "--compression=distill=true", "--limit=ram_bytes<=1MiB"),
        *("--compression=stage_weights=int8,int4", "--population_size=1", "--tournament_size=1"),
        f"--teacher={tmp_path / 'teacher.keras'}",
    ]
    argv = ["search", f"--dataset={npz}", f"--directory={tmp_path / 'out'}", *flags]
    code, out, err = tfnas_command(*argv)
    assert (code, err) == (0, "")
    assert "50% zeros" in out
    assert "ram_bytes" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "best_int8.tflite" in names
    assert "best_float32.tflite" not in names
    file = tfnas.Artifact.load(tmp_path / "out" / "best_int8.tflite")
    pruned = [k for k in tfnas.file_sparsity(file).kernels if "DEPTHWISE" not in k.operator]
    assert sum(k.zeros for k in pruned) >= 0.49 * sum(k.weights for k in pruned)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "compression" in report
    assert "distilled" in report
    records = [json.loads(s) for s in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert {r["architecture"]["compression"]["sparsity"] for r in records} == {0.5}
    again = tfnas_command(*argv)
    assert again[0] == 0, "the same call finds everything"
    code, _, err = tfnas_command(*argv[:-1], "--teacher=other.keras")
    assert code == 1
