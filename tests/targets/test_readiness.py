"""What runtimes take of a file: by rules, by a compiler, or unknown."""

import json

import keras
import pytest
from keras import layers, ops

import tfnas
from tfnas.targets.readiness import RuntimeVerdict
from tfnas.tflite.delegation import macs_of_operators


def of(*inputs_and_output):
    *inputs, output = inputs_and_output
    return tfnas.to_tflite(keras.Model(inputs, output))


@pytest.fixture(scope="module")
def mixed():
    """A file of which the GPU delegate takes two parts, with a sort between."""
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    x = ops.reshape(x, (1, 256))
    x = ops.top_k(x, 64)[0]
    return of(inputs, layers.Dense(10, name="head")(x))


def test_a_convolutional_network_is_taken_whole():
    inputs = keras.Input(batch_shape=(1, 16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="hard_silu")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.GlobalAveragePooling2D()(x)
    found = tfnas.readiness(of(inputs, layers.Dense(4, activation="softmax")(x)))
    assert found.complete
    assert [verdict.share for verdict in found.verdicts] == [1.0, 1.0]
    assert found.of("gpu").partitions == 1


def test_what_stays_on_the_cpu_is_named_with_its_layer_and_reason(mixed):
    verdict = tfnas.readiness(mixed, ["gpu"]).of("gpu")
    assert [(each.operator, each.reasons) for each in verdict.fallbacks] == [
        ("TOPK_V2", ("no kernel",))
    ]
    assert verdict.partitions == 2
    assert verdict.share == 1.0  # a sort multiplies nothing
    assert not verdict.complete


def test_the_part_that_a_gpu_takes_by_default_is_the_one_of_most_operators(mixed):
    gpu, micro = tfnas.readiness(mixed, ["gpu", "micro"]).verdicts
    costs = [cost or 0 for cost in macs_of_operators(mixed)]
    names = [op.name for op in mixed.graph.operators]
    middle = names.index("TOPK_V2")
    before, after = costs[:middle], costs[middle + 1 :]
    largest = before if len(before) >= len(after) else after
    assert gpu.largest_share == gpu.share_by_default == sum(largest) / sum(costs)
    assert 0 < gpu.largest_share < 1
    assert (micro.largest_share, micro.share_by_default) == (None, micro.share)
    assert tfnas.Device().metrics(mixed, {"delegated_macs"}) == {
        "delegated_macs": gpu.largest_share
    }


def test_the_share_of_macs_is_of_what_is_taken():
    inputs = keras.Input(batch_shape=(1, 4, 4, 4, 2))
    x = layers.Conv3D(4, 1, name="conv")(inputs)
    x = layers.Dense(4, name="head")(ops.reshape(x, (1, 256)))
    verdict = tfnas.readiness(of(inputs, x), ["gpu"]).of("gpu")
    assert verdict.macs == 64 * 2 * 4 + 256 * 4
    assert verdict.share == pytest.approx(1024 / 1536)
    assert verdict.fallbacks[0].operator == "CONV_3D"


def six_axes(x):
    x = ops.transpose(ops.reshape(x, (1, 2, 4, 2, 4, 3)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (1, 16, 12))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (six_axes, "a tensor of 6 dimensions"),
        (ops.round, "no kernel"),
        (lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "symmetric"), "symmetric padding"),
        (lambda x: x[:, 0], "a shrink_axis mask"),
    ],
)
def test_rules_of_the_gpu_delegate(layer, reason):
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    verdict = tfnas.readiness(of(inputs, layer(inputs)), ["gpu"]).of("gpu")
    reasons = [text for each in verdict.fallbacks for text in each.reasons]
    assert reason in reasons


def test_weights_in_float16_are_no_operators_of_their_own():
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(16, 3)(inputs))
    found = tfnas.readiness(tfnas.to_tflite(model, "float16"), ["gpu", "micro"])
    assert found.of("gpu").complete
    assert not found.of("micro").complete


def test_an_npu_is_judged_by_its_compiler_and_others_are_unknown(mixed):
    pytest.importorskip("ethosu")
    found = tfnas.readiness(mixed, ["ethos-u55-128", "hexagon"])
    verdict = found.of("ethos-u55-128")
    assert verdict.known
    assert verdict.share == 0.0
    assert {each.operator for each in verdict.fallbacks} >= {"CONV_2D", "FULLY_CONNECTED"}
    assert found.of("hexagon") == RuntimeVerdict(
        "hexagon", False, "unknown: no rules for it are known here"
    )
    assert "unknown" in str(found)
    assert json.loads(found.to_json())[1]["share"] is None


def test_wrong_arguments_are_named(mixed):
    with pytest.raises(ValueError, match="runtimes must be a list of at least one name, got 'gpu'"):
        tfnas.readiness(mixed, "gpu")
    with pytest.raises(ValueError, match="runtime must be one of gpu, got 'micro'"):
        tfnas.readiness(mixed, ["gpu"]).of("micro")


def test_the_command_tells_and_ends_with_3(tfnas_command, mixed, tmp_path):
    path = mixed.save(tmp_path / "mixed.tflite")
    code, out, err = tfnas_command("lint", path, f"--json={tmp_path / 'lint.json'}")
    assert (code, err) == (3, "")
    assert "TOPK_V2" in out
    assert json.loads((tmp_path / "lint.json").read_text())[0]["runtime"] == "gpu"
    code, _, _ = tfnas_command("lint", path, "--runtimes=gpu", "--min_share=0.9")
    assert code == 0
    code, _, err = tfnas_command("lint", path, "--min_share=0.9")
    assert code == 2
    assert "min_share needs one runtime, got gpu, micro" in err
