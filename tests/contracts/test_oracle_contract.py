"""The contract of every oracle. No network is built, no model trained."""

import json
import math
import warnings

import keras_tuner as kt
import numpy as np
import pytest
from slow_cases import slow_but
from tuner_settings import oracle_of

from tfnas.nas.objectives import ParetoObjective
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.reinforce import ReinforceSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.trial_records import Proposal
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space

SCORE, COST = kt.Objective("score", "max"), kt.Objective("cost", "min")
SMALL = {"population_size": 4, "tournament_size": 2}
ORACLES = {
    "random": (RandomSampler, {}),
    "evolution": (EvolutionSampler, {**SMALL, "children": 1}),
    "evolution, surrogate": (EvolutionSampler, {**SMALL, "children": 6}),
    "evolution, crossover": (EvolutionSampler, {**SMALL, "children": 1, "crossover": 1.0}),
    "two objectives": (EvolutionSampler, {**SMALL, "objective": [SCORE, COST]}),
    "building": (ReinforceSampler, {"warmup": 4, "batch_size": 2, "children": 6}),
    "modifying": (ReinforceSampler, {"warmup": 4, "batch_size": 2, "form": "modifying"}),
    "PPO": (ReinforceSampler, {"warmup": 4, "batch_size": 2, "clip": 0.2, "children": 1}),
    "modifying, two objectives": (
        ReinforceSampler,
        {"warmup": 4, "batch_size": 2, "form": "modifying", "objective": [SCORE, COST]},
    ),
}


def declared():
    hp = kt.HyperParameters()
    for name in "abcd":
        hp.Choice(name, [0, 1, 2, 3])
    with hp.conditional_scope("a", [1, 2]):
        hp.Float("e", 0.1, 10.0, sampling="log")
    return hp


@pytest.fixture(params=ORACLES)
def make(request, tmp_path):
    def build(folder="project", **arguments):
        kind, settings = ORACLES[request.param]
        defaults = {"objective": SCORE, "max_trials": 18, "seed": 0, "hyperparameters": declared()}
        oracle = oracle_of(kind, **{**defaults, **settings, **arguments})
        oracle.verbose = 0
        oracle._set_project_dir(str(tmp_path), folder)
        return oracle

    return build


def worth(values):
    first = sum(values[name] for name in "abc") - 0.1 * math.log(values.get("e", 1.0)) ** 2
    return {"score": first, "cost": float(values["a"] + values["d"])}


def begin(oracle):
    trial = oracle.create_trial("tuner0")
    return None if trial.status == "STOPPED" else trial


def finish(oracle, trial, metrics=None, status="COMPLETED"):
    values = trial.hyperparameters.values
    oracle.update_trial(trial.trial_id, worth(values) if metrics is None else metrics)
    trial.status = status
    oracle.end_trial(trial)
    return dict(values)


def run(oracle, trials=1000):
    """Values of the trials, in their order."""
    found = []
    while len(found) < trials and (trial := begin(oracle)) is not None:
        found.append(finish(oracle, trial))
    return found


# Of two objectives the rules below are the same.
ALIKE = pytest.mark.parametrize(
    "make",
    slow_but([*ORACLES], *(kind for kind in ORACLES if "two objectives" not in kind)),
    indirect=True,
)


@pytest.fixture(scope="module")
def searches():
    """Oracle -> the values of its whole search, which several tests compare with."""
    return {}


@pytest.fixture
def searched(request, make, searches):
    kind = request.node.callspec.params["make"]
    if kind not in searches:
        searches[kind] = run(make("whole"))
    return searches[kind]


def test_same_seed_same_search(make, searched):
    assert len(searched) == 18
    assert run(make("again")) == searched
    assert run(make("other", seed=1), 8) != searched[:8]


@pytest.mark.parametrize(
    ("stop", "within"),
    slow_but(
        [(stop, within) for stop in (1, 5, 13) for within in (False, True)],
        *((13, False), (5, True)),
    ),
)
def test_a_search_that_was_killed_goes_on_as_it_would_have(make, searched, stop, within):
    first = make("parts")
    run(first, stop)
    if within:
        begin(first)
    second = make("parts")
    second.reload()
    assert len(second.records) == stop
    run(second)
    found = [second.trials[trial_id].hyperparameters.values for trial_id in second.end_order]
    assert found == searched


