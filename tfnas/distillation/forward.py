"""One forward pass that returns a model's outputs, their logits and intermediate activations.

A functional model is run call by call, nested models included, in the same way as Keras runs it.
So intermediate activations need neither a second pass nor a second model. Where neither they nor
the inputs of a softmax followed by other layers are requested, the model is called as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfnas.distillation.attention_taps import ActivationTap, attends, maps_of, shape_of_maps
from tfnas.distillation.losses import as_logits
from tfnas.distillation.output_kinds import LossFacts
from tfnas.distillation.output_structure import OutputStructure, flat, structure_of
from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.keras_private import (
    call_takes_training,
    functional_inside,
    logits_of,
    standardized_inputs,
)

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensors

_MAX_NAMES = 24  # layers that a message lists
# Layers that may follow the softmax of a classifier; FakeQuant rounds for an integer file.
_PASS_THROUGH = ("Reshape", "Flatten", "FakeQuant", *IDLE)


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardResult:
    """The results of one forward pass.

    Args:
        outputs: The model's outputs, in their structure.
        tensors: The same as a list, one (batch, ...) for each output.
        sources: Where logits are read: the outputs, or the softmax behind them.
        features: Each requested tap -> its activations.
    """

    outputs: Any
    tensors: list[Any]
    sources: list[Any]
    features: dict[ActivationTap, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class OutputEnd:
    """How a model ends at one output.

    Args:
        shape: Shape of the output, (None, ..., classes); None for a subclassed model.
        activation: "softmax" or "sigmoid" at the end; None: another one, or unknown.
        linear: Whether the last layer multiplies by a kernel, without an activation.
        probabilities: Whether the output holds probabilities, if it is of classes; None: unknown.
        by_loss: Whether only the loss of the model says so.
        source: The output of the softmax or sigmoid, before a FakeQuant rounds it.
    """

    shape: tuple[int | None, ...] | None = None
    activation: str | None = None
    linear: bool = False
    probabilities: bool | None = None
    by_loss: bool = False
    source: Value | None = None

    @property
    def class_activation(self) -> str | None:
        """The last activation, where it is what gives the probabilities."""
        return self.activation if self.probabilities else None


class ForwardPass:
    """Runs a model and returns its outputs, their logits and chosen activations.

    Args:
        model: A built Keras 3 model.
        role: "student" or "teacher", for messages.
        taps: Where activations are requested.
        gives: Whether the outputs are "logits" or "probabilities"; a list has one entry for each
            output. None: inferred from the last activation, else from the loss.
        losses: What the loss of each output says; None: nothing.
        structure: The outputs of a subclassed model; None: one tensor.

    Raises:
        ValueError: A layer is unknown, or a subclassed model, whose layers can't be traced, has
            layers requested.
    """

    def __init__(
        self,
        model: keras.Model,
        role: str,
        taps: Sequence[ActivationTap] = (),
        gives: str | Sequence[str | None] | None = None,
        losses: Sequence[LossFacts] | None = None,
        structure: OutputStructure | None = None,
    ) -> None:
        self.model, self.role = model, role
        self._flow = _flow(model)
        own = None if self._flow is None else structure_of(model, role)
        self.structure = own or structure or OutputStructure(("output",))
        stated = [gives] * len(self.structure) if gives is None or isinstance(gives, str) else gives
        for each in stated:
            if each not in (None, "logits", "probabilities"):
                raise ValueError(
                    f"{role}_gives must be 'logits', 'probabilities' or None, got {each!r}"
                )
        facts = losses or [LossFacts()] * len(self.structure)
        self.ends = [self._end(n, stated[n], facts[n]) for n in range(len(self.structure))]
        self._taps = {tap: self._tapped(tap) for tap in taps}

    @property
    def is_traced(self) -> bool:
        """Whether the layers are known: the model is functional or Sequential."""
        return self._flow is not None

    @property
    def shapes(self) -> list[tuple[int | None, ...] | None]:
        """Shape of each output, (None, ..., classes); None for a subclassed model."""
        return [end.shape for end in self.ends]

    def shape_of(self, tap: ActivationTap) -> tuple[int | None, ...]:
        """Shape of the activations of a tap."""
        call = self._taps[tap]
        return shape_of_maps(call) if tap.maps else call.outputs[0].shape

    def run(self, x: Tensors, training: bool | None) -> ForwardResult:
        """Runs the model.

        Args:
            x: A batch of its inputs.
            training: As in `keras.Model.call`.
        """
        values, maps = dict[Value, Any](), dict[int, Any]()
        if self._flow is None or not self._needs_intermediates():
            outputs = self.model(x, training=training)
            tensors = flat(outputs, self.structure, self.model, self.role)
        else:
            attention = {id(call) for tap, call in self._taps.items() if tap.maps}
            values, maps = _run(self._flow, self.model, x, training, attention)
            tensors = [values[value] for value in self._flow.outputs]
        sources = [
            values.get(end.source, tensor) if end.source else tensor
            for end, tensor in zip(self.ends, tensors, strict=True)
        ]
        features = {
            tap: maps[id(call)] if tap.maps else values[call.outputs[0]]
            for tap, call in self._taps.items()
        }
        return ForwardResult(self.structure.packed(tensors), tensors, sources, features)

    def logits(self, result: ForwardResult, output: int, multi_label: bool) -> Any:
        """Returns the float32 logits of an output of classes, (batch, ..., classes).

        Args:
            result: Of :meth:`run`.
            output: Number of the output.
            multi_label: Whether probabilities come from a sigmoid rather than a softmax.
        """
        source = result.sources[output]
        if not self.ends[output].probabilities:
            return keras.ops.cast(source, "float32")
        logits = logits_of(source)
        if logits is not None:
            return keras.ops.cast(logits, "float32")
        return as_logits(source, multi_label)

    def _needs_intermediates(self) -> bool:
        """Whether tensors other than the model's outputs are requested."""
        assert self._flow is not None
        ends = zip(self.ends, self._flow.outputs, strict=True)
        before_end = any(end.source and end.source is not value for end, value in ends)
        return before_end or bool(self._taps)

    def _end(self, output: int, gives: str | None, facts: LossFacts) -> OutputEnd:
        by_loss = None if facts.from_logits is None else not facts.from_logits
        if self._flow is None:
            probabilities = by_loss if gives is None else gives == "probabilities"
            return OutputEnd(probabilities=probabilities, by_loss=gives is None)
        shape = self._flow.outputs[output].shape
        found = last_activation_call(self._flow, output)
        linear = found is None and _ends_linear(self._flow, output)
        asks_loss = gives is None and found is None and not linear and by_loss is not None
        probabilities = found is not None if gives is None else gives == "probabilities"
        source = found[1].outputs[0] if found and probabilities else None
        return OutputEnd(
            shape,
            found[0] if found else None,
            linear,
            by_loss if asks_loss else probabilities,
            asks_loss,
            source if source and source.shape == shape else None,
        )

    def _tapped(self, tap: ActivationTap) -> Call:
        """The call that is read."""
        layer = tap.layer
        if self._flow is None:
            raise ValueError(
                f"features must come with a functional or Sequential {self.role}, got "
                f"{self.model.name!r} of type {type(self.model).__name__}"
            )
        calls = _calls_of(self._flow, layer)
        if tap.maps and calls and not attends(calls[0]):
            raise ValueError(
                f"features must name attention layers of the {self.role} over one axis, got "
                f"{layer!r} of class {calls[0].kind}"
            )
        if len(calls) == 1 and (tap.maps or len(calls[0].outputs) == 1):
            return calls[0]
        names = ", ".join(call.name for call in self._flow.calls[-_MAX_NAMES:])
        count = len(self._flow.calls)
        last = f"the last {_MAX_NAMES} of {count}: " if count > _MAX_NAMES else ""
        if not calls:
            reason = "which is none of its layers"
        elif len(calls) == 1:
            reason = "which has several outputs"
        else:
            reason = f"which is used {len(calls)} times"
        raise ValueError(
            f"features must name layers of the {self.role} that are used once and have one "
            f"output, got {layer!r}, {reason}: {last}{names}"
        )


