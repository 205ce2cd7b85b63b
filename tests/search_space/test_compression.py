"""Choices of compression as a part of a search space: values, decisions, keys."""

import itertools
import json

import keras
import keras_tuner as kt
import numpy as np
import pytest

import tfnas
from tfnas.compression.techniques import registry
from tfnas.compression.techniques.longer_training import LongerTraining
from tfnas.compression.trial_compression import epochs_of, spec_of
from tfnas.quantization.spec import MODES, QuantSpec
from tfnas.search_space import compression as module
from tfnas.search_space.hypermodel import CompressedHyperModel

CHOICES = tfnas.CompressionSpace(
    modes=("float32", "int8", "int16x8"),
    aware=(False, True),
    stage_weights=("int8", "int4"),
    sparsity=(None, 0.5),
    clusters=(None, 16),
    low_rank=(None, 0.5),
    distill=(False, True),
)


def small_space(compression=CHOICES):
    stage = tfnas.StageChoices((8,), (1,), 1, ("inverted_residual", "identity"), (3,), (1,))
    fixed = tfnas.StageChoices((8, 16), (1,), 1, ("inverted_residual",), (3,), (1,))
    return tfnas.MobileNetV2Space(
        *((8, 8, 1), 10, "microcontroller"),
        stages=[stage, fixed],
        width_multipliers=(1.0,),
        compression=compression,
    )


def all_values(space):
    """All decided values, by brute force over every decision."""
    found = [{}]
    for decision in space.decisions:
        grown = []
        for values in found:
            active = decision.active(values)
            choices = decision.choices if active else [None]
            grown += [{**values, decision.name: c} if active else values for c in choices]
        found = grown
    return found


def test_size_is_exact_and_architectures_differ():
    space = small_space()
    found = [space.from_values(values) for values in all_values(space)]
    assert len({arch.key for arch in found}) == len(set(found)) == len(found) == space.size
    assert len({arch.network for arch in found}) == len(found)
    for arch in found[:: len(found) // 50]:
        assert space.from_values(space.values(arch)) == arch
        assert tfnas.Architecture.from_json(arch.to_json()) == arch
    vectors = np.stack([space.encode(arch) for arch in found])
    assert len(np.unique(vectors, axis=0)) == len(found)


def test_meaningless_combinations_are_never_decided():
    for values in all_values(small_space()):
        mode = values["compression_mode"]
        assert ("compression_aware" in values) == (mode in ("int8", "int16x8"))
        assert ("stage2_weights" in values) == (mode == "int8")
        there = values["stage1_kind"] != "identity"
        assert ("stage1_weights" in values) == (mode == "int8" and there)


def test_mutation_and_crossover_reach_compressions():
    space, rng = small_space(), np.random.default_rng(0)
    one, other = space.sample(rng), space.sample(rng)
    mutants = [space.mutate(one, rng) for _ in range(200)]
    assert one not in mutants
    assert all(mutant in space for mutant in mutants)
    changed = [m for m in mutants if m.compression != one.compression]
    assert changed
    assert any(m.stages == one.stages for m in changed)
    children = [space.crossover(one, other, rng) for _ in range(100)]
    mixed = {child.compression for child in children}
    assert len(mixed) > 2
    for child in mixed:
        for field in ("sparsity", "clusters", "low_rank", "distill", "mode"):
            parents = (getattr(one.compression, field), getattr(other.compression, field))
            assert getattr(child, field) in parents


def test_without_compression_keys_and_networks_stay():
    space = small_space(None)
    arch = space.sample(np.random.default_rng(0))
    assert arch.compression is None
    assert not any("compression" in d.name for d in space.decisions)
    fields = arch.to_dict()
    del fields["compression"]  # as a version before had it
    assert tfnas.Architecture.from_dict(fields).key == arch.key
    with pytest.raises(
        ValueError, match="compression of an architecture of this space must be set, got None"
    ):
        small_space().values(arch)
    assert small_space().sample(np.random.default_rng(0)) not in space


def test_hyperparameters_hold_the_choices():
    space, hp = small_space(), kt.HyperParameters()
    space.declare(hp)
    for name, value in {
        "compression_mode": "int8",
        "compression_aware": True,
        "compression_sparsity": 0.5,
        "compression_clusters": 16,
        "stage2_weights": "int4",
        "compression_distill": True,
    }.items():
        hp.values[name] = value
    found = space.declare(hp).compression
    assert found.to_dict() == {
        **{"mode": "int8", "aware": True, "stage_weights": ["int8", "int4"], "sparsity": 0.5},
        **{"clusters": 16, "low_rank": 1.0, "distill": True},
    }
    assert type(found.distill) is type(found.aware) is bool
    assert tfnas.Compression.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_any_hypermodel_takes_the_choices():
    def build(hp):
        units = hp.Choice("units", [4, 8])
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])

    choices = tfnas.CompressionSpace(("float32", "int8"), (False, True), clusters=(0, 8))
    hypermodel, hp = CompressedHyperModel(build, choices), kt.HyperParameters()
    hypermodel.build(hp)
    names = [part.name for part in hp.space]
    assert names[-1] == "units"
    assert all(name.startswith("compression_") for name in names[:-1])
    hp.values |= {"compression_mode": "int8", "compression_aware": True, "compression_clusters": 8}
    assert hypermodel.compression(hp) == tfnas.Compression("int8", aware=True, clusters=8)
    hp.values["compression_mode"] = "float32"
    assert hypermodel.compression(hp) == tfnas.Compression("float32", clusters=8)
    with pytest.raises(ValueError, match="stage_weights need a space with stages"):
        CompressedHyperModel(build, CHOICES)