def test_no_point_twice_and_a_small_space_ends(make):
    hp = kt.HyperParameters()
    for name in "abd":
        hp.Choice(name, [0, 1])
    hp.Fixed("c", 0)
    oracle = make(hyperparameters=hp, max_trials=None)
    found = [json.dumps(values, sort_keys=True) for values in run(oracle)]
    assert len(found) == len(set(found)) == 8


@ALIKE
def test_ranges_without_steps_are_searched_as_real_numbers(make):
    hp = kt.HyperParameters()
    hp.Float("x", 0.0, 1.0)
    hp.Float("rate", 1e-5, 1e-1, sampling="log")

    def loss(values):
        return 10 * abs(values["x"] - 0.345) + abs(math.log10(values["rate"]) + 3.21)

    oracle = make(hyperparameters=hp, max_trials=40)
    found = []
    while (trial := begin(oracle)) is not None:
        values = trial.hyperparameters.values
        finish(oracle, trial, {"score": -loss(values), "cost": values["x"]})
        found.append(dict(values))
    on_a_grid = {round(k / 23, 6) for k in range(24)}
    different = {round(values["x"], 6) for values in found}
    assert len(different) > 8
    assert len(different & on_a_grid) <= 2  # the ends, by reflection
    rates = np.log10([values["rate"] for values in found])
    assert np.ptp(rates) > 1  # orders of magnitude
    if oracle.sampler.screening.children > 1 and len(oracle.objectives.names) == 1:
        best = oracle.get_best_trials(1)[0].hyperparameters.values
        assert abs(best["x"] - 0.345) < 0.02  # less than half a step of 24 values


@ALIKE
def test_a_space_of_architectures_is_searched_too(make):
    space = MobileNetV2Space((8, 8, 1), 10, "microcontroller")
    hp = kt.HyperParameters()
    space.declare(hp)
    oracle = make(space=space, hyperparameters=hp, max_trials=12)
    seen = []
    while (trial := begin(oracle)) is not None:
        arch = oracle.architecture(trial)
        size = float(sum(stage.repeats * stage.expansion for stage in arch.stages))
        finish(oracle, trial, {"score": size, "cost": size})
        seen.append(arch.network)
    assert len(set(seen)) == 12


def test_failures_and_nan_end_their_trial_only(make):
    oracle = make(max_retries_per_trial=1)
    good = 0
    for number in range(12):
        trial = begin(oracle)
        values = worth(trial.hyperparameters.values)
        if number % 4 == 1:
            finish(oracle, trial, {**values, "score": math.nan})
        elif number % 4 == 3:
            finish(oracle, trial, status="FAILED")
        else:
            good += 1
            finish(oracle, trial)
    assert len(oracle.records) >= 5
    broken = [t for t in oracle.trials.values() if t.status == "FAILED"]
    assert broken
    again = make()
    again.reload()
    assert len(again.records) == len(oracle.records)
    assert [e.losses for e in again.records] == [e.losses for e in oracle.records]


def test_nan_says_so(make):
    oracle = make()
    finish(oracle, begin(oracle), {"score": math.nan, "cost": 1.0})
    [trial] = oracle.trials.values()
    assert (trial.status, trial.message) == ("FAILED", "score must be a finite number, got nan")


def test_best_trials_come_in_order(make):
    oracle = make()
    run(oracle)
    best = oracle.get_best_trials(18)
    assert len({t.trial_id for t in best}) == 18
    if isinstance(oracle.objective, ParetoObjective):
        rows = [(-e.losses[0], e.losses[1]) for e in oracle.records]
        score, cost = best[0].score, best[0].metrics.get_best_value("cost")
        assert not any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in rows)
    else:
        assert [t.score for t in best] == sorted((t.score for t in best), reverse=True)


def test_limits_rule_over_objectives(make):
    oracle = make(limits={"score": 4.0}, max_trials=24)
    run(oracle)
    within = [e.violation == 0 for e in oracle.records]
    assert any(within)
    best = oracle.get_best_trials(24)
    kept = [t.metrics.get_best_value("score") >= 4.0 for t in best]
    assert kept == sorted(kept, reverse=True)