def has_layer(model: Any, layer: str) -> bool:
    """Returns whether a functional or Sequential model has a layer.

    Args:
        model: Any model.
        layer: A name or path.
    """
    flow = _flow(model) if isinstance(model, keras.Model) else None
    return flow is not None and bool(_calls_of(flow, layer))


def own_structure(model: keras.Model, role: str) -> OutputStructure | None:
    """Returns the outputs of a functional or Sequential model; None for a subclassed one.

    Args:
        model: A built model.
        role: "student" or "teacher", for messages.
    """
    return None if _flow(model) is None else structure_of(model, role)


def last_activation_call(flow: Walk, output: int = 0) -> tuple[str, Call] | None:
    """Returns "softmax" or "sigmoid" and the call that computes it; None: another activation.

    Args:
        flow: The walk through a model.
        output: Number of the output.
    """
    call = _last_call(flow, output)
    if call is None:
        return None
    for name in (call.kind.lower(), _activation(call)):
        if name in ("softmax", "sigmoid"):
            return name, call
    return None


def _ends_linear(flow: Walk, output: int) -> bool:
    """Whether an output is a kernel's product, without an activation."""
    call = _last_call(flow, output)
    return call is not None and hasattr(call.operation, "kernel") and _activation(call) == "linear"


def _last_call(flow: Walk, output: int) -> Call | None:
    """The call that computes an output, before layers that only change its form."""
    value = flow.outputs[output]
    for call in reversed(flow.calls):
        if value not in call.outputs:
            continue
        passes = call.kind in _PASS_THROUGH
        if not passes and (call.kind, _activation(call)) != ("Activation", "linear"):
            return call
        value = call.inputs[0]
    return None


def _activation(call: Call) -> str:
    return getattr(getattr(call.operation, "activation", None), "__name__", "")


def _calls_of(flow: Walk, layer: str) -> list[Call]:
    """The calls of a layer, by its path, else by its name in any part of the model."""
    exact = [call for call in flow.calls if call.name == layer]
    return exact or [call for call in flow.calls if call.name.endswith(f"/{layer}")]


def _flow(model: Any) -> Walk | None:
    try:
        return walk(model)
    except ValueError:  # a subclassed model
        return None


def _run(
    flow: Walk, model: Any, x: Any, training: bool | None, attention: Collection[int]
) -> tuple[dict[Value, Any], dict[int, Any]]:
    """Returns all tensors of a forward pass, computed as Keras' functional models do.

    Of the calls whose ids are in `attention` it returns the probabilities too.
    """
    maps: dict[int, Any] = {}
    tensors = dict(zip(flow.inputs, standardized_inputs(functional_inside(model), x), strict=True))
    for call in flow.calls:
        given = [tensors[value] for value in call.inputs]
        if id(call) in attention:
            maps[id(call)] = maps_of(call, given)
        args, kwargs = call.arguments(given)
        if training is not None and call_takes_training(call.operation):
            kwargs = {**kwargs, "training": training}
        outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        tensors.update(zip(call.outputs, outputs, strict=True))
    return tensors, maps