def test_the_modes_are_those_that_are_converted():
    assert module.MODES == MODES
    trained = tuple(mode for mode in MODES if QuantSpec.of(mode).activations != "float32")
    assert trained == module.TRAINED_MODES
    for mode in module.STAGED_MODES:
        compression = tfnas.Compression(mode, stage_weights=("int8", "int4"))
        assert spec_of(compression).layers == (("stage2_*", "int4"),)
        assert spec_of(compression).mode == mode


class WithoutTraining(LongerTraining):
    """A technique that trains nothing."""

    name, rank, trains = "without_training", 54, False


@pytest.fixture
def without_training():
    registry.register(WithoutTraining())
    yield
    registry.unregister("without_training")


@pytest.mark.usefixtures("without_training")
def test_epochs_of_a_trial_are_the_same_whatever_is_chosen():
    steps = ({"low_rank": 0.5}, {"sparsity": 0.5}, {"clusters": 8}, {"aware": True})
    for count, epochs in itertools.product(range(5), (6, 12, 30)):
        chosen = {k: v for step in steps[:count] for k, v in step.items()}
        parts = epochs_of(tfnas.Compression("int8", **chosen), epochs)
        assert sum(parts.values()) == epochs
        assert list(parts)[1:] == list(chosen)
        assert parts["network"] >= epochs // 3
    for name, own in (("prune_channels", 2), ("without_training", 0)):
        parts = epochs_of(tfnas.Compression("int8", sparsity=0.5, more=((name, 0.5),)), 12)
        assert parts == {"network": 10 - own, "sparsity": 2, name: own}
    assert epochs_of(tfnas.Compression("int8", sparsity=0.5), 1) == {"network": 1, "sparsity": 1}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"modes": ("int7",)}, r"modes must be some of float32, .*, got 'int7'"),
        ({"modes": "int8"}, r"modes must be a sequence of choices, got 'int8'"),
        ({"modes": ()}, r"modes must hold at least one choice, got none"),
        ({"sparsity": (1.0,)}, r"sparsity must be a number in \[0, 1\) or None, got 1\.0"),
        ({"sparsity": (0, None)}, r"sparsity must hold no choice twice, got \(0\.0, 0\.0\)"),
        ({"sparsity": (True,)}, r"sparsity must be a number in \[0, 1\) or None, got True"),
        ({"clusters": (1,)}, r"clusters must be a whole number >= 2, or 0 or None, got 1"),
        ({"clusters": (2.5,)}, r"clusters must be a whole number >= 2, or 0 or None, got 2\.5"),
        ({"low_rank": (0,)}, r"low_rank must be a number in \(0, 1\] or None, got 0"),
        ({"distill": ("yes",)}, r"distill must be True or False, got 'yes'"),
        ({"stage_weights": ("int2",)}, r"stage_weights must be some of int8, int4, got 'int2'"),
        ({"modes": ("float32",), "aware": (True,)}, r"aware needs one of int8, .*, got float"),
        (
            {"modes": ("float32",), "stage_weights": ("int4",)},
            r"stage_weights need one of dynamic, .*, got float32",
        ),
    ],
)
def test_wrong_choices(choices, message):
    with pytest.raises(ValueError, match=message):
        tfnas.CompressionSpace(**choices)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "int7"}, r"mode must be one of float32, .*, got 'int7'"),
        ({"aware": True}, r"aware needs one of the modes int8, int8x4, int16x8, got 'float32'"),
        ({"mode": "int4", "stage_weights": ("int4",)}, r"stage_weights need .*, got 'int4'"),
        ({"mode": "int8", "stage_weights": ("x",)}, r"stage_weights must hold int8, .*, got 'x'"),
    ],
)
def test_wrong_compressions(fields, message):
    with pytest.raises(ValueError, match=message):
        tfnas.Compression(**fields)


def test_wrong_records_and_spaces():
    with pytest.raises(ValueError, match="unknown key in Compression: zeal"):
        tfnas.Compression.from_dict({"zeal": 1})
    with pytest.raises(ValueError, match="Compression must be a JSON object, got 3"):
        tfnas.Compression.from_dict(3)
    with pytest.raises(ValueError, match="compression must be a CompressionSpace, got 'int8'"):
        small_space("int8")
    with pytest.raises(ValueError, match="compression must be a Compression, got 'int8'"):
        tfnas.Architecture((8, 8, 1), 10, (tfnas.BlockSpec(filters=8),), compression="int8")
