"""The formats of single layers that a quantization-aware model was made for, kept in the model.

Functions, parts of attention and halves of separable convolutions have no layer in such a model
that says what they were called. So the first range of the model holds the names of all layers and
what the specification said of them, in its configuration: it is saved, loaded and cloned with it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any

import keras

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.functional import Call, LayerCopies, Skipped, Walk, walk
from tfnas.graph.registered_layers import is_of_keras
from tfnas.keras_private import all_layers
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import KERNEL_LAYERS, Role, activation_name, kernel_bits, role
from tfnas.quantization.normal_form import Origins, normal_form
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.spec import FLOAT, QuantSpec

_LOG = logging.getLogger(__name__)
# What a layer is called, each with the name of its class: its own first, that in the model last.
Identities = tuple[tuple[str, str], ...]


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
        numbered: Names that Keras gave functions, numbered through the process, such as
            "where_12": errors don't suggest them.
    """

    spec: QuantSpec
    kernels: tuple[Identities, ...]
    others: tuple[tuple[str, ...], ...]
    whole: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()

    def check(
        self, asked: _Asked, model: keras.Model, floats: Iterable[str], path: str = ""
    ) -> None:
        """Raises ValueError where a specification asks for other formats than these.

        What it does not name is as the model was trained.

        Args:
            asked: The specification.
            model: The quantization-aware model, for messages.
            floats: Names of the layers that stay float in it.
            path: What stands before the names of these layers in it.
        """
        left = set(floats)
        for names in self.others:
            if asked.leaves_float(names, path) and not (
                self.spec.leaves_float(*names) or {path + names[0], path + _last(names[0])} & left
            ):
                raise _disagreement(model, path + names[0], FLOAT, self.spec.activations)
        for identities in self.kernels:
            entry = asked.entry_of(identities, path)
            own = self._format_of(self.spec.entry_of(*identities), identities)
            if entry is not None and own != self._format_of(entry, identities):
                raise _disagreement(model, path + identities[-1][0], entry[1], own)

    def _format_of(self, entry: tuple[Any, str] | None, identities: Identities) -> str:
        found = self.spec.weights if entry is None else entry[1]
        return _format_in_file(found, identities[0][1], self.spec.activation_bits)

    def kept_in(self, names: Container[str]) -> TrainedLayers:
        """Returns what it says of the layers with a kernel that are there still.

        Args:
            names: Names of the layers of a model.
        """
        kernels = [each for each in self.kernels if any(_last(name) in names for name, _ in each)]
        return dataclasses.replace(self, kernels=tuple(kernels))


@dataclasses.dataclass(frozen=True)
class TrainedPart:
    """A part of a model that was made quantization-aware by itself.

    Args:
        path: What stands before the names of its layers in the model, such as "inner/".
        layers: What it was made for.
    """

    path: str
    layers: TrainedLayers

    @property
    def kernels(self) -> list[tuple[str, str]]:
        """The (name, class) of its layers with a kernel, with the path."""
        pairs = [pair for each in self.layers.kernels for pair in each]
        return list(dict.fromkeys((self.path + name, kind) for name, kind in pairs))

    @property
    def others(self) -> list[tuple[str, ...]]:
        """The names of its other layers, with the path."""
        return [(self.path + names[0], *names[1:]) for names in self.layers.others]

    @property
    def listed(self) -> list[tuple[str, ...]]:
        """Those of them that an error may suggest."""
        numbered = {self.path + name for name in self.layers.numbered}
        return [tuple(name for name in names if name not in numbered) for names in self.others]


