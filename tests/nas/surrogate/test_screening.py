"""What a surrogate chooses; no network is built."""

import types

import keras_tuner as kt
import numpy as np
import pytest

from tfnas.nas.surrogate.decision_features import DecisionFeatures
from tfnas.nas.surrogate.ensemble import MEMBERS, refit_count
from tfnas.nas.surrogate.screening import ImprovementScreening, WeightedScreening
from tfnas.nas.surrogate.value_scales import clipped, normal_scores
from tfnas.nas.trial_records import Proposal, TrialRecord
from tfnas.search_space.hyperparameters import HyperParameterSpace


def declared():
    hp = kt.HyperParameters()
    hp.Choice("kernel", [3, 5, 7])
    hp.Choice("kind", ["a", "b", "c"])
    with hp.conditional_scope("kind", ["b", "c"]):
        hp.Choice("width", [8, 16, 32, 64])
    hp.Float("rate", 1e-3, 1e-1, sampling="log")
    return HyperParameterSpace(hp.space)


@pytest.fixture(scope="module")
def space():
    return declared()


def searched(space, losses, count=12, pending=()):
    """A search that has so many random trials."""
    rng = np.random.default_rng(3)
    archs = [space.sample(rng) for _ in range(count)]
    records = [
        TrialRecord(f"{i:02d}", arch, 0.0, losses(dict(arch.items)), None)
        for i, arch in enumerate(archs)
    ]
    return types.SimpleNamespace(
        space=space,
        learning_records=records,
        num_started=count + len(pending),
        pending=list(pending),
        failed=[],
        encode=space.encode,
    )


def proposals(space, count=60):
    rng = np.random.default_rng(4)
    return [Proposal(space.sample(rng)) for _ in range(count)]


def one_loss(values):
    return (-float(values["kernel"]) - 5.0 * (values["kind"] == "b"),)


def two_losses(values):
    return (*one_loss(values), float(values["kernel"] + values.get("width", 0) / 8))


def test_near_numbers_are_alike_and_names_are_not(space):
    features = DecisionFeatures(
        space.decisions, len(space.encode(proposals(space)[0].architecture))
    )
    values = {"kernel": 3, "kind": "b", "width": 8, "rate": 0.01}
    scales = features.groups.scales(features.groups.means)

    def distance(**changes):
        both = [space.encode(space.from_values(v)) for v in (values, {**values, **changes})]
        return float(np.ptp(features.of(np.stack(both)) * scales, axis=0) @ np.ones(len(scales)))

    assert distance(kernel=5) < distance(kernel=7)
    assert distance(width=16) < distance(width=32) < distance(width=64)
    assert distance(kind="c") == pytest.approx(distance(kind="c"))
    assert distance(rate=0.011) < distance(rate=0.05)
    assert distance(kind="a") > 0, "an inactive decision differs from any of its values"


def test_a_failure_does_not_drown_the_differences_of_good_trials():
    values = np.array([0.1, 0.1, 0.9, 0.91, 0.93, 0.94, 0.95])
    assert np.std(values[2:]) / np.std(values) < 0.06
    for scale in (clipped, normal_scores):
        scaled = scale(values)
        assert np.std(scaled[2:]) / np.std(scaled) > 0.4
        assert np.all(np.argsort(scaled[2:]) == np.arange(5))
    assert clipped(np.full(5, 0.1)).tolist() == [0.1] * 5


def test_settings_are_fitted_again_after_a_fifth_of_new_trials():
    counts = (4, 5, 9, 10, 11, 12, 13, 15, 16)
    assert [refit_count(n) for n in counts] == [4, 5, 9, 10, 10, 12, 12, 14, 16]


def test_each_member_chooses_what_is_best(space):
    search = searched(space, one_loss, count=20)
    best = {"kernel": 7, "kind": "b"}
    for member in MEMBERS:
        screening = ImprovementScreening(60, [member])
        chosen = screening.choose(search, proposals(space), np.random.default_rng(0))
        assert best.items() <= dict(chosen.architecture.items).items()
        estimates = screening.estimates(search, search.learning_records)
        found = search.learning_records[int(np.argmax(estimates))].architecture
        assert dict(found.items)["kind"] == "b"
        assert screening.rank_correlation(search) > 0.5


def test_members_take_turns(space):
    search, screening = searched(space, one_loss), ImprovementScreening(60)
    for turn in range(5):
        search.num_started = 12 + turn
        screening.choose(search, proposals(space), np.random.default_rng(0))
        assert len(screening._ensemble._fitted) == min(turn + 1, len(MEMBERS))


def test_the_first_trials_are_far_apart(space):
    few = searched(space, one_loss, count=3)
    chosen = ImprovementScreening(60).choose(few, proposals(space), np.random.default_rng(0))
    tried = np.stack([space.encode(record.architecture) for record in few.learning_records])

    def nearest(proposal):
        return ((tried - space.encode(proposal.architecture)) ** 2).sum(1).min()

    assert nearest(chosen) == max(map(nearest, proposals(space)))
    none = searched(space, one_loss, count=0)
    assert ImprovementScreening(60).choose(none, proposals(space), None) == proposals(space)[0]


@pytest.mark.parametrize(
    ("kind", "losses"), [(ImprovementScreening, one_loss), (WeightedScreening, two_losses)]
)
def test_a_running_trial_is_not_proposed_in_another_form(space, kind, losses):
    """What a running trial will show is not worth a second trial at the same time."""
    alone, offered = searched(space, losses, count=20), proposals(space)
    chosen = kind(60).choose(alone, offered, np.random.default_rng(0))
    beside = searched(space, losses, count=20, pending=[chosen.architecture])
    beside.num_started = alone.num_started
    screening = kind(60)
    again = screening.choose(beside, offered, np.random.default_rng(0))
    assert dict(again.architecture.items) != dict(chosen.architecture.items)


def test_the_front_grows_where_it_gains_most(space):
    """The cheapest of the best kind and the dearest of the largest kernel are both chosen."""
    search, screening = searched(space, two_losses, count=20), WeightedScreening(60)
    chosen = []
    for turn in range(4):
        search.num_started = 20 + turn
        chosen.append(screening.choose(search, proposals(space), np.random.default_rng(turn)))
    assert {dict(p.architecture.items)["kind"] for p in chosen} == {"b"}
    assert screening.rank_correlation(search) is None
    assert screening.estimates(search, search.learning_records) is None


def test_a_space_that_grows_is_encoded_anew(space):
    search, screening = searched(space, one_loss), ImprovementScreening(60)
    screening.choose(search, proposals(space), np.random.default_rng(0))
    hp = kt.HyperParameters()
    hp.Choice("kernel", [3, 5, 7])
    smaller = HyperParameterSpace(hp.space)
    grown = searched(smaller, lambda values: (-float(values["kernel"]),))
    search.space, search.encode = smaller, smaller.encode
    search.learning_records = grown.learning_records
    found = screening.means(search, search.learning_records)
    assert found.shape == (12,)
