"""Predicts the latency of a model as the sum over its layers, without converting the model.

A search or structured pruning needs the latency of hundreds of models that share most layers.
There are two ways to predict it:

- By default each distinct layer (class, settings, input shapes) is converted and measured once,
  interleaved with the reference model. Layers that the converter folds into the one before
  (normalization, clipping, dropout, reshapes) count as 0. The sum ignores what fusion saves and
  what stays in caches.
- :meth:`LatencyModel.fit` measures random networks of a search space for a minute and fits the
  cost of their operators to features of their shapes. A prediction then takes milliseconds;
  layers unknown to the fit are measured as above.

Both are estimates: measure the model that you choose with :func:`tfnas.benchmark`.

References:
    Cai, Zhu and Han, "ProxylessNAS", ICLR 2019, appendix B (a lookup table of
    layers); Zhang et al., "nn-Meter", MobiSys 2021 (fused operators,
    features of each kernel).
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import math
import numbers
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Walk, walk
from tfnas.graph.functional_form import opened_model
from tfnas.graph.layer_kernels import model_kernels
from tfnas.measure.latency import benchmark, check_rounds, provenance, reference_artifact
from tfnas.measure.latency_model.features import network_features, operator_features
from tfnas.measure.latency_model.profiling import LatencyFit, SpaceProfiler
from tfnas.measure.latency_model.regression import predicted_ratio
from tfnas.measure.latency_model.serialization import FORMAT, StoredModel, read_model, write_model
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.files import write_atomically
from tfnas.runtime.store import DAMAGE, read_json_object
from tfnas.search_space.architecture import Architecture
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.network_operators import Operators, operators_of, operators_of_architecture

if TYPE_CHECKING:
    import keras

# Layers that the converter removes or folds into the operator before them.
_FREE = {
    "ActivityRegularization",
    "BatchNormalization",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "Normalization",
    "ReLU",
    "Relu",
    "Relu6",
    "Rescaling",
    "Reshape",
    "SpatialDropout2D",
    "StochasticDepth",
}
_FUSED_ACTIVATIONS = ("relu", "relu6", "linear")
# Modes of the same arithmetic; all others compute with float32.
_ARITHMETIC = {"int8": "int8", "int8x4": "int8", "int16x8": "int16x8"}
_IRRELEVANT_SETTINGS = ("name", "dtype", "trainable", "seed")
_EMPTY = "nothing"  # key of the model that measures the cost of any inference
_MACHINE = ("cpu", "cores", "system", "ai-edge-litert", "reference")


class LatencyModel:
    """Predicts the latency of functional models from their layers; see the module.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((16, 16, 8)), keras.layers.Conv2D(8, 3)])
        >>> latency = tfnas.LatencyModel(rounds=6)
        >>> 0 < latency(model) < 10
        True

    Attributes: `fitted`, the result of :meth:`fit`; `provenance`, the machine of the fit; `table`,
    the ratios of layers that were measured alone.

    Args:
        mode: Mode of the files, such as "int8", or a :class:`tfnas.QuantSpec`.
        rounds: Interleaved rounds of each measurement.
        threads: Threads of the interpreter.
        file: A JSON file that stores the table between runs on one machine; None: not stored.

    Raises:
        ValueError: An argument is outside its rule, or the file is of another machine or of
            other settings.
    """

    def __init__(
        self,
        mode: str | QuantSpec = "float32",
        *,
        rounds: int = 12,
        threads: int = 1,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        check_rounds(rounds)
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads!r}")
        self.spec, self.rounds, self.threads = QuantSpec.of(mode), rounds, threads
        if self.spec.layers:
            raise ValueError(
                f"mode must have one format for all layers, got {dict(self.spec.layers)}: a layer "
                "is measured alone and looked up by its shape, not by its name"
            )
        self.file = None if file is None else pathlib.Path(file)
        self.table: dict[str, float] = self._read()
        self.fitted: LatencyFit | None = None
        self.provenance: dict[str, Any] = {}
        self._anywhere = True

    def __call__(self, model: keras.Model | Architecture) -> float:
        """Returns the model's predicted latency as a ratio to that of the reference model.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((16, 16, 8)), keras.layers.Conv2D(8, 3)])
            >>> tfnas.LatencyModel(rounds=6)(model) > 0
            True

        Args:
            model: A Keras 3 model of known input shapes (a subclassed one is opened, see
                :func:`tfnas.as_functional`), or a :class:`tfnas.Architecture` without compression.

        Returns:
            The ratio to the reference model that tfnas ships, no unit.

        Raises:
            ValueError: The model is subclassed or has an input with a dimension of None other
                than the batch; the costs were fitted on another machine (see :meth:`load`); or
                the operators can't be derived from the architecture without building it.
            ConversionError: A layer can't be converted.
        """
        if self.fitted is not None:
            self._check_machine()
            return self._by_fit(self._operators(model), self.fitted)
        calls = _timed_calls(walk(_built(model)))
        times = self._layer_times(calls)
        return self.table[_EMPTY] + sum(times)

    def fit(self, space: Any, seconds: float = 60, *, seed: int = 0) -> LatencyModel:
        """Fits the cost of operators to random networks of a space, measured on this machine.

        The networks have random weights. For "float32" and "int8" their files are written
        directly, hundreds a minute; in other modes, and for layers that have no writer, they
        are converted, a dozen a minute. At least ten networks are measured.

        Example:
            >>> import tfnas
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, preset="microcontroller")
            >>> latency = tfnas.LatencyModel().fit(space, seconds=2)
            >>> latency.fitted.errors.networks >= 10
            True

        Args:
            space: A search space such as :class:`tfnas.MobileNetV2Space`.
            seconds: Time to measure for, in seconds.
            seed: Seed of the networks and of the order of measurements.

        Returns:
            This model; `fitted.errors` has its cross-validated errors.

        Raises:
            ValueError: An argument is outside its rule; the message names it.

        References:
            Zhang et al., "nn-Meter", MobiSys 2021.
        """
        for name in ("sample", "build"):
            if not callable(getattr(space, name, None)):
                raise ValueError(
                    f"space must be a search space with {name}(), got {type(space).__name__}"
                )
        if not _is_real(seconds) or not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be a finite number above 0, got {seconds!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed must be a whole number >= 0, got {seed!r}")
        profiler = SpaceProfiler(
            space,
            self.spec.mode,
            self.threads,
            seed,
            lambda model: operators_of(model, _key),
            self._convert,
        )
        self.fitted = profiler.run(seconds)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.provenance = {**_here(), "date": now, "seed": seed}
        self._anywhere = False
        return self

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes the fitted model with its errors and provenance as JSON.

        Example:
            >>> import tempfile, tfnas
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, preset="microcontroller")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = tfnas.LatencyModel().fit(space, seconds=1).save(f"{folder}/here.json")
            ...     tfnas.LatencyModel.load(path).spec.mode
            'float32'

        Args:
            path: The file; its folder is created if there is none.

        Returns:
            The path.

        Raises:
            ValueError: The model is not fitted.

        References:
            :class:`tfnas.measure.latency_model.serialization.StoredModel` has the fields.
        """
        if self.fitted is None:
            raise ValueError("the model must be fitted to be saved: call fit(space) first")
        stored = StoredModel(
            FORMAT, self.spec.mode, self.threads, self.provenance, self.fitted, self.table
        )
        return write_model(path, stored)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        mode: str | None = None,
        threads: int | None = None,
        anywhere: bool = False,
    ) -> LatencyModel:
        """Reads a fitted model from a file.

        Example:
            >>> import tfnas
            >>> latency = tfnas.LatencyModel.load("here.json", mode="int8")  # doctest: +SKIP

        Args:
            path: The file that :meth:`save` wrote.
            mode: The mode that the fit must have; None: any.
            threads: The number of threads that the fit must have; None: any.
            anywhere: Whether to accept a fit of another machine, runtime, mode or number of
                threads. Layers that the fit does not know are then refused, since measuring
                them here would mix two machines.

        Returns:
            The model.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or of another mode or number of threads than requested.

        References:
            :class:`tfnas.measure.latency_model.serialization.StoredModel` has the fields.
        """
        stored = read_model(path)
        for name, value in (("mode", mode), ("threads", threads)):
            found = getattr(stored, name)
            if value is not None and value != found and not anywhere:
                raise ValueError(
                    f"{name} must be {found!r}, for which {os.fspath(path)!r} was fitted, got "
                    f"{value!r}; anywhere=True accepts it nevertheless"
                )
        model = cls(stored.mode, threads=stored.threads)
        model.fitted, model.provenance = stored.fit, dict(stored.provenance)
        model.table, model._anywhere = dict(stored.table), anywhere
        return model

    def _check_machine(self) -> None:
        different = self._differences()
        if different and not self._anywhere:
            raise ValueError(
                f"the machine must be the one that the costs were fitted on, got another: "
                f"{'; '.join(different)}; load(path, anywhere=True) predicts nevertheless"
            )

    def _differences(self) -> list[str]:
        """The differences between this machine and the one of the fit."""
        return [
            f"{name} {value!r}, fitted on {self.provenance.get(name)!r}"
            for name, value in _here().items()
            if value != self.provenance.get(name)
        ]

    def _operators(self, model: keras.Model | Architecture) -> Operators:
        if not isinstance(model, Architecture):
            return operators_of(model, _key)
        direct = self.fitted is not None and self.fitted.direct
        operators = operators_of_architecture(model) if direct else None
        if operators is None:
            raise _must_be_built(model)
        return operators

    def _by_fit(self, network: Operators, fitted: LatencyFit) -> float:
        """The ratio by the fitted costs; layers unknown to the fit are measured alone."""
        unknown = [
            i
            for i, operator in enumerate(network.operators)
            if not operator_features(operator, self.spec.mode).keys() & fitted.costs.keys()
        ]
        calls = {id(network.calls[i]): network.calls[i] for i in unknown if i in network.calls}
        # A call is measured with all its operators, also those that the fit knows.
        measured = {i for i, call in network.calls.items() if id(call) in calls} | set(unknown)
        known = tuple(op for i, op in enumerate(network.operators) if i not in measured)
        features = network_features(Operators(network.inputs, known, ()), self.spec.mode)
        ratio = predicted_ratio(features, fitted.costs)
        if not unknown:
            return ratio
        kinds = sorted({network.operators[i].kind for i in unknown})
        if self._differences() or not network.calls.keys() >= set(unknown):
            raise ValueError(
                f"model must have operators that the fit knows, got {', '.join(kinds)} of other "
                "kinds or sizes: fit a space that has them, or predict a model (not an "
                "architecture) on the machine of the fit, where they are measured"
            )
        return ratio + sum(self._layer_times(list(calls.values())))

    def _layer_times(self, calls: Sequence[Call]) -> list[float]:
        """The ratios of calls, without the cost that every inference has; measures new ones."""
        keys = [_key(call) for call in calls]
        self._measure({k: c for k, c in zip(keys, calls, strict=True) if k not in self.table})
        empty = self.table[_EMPTY]
        return [max(self.table[key] - empty, 0.0) for key in keys]

    def _measure(self, missing: dict[str, Call]) -> None:
        """Measures new layers in one interleaved benchmark and adds them to the table."""
        files = {key: self._convert(_model_of(call)) for key, call in missing.items()}
        if _EMPTY not in self.table:
            files[_EMPTY] = self._convert(_empty_model())
        if not files:
            return
        found = benchmark(
            list(files.values()),
            rounds=self.rounds,
            threads=self.threads,
            sample_ms=1.0,
        )
        self.table.update({k: t.ratio for k, t in zip(files, found, strict=True)})
        if self.file is not None:
            state = {"settings": self._settings(), "table": self.table}
            write_atomically(self.file, json.dumps(state, indent=1, sort_keys=True))

    def _convert(self, model: keras.Model) -> Artifact:
        data: Any = None
        if self.spec.needs_calibration:
            rng = np.random.default_rng(0)
            noise = [rng.normal(size=(4, *t.shape[1:])).astype("float32") for t in model.inputs]
            data = noise[0] if len(noise) == 1 else noise
        # A layer without a kernel is the same in all modes of the same arithmetic.
        arithmetic = _ARITHMETIC.get(self.spec.mode, "float32")
        own_mode = arithmetic == self.spec.mode or bool(model_kernels(model)[0])
        return to_tflite(model, self.spec if own_mode else arithmetic, data)

    def _settings(self) -> dict[str, Any]:
        here = _here()
        return {
            "mode": self.spec.mode,
            "threads": self.threads,
            **{name: here[name] for name in ("reference", "cpu", "system", "ai-edge-litert")},
        }

    def _read(self) -> dict[str, float]:
        if self.file is None or not self.file.exists():
            return {}
        try:
            state = read_json_object(self.file, "table of latencies")
            settings, table = state["settings"], state["table"]
            found = {str(key): float(value) for key, value in table.items()}
        except DAMAGE as error:
            raise ValueError(f"file {str(self.file)!r} must be a table of latencies") from error
        if settings != self._settings():
            raise ValueError(
                f"file {str(self.file)!r} must hold latencies of {self._settings()}, got those "
                f"of {settings}"
            )
        return found