def test_proposals_outside_of_known_limits_are_dropped(make):
    oracle = make(limits={"macs": 3.0}, max_trials=10)
    oracle.proposals.costs = lambda arch: {"macs": float(dict(arch.items)["a"] * 3)}
    assert {values["a"] for values in run(oracle)} <= {0, 1}


# ---- what one oracle shows for all


@pytest.fixture
def oracle(tmp_path):
    def build(**arguments):
        settings = {"objective": SCORE, "max_trials": 10, "seed": 0, "hyperparameters": declared()}
        found = oracle_of(RandomSampler, **{**settings, **arguments})
        found.verbose = 0
        found._set_project_dir(str(tmp_path), "project")
        return found

    return build


def crash(oracle, trial_id="00"):
    """Leaves what a segmentation fault leaves."""
    report = oracle.store.crash_report(trial_id)
    report.write_text("{}\nFatal Python error: Segmentation fault\n\nCurrent thread\n")


def test_a_trial_that_took_the_process_down_twice_is_not_tried_again(oracle):
    first = oracle()
    values = begin(first).hyperparameters.values
    crash(first)
    second = oracle()
    second.reload()
    assert begin(second).hyperparameters.values == values
    crash(second)
    third = oracle()
    third.reload()
    assert third.trials["00"].status == "FAILED"
    assert third.trials["00"].message == "the process ended in it 2 times: segmentation fault"
    assert begin(third).trial_id == "01"
    fourth = oracle()
    fourth.reload()
    assert fourth.end_order == ["00"]


def test_a_trial_that_is_interrupted_again_and_again_is_tried_again(oracle):
    values = begin(oracle()).hyperparameters.values
    for _ in range(4):  # Ctrl-C, a kill, a lost machine: nothing says that the trial was the cause
        again = oracle()
        again.reload()
        assert begin(again).hyperparameters.values == values
    crash(again)  # the first crash
    last = oracle()
    last.reload()
    assert last.store.history("00").crashes == 1
    assert begin(last).trial_id == "00"


def test_a_worker_that_is_ended_from_outside_is_no_failure(oracle):
    first = oracle()
    for _ in range(4):
        first.worker_died(begin(first).trial_id, "killed", crashed=False)
    for _ in range(4):
        first.worker_died(begin(first).trial_id, "a broken pool", crashed=None)
    first.worker_died(begin(first).trial_id, "segmentation fault", crashed=True)
    second = oracle()
    second.reload()
    assert begin(second).trial_id == "00"
    second.worker_died("00", "segmentation fault", crashed=True)
    assert (second.trials["00"].status, second.trials["00"].message) == (
        "FAILED", "segmentation fault",
    )  # fmt: skip
    trial = begin(second)
    for _ in range(5):  # it must end some time
        assert begin(second).trial_id == trial.trial_id == "01"
        second.worker_died("01", "killed", crashed=False)
    assert second.trials["01"].status == "FAILED"


def test_a_corrupt_file_fails_its_trial_with_the_reason(oracle, tmp_path):
    first = oracle()
    run(first, 4)
    path = tmp_path / "project" / "trial_02" / "trial.json"
    path.write_text(path.read_text()[:100])
    second = oracle()
    second.reload()
    assert second.trials["02"].status == "FAILED"
    assert second.trials["02"].message.startswith("its file can't be read")
    assert [e.trial_id for e in second.records] == ["00", "01", "03"]
    assert len(run(second)) == 6


def test_a_corrupt_state_is_taken_from_the_call(oracle, tmp_path):
    first = oracle()
    expected = run(first, 4)
    (tmp_path / "project" / "oracle.json").write_text('{"seed": ')
    second = oracle()
    with pytest.warns(UserWarning, match=r"oracle.json can't be read"):
        second.reload()
    assert [second.trials[i].hyperparameters.values for i in second.end_order] == expected
    assert len(run(second)) == 6