class _Asked:
    """The formats of layers that are asked of a model, whose parts may have names of their own.

    A pattern that some part knows is meant as that part says it: names with paths come second.

    Args:
        spec: The specification.
        parts: The parts of the model that were made quantization-aware.
    """

    def __init__(self, spec: QuantSpec, parts: Sequence[TrainedPart]) -> None:
        bare = [dataclasses.replace(part, path="") for part in parts]
        inside = [pair for pair in spec.layers if _is_known(spec, pair, bare)]
        outside = [pair for pair in spec.layers if pair not in inside]
        unknown = [pair for pair in outside if not _is_known(spec, pair, parts)]
        self._order = list(spec.layers)
        self._inside, self._outside, self.unknown = (
            dataclasses.replace(spec, layers=pairs) for pairs in (inside, outside, unknown)
        )

    def entry_of(self, identities: Identities, path: str) -> tuple[Any, str] | None:
        """The entry that counts for a layer with a kernel; None where none does."""
        within = [(path + name, kind) for name, kind in identities]
        found = self._inside.entry_of(*identities), self._outside.entry_of(*within)
        return min((each for each in found if each), key=self._order.index, default=None)

    def leaves_float(self, names: Sequence[str], path: str) -> bool:
        """Whether a layer without a kernel is to stay float."""
        return self._inside.leaves_float(*names) or self._outside.leaves_float(
            path + names[0], *names[1:]
        )


def _is_known(spec: QuantSpec, pair: tuple[Any, str], parts: Iterable[TrainedPart]) -> bool:
    """Whether an item of `layers` matches a layer of some part."""
    alone = dataclasses.replace(spec, layers=(pair,))
    return any(
        alone.entry_of(*part.kernels) is not None
        or alone.leaves_float(*(name for names in part.others for name in names))
        for part in parts
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _format_in_file(asked: str, kind: str, activation_bits: int) -> str:
    """The format that a layer's kernel has in a file for which another is asked."""
    if asked == FLOAT:
        return asked
    return f"int{kernel_bits(kind, int(asked.removeprefix('int')), activation_bits)}"


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
    kernels, parts = list[Identities](), list[tuple[str | None, ...]]()
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
        and has_form_of_layers(call, bits)
    ]
    numbered = {call.name for call in (*calls, *flow.calls) if _is_numbered(call)}
    return TrainedLayers(
        spec,
        tuple(dict.fromkeys(kernels)),
        tuple(dict.fromkeys(others)),
        tuple(whole),
        tuple(sorted(numbered)),
    )


def _is_numbered(call: Call) -> bool:
    """Whether a function has the name that Keras gave it."""
    own = _unnumbered(_last(call.name)).replace("_", "")
    return not isinstance(call.operation, keras.layers.Layer) and own == call.kind.lower()


def has_form_of_layers(call: Call, bits: int) -> bool:
    """Whether other layers compute a float layer of Keras in integers, as those of attention.

    Args:
        call: A call of a float layer.
        bits: Bits of the activations.
    """
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


def trained_parts(model: keras.Model, flow: Walk) -> list[TrainedPart]:
    """Returns what the parts of a quantization-aware model were made for; [] where none says it.

    Args:
        model: A model.
        flow: Its calls.
    """
    calls = {id(call.operation): call.name for call in flow.calls}
    models = [each for each in all_layers(model) if isinstance(each, keras.Model)]
    parts = []
    for layer in layers_of(model, FakeQuant):
        if not layer.trained_layers:
            continue
        owner = next((m for m in models if any(each is layer for each in m.layers)), model)
        names = {each.name for each in all_layers(owner)}
        path = calls.get(id(layer), layer.name).removesuffix(layer.name)
        parts.append(TrainedPart(path, _read(layer.trained_layers).kept_in(names)))
    return parts


def without_record(flow: Walk, parts: Iterable[TrainedPart]) -> list[Call]:
    """Returns the calls of a quantization-aware model of whose training it keeps nothing.

    Files of earlier releases have none, and so has what is cut out of a model.

    Args:
        flow: The calls of the model.
        parts: Its parts that were made quantization-aware.
    """
    paths = {part.path for part in parts}
    return [call for call in flow.calls if call.name.removesuffix(_last(call.name)) not in paths]


