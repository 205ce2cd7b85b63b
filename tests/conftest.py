"""What several test modules share: settings of a run, one data set, one trained network, its files.

No test may depend on the machine; `tests/settings.sh` runs all of them in settings that differ
as machines do, two of them by options of this file. None may depend on chance: the examples of
property tests are the same in every run, unless HYPOTHESIS_PROFILE=random asks for others.
"""

import collections
import functools
import gc
import inspect
import os
import random
import subprocess
import sys
import types

import hypothesis
import keras
import keras_tuner.src.engine.tuner
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras.src.backend.common import global_state
from keras.src.utils import naming

import tfnas
from tfnas.cli import app
from tfnas.graph.tracing import TraceOnce
from tfnas.measure.latency import benchmark
from tfnas.measure.throughput import throughput
from tfnas.quantization.spec import MODES
from tfnas.tflite import convert

# A slow machine fails no property test. `print_blob` says how to run a failure again.
for name, same_examples in (("fixed", True), ("random", False)):
    hypothesis.settings.register_profile(
        name,
        derandomize=same_examples,
        print_blob=True,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser):
    group = parser.getgroup("settings that differ as machines do")
    group.addoption("--no-xnnpack", action="store_true", help="LiteRT without its XNNPACK delegate")
    group.addoption(
        "--shuffle", type=int, metavar="SEED", help="files and their tests in any order"
    )
    group.addoption(
        "--trace-twice",
        action="store_true",
        help="Keras traces, and TensorFlow optimizes graphs, as they do by themselves",
    )
    group.addoption(
        "--late-names", action="store_true", help="names that Keras gives, as after 100,000 others"
    )


def pytest_configure():
    """Python looks through all objects less often: each time takes half a second by then."""
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, 100)


def pytest_collection_modifyitems(config, items):
    """Shuffles files, and tests within each: fixtures of a file are still made once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    rng = random.Random(seed)  # the same order in every process of xdist
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    groups = list(files.values())
    rng.shuffle(groups)
    for group in groups:
        rng.shuffle(group)
    items[:] = [item for group in groups for item in group]


@pytest.fixture(scope="session", autouse=True)
def kernels(request):
    """With --no-xnnpack, LiteRT's own kernels where XNNPACK would be taken, in this process."""
    if not request.config.getoption("--no-xnnpack"):
        yield
        return
    create = Interpreter.__init__

    def without(self, *args, experimental_op_resolver_type=OpResolverType.AUTO, **options):
        if experimental_op_resolver_type in (OpResolverType.AUTO, OpResolverType.BUILTIN):
            experimental_op_resolver_type = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        create(self, *args, experimental_op_resolver_type=experimental_op_resolver_type, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interpreter, "__init__", without)
        yield


@pytest.fixture(scope="session", autouse=True)
def names(request):
    """With --late-names, Keras counts the names that it gives from 100,000.

    They stand in files: a test whose result depends on their length depends on those before it.
    """
    if not request.config.getoption("--late-names"):
        yield
        return
    uniquify = naming.uniquify

    def late(name):
        counts = global_state.get_global_attribute(
            "object_name_uids", default=collections.defaultdict(int), set_to_default=True
        )
        counts.setdefault(name, 100_000)
        return uniquify(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "uniquify", late)
        yield


@pytest.fixture(autouse=True)
def no_open_name_scope():
    """A name scope that a test leaves open would change the paths of all later weights."""
    yield
    assert keras.Variable(0.0, name="next").path == "next"


@pytest.fixture(scope="session", autouse=True)
def searches_without_collections():
    """keras_tuner collects garbage twice before each model: seconds in a process of many tests.

    Python collects by itself when there is enough of it, and Keras is reset as before.
    """
    clear = keras.backend.clear_session
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keras.backend, "clear_session", lambda free_memory=False: clear(free_memory=free_memory)
        )
        no_collections = types.SimpleNamespace(collect=lambda: 0)
        patch.setattr(keras_tuner.src.engine.tuner, "gc", no_collections)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_measurements():
    """What a job measures in a test is no result: by default 7 rounds of samples of 0.1 ms.

    Tests ask for 6 rounds, so that what they ask for is seen.
    """
    with pytest.MonkeyPatch.context() as patch:
        for function in (benchmark, throughput):
            patch.setitem(function.__kwdefaults__, "rounds", 7)
            patch.setitem(function.__kwdefaults__, "sample_ms", 0.1)
        yield


@pytest.fixture(scope="session", autouse=True)
def trainings_traced_once(request):
    """Keras traces the step of a new model twice, which takes longer than a test's training.

    Trainings of tests have the callback that jobs add to theirs; weights are the same bit by bit
    (`tests/graph/test_tracing.py`). Tests of callbacks, which users hand to Keras' own `fit`, ask
    for :func:`traced_by_keras`; with --trace-twice all trainings are Keras' own.
    """
    if request.config.getoption("--trace-twice"):
        yield
        return
    fit = keras.Model.fit

    @functools.wraps(fit)
    def traced_once(*args, **kwargs):
        call = inspect.signature(fit).bind(*args, **kwargs)
        callbacks = call.arguments.get("callbacks") or []
        if isinstance(callbacks, list) and not any(isinstance(c, TraceOnce) for c in callbacks):
            call.arguments["callbacks"] = [*callbacks, TraceOnce()]
        return fit(*call.args, **call.kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", traced_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def graphs_as_traced(request):
    """TensorFlow rewrites the graph of each new function, for longer than a test runs it.

    That is a third to a half of a short training's time. With --trace-twice it does, and so do
    the processes that tests start.
    """
    if not request.config.getoption("--trace-twice"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session", autouse=True)
def sizes_not_compared():
    """A large integer file is not compared with two other conversions of its model.

    Tests of the comparison (`tests/tflite/test_size_comparison.py`) make it themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "with_comparison", lambda file, *_: file)
        yield


@pytest.fixture
def traced_by_keras(monkeypatch):
    """Has Keras trace training steps as often as it does by itself."""
    monkeypatch.setattr(keras.Model, "fit", inspect.unwrap(keras.Model.fit))


@pytest.fixture(scope="session")
def digits():
    return tfnas.data.load("digits")


@pytest.fixture(scope="session")
def tiny_model(digits):
    keras.utils.set_random_seed(0)
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(30)]
    model = space.build(min(samples, key=lambda a: sum(stage.repeats for stage in a.stages)))
    model.compile(
        keras.optimizers.Adam(3e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(digits.x_train, digits.y_train, epochs=3, batch_size=32, verbose=0)
    return model


@pytest.fixture(scope="session")
def artifacts(tiny_model, digits):
    """Mode -> file of `tiny_model`."""
    return {mode: tfnas.to_tflite(tiny_model, mode, digits.x_train[:100]) for mode in MODES}


@pytest.fixture(scope="session")
def npz(tmp_path_factory):
    """A data set of noise, as a file."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (80, 8, 8, 1), np.uint8)
    y = np.arange(80) % 10
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return path


@pytest.fixture
def tfnas_command(capsys):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def call(*argv):
        code = app.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def python():
    """Runs code in a process of its own, so that a crash does not end the tests."""

    def run(code, paths=(), timeout=120):
        quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        modules = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **quiet, "PYTHONPATH": modules},
        )

    return run


@pytest.fixture
def registry():
    """Forgets the layers that a test registers; those of tfnas stay."""
    from tfnas.graph import registered_layers

    classes = registered_layers._REGISTERED
    before = dict(classes)
    yield classes
    for each in set(classes) - set(before):
        if not each.__module__.startswith("tfnas."):
            del classes[each]
    classes.update(before)
