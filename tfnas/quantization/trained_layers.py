"""The formats of single layers that a quantization-aware model was made for, kept in the model.

Functions, parts of attention and halves of separable convolutions have no layer in such a model
that says what they were called. So the first range of the model holds the names of all layers and
what the specification said of them, in its configuration: it is saved, loaded and cloned with it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import keras

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.functional import Call, LayerCopies, Walk, walk
from tfnas.graph.registered_layers import is_of_keras
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import Role, activation_name, kernel_bits, role
from tfnas.quantization.normal_form import Origins, normal_form
from tfnas.quantization.spec import FLOAT, QuantSpec


@dataclasses.dataclass(frozen=True)
class TrainedLayers:
    """What a quantization-aware model was made for, and the names of the layers that it was of.

    Args:
        spec: The number formats.
        kernels: Of each layer with a kernel its own (name, class), and those that it has in the
            original model.
        others: The names by which a specification may call each of the other layers.
        whole: Names of the layers that are float by the specification alone: others would compute
            them in integers, as those of attention.
    """

    spec: QuantSpec
    kernels: tuple[tuple[tuple[str, str], ...], ...]
    others: tuple[tuple[str, ...], ...]
    whole: tuple[str, ...] = ()

    def check(self, asked: QuantSpec, model: keras.Model, floats: Iterable[str]) -> None:
        """Raises ValueError where a specification names no layer, or other formats than these.

        What it does not name is as the model was trained.

        Args:
            asked: The specification.
            model: The quantization-aware model, for messages.
            floats: Names of the layers that stay float in it.
        """
        asked.check_patterns({pair for each in self.kernels for pair in each}, self.others)
        left = set(floats)
        for names in self.others:
            if asked.leaves_float(*names) and not (
                self.spec.leaves_float(*names) or names[0] in left
            ):
                raise _disagreement(model, names[0], FLOAT, self.spec.activations)
        for identities in self.kernels:
            entry = asked.entry_of(*identities)
            own, requested = (
                self._of_kernel(self.spec, identities),
                self._of_kernel(asked, identities),
            )
            if entry is not None and own != requested:
                raise _disagreement(model, identities[-1][0], entry[1], own)

    def _of_kernel(self, spec: QuantSpec, identities: tuple[tuple[str, str], ...]) -> str:
        entry = spec.entry_of(*identities)
        found = spec.weights if entry is None else entry[1]
        if found == FLOAT:
            return found
        bits = int(found.removeprefix("int"))
        return f"int{kernel_bits(identities[0][1], bits, self.spec.activation_bits)}"


def _disagreement(model: keras.Model, name: str, asked: str, trained: str) -> ValueError:
    return ValueError(
        f"layers must agree with the training of {model.name!r}, got {asked!r} for {name!r}, which "
        f"was trained with {trained!r}: give the formats of layers to tfnas.quantize_aware, or to "
        "tfnas qat"
    )


def layers_to_train(
    model: keras.Model, flow: Walk, spec: QuantSpec, origins: Origins
) -> TrainedLayers:
    """Returns the names of all layers of a model that becomes quantization-aware.

    Args:
        model: The float model.
        flow: The calls of its normal form.
        spec: The number formats.
        origins: Where the layers of the normal form come from.
    """
    kernels, parts = list[tuple[tuple[str, str], ...]](), list[tuple[str | None, ...]]()
    for call in flow.calls:
        if role(call) in WITH_WEIGHTS:
            own = call.name, call.kind
            kernels.append(tuple(dict.fromkeys((own, origins.of_kernel(call) or own))))
        else:
            parts.append(origins.names(call))
    split = {identities[-1][0] for identities in kernels}
    calls = [call for call in walk(model).calls if call.name not in split]
    # Attention is opened, and errors name it rather than its parts.
    original = [(call.name, call.kind, activation_name(call)) for call in calls]
    others = [tuple(name for name in names if name) for names in (*original, *parts)]
    bits = spec.activation_bits
    whole = [
        call.name
        for call in flow.calls
        if spec.leaves_float(*origins.names(call))
        and role(call, bits) is Role.FLOAT
        and _has_form_of_layers(call, bits)
    ]
    return TrainedLayers(
        spec, tuple(dict.fromkeys(kernels)), tuple(dict.fromkeys(others)), tuple(whole)
    )


def _has_form_of_layers(call: Call, bits: int) -> bool:
    """Whether other layers compute a float layer of Keras in integers, as those of attention."""
    has_batches = all(value.shape for value in (*call.inputs, *call.outputs))
    if not is_of_keras(type(call.operation)) or not has_batches:
        return False  # a single number is no output of a model
    inputs = [keras.Input(batch_shape=value.shape, dtype=value.dtype) for value in call.inputs]
    alone = keras.Model(inputs, LayerCopies().call(call, inputs))
    flat, _ = normal_form(alone, bits)
    return all(role(part, bits) is not Role.FLOAT for part in walk(flat).calls)


def keep_trained_layers(model: keras.Model, trained: TrainedLayers) -> None:
    """Keeps in a quantization-aware model what it was made for.

    Args:
        model: The model; changed in place.
        trained: What it was made for.
    """
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuant)]
    if ranges:
        ranges[0].trained_layers = json.dumps(dataclasses.asdict(trained))


def trained_layers(model: keras.Model) -> list[TrainedLayers]:
    """Returns what the parts of a quantization-aware model were made for; [] where none says it.

    Args:
        model: A model.
    """
    ranges = layers_of(model, FakeQuant)
    return [_read(layer.trained_layers) for layer in ranges if layer.trained_layers]


def check_trained_layers(model: keras.Model, asked: QuantSpec, floats: Iterable[str]) -> None:
    """Raises ValueError where layers are asked for in other formats than they were trained for.

    Args:
        model: A quantization-aware model.
        asked: The formats of its file.
        floats: Names of the layers that stay float in it.
    """
    kept = trained_layers(model)
    if not kept:
        raise ValueError(
            f"layers must be empty for {model.name!r}, got {dict(asked.layers)}: it does not hold "
            "the formats that its layers were trained for, since it was saved by an earlier "
            f"release or is a part of a model. mode={asked.mode!r} alone takes them as they are"
        )
    for each in kept:
        each.check(asked, model, floats)


def _read(text: str) -> TrainedLayers:
    found: dict[str, Any] = json.loads(text)
    known = {field.name for field in dataclasses.fields(QuantSpec)}
    spec = QuantSpec(**{name: value for name, value in found["spec"].items() if name in known})
    kernels = tuple(tuple((name, kind) for name, kind in each) for each in found["kernels"])
    others = tuple(tuple(names) for names in found["others"])
    return TrainedLayers(spec, kernels, others, tuple(found["whole"]))
