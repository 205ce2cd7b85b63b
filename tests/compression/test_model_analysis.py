"""The analysis of a model, and the settings of the plan that follow from it."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers
from planning import walked
from tasks import other_tasks

import tfnas
from tfnas.compression import model_analysis as analysis_module
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.candidate_store import Candidate
from tfnas.compression.effort import EFFORTS
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.layer_costs import file_layers
from tfnas.compression.model_analysis import DENSE, LayerAnalysis, ModelAnalysis, analyze_model
from tfnas.compression.plan_settings import CAREFUL, SPARSITIES, decide_plan
from tfnas.compression.planner import first_state
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import run_row
from tfnas.compression.techniques.channel_sizes import both_sizes
from tfnas.compression.techniques.low_rank_factors import dense_ranks
from tfnas.compression.techniques.technique import NotPossible
from tfnas.tasks.image_classes import ImageClasses

NORMAL = EFFORTS["normal"]
CONV = "3x3 convolutions"


def seen(*, dense=100, changed=0.05, pruned=None, times=(0.6, 0.2, 0.2)):
    """A network of a convolution of 1,000 weights, a depthwise one and a dense layer."""
    layers = (
        LayerAnalysis("conv", CONV, 90_000, 1000, times[0], 0.02, pruned),
        LayerAnalysis("deep", "3x3 depthwise convolutions", 5000, 90, times[1], 0.01, pruned),
        LayerAnalysis("head", DENSE, dense, dense, times[2], 0.001, pruned),
    )
    return ModelAnalysis(layers, 5000, changed, 128, pruned is not None)


def decided(budget, effort="normal", **values):
    return decide_plan(Budget.of(budget), EFFORTS[effort], seen(**values))


# --- settings of the plan


def test_every_setting_has_its_reason():
    settings = decided(
        {"max_drop": 1.0, "max_latency_ratio": 0.3, "max_gzip_bytes": 500}, pruned=0.05
    )
    reasons = " | ".join(settings.reasons)
    for words in (
        "post-training int8 changes 5.0% of the predictions for 128 examples, most noise is",
        "added in conv: quantization-aware training is tried too",
        "95% of the multiply-accumulates are in 3x3 convolutions",
        "60% of the int8 file's latency is in 3x3 convolutions",
        "conv most: 5.0%: sparsities begin at 60%",
    ):
        assert words in reasons
    assert decide_plan(Budget(max_drop=1.0), NORMAL, None).reasons == ()


def test_missing_measurements_are_reported():
    found = dataclasses.replace(seen(), left_out=("time a layer: too long",))
    settings = decide_plan(Budget(max_drop=1.0), NORMAL, found)
    assert settings.reasons[0] == "not analyzed: time a layer: too long"


def test_formats_that_exceed_a_limit_by_arithmetic_are_left_out():
    settings = decided({"max_memory": 6000}, "thorough")
    assert settings.formats == (
        "int8",
        "int8x4",
    )  # 5,000 elements: 4 bytes each of floats, 2 of int16
    assert settings.later == ("float16", "dynamic", "int16x8")
    assert settings.reasons[0] == (
        "float16 is left out: its activations take 20,000 bytes, above max_memory 6,000"
    )
    settings = decided({"max_bytes": 2000}, "quick")
    assert settings.formats == ("dynamic", "int8", "int8x4")
    assert "take 2 bytes each, above max_bytes 2,000" in settings.reasons[0]
    assert settings.reasons[-1].startswith("effort quick: nothing is trained")


def test_quantization_aware_training_is_planned_where_int8_changes_predictions():
    assert decided({"max_drop": 1.0}).integers
    assert not decided({"max_drop": 1.0}, changed=0.0).integers
    assert decided({"max_bytes": 9000}, changed=0.0).integers  # the most accurate is best


def test_dense_layers_are_factorized_where_most_bytes_are_theirs():
    assert decided({"max_bytes": 9000}, dense=100).techniques == ("prune_channels",)
    assert decided({"max_bytes": 9000}, dense=5000).techniques == (
        "factorize_dense",
        "prune_channels",
    )
    assert decided({"max_drop": 1.0}, dense=5000).techniques == (
        "factorize_dense",
        "prune_channels",
    )
    settings = decided({"max_latency_ratio": 0.5}, dense=5000)
    assert settings.techniques == ("prune_channels", "factorize_dense")
    assert "which no limit is on" in " ".join(settings.reasons)


def test_latency_that_does_not_fall_with_macs_needs_fewer_of_them():
    settings = decided({"max_latency_ratio": 0.5}, times=(0.5, 0.3, 0.0))
    assert settings.proportional == 0.5
    fraction = settings.macs_for_latency(0.5)
    assert 0.5 * fraction + 0.5 * fraction**0.5 == pytest.approx(0.5)
    only_channels = dataclasses.replace(settings, proportional=0.0)
    assert only_channels.macs_for_latency(0.5) == pytest.approx(0.25)


def test_sparsities_begin_by_the_sensitivity():
    budget = {"max_gzip_bytes": 500}
    assert decided(budget, pruned=0.0).sparsities == SPARSITIES[1:]
    assert decided(budget, pruned=0.05).sparsities == SPARSITIES
    assert decided(budget, pruned=0.5).sparsities == CAREFUL


# --- the plan that comes of them


def tried(budget, outcomes, effort=NORMAL, **values):
    budget = Budget.of(budget)
    return walked(
        first_state(budget, effort, decide_plan(budget, effort, seen(**values))), outcomes
    )


def candidate(recipe, drop=0.1, size=1000, latency=0.5):
    costs = CandidateCosts(drop, size, size, latency, 1.0, 10)
    return Candidate(recipe, None, costs, (drop, drop, drop), np.ones(4, bool))


def test_training_for_integers_is_left_out_where_nothing_is_lost():
    found = tried({"max_drop": 1.0, "max_macs": 0.5}, candidate, changed=0.0)
    assert found[4:] == ["prune_channels 0.5, int8", "prune_channels 0.35, int8"]
    costly = tried({"max_drop": 1.0}, lambda r: candidate(r, drop=2.0), changed=0.0)
    trained = ["prune_channels 0.5, int8 trained", "prune_channels 0.5, train 2.5, int8 trained"]
    assert costly[4:8] == ["int8 trained", "prune_channels 0.5, int8", *trained]


def test_the_first_technique_that_keeps_the_budget_is_enough():
    def outcome(recipe):
        fraction = next((s.amount for s in recipe.steps if s.technique == "factorize_dense"), 1.0)
        return candidate(recipe, size=int(1000 + 5000 * fraction))

    budget = {"max_drop": 1.0, "max_bytes": 4000}
    found = tried(budget, outcome, dense=5000, changed=0.0)
    # 6,000 - 5,000 (1 - fraction) must be 95% of 4,000; 6,090 weights of a byte have no room.
    assert found == ["int8", "int8x4", "factorize_dense 0.56, int8"]

    def refused(recipe):
        return (
            None if any(s.technique == "factorize_dense" for s in recipe.steps) else outcome(recipe)
        )

    found = tried(budget, refused, dense=5000, changed=0.0)
    assert found[2:4] == ["factorize_dense 0.56, int8", "prune_channels 1 weights 0.63, int8"]


def test_formats_that_were_left_out_come_back_where_int8_can_not_be_made():
    def outcome(recipe):
        return None if recipe.mode == "int8" else candidate(recipe)

    found = tried({"max_memory": 6000}, outcome, EFFORTS["quick"])
    assert found == ["int8", "int8x4", "float16", "dynamic"]


# --- the analysis itself


@pytest.fixture(scope="module")
def mostly_dense(digits):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="wide"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def file(mostly_dense, digits):
    return tfnas.to_tflite(mostly_dense, "int8", digits.x_train[:100])


@pytest.fixture(scope="module")
def analysis(mostly_dense, file, digits):
    return analyze_model(mostly_dense, file, digits.x_test, ImageClasses(), pruning=True)


def test_the_analysis_has_costs_and_sensitivity_by_layer(analysis):
    layers = {layer.name: layer for layer in analysis.layers}
    assert layers["conv"].group == CONV
    assert layers["wide"].macs == 8 * 8 * 8 * 32
    assert layers["wide"].weights == 8 * 8 * 8 * 32 + 32
    assert next(iter(analysis.groups("weights"))) == DENSE
    assert sum(analysis.groups("macs").values()) == pytest.approx(1)
    assert 0 < sum(layer.time or 0 for layer in analysis.layers) <= 1.0001
    for name in ("conv", "wide", "head"):
        assert 0 <= layers[name].changed <= 1
        assert layers[name].noise >= 0
    assert max(layer.changed or 0 for layer in analysis.layers) > 0
    assert analysis.examples == 128
    assert analysis.left_out == ()
    assert ModelAnalysis.from_json(analysis.to_json()) == analysis


def test_measurements_of_big_models_are_left_out(mostly_dense, file, digits, monkeypatch):
    for limit in ("SECONDS", "NOISE_MACS", "TIMED_MACS"):
        monkeypatch.setattr(analysis_module, limit, 0)
    found = analyze_model(mostly_dense, file, digits.x_test, ImageClasses(), pruning=True)
    reasons = [text.split(":")[0] for text in found.left_out]
    assert reasons == ["time a layer", "int8 error a layer", "pruning a layer"]
    assert found.changed is None
    none = analyze_model(mostly_dense, None, digits.x_test, ImageClasses(), pruning=False)
    assert none.left_out[0] == "time a layer: there is no int8 file"


class ByBothHeads(other_tasks.TwoTargets):
    """Predictions change by halves: one for each output that moved far."""

    def changed(self, before, after):
        return np.mean([abs(a - b)[:, 0] > 0.02 for a, b in zip(before, after, strict=True)], 0)


class Unknown(other_tasks.TwoTargets):
    def changed(self, before, after):
        raise ValueError("before and\nafter differ")


def test_what_int8_changes_is_asked_of_the_task_for_all_outputs():
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    trunk = layers.Dense(8, "relu", name="trunk")(inputs)
    # No output has classes, and the second one has most of the error.
    model = keras.Model(inputs, [layers.Dense(1, name=name)(trunk) for name in ("zeta", "alpha")])
    kernel = model.get_layer("alpha").kernel
    kernel.assign(20 * kernel)
    int8 = tfnas.to_tflite(model, "int8", x)
    before, after = model.predict(x, verbose=0), int8.predict(x)
    # An example may be right at the limit of the second task.
    for task, within in ((other_tasks.TwoTargets(), {"rel": 0.01}), (ByBothHeads(), {"abs": 0.02})):
        found = analyze_model(model, int8, x, task, pruning=False)
        assert found.changed == pytest.approx(np.mean(task.changed(before, after)), **within)
        assert found.changed > 0
        assert found.examples == 80
    found = analyze_model(model, int8, x, Unknown(), pruning=False)
    assert (found.changed, found.examples) == (None, 0)
    assert found.left_out[-1] == "predictions that int8 changes: before and after differ"


def test_a_broken_analysis_is_named():
    with pytest.raises(ValueError, match="unknown key in ModelAnalysis: color"):
        ModelAnalysis.from_json('{"layers": [], "activations": 1, "color": 2}')


def test_the_layers_of_a_file(mostly_dense, file, digits):
    rows = {row.layer: row for row in file_layers(mostly_dense, file, digits.x_test)}
    assert set(rows) == {"conv", "wide", "head"}
    assert rows["wide"].bits == 8
    assert rows["wide"].macs == rows["wide"].weights == 8 * 8 * 8 * 32
    assert 0 <= rows["wide"].zeros < 0.2
    assert rows["wide"].noise >= 0


def test_layers_of_fewer_bits_have_the_models_names(mostly_dense, digits):
    file = tfnas.to_tflite(mostly_dense, "int8x4", digits.x_train[:100])
    rows = {row.layer: row for row in file_layers(mostly_dense, file, digits.x_test)}
    assert {"conv", "wide", "head"} <= set(rows) <= {n.name for n in mostly_dense.layers}
    assert rows["wide"].bits == 4
    assert rows["wide"].macs == rows["wide"].weights
    assert any(row.noise for row in rows.values())


def test_dense_layers_lose_weights_by_low_rank(mostly_dense, digits):
    ranks = dense_ranks(mostly_dense, 0.25)
    assert ranks == {"wide": int(0.25 * 512 * 32 / 544)}  # the head has too few to matter
    settings = FineTuneSettings(epochs=1, batch_size=64, distill=0.9)
    context = Context(mostly_dense, ImageClasses(), digits, settings)

    def applied(fraction):
        step = RecipeStep("factorize_dense", fraction).step()
        return run_row(mostly_dense, [step], context)[-1].model

    factorized = applied(0.25)
    assert factorized.get_layer("wide_first").kernel.shape == (512, ranks["wide"])
    assert factorized.get_layer("conv").kernel.shape == (3, 3, 1, 8)
    right = factorized.predict(digits.x_test, verbose=0).argmax(-1) == digits.y_test
    assert right.mean() > 0.5
    with pytest.raises(NotPossible, match=r"no dense layer has 0\.01 of its weights"):
        applied(0.01)
    assert Recipe((RecipeStep("factorize_dense", 0.25),), "int8").key == "factorize_dense_0.25-int8"


@pytest.mark.slow
def test_a_model_of_dense_layers_is_factorized_to_its_bytes(mostly_dense, digits, tmp_path):
    budget = {"max_drop": 5.0, "max_bytes": 11_000}  # 4 bits alone take 12,736
    result = tfnas.compress(mostly_dense, digits, budget, directory=tmp_path, epochs=3)
    assert result.plan.techniques == ("factorize_dense", "prune_channels")
    assert result.meets
    assert result.best.recipe.steps[0].technique == "factorize_dense"


def test_a_limit_on_bytes_counts_what_else_the_file_holds():
    def outcome(recipe):
        return candidate(recipe, size=3000 if recipe.mode == "int8" else 2500)

    found = tried({"max_bytes": 2400, "max_macs": 0.5}, outcome, dense=500, changed=0.0)
    held = seen(dense=500, changed=0.0).weights
    expected = math.floor(100 * (0.99 * 2400 - (3000 - held)) / held) / 100
    assert 0.15 < expected < 0.95
    # More than half of the limit is not for weights: equal widths share tables.
    assert f"prune_channels 0.5 weights {expected:g} equal, int8" in found


def test_a_file_that_is_slightly_too_large_loses_more_weights():
    def outcome(recipe):
        step = next(iter(recipe.steps), None)
        fraction = 1.0 if step is None else step.weights or 1.0
        size = 1500 if recipe.mode == "int8" else 1000
        return candidate(recipe, size=int(size * fraction) + 500 + 100 * bool(step))

    found = tried({"max_bytes": 1200, "max_macs": 0.5}, outcome, dense=410, changed=0.0)
    pruned = [
        name for name in found if name.startswith("prune_channels") and name.endswith(", int8")
    ]
    # 1,500 weights: 1188 - 500 of 1,500 bytes, then 72 bytes and 12 of room less.
    assert pruned[0] == "prune_channels 0.5 weights 0.45, int8"
    assert pruned[1].startswith("prune_channels 0.5 weights 0.3")
    assert len(pruned) == len(set(pruned))


def test_limits_on_costs_and_weights_are_both_kept():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(16, 3, name="first"),
            *(layers.Conv2D(n, 3, strides=2, name=f"c{n}") for n in (32, 64)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    step = RecipeStep("prune_channels", 0.6, 0.4)
    sizes = both_sizes(model, step.amount, step.weights)
    _, report = tfnas.prune_channels(model, sizes=sizes)
    assert report.macs[1] <= 0.6 * report.macs[0]
    assert 0.3 * report.parameters[0] < report.parameters[1] <= 0.4 * report.parameters[0]
    with pytest.raises(ValueError, match="target_params can't be met"):
        both_sizes(model, 0.6, 0.001)
