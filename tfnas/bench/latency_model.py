"""The time of a model as the sum of its layers' times, each measured alone on this machine.

A search or a pruning asks for the time of hundreds of models that share most layers. Each
distinct layer (class, settings, input shapes) is converted and measured once, all that are
new together, interleaved with the reference model; a model's time is the sum. What the
converter folds into the layer before it (normalisation, clipping, dropout, reshapes) counts
nothing. The sum leaves out what fusion saves and how caches carry over: measure the model
that is chosen.

References:
    Cai, Zhu and Han, "ProxylessNAS", ICLR 2019, appendix B (latency as a sum over a table of
    layers).
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from tfnas.bench.latency import benchmark, check_rounds, provenance, reference_artifact
from tfnas.export.artifact import Artifact
from tfnas.export.tflite import to_tflite
from tfnas.files import write_atomically
from tfnas.quantization.spec import QuantSpec
from tfnas.rewrite import Call, LayerCopies, Walk, walk

_FREE = {
    *("BatchNormalization", "ReLU", "Relu", "Relu6", "Dropout", "SpatialDropout2D", "Identity"),
    *("Flatten", "Reshape", "ActivityRegularization", "GaussianNoise", "GaussianDropout"),
    *("Rescaling", "Normalization", "StochasticDepth"),
}
_CLIPPING = ("relu", "relu6", "linear")
_NOT_TIME = ("name", "dtype", "trainable", "seed")
_EMPTY = "nothing"


class LatencyModel:
    """Prices functional models by their layers; see the module.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((16, 16, 8)), keras.layers.Conv2D(8, 3)])
        >>> latency = tfnas.LatencyModel(rounds=6)
        >>> 0 < latency(model) < 10
        True

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
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads!r}")
        self.spec, self.rounds, self.threads = QuantSpec.of(mode), rounds, threads
        self.file = None if file is None else pathlib.Path(file)
        self.table: dict[str, float] = self._read()

    def __call__(self, model: Any) -> float:
        """Returns the model's time as a ratio to that of tfnas' reference model.

        Args:
            model: A built functional or Sequential Keras 3 model of known input sizes.

        Raises:
            ValueError: The model has no known connections, or an input of open size.
            ConversionError: A layer can't be converted.
        """
        calls = _priced(walk(model))
        keys = [_key(call) for call in calls]
        self._measure({k: c for k, c in zip(keys, calls, strict=True) if k not in self.table})
        empty = self.table[_EMPTY]
        return empty + sum(max(self.table[key] - empty, 0.0) for key in keys)

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
        return to_tflite(model, self.spec, data)

    def _settings(self) -> dict[str, Any]:
        versions = provenance()
        return {
            "mode": self.spec.mode,
            "threads": self.threads,
            "reference": reference_artifact().sha256,
            **{name: versions[name] for name in ("cpu", "system", "ai-edge-litert")},
        }

    def _read(self) -> dict[str, float]:
        if self.file is None or not self.file.exists():
            return {}
        try:
            state = json.loads(self.file.read_text())
            settings, table = state["settings"], state["table"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"file {str(self.file)!r} must be a table of latencies") from error
        if settings != self._settings():
            raise ValueError(
                f"file {str(self.file)!r} must hold times of {self._settings()}, got those of "
                f"{settings}"
            )
        return {str(key): float(value) for key, value in table.items()}


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
