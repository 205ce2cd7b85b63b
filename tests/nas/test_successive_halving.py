"""Asynchronous successive halving: promotions, their weights, the records of the search."""

import concurrent.futures
import dataclasses

import keras
import keras_tuner as kt
import numpy as np
import pytest
from slow_cases import slow_but
from tuner_settings import arranged

from tfnas.compression.trial_compression import CompressedTraining
from tfnas.nas.algorithm_tuners import EvolutionTuner, RandomTuner, ReinforceTuner
from tfnas.nas.search_result import _halving_savings
from tfnas.nas.successive_halving import Halving
from tfnas.nas.trial_records import ranked
from tfnas.nas.tuner_config import TunerConfig
from tfnas.search_space.compression import Compression

SCORE, COST = kt.Objective("score", "max"), kt.Objective("cost", "min")
TRIALS = 28
SMALL = {"population_size": 4, "tournament_size": 2}
KINDS = {
    "random": (RandomTuner, {}),
    "evolution": (EvolutionTuner, {**SMALL, "children": 6}),
    "two objectives": (EvolutionTuner, {**SMALL, "objective": [SCORE, COST]}),
    "building": (ReinforceTuner, {"warmup": 4, "batch_size": 2, "children": 6}),
    "modifying": (ReinforceTuner, {"warmup": 4, "batch_size": 2, "form": "modifying"}),
}


def hyperparameters():
    hp = kt.HyperParameters()
    for name in "abcd":
        hp.Choice(name, [0, 1, 2, 3])
    return hp


def make(folder, kind="evolution", **arguments):
    parent, settings = KINDS[kind]

    class Tuner(parent):
        """Its trials are worth the more the longer they train; it notes them."""

        def run_trial(self, trial, *args, **kwargs):
            values = trial.hyperparameters.values
            self.ran.append((trial.trial_id, kwargs.get("initial_epoch"), kwargs.get("epochs")))
            if values["a"] == 2 and kwargs.get("initial_epoch"):
                raise OverflowError("a is two")
            first = sum(values.values()) + kwargs["epochs"]
            return {"score": float(first), "cost": float(values["a"] - values["b"])}

    defaults = {
        "objective": SCORE, "max_trials": TRIALS, "seed": 0, "halving": 3, "directory": str(folder),
        "project_name": "search", "hyperparameters": hyperparameters(),
        "max_consecutive_failed_trials": 50,
    }  # fmt: skip
    tuner = Tuner(**arranged(parent.default_sampler, {**defaults, **settings, **arguments}))
    tuner.ran = []
    tuner.oracle.verbose = 0
    return tuner


def trials_of(tuner):
    halving = tuner.oracle.halving
    return [
        (name, trial.hyperparameters.values, halving.continues.get(name), trial.score)
        for name, trial in tuner.oracle.trials.items()
    ]


def rung_of(trial):
    return int(trial.metrics.get_best_value("rung"))


# ---- the rungs


@pytest.mark.parametrize(
    ("eta", "least", "epochs", "expected"),
    [
        (3, 1, 9, [1, 3, 9]),
        (3, 1, 20, [2, 6, 20]),
        (3, 2, 9, [3, 9]),
        (2, 1, 7, [1, 3, 7]),
        (4, 5, 20, [5, 20]),
    ],
)
def test_epochs_of_the_rungs(eta, least, epochs, expected):
    halving = Halving(eta, least)
    halving.set_epochs(epochs, None)
    assert [halving.epochs_of(rung) for rung in range(halving.top_rung + 1)] == expected


def test_without_rungs_no_metrics_are_reported():
    halving = Halving()
    halving.set_epochs(5, 1)
    assert (halving.budget("0"), halving.metrics("0"), halving.promotable()) == ({}, {}, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"halving": 1}, "halving must be a whole number >= 2, got 1"),
        ({"halving": 3.5}, r"halving must be a whole number >= 2, got 3\.5"),
        ({"min_epochs": 0}, "min_epochs must be a whole number >= 1, got 0"),
        ({"halving": None, "min_epochs": 2}, "min_epochs needs halving, got 2 without it"),
        ({"executions_per_trial": 2}, "executions_per_trial must be 1 with halving"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **arguments)


def test_too_few_epochs_for_two_rungs(tmp_path):
    tuner = make(tmp_path, min_epochs=2)
    with pytest.raises(ValueError, match="epochs must be a whole number >= 6, got 5"):
        tuner.search(epochs=5)
    with pytest.raises(ValueError, match="max_trials must be at least 13 for one trial to reach 9"):
        make(tmp_path, max_trials=12).search(epochs=9)
    assert tuner.ran == []


