"""New layers have the precision of their model, whatever is set for all of Keras."""

import keras
import pytest

from tfnas.graph.functional import LayerCopies, rebuild
from tfnas.graph.precision import new_layers_of, policy_of


@pytest.fixture
def mixed_policy():
    with new_layers_of("mixed_float16"):
        yield


def model(policy: str) -> keras.Model:
    settings = {"dtype": policy}
    layers = [keras.layers.Dense(3, **settings), keras.layers.ReLU(**settings)]
    outer = [keras.Input((4,)), keras.Sequential(layers), keras.layers.Dense(2, dtype="float32")]
    return keras.Sequential(outer)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_most_layers_have_the_policy_of_a_model(mixed_policy, policy):
    assert policy_of(model(policy)) == policy
    assert policy_of(keras.Sequential()) == "float32"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_rebuilt_model_has_new_layers_of_its_precision(mixed_policy, policy):
    made, copies = [], LayerCopies()

    def apply(call, tensors):
        (output,) = copies.call(call, tensors)
        made.append(keras.layers.Activation("relu"))
        return [made[-1](output)]

    rebuild(model(policy), apply, class_of=None)
    assert {layer.dtype_policy.name for layer in made} == {policy}
    assert keras.config.dtype_policy().name == "mixed_float16"


def test_the_policy_comes_back_after_an_error():
    with pytest.raises(KeyError), new_layers_of("mixed_float16"):
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"


def test_layers_of_whole_numbers_do_not_count():
    ids = [keras.Input((1,), dtype="int64") for _ in range(3)]
    buckets = [keras.layers.Hashing(8)(each) for each in ids]
    joined = keras.layers.Concatenate(dtype="int64")(buckets)
    vectors = keras.layers.Embedding(8, 4, dtype="mixed_float16")(joined)
    assert policy_of(keras.Model(ids, vectors)) == "mixed_float16"
