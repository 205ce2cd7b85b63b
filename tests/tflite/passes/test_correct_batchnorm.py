import keras
import numpy as np
import pytest
from small_conversions import conversion, network

import tfnas
from tfnas.graph.batchnorm import layers_of
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.passes import correct_batchnorm
from tfnas.tflite.passes.correct_batchnorm import CORRECTION_EXAMPLES, correct

CORRECTED = QuantSpec("int4", "int8", correct=True)
IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)


def convolution():
    """A network whose BatchNormalization stays a layer: that of a Dense layer is folded."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def statistics_of(model):
    return [w.numpy() for n in norms(model) for w in (n.moving_mean, n.moving_variance)]


def norms(model):
    return layers_of(model, keras.layers.BatchNormalization)


@pytest.mark.parametrize("requested", [True, False])
def test_statistics_move_where_it_is_requested(requested):
    spec = CORRECTED if requested else QuantSpec.of("int8x4")
    model = convolution()
    placed = tfnas.quantize_aware(model, "int8x4", data=IMAGES)
    before = statistics_of(placed)
    state = conversion(spec, placed, aware=True, columns=(IMAGES,), float_model=model)
    assert correct(state) is state
    same = all(map(np.array_equal, before, statistics_of(placed)))
    assert same is not requested


def test_a_model_with_ranges_of_training_stays_as_it_is():
    placed = tfnas.quantize_aware(convolution(), "int8x4", data=IMAGES)
    before = statistics_of(placed)
    correct(conversion(CORRECTED, placed, aware=True))
    assert all(map(np.array_equal, before, statistics_of(placed)))


def test_few_examples_are_enough(monkeypatch):
    counts = []
    monkeypatch.setattr(
        correct_batchnorm, "correct_bias", lambda *args: counts.append(len(args[2]))
    )
    many = np.zeros((CORRECTION_EXAMPLES + 1, 6), np.float32)
    correct(conversion(CORRECTED, columns=(many,), float_model=network()))
    assert counts == [CORRECTION_EXAMPLES]