def check_trained_layers(model: keras.Model, asked: QuantSpec, floats: Sequence[Skipped]) -> None:
    """Raises ValueError where a specification names no layer, or other formats than the trained.

    Args:
        model: A quantization-aware model.
        asked: The formats of its file.
        floats: The layers that stay float in it.
    """
    flow = walk(model)
    parts = trained_parts(model, flow)
    bare = without_record(flow, parts)
    formats = _Asked(asked, parts)
    kernels = _kernels_of(bare)
    if any(isinstance(call.operation, FakeQuant) for call in bare):
        _warn_of_unproven(model, formats.unknown, kernels, floats)
    else:
        pairs = [pair for part in parts for pair in part.kernels]
        formats.unknown.check_patterns(pairs, [names for part in parts for names in part.listed])
    for part in parts:
        part.layers.check(formats, model, [each.name for each in floats], part.path)
    _check_kernels(model, asked, kernels)


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A layer with a kernel as a model has it; `bits` is None where it is float."""

    name: str
    kind: str
    bits: int | None


def _kernels_of(calls: Iterable[Call]) -> list[_Kernel]:
    found = list[_Kernel]()
    for call in calls:
        operation, path = call.operation, call.name.removesuffix(_last(call.name))
        if isinstance(operation, QuantizedKernel):
            layer = operation.layer
            found.append(_Kernel(path + layer.name, type(layer).__name__, operation.bits))
        elif call.kind in KERNEL_LAYERS:
            found.append(_Kernel(call.name, call.kind, None))
    return list(dict.fromkeys(found))


def _check_kernels(model: keras.Model, asked: QuantSpec, kernels: Sequence[_Kernel]) -> None:
    """Raises ValueError where layers prove that they were trained for other formats.

    Layers of nested models are numbered in a quantization-aware one. Where a name may be such a
    one, a format is missed only if no kernel of the model has it.
    """
    own = {each: FLOAT if each.bits is None else f"int{each.bits}" for each in kernels}
    names = Counter(_unnumbered(each.name) for each in kernels)
    for kernel, trained in own.items():
        if (entry := asked.entry_of((kernel.name, kernel.kind))) is None:
            continue
        wanted = _format_in_file(entry[1], kernel.kind, asked.activation_bits)
        known = own.values() if names[_unnumbered(kernel.name)] > 1 else (trained,)
        if wanted not in known:
            raise _disagreement(model, kernel.name, entry[1], trained)


def _unnumbered(name: str) -> str:
    """A layer's name without the numbers that make names unique."""
    return re.sub(r"(_\d+)+$", "", name)


def _warn_of_unproven(
    model: keras.Model, asked: QuantSpec, kernels: Sequence[_Kernel], floats: Sequence[Skipped]
) -> None:
    """Warns of formats that neither a record nor a layer proves."""
    pairs = tuple(((each.name, each.kind),) for each in kernels)
    seen = TrainedPart("", TrainedLayers(asked, pairs, tuple((e.name, e.kind) for e in floats)))
    unproven = [
        pattern for pattern, value in asked.layers if not _is_known(asked, (pattern, value), [seen])
    ]
    if unproven:
        _LOG.warning(
            "%s does not hold the formats that its layers were trained for, since it was saved by "
            "an earlier release or is a part of a model: nothing tells whether %s has them",
            model.name,
            ", ".join(map(str, unproven)),
        )


def _read(text: str) -> TrainedLayers:
    found: dict[str, Any] = json.loads(text)
    known = {field.name for field in dataclasses.fields(QuantSpec)}
    spec = QuantSpec(**{name: value for name, value in found["spec"].items() if name in known})
    kernels = tuple(tuple((name, kind) for name, kind in each) for each in found["kernels"])
    others = tuple(tuple(names) for names in found["others"])
    return TrainedLayers(
        spec, kernels, others, tuple(found["whole"]), tuple(found.get("numbered", ()))
    )