def test_a_full_disk_fails_the_trial_and_not_the_search(oracle, monkeypatch):
    from tfnas.nas import trial_store as module

    first = oracle()
    run(first, 2)
    trial = begin(first)
    write = module.write_atomically

    def full(path, text, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finish(first, trial)
    score = [str(warning.message) for warning in caught]
    assert any("trial 02 failed: its result can't be written" in text for text in score)
    monkeypatch.setattr(module, "write_atomically", write)
    assert first.trials["02"].status == "FAILED"
    assert "No space left" in first.trials["02"].message
    run(first)
    assert [e.trial_id for e in first.records] == ["00", "01", *(f"0{i}" for i in range(3, 10))]


def test_failures_one_after_the_other_end_the_search(oracle):
    first = oracle(max_consecutive_failed_trials=2)
    run(first, 2)
    finish(first, begin(first), status="FAILED")
    with pytest.raises(RuntimeError, match=r"2 trials failed one after the other, the last: no me"):
        finish(first, begin(first), status="FAILED")


def test_what_breaks_a_limit_untrained_is_no_failure_of_the_set_up(oracle):
    first = oracle(max_consecutive_failed_trials=2)
    for _ in range(5):
        trial = begin(first)
        trial.message = "infeasible: macs 9 breaks macs <= 3"
        finish(first, trial, status="FAILED")
    assert len(run(first)) == 5


def test_retries_are_counted_over_a_reload(oracle):
    first = oracle(max_retries_per_trial=2)
    finish(first, begin(first), status="INVALID")
    second = oracle(max_retries_per_trial=2)
    second.reload()
    assert second.retries("00") == 1
    finish(second, begin(second), status="INVALID")
    assert second.trials["00"].status == "INVALID"
    finish(second, begin(second), status="INVALID")
    assert second.trials["00"].status == "FAILED"


def test_what_a_trial_writes_does_not_grow_with_their_number(oracle, monkeypatch):
    from tfnas.nas import trial_store as module

    sizes = []
    write = module.write_atomically

    def noted(path, text, **how):
        sizes.append(len(text))
        return write(path, text, **how)

    first = oracle(max_trials=60)
    monkeypatch.setattr(module, "write_atomically", noted)
    run(first)
    early, late = sizes[2:20], sizes[-18:]
    assert len(sizes) == 60 * 2 + 1
    assert max(late) < 1.1 * max(early)


def test_spaces_that_grow_while_trials_run(oracle):
    hp = kt.HyperParameters()
    hp.Choice("a", [0, 1, 2, 3])
    first = oracle(hyperparameters=hp, max_trials=8)
    trial = begin(first)
    trial.hyperparameters.Choice("new", [1, 2])
    finish(first, trial, {"score": 1.0})
    assert [d.name for d in first.space.decisions] == ["a", "new"]
    assert len(first.records) == 1
    while (trial := begin(first)) is not None:
        assert set(trial.hyperparameters.values) == {"a", "new"}
        finish(first, trial, {"score": 1.0})
    assert len(first.records) == 8


def test_a_sampler_of_ones_own(oracle):
    class Descending(Sampler):
        def propose(self, search, rng):
            values = {"a": 3 - search.num_started % 4, "b": 0, "c": 0, "d": int(rng.integers(4))}
            return Proposal(search.space.from_values({**values, "e": 0.1}))

    settings = {"objective": SCORE, "max_trials": 6, "seed": 0, "hyperparameters": declared()}
    found = SpaceOracle(Descending(), **settings)
    found.verbose = 0
    found._set_project_dir(oracle()._directory, "own")
    assert [values["a"] for values in run(found)] == [3, 2, 1, 0, 3, 2]


def test_the_surrogate_sees_through_noise(tmp_path):
    settings = {"objective": SCORE, "max_trials": 60, "seed": 0, "hyperparameters": declared()}
    sampler = EvolutionSampler(population_size=8, tournament_size=4)
    oracle = SpaceOracle(sampler, **settings)
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "project")
    rng = np.random.default_rng(0)
    while (trial := begin(oracle)) is not None:
        score = worth(trial.hyperparameters.values)["score"] + rng.normal()
        finish(oracle, trial, {"score": score})
    assert 0.3 < oracle.rank_correlation() <= 1.0
    pick = worth(oracle.pick().hyperparameters.values)["score"]
    true = [worth(e.architecture.to_dict())["score"] for e in oracle.records]
    assert pick >= np.quantile(true, 0.9)
