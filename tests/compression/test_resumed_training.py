"""A technique whose training was stopped goes on from the last epoch, with the state it had."""

import functools
import importlib
import json

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.compression.fine_tune import TrainingError
from tfnas.compression.progress import Progress
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, run_row
from tfnas.compression.techniques.registry import technique
from tfnas.compression.training_checkpoint import TrainingCheckpoint
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.measure.latency_model import latency_model
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.tasks.image_classes import ImageClasses

EPOCHS = 3
CASES = {
    "prune": {"sparsity": 0.6},
    "cluster": {"clusters": 8},
    "cluster, renewed": {"clusters": 8, "renew": 3},
    "factorize": {"macs": 0.7},
    "factorize_dense": {"weights": 0.5},
    "prune_channels": {"macs": 0.6},
    "prune_channels, in steps": {"macs": 0.6, "steps": 3},
    "qat": {"freeze_epoch": 2},
}


class Stopped(BaseException):
    """Stands for a kill: nothing catches it."""


class Epochs(Progress):
    """Counts epochs, and stops the program at the end of one."""

    def __init__(self, last=None):
        self.count, self.last = 0, last

    def epoch_ended(self, number, total):
        self.count += 1
        if self.count == self.last:
            raise Stopped


@functools.cache
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(8, 3, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 3, activation="relu", name="body"),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )


def run(name, settings, folder, digits, last=None, distill=0.0):
    """Returns (the weights, the epochs that were trained, the last report)."""
    progress = Epochs(last)
    training = tfnas.FineTuneSettings(epochs=EPOCHS, batch_size=32, distill=distill)
    context = Context(
        *(network(), ImageClasses(), digits.limited(96), training, progress), checkpoints=folder
    )
    [outcome] = run_row(network(), [Step(name, technique(name).settings(**settings))], context)
    weights = [np.asarray(weight) for weight in outcome.model.weights]
    return weights, progress.count, outcome.reports[-1]


# The others differ little from one of these.
# The tests below stop factorize too.
FAST = ("prune_channels, in steps", "qat")


@pytest.mark.parametrize("case", slow_but([*CASES], *FAST))
def test_a_stopped_training_goes_on_from_its_last_epoch(case, digits, tmp_path):
    name = case.split(",")[0]
    with pytest.raises(Stopped):
        run(name, CASES[case], tmp_path, digits, last=2)
    weights, epochs, report = run(name, CASES[case], tmp_path, digits)
    assert epochs == EPOCHS - 2
    again, epochs, same = run(name, CASES[case], tmp_path, digits)
    assert epochs == 0
    for one, other in zip(weights, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert str(report) == str(same)


def test_the_teacher_and_the_optimizer_are_taken_up(digits, tmp_path):
    with pytest.raises(Stopped):
        run("factorize", {"macs": 0.7}, tmp_path, digits, last=2, distill=0.4)
    [path] = tmp_path.rglob("*.npz")
    checkpoint = TrainingCheckpoint(path)
    assert (checkpoint.epoch, checkpoint.finished) == (2, False)
    steps = [int(a) for a in checkpoint._parts["trainer"] if a.shape == () and a.dtype == np.int64]
    assert 2 * 3 in steps  # three batches an epoch: the learning rate goes on falling
    assert run("factorize", {"macs": 0.7}, tmp_path, digits, distill=0.4)[1] == EPOCHS - 2


def test_the_state_of_another_training_is_refused(digits, tmp_path):
    run("factorize", {"macs": 0.7}, tmp_path, digits)
    [path] = tmp_path.rglob("*.npz")
    [ranks] = tmp_path.rglob("ranks.json")
    kept = ranks.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"must hold the .* variables of this training"):
        run("factorize", {"macs": 0.5}, tmp_path, digits)
    kept.rename(ranks)
    content = dict(np.load(path))
    content["format"] = np.array(99)
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"training.npz must have format 1, got 99"):
        run("factorize", {"macs": 0.7}, tmp_path, digits)


class OtherEachTime:
    """A latency that each measurement finds in another layer: what is decided by it differs."""

    measured = 0

    def __init__(self, mode):
        type(self).measured += 1
        self.slow = ("stem", "body")[self.measured % 2]

    def __call__(self, model):
        sizes = {name: model.get_layer(name).filters for name in ("stem", "body")}
        return sum(size * (100 if name == self.slow else 1) for name, size in sizes.items())


