"""Rows of techniques and their table: order, names and settings, without a model."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfnas
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, check_order, context_of
from tfnas.compression.techniques import registry
from tfnas.compression.techniques.registry import technique, techniques
from tfnas.compression.techniques.technique import Technique
from tfnas.compression.techniques.weight_clustering import ClusterSettings
from tfnas.compression.techniques.weight_pruning import PruneSettings
from tfnas.tasks.image_classes import ImageClasses

NAMES = [each.name for each in techniques()]


# --- the table


def test_the_table():
    floats = ["prune_channels", "factorize", "factorize_dense", "train"]
    assert [each.name for each in techniques()] == [*floats, "prune", "cluster", "qat", "ptq"]
    assert [each.name for each in techniques() if not each.has_command] == [
        "factorize_dense",
        "train",
    ]
    assert len({each.rank for each in techniques()}) == len(NAMES)


@pytest.mark.parametrize("own", techniques(), ids=lambda own: own.name)
def test_each_row_is_whole(own):
    assert technique(own.name) is own
    assert own.summary
    assert own.label
    assert dataclasses.is_dataclass(own.settings)
    assert isinstance(
        own.for_amount(0.5 if own.name not in ("cluster", "qat", "ptq") else 8), own.settings
    )
    assert own.command == own.name.replace("_", "-")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("prun", "prune"),
        ("prune-channels", "prune_channels"),
        ("prune_chanels", "prune_channels"),
        ("clusters", "cluster"),
        ("factorise", "factorize"),
        ("zzz", None),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    hint = f": did you mean '{near}'\\?$" if near else "$"
    message = rf"technique must be one of {', '.join(NAMES)}, got {name!r}{hint}"
    with pytest.raises(ValueError, match=message):
        technique(name)
    with pytest.raises(ValueError, match=message):
        check_order([name])
    with pytest.raises(ValueError, match=message):
        Step(name, PruneSettings(sparsity=0.5))
    with pytest.raises(ValueError, match=message):
        tfnas.run_techniques("none.keras", [(name, {})], "digits", directory="none")


class Other(Technique):
    name, rank, summary, label, settings = "other", 45, "a test", "other", PruneSettings

    def apply(self, model, settings, context):
        raise NotImplementedError

    def for_amount(self, amount, *, brief=False, weights=None):
        return PruneSettings(sparsity=amount)


def test_a_technique_is_added_replaced_and_removed():
    try:
        first, second = Other(), Other()
        registry.register(first)
        assert technique("other") is first
        assert [each.name for each in techniques()] == [*NAMES[:4], "other", *NAMES[4:]]
        registry.register(second)
        assert technique("other") is second
    finally:
        registry.unregister("other")
    assert [each.name for each in techniques()] == NAMES
    registry.unregister("other")  # nothing is there


def test_ranks_are_unique(monkeypatch):
    monkeypatch.setattr(Other, "rank", technique("prune").rank)
    with pytest.raises(ValueError, match="rank must be another one than that of 'prune', got 50"):
        registry.register(Other())
    assert [each.name for each in techniques()] == NAMES


# --- the order


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=5))
def test_techniques_come_in_the_order_of_the_table_each_once(names):
    places = [NAMES.index(name) for name in names]
    if all(one < other for one, other in itertools.pairwise(places)):
        if "qat" in names[:-1]:
            with pytest.raises(ValueError, match="technique 'qat' must be the last, since its"):
                check_order(names)
        else:
            check_order(names)
        return
    with pytest.raises(ValueError, match="techniques must be in the order") as caught:
        check_order(names)
    assert str(caught.value) == (
        f"techniques must be in the order {', '.join(NAMES)}, each once, got {', '.join(names)}"
    )


def test_a_job_checks_the_order_first(tmp_path):
    row = [("qat", {}), ("prune", {"sparsity": 0.5})]
    with pytest.raises(
        ValueError, match=r"in the order .*, prune, .*, qat, ptq, each once, got qat, prune"
    ):
        tfnas.run_techniques("none.keras", row, "nowhere", directory=tmp_path / "out")
    with pytest.raises(ValueError, match="techniques must hold at least one technique, got none"):
        tfnas.run_techniques("none.keras", [], "nowhere", directory=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- steps


def test_settings_of_another_technique_are_refused():
    with pytest.raises(
        ValueError, match="settings of 'cluster' must be ClusterSettings, got Prune"
    ):
        Step("cluster", PruneSettings(sparsity=0.5))
    with pytest.raises(
        ValueError, match=r"settings of 'cluster' must be ClusterSettings, got \{\}"
    ):
        Step("cluster", {})


def test_unknown_settings_are_named():
    message = "settings of 'prune' must be some of criterion, .*, sparsity, got 'sparsty'$"
    with pytest.raises(ValueError, match=message):
        tfnas.run_techniques(None, [("prune", {"sparsty": 0.5})], None, directory="none")


@pytest.mark.parametrize(
    ("name", "scale"), [("prune", 1), ("cluster", 1 / 3), ("qat", 0.1), ("prune_channels", 1)]
)
def test_a_step_trains_at_the_techniques_rate(name, scale, tmp_path):
    context = Context(
        None, ImageClasses(), None, FineTuneSettings(epochs=3, learning_rate=0.01, seed=7)
    )
    fields = {"prune": {"sparsity": 0.5}, "prune_channels": {"macs": 0.5}}.get(name, {})
    chosen = technique(name).settings(**fields)
    own = context_of(Step(name, chosen), context)
    assert own.settings.learning_rate == pytest.approx(0.01 * scale)
    assert (own.settings.epochs, own.settings.seed, own.checkpoints) == (3, 7, None)
    own = context_of(Step(name, chosen, epochs=0, learning_rate=0.5), context)
    assert (own.settings.epochs, own.settings.learning_rate) == (0, 0.5)
    kept = context_of(Step(name, chosen), context.replace(checkpoints=tmp_path), 2)
    assert kept.checkpoints == tmp_path / f"2_{name}"
    assert context.settings.epochs == 3  # it stays as it was


def test_a_bad_rate_of_a_step_is_named():
    context = Context(None, ImageClasses(), None, FineTuneSettings(epochs=1))
    with pytest.raises(ValueError, match="learning_rate must be above 0, got 0"):
        context_of(Step("cluster", ClusterSettings(), learning_rate=0), context)
