"""The time of a model as the sum of its layers' times, without converting the model.

A search or a pruning asks for the time of hundreds of models that share most layers. There
are two ways to know it:

- As it comes, each distinct layer (class, settings, input shapes) is converted and measured
  once, all that are new together, interleaved with the reference model. What the converter
  folds into the layer before it (normalization, clipping, dropout, reshapes) counts nothing,
  and the sum leaves out what fusion saves and how caches carry over.
- :meth:`LatencyModel.fit` measures whole random networks of a search space for a minute and
  learns what their operators cost, by features of their shapes. A prediction then takes
  milliseconds, and layers that no network had are measured as above.

Measure the model that is chosen.

References:
    Cai, Zhu and Han, "ProxylessNAS", ICLR 2019, appendix B (latency as a sum over a table of
    layers); Zhang et al., "nn-Meter", MobiSys 2021 (operators as they are fused, features a
    kernel).
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
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Walk, walk
from tfnas.graph.layer_kernels import model_kernels
from tfnas.measure.latency import benchmark, check_rounds, provenance, reference_artifact
from tfnas.measure.latency_model.features import network_features, operator_features
from tfnas.measure.latency_model.profiling import LatencyFit, SpaceProfiler
from tfnas.measure.latency_model.regression import price
from tfnas.measure.latency_model.serialization import FORMAT, StoredModel, read_model, write_model
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.files import write_atomically
from tfnas.search_space.architecture import Architecture
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.network_operators import Operators, operators_of, operators_of_architecture

_FREE = {
    *("BatchNormalization", "ReLU", "Relu", "Relu6", "Dropout", "SpatialDropout2D", "Identity"),
    *("Flatten", "Reshape", "ActivityRegularization", "GaussianNoise", "GaussianDropout"),
    *("Rescaling", "Normalization", "StochasticDepth"),
}
_CLIPPING = ("relu", "relu6", "linear")
_COMPUTES_AS = {"int8": "int8", "int8x4": "int8", "int16x8": "int16x8"}  # others: floats
_NOT_TIME = ("name", "dtype", "trainable", "seed")
_EMPTY = "nothing"
_MACHINE = ("cpu", "cores", "system", "ai-edge-litert", "reference")


class LatencyModel:
    """Prices functional models by their layers; see the module.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((16, 16, 8)), keras.layers.Conv2D(8, 3)])
        >>> latency = tfnas.LatencyModel(rounds=6)
        >>> 0 < latency(model) < 10
        True

    `fitted` is what :meth:`fit` learned, `provenance` where; `table` has layers measured alone.

    Args:
        mode: Numbers that the files compute with, such as "int8".
        rounds: Interleaved rounds of each measurement.
        threads: Threads of the interpreter.
        file: A JSON file that keeps the table between runs on one machine; None: nowhere.

    Raises:
        ValueError: An argument is outside its rule, or the file is of another machine or
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
                f"mode must give all layers one format, got {dict(self.spec.layers)}: a layer is "
                "measured alone, and known by its shape"
            )
        self.file = None if file is None else pathlib.Path(file)
        self.table: dict[str, float] = self._read()
        self.fitted: LatencyFit | None = None
        self.provenance: dict[str, Any] = {}
        self._anywhere = True

    def __call__(self, model: Any) -> float:
        """Returns the model's time as a ratio to that of tfnas' reference model.

        Args:
            model: A built functional or Sequential Keras 3 model of known input sizes, or an
                :class:`tfnas.Architecture` without compression.

        Raises:
            ValueError: The model has no known connections, or an input of open size; the costs
                were fitted on another machine (see :meth:`load`); the operators of the
                architecture's file don't follow from it.
            ConversionError: A layer can't be converted.
        """
        if self.fitted is not None:
            self._check_machine()
            return self._by_fit(self._operators(model), self.fitted)
        calls = _priced(walk(_built(model)))
        times = self._layer_times(calls)
        return self.table[_EMPTY] + sum(times)

    def fit(self, space: Any, seconds: float = 60, *, seed: int = 0) -> LatencyModel:
        """Learns what operators cost from random networks of a space, measured here and now.

        Their files have random weights and are written directly, hundreds a minute, for
        "float32" and "int8"; in other modes, and where a layer has no such way, the
        converter makes them, a dozen a minute. At least ten networks are measured.

        Example:
            >>> import tfnas
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, preset="microcontroller")
            >>> latency = tfnas.LatencyModel().fit(space, seconds=2)
            >>> latency.fitted.errors.networks >= 10
            True

        Args:
            space: A search space such as :class:`tfnas.MobileNetV2Space`.
            seconds: Time to spend on measuring, in seconds.
            seed: Seed of the networks and of the order of measurements.

        Returns:
            This model; `fitted` tells its cross-validated errors.

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
            path: The file; its folder is made where there is none.

        Returns:
            The path.

        Raises:
            ValueError: The model was not fitted.

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
        """Reads a fitted model.

        Example:
            >>> import tfnas
            >>> latency = tfnas.LatencyModel.load("here.json", mode="int8")  # doctest: +SKIP

        Args:
            path: The file that :meth:`save` wrote.
            mode: The mode that it must be of; None: any.
            threads: The number of threads that it must be of; None: any.
            anywhere: Whether it may predict although it was fitted on another machine or with
                another runtime, and where its mode and threads are not those asked for. Layers
                that are not known to it are then refused, as they would be measured here.

        Returns:
            The model.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or is of another mode or number of threads than asked.

        References:
            :class:`tfnas.measure.latency_model.serialization.StoredModel` has the fields.
        """
        stored = read_model(path)
        asked = {"mode": mode, "threads": threads}
        for name, value in asked.items():
            found = getattr(stored, name)
            if value is not None and value != found and not anywhere:
                raise ValueError(
                    f"{name} must be {found!r}, for which {os.fspath(path)!r} was fitted, got "
                    f"{value!r}; anywhere=True takes it nevertheless"
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
        """How this machine differs from the one that the costs were fitted on."""
        return [
            f"{name} {value!r}, fitted on {self.provenance.get(name)!r}"
            for name, value in _here().items()
            if value != self.provenance.get(name)
        ]

    def _operators(self, model: Any) -> Operators:
        if not isinstance(model, Architecture):
            return operators_of(model, _key)
        told = operators_of_architecture(model) if self.fitted and self.fitted.direct else None
        if told is None:
            raise _must_be_built(model)
        return told

    def _by_fit(self, network: Operators, fitted: LatencyFit) -> float:
        """The fitted costs, and layers that the fit never saw measured alone."""
        strange = []
        for place, operator in enumerate(network.operators):
            if operator_features(operator, self.spec.mode).keys() - fitted.costs.keys():
                strange.append(place)
        calls = {id(network.calls[i]): network.calls[i] for i in strange if i in network.calls}
        # A call is measured whole, with operators of it that the fit knows.
        measured = {i for i, call in network.calls.items() if id(call) in calls} | set(strange)
        known = [o for i, o in enumerate(network.operators) if i not in measured]
        rest = Operators(network.inputs, tuple(known), ())
        ratio = price(network_features(rest, self.spec.mode), fitted.costs)
        if not strange:
            return ratio
        kinds = sorted({network.operators[place].kind for place in strange})
        if self._differences() or not network.calls.keys() >= set(strange):
            raise ValueError(
                f"model must have operators that the fit saw, got {', '.join(kinds)} of other "
                "kinds or sizes: fit a space that has them, or pass a model on the machine of "
                "the fit, where they are measured"
            )
        return ratio + sum(self._layer_times(list(calls.values())))

    def _layer_times(self, calls: Sequence[Call]) -> list[float]:
        """The times of calls as the table has them, beyond what every inference costs."""
        keys = [_key(call) for call in calls]
        self._measure({k: c for k, c in zip(keys, calls, strict=True) if k not in self.table})
        empty = self.table[_EMPTY]
        return [max(self.table[key] - empty, 0.0) for key in keys]

    def _measure(self, missing: dict[str, Call]) -> None:
        """Measures new layers, all together."""
        files = {key: self._convert(_alone(call)) for key, call in missing.items()}
        if _EMPTY not in self.table:
            files[_EMPTY] = self._convert(_nothing())
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

    def _convert(self, model: Any) -> Artifact:
        data: Any = None
        if self.spec.needs_calibration:
            rng = np.random.default_rng(0)
            noise = [rng.normal(size=(4, *t.shape[1:])).astype("float32") for t in model.inputs]
            data = noise[0] if len(noise) == 1 else noise
        # What has no kernel is the same in all formats that compute with the same numbers.
        plain = _COMPUTES_AS.get(self.spec.mode, "float32")
        same = plain == self.spec.mode or bool(model_kernels(model)[0])
        return to_tflite(model, self.spec if same else plain, data)

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
            state = json.loads(self.file.read_text())
            settings, table = state["settings"], state["table"]
            found = {str(key): float(value) for key, value in table.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"file {str(self.file)!r} must be a table of latencies") from error
        if settings != self._settings():
            raise ValueError(
                f"file {str(self.file)!r} must hold times of {self._settings()}, got those of "
                f"{settings}"
            )
        return found


@functools.cache
def _here() -> dict[str, Any]:
    """What a time depends on beside the model: the machine, the runtime, the reference."""
    known = {**provenance(), "reference": reference_artifact().sha256}
    return {name: known[name] for name in _MACHINE}


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _built(model: Any) -> Any:
    """The model; an architecture is built."""
    if not isinstance(model, Architecture):
        return model
    if operators_of_architecture(model) is None:
        raise _must_be_built(model)
    from tfnas.search_space.blocks import build_model

    return build_model(model)


def _must_be_built(arch: Architecture) -> ValueError:
    return ValueError(
        f"model must be built, as its operators don't follow from the architecture {arch.key}: "
        "pass the model, such as space.build(arch)"
    )


def _priced(flow: Walk) -> list[Call]:
    """The calls that cost time."""
    for value in flow.inputs:
        if None in value.shape[1:]:
            raise ValueError(f"model must have inputs of known size, got {value.shape}")
    return [call for call in flow.calls if not _is_free(call)]


def _is_free(call: Call) -> bool:
    if call.kind == "Activation":
        return getattr(call.operation.activation, "__name__", "") in _CLIPPING
    return call.kind in _FREE


def _key(call: Call) -> str:
    """What a layer's time depends on."""
    config: dict[str, Any] = call.operation.get_config() if _is_layer(call) else _public(call)
    settings = {
        name: value
        for name, value in config.items()
        if name not in _NOT_TIME
        and not name.endswith(("_initializer", "_regularizer", "_constraint"))
    }
    shapes = [value.shape[1:] for value in call.inputs]
    text = json.dumps(settings, sort_keys=True, default=str)
    if not _is_layer(call):
        text += f"{[value.shape[1:] for value in call.outputs]}"
    short = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{call.kind} {'+'.join('x'.join(map(str, s)) for s in shapes)} {short}"


def _public(call: Call) -> dict[str, Any]:
    """An operation's settings, such as the axes that it is over."""
    return {n: value for n, value in vars(call.operation).items() if not n.startswith("_")}


def _is_layer(call: Call) -> bool:
    import keras

    return isinstance(call.operation, keras.layers.Layer)


def _alone(call: Call) -> Any:
    """A model of one call."""
    import keras

    inputs = [keras.Input(value.shape[1:], dtype=value.dtype) for value in call.inputs]
    return keras.Model(inputs, LayerCopies().call(call, inputs))


def _nothing() -> Any:
    """The least that can be measured: what every inference costs, whatever it computes."""
    import keras

    one = keras.Input((1,))
    return keras.Model(one, keras.layers.ReLU()(one))