@functools.cache
def _here() -> dict[str, Any]:
    """The machine, runtime and reference model that latencies depend on."""
    known = {**provenance(), "reference": reference_artifact().sha256}
    return {name: known[name] for name in _MACHINE}


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _built(model: keras.Model | Architecture) -> keras.Model:
    """The model, or the model of an architecture."""
    if not isinstance(model, Architecture):
        return opened_model(model)
    if operators_of_architecture(model) is None:
        raise _must_be_built(model)
    from tfnas.search_space.blocks import build_model

    return build_model(model)


def _must_be_built(arch: Architecture) -> ValueError:
    return ValueError(
        f"model must be a built model, got the architecture {arch.key}, whose operators can't be "
        "derived without building it: pass space.build(arch)"
    )


def _timed_calls(flow: Walk) -> list[Call]:
    """The calls that take time in the file."""
    for value in flow.inputs:
        if None in value.shape[1:]:
            raise ValueError(f"model must have inputs of known shape, got {value.shape}")
    return [call for call in flow.calls if not _is_free(call)]


def _is_free(call: Call) -> bool:
    if call.kind == "Activation":
        return getattr(call.operation.activation, "__name__", "") in _FUSED_ACTIVATIONS
    return call.kind in _FREE


def _key(call: Call) -> str:
    """Key of the table: class, settings and input shapes, which decide a layer's latency."""
    config: dict[str, Any] = call.operation.get_config() if _is_layer(call) else _settings(call)
    settings = {
        name: value
        for name, value in config.items()
        if name not in _IRRELEVANT_SETTINGS
        and not name.endswith(("_initializer", "_regularizer", "_constraint"))
    }
    shapes = [value.shape[1:] for value in call.inputs]
    text = json.dumps(settings, sort_keys=True, default=str)
    if not _is_layer(call):
        text += f"{[value.shape[1:] for value in call.outputs]}"
    short = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{call.kind} {'+'.join('x'.join(map(str, s)) for s in shapes)} {short}"


def _settings(call: Call) -> dict[str, Any]:
    """The settings of an operation that is no layer, such as its axes."""
    return {n: value for n, value in vars(call.operation).items() if not n.startswith("_")}


def _is_layer(call: Call) -> bool:
    import keras

    return isinstance(call.operation, keras.layers.Layer)


def _model_of(call: Call) -> keras.Model:
    import keras

    inputs = [keras.Input(value.shape[1:], dtype=value.dtype) for value in call.inputs]
    return keras.Model(inputs, LayerCopies().call(call, inputs))


def _empty_model() -> keras.Model:
    """The smallest model: it measures the cost that every inference has."""
    import keras

    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.ReLU()(inputs))
