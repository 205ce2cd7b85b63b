"""The tables of benchmarks/nas_tables.py, and how searches are compared on them."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

from search_tables import DEVELOPMENT, HELD_OUT, baselines, epochs, family, trained
from search_tables.comparison import Pair, holm, mean_ranks, pairs
from search_tables.ours import configuration, hyperparameters
from search_tables.runs import Cells, Measurements, recorded, scores

from tfnas.nas.samplers.random_search import RandomSampler

FAMILIES = [*DEVELOPMENT, *HELD_OUT]
SEARCHES = {
    "random": baselines.random_search,
    "aging": baselines.aging_evolution,
    "local": baselines.local_search,
    "TPE": baselines.tpe,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_table_follows_from_its_seed(name):
    first, again, other = (family(name, seed) for seed in (3, 3, 4))
    assert 3 <= len(first.decisions) <= 40
    rows = first.decisions.sample(50, np.random.default_rng(0))
    found = first.scores(rows)
    assert np.array_equal(found, again.scores(rows))
    assert np.all(np.isfinite(found))
    assert found.max() <= 100.0 + 1e-9 or name == "stages"
    assert (
        -40 < np.median(first.scores(first.decisions.sample(2000, np.random.default_rng(1)))) < 40
    )
    assert (first.median, first.best) != (other.median, other.best)
    measured = [first.measure(rows[0], np.random.default_rng(s)) for s in (0, 0, 1)]
    assert measured[0] == measured[1] != measured[2]


@pytest.mark.parametrize("name", FAMILIES)
def test_hyperparameters_and_configurations_are_one(name):
    decisions = family(name, 5).decisions
    values = hyperparameters(decisions).values
    row = configuration(decisions, values)
    assert np.array_equal(row, decisions.canonical(row[None])[0])
    near = decisions.neighbors(row)
    assert np.all((near != row).any(1))
    mutated = decisions.mutated(row, np.random.default_rng(0))
    assert np.any(mutated != row)


def test_a_table_of_trained_networks_has_each_member_once():
    found, rows = trained.measured(), trained.configurations()
    archs = trained.members()
    assert len({arch.network for arch in archs}) == len(archs) == trained.space().size
    assert found.validation.shape == (len(archs), 1, trained.EPOCHS)
    table = trained.trained_table()
    assert np.array_equal(table.decisions.canonical(rows), rows)
    assert len(np.unique(rows, axis=0)) == len(archs)
    scores = table.scores(rows)
    assert scores.max() == pytest.approx(100.0)
    best = int(found.test[:, 0].argmax())
    assert scores[best] == pytest.approx(100.0)
    measured = table.measure(rows[best], np.random.default_rng(0))
    assert measured == found.validation[best, 0, -1]


def test_halving_spends_the_epochs_of_its_rungs(monkeypatch):
    """And its picks are those of a search of as many epochs."""
    networks = epochs.Networks(trained.FASHION_MNIST, 0)
    spent = []
    whole = networks.validation
    monkeypatch.setattr(
        networks, "validation", lambda place, length: spent.append(length) or whole(place, length)
    )
    search = epochs.Search(RandomSampler, (3, 3))
    found = epochs.halved(networks, search, 0)
    assert len(found) == len(epochs.TOTALS)
    assert set(spent) == {3, 9}
    begun, promoted = spent.count(3), spent.count(9)
    assert promoted >= begun // 3 - 1  # more where one that was promoted is surpassed
    assert 3 * begun + 6 * promoted <= max(epochs.TOTALS) + 6  # the last one may not fit
    assert epochs.halved(networks, epochs.Search(RandomSampler), 0)[-1] > 0


@pytest.mark.parametrize("name", ["cell edges", "cell accuracy"])
def test_cells_with_the_same_graph_have_the_same_value(name):
    """Edges in the order 0-1, 0-2, 1-2, 0-3, 1-3, 2-3; both are input - convolution - output."""
    table = family(name, 0)
    through_first = np.array([[2, 0, 0, 0, 1, 0]], float)
    through_second = np.array([[0, 2, 0, 0, 0, 1]], float)
    assert table.scores(through_first) == pytest.approx(table.scores(through_second))
    assert table.scores(np.zeros((1, 6)))[0] < -300, "without a path it is at chance"


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("kind", ["training", "stages"])
def test_each_search_uses_its_evaluations_and_repeats(name, kind):
    table = family(kind, 1)
    runs = [scores(SEARCHES[name], table, seed, [10, 30], False)["scores"] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    measured = Measurements(table, np.random.default_rng(0), 30)
    try:
        SEARCHES[name](table, measured, 30, 0)
    finally:
        assert len(measured.rows) == 30


def test_hypervolume_of_the_ideal_corner():
    table = family("interacting", 0)
    rows = table.decisions.sample(300, np.random.default_rng(0))
    few, many = table.hypervolume(rows[:20]), table.hypervolume(rows)
    assert 0 <= few <= many <= 110


def test_decisions_that_do_not_count_have_no_cost():
    """pymoo gives each decision a value; the table of trained networks has the canonical rows."""
    table = trained.trained_table()
    canonical = trained.configurations()
    free = canonical.copy()
    inactive = [i for i in range(free.shape[1]) if i not in table.decisions.active(free[0])]
    assert inactive
    free[0, inactive] = 1
    measured = Measurements(table, np.random.default_rng(0), 2, two=True)
    assert measured.both(free[0]) == (measured.values[0], table.costs(canonical[:1])[0])


def test_finished_runs_are_kept(tmp_path):
    cell = {"table": "smooth", "seed": 1, "kind": "one 25", "scores": [1.0], "ms": 0.1}
    Cells(tmp_path).add("some search", cell)
    assert Cells(tmp_path).read("some search") == {("smooth", 1, "one 25"): cell}
    assert Cells(None).read("some search") == {}


def test_a_record_of_runs_goes_on(tmp_path):
    found = {"some search": {("smooth", 3): [1.234, 2.0], ("smooth", 4): [3.0, 4.0]}}
    kept = recorded(found, {"some search": 1.26}, "one 25-50", 3)
    assert kept["scores"] == {"some search": {"smooth": "1.23 2.00; 3.00 4.00"}}
    cell = {"table": "smooth", "seed": 4, "kind": "one 25-50", "ms": 1.3, "scores": [3.0, 4.0]}
    done = Cells(tmp_path, kept).read("some search")
    assert done["smooth", 4, "one 25-50"] == cell
    assert len(done) == 2
    Cells(tmp_path).add("some search", cell | {"scores": [5.0, 6.0]})
    done = Cells(tmp_path, kept).read("some search")
    assert done["smooth", 4, "one 25-50"]["scores"] == [5.0, 6.0]
    assert Cells(tmp_path, kept).read("another") == {}


def test_ranks_and_differences_are_paired_by_table_and_seed():
    rng = np.random.default_rng(0)
    base = {("t", seed): rng.normal(size=2) for seed in range(20)}
    better = {key: values + 0.1 for key, values in base.items()}
    found = {"ours": better, "peer": base}
    assert mean_ranks(found, [25, 50]) == {"ours": [1.0, 1.0], "peer": [2.0, 2.0]}
    compared = pairs("ours", found, [25, 50])
    assert [(pair.peer, pair.mark) for pair in compared] == [("peer", 25), ("peer", 50)]
    assert [pair.difference for pair in compared] == pytest.approx([0.1, 0.1])
    assert holm(compared) == [True, True]


def test_holm_stops_at_the_first_that_is_not_certain():
    compared = [Pair("peer", "t", 25, 1.0, 0.1, p) for p in (0.03, 0.001, 0.04, 0.011)]
    assert holm(compared) == [False, True, False, True]
