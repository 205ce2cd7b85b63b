"""Data in dictionaries goes by its names, whatever their order, wherever data is taken."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.data.examples import Examples
from tfnas.measure.output_agreement import output_agreement
from tfnas.measure.quantization_debugger.quantization_error import quantization_error

RNG = np.random.default_rng(0)
# The two inputs have the same shape: exchanged, they would give other numbers and no error.
X = {"b": RNG.normal(5, 2, (64, 6)).astype("float32"), "a": RNG.normal(size=(64, 6))}
Y = RNG.normal(size=(64, 1)).astype("float32")
ORDERS = (("b", "a"), ("a", "b"))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((6,), name=name) for name in X}
    hidden = layers.BatchNormalization()(layers.Dense(8, "relu")(inputs["b"]))
    joined = layers.Concatenate()([hidden, layers.Dense(4)(inputs["a"])])
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(16, "relu")(joined)))
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.fixture(scope="module")
def files(model):
    return tfnas.to_tflite(model), tfnas.to_tflite(model, "int8", X)


def weights(found):
    return np.concatenate([np.ravel(each) for each in found.get_weights()])


def recalibrated(model, x):
    own = keras.models.clone_model(model)
    own.set_weights(model.get_weights())
    return weights(tfnas.recalibrate_batchnorm(own, x))


def distilled(model, x):
    keras.utils.set_random_seed(1)
    student = keras.models.clone_model(model)
    distiller = tfnas.Distiller(model, student, outputs="regression")
    distiller.compile("sgd", jit_compile=False)
    distiller.fit(x, Y, batch_size=32, shuffle=False, verbose=0)
    return weights(student)


CALLS = {
    "evaluate": lambda m, f, x: tfnas.evaluate(f[0], x, Y, "mse").value,
    "output_agreement": lambda m, f, x: output_agreement(*f, Examples(x, Y)).outputs[0].rms,
    "quantization_error": lambda m, f, x: [
        each.sqnr for each in quantization_error(m, f[1], x).layers
    ],
    "teacher_outputs": lambda m, f, x: tfnas.teacher_outputs(m, x, outputs="regression"),
    "distiller": lambda m, f, x: distilled(m, x),
    "recalibrate_batchnorm": lambda m, f, x: recalibrated(m, x),
    "prune": lambda m, f, x: weights(tfnas.prune(m, 0.5, criterion="taylor", data=(x, Y))[0]),
    "reconstruct": lambda m, f, x: weights(tfnas.prune(m, 0.5, data=x, reconstruct=True)[0]),
    "prune_channels": lambda m, f, x: weights(
        tfnas.prune_channels(m, 0.5, criterion="taylor", data=(x, Y))[0]
    ),
    "factorize": lambda m, f, x: weights(tfnas.factorize(m, 1, data=x)[0]),
    "quantize_aware": lambda m, f, x: weights(tfnas.quantize_aware(m, "int8", data=x)),
    "profile": lambda m, f, x: tfnas.profile(m, x).macs,
}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "quantization_error"))
        for name in CALLS
    ],
)
def test_the_order_of_names_does_not_matter(call, model, files):
    found = [
        np.asarray(CALLS[call](model, files, {name: X[name] for name in order}), float)
        for order in ORDERS
    ]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    exchanged = {"a": X["b"], "b": X["a"]}
    if call != "profile":
        other = np.asarray(CALLS[call](model, files, exchanged), float)
        assert other.shape != found[0].shape or not np.allclose(other, found[0])
