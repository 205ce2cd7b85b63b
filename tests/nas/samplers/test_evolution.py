"""The evolution oracle without building or training any network."""

import json
import os

import keras_tuner as kt
import numpy as np
import pytest
from tuner_settings import oracle_of

from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space, StageChoices

COMPLETED, FAILED, STOPPED = "COMPLETED", "FAILED", "STOPPED"


class RecordingSpace(MobileNetV2Space):
    """Notes what the oracle asks of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def sample(self, rng):
        self.calls.append(("sample", None))
        return super().sample(rng)

    def mutate(self, arch, rng):
        self.calls.append(("mutate", arch))
        return super().mutate(arch, rng)


def make_space(*stages, **kwargs):
    return RecordingSpace(
        (8, 8, 1), 10, "microcontroller", stages=stages, width_multipliers=(1.0,), **kwargs
    )


def large_space():
    """36864 architectures, no decision hangs on another one."""
    stage = StageChoices(
        (8, 16, 24, 32), (1, 2, 3, 4), 1, ("inverted_residual",), (3, 5, 7), (1, 2, 3, 4)
    )
    return make_space(stage, stage)


def make_oracle(folder, space=None, direction="max", **kwargs):
    settings = {"max_trials": 40, "seed": 0, "population_size": 3, "tournament_size": 3}
    settings["children"] = 1
    objective = kt.Objective("score", direction)
    oracle = oracle_of(
        EvolutionSampler, space or large_space(), objective, **{**settings, **kwargs}
    )
    oracle.verbose = 0
    hp = oracle.get_space()
    oracle.space.declare(hp)
    oracle.update_space(hp)
    oracle._set_project_dir(str(folder), "project")
    return oracle


def step(oracle, score=1.0, status=COMPLETED):
    """Runs one trial; returns it, or None where the oracle has stopped."""
    trial = oracle.create_trial("tuner0")
    if trial.status == STOPPED:
        return None
    return finish(oracle, trial, score, status)


def finish(oracle, trial, score, status=COMPLETED):
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = status
    oracle.end_trial(trial)
    return trial


def synthetic(arch):
    """A score that the architecture alone decides, with no ties."""
    return int(arch.key, 16) / 16**16


def scored_step(oracle):
    trial = oracle.create_trial("tuner0")
    if trial.status == STOPPED:
        return None
    arch = oracle.architecture(trial)
    finish(oracle, trial, synthetic(arch))
    return arch


def distance(space, a, b):
    """Number of decisions in which two architectures differ."""
    first, second = space.values(a), space.values(b)
    return sum(first.get(name) != second.get(name) for name in {*first, *second})


def test_first_population_is_random_and_the_rest_is_mutated(tmp_path):
    oracle = make_oracle(tmp_path, population_size=4, tournament_size=2)
    kinds = []
    for number in range(12):
        oracle.space.calls.clear()
        step(oracle, float(number))
        kinds.append({kind for kind, _ in oracle.space.calls})  # again after a duplicate
    assert kinds == [{"sample"}] * 4 + [{"mutate"}] * 8


@pytest.mark.parametrize(("direction", "best"), [("max", max), ("min", min)])
def test_child_is_one_mutation_of_the_best_of_the_population(tmp_path, direction, best):
    """A tournament of the entire population always draws its best member."""
    oracle = make_oracle(tmp_path, direction=direction)
    scores = np.random.default_rng(7).permutation(20).astype(float)
    archs, mutations = [], []
    for number, score in enumerate(scores):
        oracle.space.calls.clear()
        arch = oracle.architecture(step(oracle, score))
        if number >= 3:
            window = range(number - 3, number)
            parent = archs[best(window, key=lambda i: scores[i])]
            assert oracle.space.calls[0] == ("mutate", parent)
            mutations.append(len(oracle.space.calls))  # more than one after a duplicate
            assert 1 <= distance(oracle.space, arch, parent) <= mutations[-1]
        archs.append(arch)
    assert mutations.count(1) >= 12


def test_the_oldest_dies_however_good_it_is(tmp_path):
    oracle = make_oracle(tmp_path)
    archs = [oracle.architecture(step(oracle, score)) for score in (100.0, 1.0, 2.0)]
    parents = []
    for score in range(3, 20):
        oracle.space.calls.clear()
        step(oracle, float(score))
        parents.append(oracle.space.calls[0][1])
    assert parents[0] == archs[0], "it is the best while it lives"
    assert archs[0] not in parents[1:]


def test_tournament_draws_from_the_last_population_only_and_never_keeps_its_worst(tmp_path):
    oracle = make_oracle(tmp_path, population_size=4, tournament_size=2)
    scores = np.random.default_rng(3).permutation(40).astype(float)
    archs, ranks = [], set()
    for number, score in enumerate(scores):
        oracle.space.calls.clear()
        archs.append(oracle.architecture(step(oracle, score)))
        if number >= 4:
            window = sorted(range(number - 4, number), key=lambda i: scores[i])
            ranks.add([archs[i] for i in window].index(oracle.space.calls[0][1]))
    assert ranks == {1, 2, 3}, "rank 0, the worst of four, loses against any other"


def test_a_tournament_of_one_takes_any_member(tmp_path):
    oracle = make_oracle(tmp_path, tournament_size=1)
    archs, ages = [], set()
    for number in range(40):
        oracle.space.calls.clear()
        archs.append(oracle.architecture(step(oracle, float(number))))
        if number >= 3:
            ages.add(number - archs.index(oracle.space.calls[0][1]))
    assert ages == {1, 2, 3}


@pytest.mark.filterwarnings("ignore:All-NaN axis encountered:RuntimeWarning")
@pytest.mark.parametrize(("status", "score"), [(FAILED, 1e6), (COMPLETED, float("nan"))])
def test_failed_trials_are_no_parents_and_do_not_age_the_population(tmp_path, status, score):
    oracle = make_oracle(tmp_path, max_consecutive_failed_trials=100)
    good = [oracle.architecture(step(oracle, value)) for value in (5.0, 1.0, 2.0)]
    for _ in range(5):
        oracle.space.calls.clear()
        trial = step(oracle, score, status)
        assert oracle.trials[trial.trial_id].status == FAILED
        assert oracle.space.calls[0] == ("mutate", good[0])
    assert len(oracle.completed()) == 3


def test_random_while_nothing_ended_well(tmp_path):
    oracle = make_oracle(tmp_path, max_consecutive_failed_trials=100)
    for _ in range(6):
        step(oracle, status=FAILED)
    assert [kind for kind, _ in oracle.space.calls] == ["sample"] * 6


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_same_seed_same_sequence(tmp_path, seed):
    runs = []
    for name in ("a", "b"):
        oracle = make_oracle(tmp_path / name, seed=seed)
        assert oracle.seed == seed
        runs.append([scored_step(oracle) for _ in range(15)])
    assert runs[0] == runs[1]


def test_another_seed_another_sequence(tmp_path):
    runs = {
        tuple(scored_step(make_oracle(tmp_path / f"{seed}-{i}", seed=seed)) for i in range(1))
        for seed in range(8)
    }
    assert len(runs) > 4


@pytest.mark.parametrize("stop_after", [1, 3, 8])
@pytest.mark.parametrize("in_a_trial", [False, True])
def test_a_reloaded_oracle_continues_as_an_uninterrupted_one(tmp_path, stop_after, in_a_trial):
    entire = make_oracle(tmp_path / "entire")
    expected = [scored_step(entire) for _ in range(14)]

    first = make_oracle(tmp_path / "parts")
    got = [scored_step(first) for _ in range(stop_after)]
    first.save()  # as the tuner does after every trial
    if in_a_trial:
        begun = first.architecture(first.create_trial("tuner0"))
        assert begun == expected[stop_after]
    second = make_oracle(tmp_path / "parts", seed=999)  # the kept seed counts
    second.reload()
    got += [scored_step(second) for _ in range(14 - stop_after)]
    assert got == expected
    assert second.end_order == entire.end_order


def test_no_architecture_twice(tmp_path):
    stage = StageChoices((8, 16), (1, 2), 1, ("inverted_residual",), (3, 5), (1, 2))
    oracle = make_oracle(tmp_path, make_space(stage), max_trials=16)
    archs = [scored_step(oracle) for _ in range(16)]
    assert len(set(archs)) == 16


@pytest.mark.parametrize(
    ("stages", "size"),
    [
        ([StageChoices((8,), (1,), 1, ("inverted_residual",), (3,), (1,))], 1),
        ([StageChoices((8, 16), (1,), 1, ("inverted_residual",), (3,), (1,))], 2),
        (
            [
                StageChoices((8,), (1,), 1, ("inverted_residual",), (3, 5), (1,)),
                StageChoices((8, 16), (1,), 1, ("inverted_residual", "identity"), (3,), (1,)),
            ],
            6,
        ),
    ],
)
def test_a_tiny_space_is_searched_completely_and_then_the_search_stops(tmp_path, stages, size):
    space = make_space(*stages)
    assert space.size == size
    oracle = make_oracle(tmp_path, space, population_size=2, tournament_size=1, max_trials=100)
    archs = []
    while (arch := scored_step(oracle)) is not None:
        archs.append(arch)
        assert len(archs) <= size
    assert len(archs) == len(set(archs)) == size
    assert scored_step(oracle) is None, "and it stays stopped"


def test_max_trials_ends_the_search(tmp_path):
    oracle = make_oracle(tmp_path, max_trials=5)
    assert [scored_step(oracle) is None for _ in range(6)] == [False] * 5 + [True]


def test_a_kill_while_writing_leaves_the_old_state(tmp_path, monkeypatch):
    oracle = make_oracle(tmp_path)
    for _ in range(4):
        step(oracle)
    folder = tmp_path / "project"
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert len(before) == 5  # oracle.json and four trials

    def killed(source, target):
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        oracle.save()  # nothing has changed: nothing is written
        with pytest.raises(KeyboardInterrupt, match="killed"):
            oracle.create_trial("tuner0")
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before, "nothing changed, no half file is left"
    trial = json.loads((folder / "trial_03" / "trial.json").read_text())
    kept = {"runs": 1, "ended": 3, "parent": "00"}
    assert (trial["status"], trial["tfnas"]) == (COMPLETED, kept)


def test_a_kill_right_after_the_end_of_a_trial_does_not_run_it_again(tmp_path):
    """Between Oracle.end_trial and the Tuner.save that follows it."""
    first = make_oracle(tmp_path)
    scored_step(first)
    second = make_oracle(tmp_path)
    second.reload()
    scored_step(second)
    assert second.end_order == ["00", "01"]


def test_a_kill_at_the_file_of_a_new_trial_loses_no_trial(tmp_path, monkeypatch):
    entire = make_oracle(tmp_path / "entire", max_trials=6)
    expected = [scored_step(entire) for _ in range(6)]

    first = make_oracle(tmp_path / "parts", max_trials=6)
    for _ in range(3):
        scored_step(first)
    first.save()
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == "trial.json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            first.create_trial("tuner0")
    second = make_oracle(tmp_path / "parts", max_trials=6)
    second.reload()
    while scored_step(second) is not None:
        pass
    assert [second.architecture(trial) for trial in second.completed()] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 0}, r"population_size must be a whole number >= 1, got 0"),
        ({"population_size": 2.5}, r"population_size must be a whole number >= 1, got 2\.5"),
        (
            {"population_size": 2, "tournament_size": 3},
            r"tournament_size must be from 1 to population_size \(2\), got 3",
        ),
        ({"tournament_size": 0}, r"tournament_size must be from 1 to .* got 0"),
        ({"max_trials": 0}, r"max_trials must be a whole number >= 1, got 0"),
        ({"max_trials": 1.5}, r"max_trials must be a whole number >= 1, got 1\.5"),
        ({"objective": []}, r"objective must have at least one name, got an empty list"),
        ({"limits": {"speed": 1}}, r"limits must name objectives or metrics .* got 'speed'"),
        ({"limits": {"macs": "1"}}, r"limits\['macs'\] must be a number, got '1'"),
        ({"children": 0}, r"children must be a whole number >= 1, got 0"),
        ({"crossover": 2}, r"probability must be in \[0, 1\], got 2"),
    ],
)
def test_argument_errors(arguments, message):
    objective = {"objective": kt.Objective("score", "max")}
    with pytest.raises(ValueError, match=message):
        oracle_of(EvolutionSampler, large_space(), **{**objective, **arguments})
