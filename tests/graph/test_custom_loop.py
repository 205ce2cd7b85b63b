"""A loop with GradientTape and one call a step trains as `fit` does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.graph.functional import clone
from tfnas.schedules import polynomial

EPOCHS, STEPS, BATCH = 3, 5, 8


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH - 3, 6, 5)).astype("float32")  # the last batch is partial
    return x, np.stack([x.sum((1, 2)), x[:, 0, 0]], axis=1)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            layers.Dense(16, "relu", name="first"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    return lambda: clone(model)


def optimizer():
    return keras.optimizers.Adam(0.01)


def fit(model, callbacks, x, y):
    model.compile(optimizer(), "mse", jit_compile=False)
    model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)


def loop(model, callbacks, x, y, compiled, apply="apply"):
    """The loop that the page on training shows."""
    adam = optimizer()
    run = tfnas.CustomLoop(model, callbacks, optimizer=adam, epochs=EPOCHS, steps=STEPS)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        if apply == "apply":
            adam.apply(gradients, variables)
        else:
            adam.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    step = run.function(step) if compiled else step
    data = tf.data.Dataset.from_tensor_slices((x, y.astype("float32"))).batch(BATCH)
    for _ in range(EPOCHS):
        for inputs, targets in data:
            run.after_step({"loss": step(inputs, targets)})
    assert run.stopped


CALLBACKS = {
    "pruning by epoch": lambda: [tfnas.PruningCallback(polynomial(0.75, end=2))],
    "pruning by step": lambda: [
        tfnas.PruningCallback(polynomial(0.75, begin=1, end=9, by="step", frequency=2))
    ],
    "clusters": lambda: [tfnas.ClusteringCallback(8)],
    "clusters, renewed": lambda: [tfnas.ClusteringCallback(8, renew=2, by="step")],
    "zeros and clusters": lambda: [
        tfnas.PruningCallback(0.5, exclude="last"),
        tfnas.ClusteringCallback(4, exclude=("first",)),
    ],
}


@pytest.fixture(scope="module")
def fitted(network, examples):
    """The weights that `fit` trains, by the name of its callbacks."""

    @functools.cache
    def weights(name):
        model = network()
        fit(model, CALLBACKS[name](), *examples)
        return model.get_weights()

    return weights


# Each of these changes the traced step in its own way.
COMPILED = ("pruning by step", "clusters, renewed")


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *(
            pytest.param(
                *(name, False),
                id=f"{name}, eager",
                marks=() if name == "clusters, renewed" else pytest.mark.slow,
            )
            for name in CALLBACKS
        ),
        *(
            pytest.param(name, True, marks=() if name in COMPILED else pytest.mark.slow)
            for name in CALLBACKS
        ),
    ],
)
def test_a_custom_loop_trains_as_fit_does(name, compiled, network, examples, fitted):
    by_loop = network()
    loop(by_loop, CALLBACKS[name](), *examples, compiled, "apply" if compiled else "gradients")
    for own, expected in zip(by_loop.get_weights(), fitted(name), strict=True):
        np.testing.assert_array_equal(own == 0, expected == 0)
        assert len(np.unique(own)) == len(np.unique(expected))
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4)


def schedule():
    return tfnas.QuantizationSchedule(start_epoch=1, freeze_epoch=2)


@pytest.fixture(scope="module")
def fitted_with_rounding(network, examples):
    model = tfnas.quantize_aware(network(), "int8")
    fit(model, [schedule()], *examples)
    return model.weights


@pytest.mark.parametrize("compiled", [True, False], ids=["tf.function", "eager"])
def test_rounding_starts_and_ranges_freeze_as_in_fit(
    compiled, network, examples, fitted_with_rounding
):
    by_loop = tfnas.quantize_aware(network(), "int8")
    loop(by_loop, [schedule()], *examples, compiled)
    for own, expected in zip(by_loop.weights, fitted_with_rounding, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-3, err_msg=own.path)


def test_a_compiled_step_is_traced_again_only_after_a_change(network, examples):
    model = tfnas.quantize_aware(network(), "int8")
    run = tfnas.CustomLoop(model, [schedule()], optimizer=optimizer(), epochs=4, steps=2)
    traces = []
    step = run.function(lambda x: traces.append(1) or model(x, training=True))
    for _ in range(4 * 2):
        step(examples[0][:8])
        run.after_step()
    assert len(traces) == 3  # without rounding, with rounding, with frozen ranges


def test_a_loop_that_stops_early_ends_the_training(network):
    model = network()
    pruning = tfnas.PruningCallback(0.5)
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=1)
    with tfnas.CustomLoop(
        model, [stopping, pruning], optimizer=optimizer(), epochs=9, steps=1
    ) as run:
        count = 0
        while not run.stopped:
            run.after_step({"loss": 1.0})
            count += 1
    assert count == 2  # one without an improvement
    assert run.stopped
    assert model.optimizer is None
    with pytest.raises(RuntimeError, match="epochs x steps = 9"):
        run.after_step()


def test_fit_goes_on_after_a_loop(network, examples):
    model = network()
    loop(model, [tfnas.PruningCallback(0.5)], *examples, True)
    fit(model, [], *examples)
    assert np.mean(np.asarray(model.layers[0].kernel) == 0) == 0.5


def test_callbacks_that_do_not_go_together_are_refused_as_in_fit(network):
    model = network()
    together = [tfnas.ClusteringCallback(4), tfnas.PruningCallback(0.5)]
    with pytest.raises(ValueError, match="must not prune and cluster the same kernels"):
        tfnas.CustomLoop(model, together, optimizer=optimizer(), epochs=1, steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"steps": 2.0}, "steps must be a whole number >= 1, got 2.0"),
        ({"optimizer": None}, "optimizer must be given for a model that is not compiled"),
        ({"optimizer": "adam"}, "optimizer must be the keras.optimizers.Optimizer .*got 'adam'"),
        ({"callbacks": tfnas.PruningCallback(0.5)}, "callbacks must be a list of .*, got <"),
        ({"callbacks": ["prune"]}, "callbacks must hold .* objects, got 'prune'"),
        ({"model": "model.keras"}, "model must be a Keras 3 model, got 'model.keras'"),
    ],
)
def test_arguments_outside_their_rule_are_refused(changes, message, network):
    arguments = {"optimizer": optimizer(), "epochs": 1, "steps": 1, "callbacks": [], **changes}
    with pytest.raises(ValueError, match=message):
        tfnas.CustomLoop(**{"model": network(), **arguments})


def test_logs_are_a_dictionary(network):
    loop = tfnas.CustomLoop(network(), [], optimizer=optimizer(), epochs=1, steps=1)
    with pytest.raises(ValueError, match=r"logs must be a dictionary .* got 0\.5"):
        loop.after_step(0.5)