def test_a_resumed_search_keeps_its_rungs(tmp_path):
    make(tmp_path, max_trials=14).search(epochs=9)
    again = make(tmp_path, max_trials=16)
    with pytest.raises(ValueError, match="epochs of a search with halving must stay 9, got 27"):
        again.search(epochs=27)
    again.search(epochs=9)
    assert len(again.oracle.trials) == 16
    with pytest.raises(ValueError, match=r"halving of the search in .* is 3, got 2"):
        make(tmp_path, halving=2)


# ---- promotions


@pytest.mark.parametrize("kind", slow_but([*KINDS], "random", "evolution", "building"))
def test_the_best_of_a_rung_are_promoted_and_other_trials_are_new(tmp_path, kind):
    """Each trial is held against the rule, on what had ended before it."""
    tuner = make(tmp_path, kind)
    tuner.search(epochs=9)
    oracle, halving = tuner.oracle, tuner.oracle.halving
    assert list(oracle.trials) == [f"{number:02d}" for number in range(TRIALS)]
    records = {e.trial_id: e for rung in halving._ended.values() for e in rung}
    gone, networks = set(), set()
    for number, (name, begin, epochs) in enumerate(tuner.ran):
        before = [records[f"{n:02d}"] for n in range(number) if f"{n:02d}" in records]
        expected = None
        for rung in (1, 0):
            of_rung = [e for e in before if halving.rung(e.trial_id) == rung]
            best = [of_rung[i].trial_id for i in ranked(of_rung)[: len(of_rung) // 3]]
            expected = expected or next((b for b in best if b not in gone), None)
        assert halving.continues.get(name) == expected
        rung = halving.rung(name)
        assert (begin, epochs) == [(0, 1), (1, 3), (3, 9)][rung]
        network = oracle.architecture(oracle.trials[name]).network
        assert (network in networks) == (expected is not None)
        networks.add(network)
        gone.add(expected)
    assert len(networks) == oracle.num_started < TRIALS
    assert {halving.rung(name) for name in oracle.trials} == {0, 1, 2}


def test_trials_report_their_rung_and_each_architecture_has_one_record(tmp_path):
    tuner = make(tmp_path)
    tuner.search(epochs=9)
    oracle, halving = tuner.oracle, tuner.oracle.halving
    for trial in oracle.completed():
        assert rung_of(trial) == halving.rung(trial.trial_id)
        assert trial.metrics.get_best_value("epochs") == [1, 3, 9][rung_of(trial)]
    points = [record.architecture for record in oracle.records]
    assert len(points) == len({arch.network for arch in points})
    ended = {name for name, t in oracle.trials.items() if t.status == "COMPLETED"}
    replaced = {halving.continues[name] for name in ended if name in halving.continues}
    assert {record.trial_id for record in oracle.records} == ended - replaced
    best = oracle.get_best_trials(1)[0]
    assert oracle.pick() is best
    assert best.score == max(oracle.trials[name].score for name in ended)


def test_a_failed_promotion_keeps_the_trial_below_and_is_not_repeated(tmp_path):
    tuner = make(tmp_path)
    tuner.search(epochs=9)
    oracle, halving = tuner.oracle, tuner.oracle.halving
    failed = [name for name, t in oracle.trials.items() if t.status == "FAILED"]
    assert failed
    there = {record.trial_id for record in oracle.records}
    assert all(halving.continues[name] in there for name in failed)
    assert len(halving.continues) == len(set(halving.continues.values()))


@pytest.mark.parametrize("kind", slow_but([*KINDS], "random", "evolution", "building"))
def test_same_seed_same_search_also_over_a_reload(tmp_path, kind):
    entire, other = make(tmp_path / "a", kind), make(tmp_path / "b", kind, max_trials=17)
    entire.search(epochs=9)
    other.search(epochs=9)
    parts = make(tmp_path / "b", kind)
    parts.search(epochs=9)
    assert trials_of(parts) == trials_of(entire)
    for name in ("records", "learning_records"):
        found, expected = getattr(parts.oracle, name), getattr(entire.oracle, name)
        assert [e.trial_id for e in found] == [e.trial_id for e in expected]


def test_in_parallel_no_worker_waits_and_no_trial_is_promoted_twice(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        tuner = make(tmp_path, executor=pool)
        tuner.search(epochs=9)
    oracle, halving = tuner.oracle, tuner.oracle.halving
    assert len(oracle.end_order) == TRIALS
    sources = list(halving.continues.values())
    assert len(sources) == len(set(sources)) > 4
    rungs = [rung_of(trial) for trial in oracle.trials.values() if trial.status == "COMPLETED"]
    for rung in (0, 1):
        of_rung = sum(r == rung for r in rungs)
        assert sum(halving.rung(name) == rung for name in sources) <= of_rung / 3 + 3
    again = make(tmp_path)
    assert [e.trial_id for e in again.oracle.records] == [e.trial_id for e in oracle.records]


# ---- records that the search learns from


def test_the_search_learns_from_one_rung_the_highest_with_enough_trials(tmp_path):
    tuner = make(tmp_path)
    seen = []
    choose = tuner.oracle.sampler.screening.__class__.choose

    def noted(screening, search, proposals, rng):
        nonlocal seen
        records = search.learning_records
        rungs = {tuner.oracle.halving.rung(record.trial_id) for record in records}
        assert len(rungs) <= 1
        seen += [(rung, len(records)) for rung in rungs]
        return choose(screening, search, proposals, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner.oracle.sampler.screening.__class__, "choose", noted)
        tuner.search(epochs=9)
    rungs = [rung for rung, _ in seen]
    assert rungs == sorted(rungs)
    assert set(rungs) == {0, 1}
    assert min(count for rung, count in seen if rung == 1) >= 4
    population = tuner.oracle.sampler.population
    assert {tuner.oracle.halving.rung(e.trial_id) for e in population} == {1}


def test_on_a_higher_rung_parents_are_on_that_rung():
    halving = Halving(2)
    halving.set_epochs(4, None)
    parents = {"1": "0"}
    halving.promote("2", "0")
    halving.promote("3", "1")
    halving.promote("4", "3")
    assert [halving.parent(name, parents.get) for name in "01234"] == [None, "0", None, "2", None]


# ---- weights


def build(hp):
    layers = [keras.layers.Dense(hp.Choice("units", [4, 8, 16, 32]), "relu")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return model


class Notes(kt.HyperModel):
    """Notes a network and its optimizer before and after each training."""

    def __init__(self):
        super().__init__()
        self.before, self.after = [], []

    def build(self, hp):
        return build(hp)

    def fit(self, hp, model, *args, **kwargs):
        self.before.append(state_of(model))
        history = model.fit(*args, **kwargs)
        self.after.append(state_of(model))
        return history


def state_of(model):
    moments = [np.array(v) for v in model.optimizer.variables]
    return [np.array(w) for w in model.weights], moments


def test_a_promotion_continues_from_its_own_weights_and_optimizer(tmp_path):
    notes = Notes()
    tuner = RandomTuner(
        notes, SCORE_OF_EPOCH, max_trials=3, seed=0, config=TunerConfig(halving=2),
        directory=str(tmp_path), project_name="p",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), np.arange(32) % 2
    tuner.search(x, y, epochs=2, batch_size=8, validation_data=(x, y), verbose=0)
    assert list(tuner.oracle.halving.continues) == ["2"]
    source = int(tuner.oracle.halving.continues["2"])
    for got, expected in zip(notes.before[2], notes.after[source], strict=True):
        assert len(got) == len(expected) > 0
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert int(notes.before[2][1][0]) == 4  # iterations: an epoch of four batches
    assert int(notes.after[2][1][0]) == 8


SCORE_OF_EPOCH = kt.Objective("val_loss", "min")


@pytest.mark.parametrize(
    ("epochs", "before", "expected"), slow_but([(6, 2, 4), (2, 1, 1)], (6, 2, 4))
)
def test_a_promoted_network_is_compressed_again(epochs, before, expected):
    """`expected` epochs of the network; one of the zeros after it."""
    hp = kt.HyperParameters()
    hp.Fixed("units", 8)
    model = build(hp)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    phases = []

    def fit(model, callbacks, **of_part):
        phases.append((of_part["initial_epoch"], of_part["epochs"]))
        y = np.arange(16) % 2
        return model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks, **of_part)

    compressed = CompressedTraining(fit, x).run(model, Compression(sparsity=0.5), epochs, before)
    assert phases[0][1] - phases[0][0] == expected
    assert phases == [(epochs - 1 - expected, epochs - 1), (epochs - 1, epochs)]
    assert "loss" in compressed.logs


# ---- the report


@dataclasses.dataclass
class Candidate:
    metrics: dict


def test_the_report_says_how_many_epochs_the_rungs_trained():
    [line] = _halving_savings([Candidate({"epochs": float(e)}) for e in (1, 1, 1, 3, 9)])
    assert line == (
        "Successive halving: 5 trained 1 epochs, 2 trained 3 epochs, 1 trained 9 epochs; 15 epochs "
        "together, 45 if all had had 9."
    )
    assert _halving_savings([Candidate({})]) == []