def channels(report):
    """Group -> the channels that are removed."""
    return {group.name: group.removed for group in report.groups if group.removed}


@pytest.mark.slow  # ranks are kept by the same store
def test_a_latency_is_not_measured_again(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(latency_model, "LatencyModel", OtherEachTime)
    settings = {"latency": 0.7}
    other = run("prune_channels", settings, tmp_path / "other", digits)[2]
    before = OtherEachTime.measured
    with pytest.raises(Stopped):
        run("prune_channels", settings, tmp_path / "own", digits, last=2)
    _, epochs, report = run("prune_channels", settings, tmp_path / "own", digits)
    assert (epochs, OtherEachTime.measured) == (EPOCHS - 2, before + 1)
    assert channels(report) != channels(other)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_channels_are_not_scored_again(steps, digits, tmp_path, monkeypatch):
    settings = {"macs": 0.6, "criterion": "taylor", "steps": steps}
    with pytest.raises(Stopped):
        run("prune_channels", settings, tmp_path, digits, last=2)
    kept = {path: path.read_text() for path in tmp_path.rglob("channels*.json")}
    assert len(kept) == min(2, steps)

    def others(context):
        """Scores by wrong labels, as if all gradients had other signs and sizes."""
        examples = context.data.train
        return examples.x, (examples.y + 3) % 10

    monkeypatch.setattr(Context, "scoring", others)
    weights, epochs, report = run("prune_channels", settings, tmp_path, digits)
    assert epochs == EPOCHS - 2
    assert {path: path.read_text() for path in kept} == kept
    last = max(tmp_path.rglob("channels*.json"))
    assert report == ChannelPruningReport.of(json.loads(last.read_text())["value"])
    assert len(weights[0].T) == report.groups[0].after


def test_ranks_are_not_chosen_again(digits, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        run("factorize", {"macs": 0.7}, tmp_path, digits, last=2)
    module = importlib.import_module("tfnas.low_rank.factorize")
    monkeypatch.setattr(module, "_choose", lambda *_: pytest.fail("chosen again"))
    weights, epochs, report = run("factorize", {"macs": 0.7}, tmp_path, digits)
    assert epochs == EPOCHS - 2
    [path] = tmp_path.rglob("ranks.json")
    assert report == FactorizationReport.of(json.loads(path.read_text())["value"])
    assert sum(weight.size for weight in weights) < sum(w.numpy().size for w in network().weights)


@pytest.mark.slow  # ranks are kept by the same store
def test_a_sensitivity_is_not_measured_again(digits, tmp_path, monkeypatch):
    module = importlib.import_module("tfnas.pruning.sensitivity")
    calls, measure = [], module.sensitivity

    def counted(*args, **options):
        calls.append(args)
        return measure(*args, **options)

    monkeypatch.setattr(module, "sensitivity", counted)
    settings = {"sparsity": 0.6, "scope": "sensitivity"}
    with pytest.raises(Stopped):
        run("prune", settings, tmp_path, digits, last=2)
    _, epochs, _ = run("prune", settings, tmp_path, digits)
    assert (epochs, len(calls)) == (EPOCHS - 2, 1)


def test_decisions_are_kept_beside_the_trainings(digits, tmp_path):
    training = tfnas.FineTuneSettings(epochs=EPOCHS)
    context = Context(network(), ImageClasses(), digits, training)
    values = iter(range(9))
    decide = functools.partial(Context.decided, name="sizes", compute=lambda: (next(values), 0.1))
    assert [decide(context), decide(context)] == [[0, 0.1], [1, 0.1]]  # no folder
    kept = context.replace(checkpoints=tmp_path / "1_prune")
    assert [decide(kept), decide(kept)] == [[2, 0.1], [2, 0.1]]
    assert decide(context.replace(checkpoints=tmp_path / "2_cluster")) == [3, 0.1]
    path = tmp_path / "1_prune" / "sizes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": ["decision", 99]}))
    with pytest.raises(TrainingError, match=r"sizes.json holds a decision of another version"):
        decide(kept)
