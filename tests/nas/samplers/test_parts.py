"""Parts that are passed to a sampler, and what stands in for those that are not."""

import json

import keras_tuner as kt
import numpy as np
import pytest

import tfnas
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.policy_forms import BuildingForm
from tfnas.nas.samplers.population import (
    AgingSurvival,
    BestSelection,
    EveryoneSurvival,
    ParetoSurvival,
    TournamentSelection,
)
from tfnas.nas.samplers.variation import DecisionMutation, GroupCrossover
from tfnas.nas.surrogate.screening import (
    FirstProposal,
    ImprovementScreening,
    Screening,
    WeightedScreening,
    default_screening,
)
from tfnas.nas.trial_records import TrialRecord

SCORE, COST = kt.Objective("score", "max"), kt.Objective("cost", "min")
ONE, TWO = (Objectives.of(objective_of(kinds)) for kinds in ([SCORE], [SCORE, COST]))


def hyperparameters():
    hp = kt.HyperParameters()
    for name in "abc":
        hp.Choice(name, [0, 1, 2, 3])
    return hp


def searched(folder, sampler, trials=16):
    oracle = SpaceOracle(
        sampler, objective=SCORE, max_trials=trials, seed=0, hyperparameters=hyperparameters()
    )
    oracle.verbose = 0
    oracle._set_project_dir(str(folder), "search")
    found = []
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        values = trial.hyperparameters.values
        oracle.update_trial(trial.trial_id, {"score": float(sum(values.values()))})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        found.append(dict(values))
    return oracle, found


class Notes:
    """A part that notes its calls, and does as another one does."""

    probability = 1.0

    def __init__(self, part):
        self.part, self.calls = part, []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self.part, name)

        def noting(*args, **kwargs):
            self.calls.append(name)
            return method(*args, **kwargs)

        return noting


def test_each_part_of_an_evolution_is_used(tmp_path):
    parts = {
        "selection": Notes(TournamentSelection(2)),
        "survival": Notes(AgingSurvival()),
        "mutation": Notes(DecisionMutation()),
        "crossover": Notes(GroupCrossover()),
    }
    sampler = tfnas.EvolutionSampler(population_size=4, tournament_size=2, children=1, **parts)
    oracle, found = searched(tmp_path, sampler)
    assert len({json.dumps(values, sort_keys=True) for values in found}) == 16
    used = {name: set(getattr(oracle.sampler, name).calls) for name in parts}
    assert used == {
        "selection": {"select"},
        "survival": {"survivors"},
        "mutation": {"mutate"},
        "crossover": {"cross"},
    }
    assert all(part.calls == [] for part in parts.values()), "the oracle copies its sampler"


def test_a_surrogate_of_ones_own_chooses(tmp_path):
    class Largest(Screening):
        def choose(self, search, proposals, rng):
            return max(proposals, key=lambda p: sum(p.architecture.to_dict().values()))

    sampler = tfnas.EvolutionSampler(
        population_size=4, tournament_size=2, surrogate=Largest(children=6)
    )
    oracle, found = searched(tmp_path, sampler)
    early, late = ([sum(v.values()) for v in part] for part in (found[:4], found[4:]))
    assert np.mean(late) > np.mean(early)
    assert oracle.rank_correlation() is None
    assert oracle.pick() is oracle.get_best_trials(1)[0]


def test_a_form_of_ones_own_is_a_policys(tmp_path):
    form = Notes(BuildingForm())
    sampler = tfnas.ReinforceSampler(form=form, warmup=4, batch_size=4, children=1)
    oracle, _ = searched(tmp_path, sampler)
    assert {"policy", "propose", "steps"} <= set(oracle.sampler.form.calls)


def test_one_sampler_serves_several_searches(tmp_path):
    sampler = tfnas.EvolutionSampler(population_size=4, tournament_size=2)
    first, again = (searched(tmp_path / name, sampler)[1] for name in "ab")
    assert first == again
    assert sampler.population == []


@pytest.mark.parametrize(
    ("objectives", "children", "survival", "selection", "crossover", "screening"),
    [
        (ONE, 1, AgingSurvival, TournamentSelection(8), 0.0, FirstProposal),
        (ONE, 8, EveryoneSurvival, BestSelection(5), 0.0, ImprovementScreening),
        (TWO, 1, ParetoSurvival, TournamentSelection(8), 0.5, FirstProposal),
        (TWO, 8, ParetoSurvival, TournamentSelection(8), 0.5, WeightedScreening),
    ],
)
def test_defaults_follow_from_the_objectives(
    objectives, children, survival, selection, crossover, screening
):
    sampler = tfnas.EvolutionSampler(children=children)
    sampler.begin(objectives)
    assert type(sampler.survival) is survival
    assert sampler.crossover == GroupCrossover(crossover)
    assert sampler.mutation == DecisionMutation(0.5 if children > 1 else 0.0)
    assert sampler.selection == selection
    assert sampler.num_initial == (8 if children > 1 else 16)
    assert type(sampler.screening) is screening
    assert sampler.screening.children == children


def record(name, *losses):
    return TrialRecord(str(name), None, 0.0, losses, None)


def test_survivors():
    old = [record(i, float(loss)) for i, loss in enumerate((3, 1, 2, 5))]
    assert AgingSurvival().survivors(old, 2) == old[2:]
    rows = [record(i, *row) for i, row in enumerate([(0.0, 2.0), (3.0, 3.0), (2.0, 0.0)])]
    assert ParetoSurvival().survivors(rows, 2) == [rows[0], rows[2]]
    assert ParetoSurvival().survivors(rows, 3) == rows
    assert EveryoneSurvival().survivors(old, 2) == old


def test_a_tournament_takes_the_best_of_those_drawn():
    order, rng = np.array([2, 0, 1]), np.random.default_rng(0)
    assert TournamentSelection(5).select(order, rng) == 2
    assert {BestSelection(2).select(order, rng) for _ in range(50)} == {0, 2}
    assert {TournamentSelection(1).select(order, rng) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TournamentSelection(0), "size must be a whole number >= 1, got 0"),
        (lambda: BestSelection(0), "size must be a whole number >= 1, got 0"),
        (lambda: tfnas.EvolutionSampler(fresh=1.5), r"fresh must be in \[0, 1\], got 1\.5"),
        (lambda: tfnas.EvolutionSampler(warmup=0), "warmup must be a whole number >= 1, got 0"),
        (lambda: DecisionMutation(1.0), r"further must be in \[0, 1\), got 1\.0"),
        (lambda: GroupCrossover(-0.1), r"probability must be in \[0, 1\], got -0\.1"),
        (lambda: ImprovementScreening(0), "children must be a whole number >= 1, got 0"),
        (lambda: tfnas.ReinforceSampler(form="other"), "form must be one of building, modifying"),
        (lambda: tfnas.ReinforceSampler(clip=1.0), r"clip must be in \(0, 1\), got 1\.0"),
        (lambda: default_screening(ONE, 0), "children must be a whole number >= 1, got 0"),
    ],
)
def test_parts_check_their_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
