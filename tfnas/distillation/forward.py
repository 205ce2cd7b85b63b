"""One forward pass that gives a model's output, its logits and activations inside it.

A functional model is run call by call, nested models included, just as Keras runs it, so that
activations anywhere inside cost no second pass and no second model. Where neither they nor
logits behind the last softmax are asked for, the model is called as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from tfnas.distillation.losses import as_logits
from tfnas.graph.functional import Call, Value, Walk, walk

_LISTED = 24  # layers that a message names
# What a classifier may do behind its softmax; FakeQuant: roundings of an integer file.
_PASSING = ("Reshape", "Flatten", "Dropout", "Identity", "FakeQuant")


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What a forward pass gave.

    Args:
        outputs: The model's outputs, (n, ..., classes).
        logits: Float32 logits of the same shape.
        features: Layer, as it was asked for -> its activations.
    """

    outputs: Any
    logits: Any
    features: dict[str, Any]


class Reader:
    """Runs a model; see the module.

    Args:
        model: A built Keras 3 model.
        role: "student" or "teacher", for messages.
        layers: Names or paths of layers whose activations are asked for.
        gives: "logits" or "probabilities"; None: by the model's last activation.

    Raises:
        ValueError: A layer is unknown, or the model has no layers that can be read where
            something depends on them.
    """

    def __init__(
        self, model: Any, role: str, layers: Sequence[str] = (), gives: str | None = None
    ) -> None:
        self.model, self.role = model, role
        self._flow = _flow(model)
        self._check_output()
        if gives not in (None, "logits", "probabilities"):
            raise ValueError(
                f"{role}_gives must be 'logits', 'probabilities' or None, got {gives!r}"
            )
        if self._flow is None and gives is None:
            raise ValueError(
                f"{role}_gives must be 'logits' or 'probabilities' where {role} is no functional "
                f"or Sequential model, got None for {model.name!r}"
            )
        found = None if self._flow is None else last_activation(self._flow)
        self.activation: str | None = found[0] if found else None
        self.probabilities = (
            self.activation is not None if gives is None else bool(gives == "probabilities")
        )
        self.multi_label: bool | None = None  # None: the last activation does not tell
        if self.probabilities and self.activation:
            self.multi_label = self.activation == "sigmoid"
        self._taps = {name: self._find(name) for name in layers}
        # The softmax's own output: an integer model rounds it afterwards.
        source = found[1].outputs[0] if found and self.probabilities else None
        self._source = source if source and source.shape == self.shape else None

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Shape of the output, (None, ..., classes); None where only a call tells."""
        return None if self._flow is None else self._flow.outputs[0].shape

    def shape_of(self, layer: str) -> tuple[int | None, ...]:
        """Shape of a layer's activations."""
        return self._taps[layer].shape

    def read(self, x: Any, training: bool | None, multi_label: bool) -> Reading:
        """Runs the model.

        Args:
            x: A batch of its inputs.
            training: As Keras takes it.
            multi_label: Whether probabilities are a sigmoid's.
        """
        if self._flow is None or not self._inside():
            outputs = _only(self.model(x, training=training))
            known: dict[Value, Any] = {}
        else:
            known = _run(self._flow, self.model, x, training)
            outputs = known[self._flow.outputs[0]]
        if self._flow is None:
            self._check_given(outputs)
        source = known.get(self._source, outputs) if self._source else outputs
        features = {name: known[value] for name, value in self._taps.items()}
        return Reading(outputs, self._logits(source, multi_label), features)

    def _inside(self) -> bool:
        """Whether something is asked for that the model's outputs are not."""
        assert self._flow is not None
        behind = self._source is not None and self._source is not self._flow.outputs[0]
        return behind or bool(self._taps)

    def _logits(self, source: Any, multi_label: bool) -> Any:
        if not self.probabilities:
            return keras.ops.cast(source, "float32")
        entered = getattr(source, "_keras_logits", None)  # what Keras' own losses look for
        if entered is not None:
            return keras.ops.cast(entered, "float32")
        return as_logits(source, multi_label)

    def _find(self, layer: str) -> Value:
        if self._flow is None:
            raise ValueError(
                f"features need a functional or Sequential {self.role}, got {self.model.name!r} "
                f"of type {type(self.model).__name__}"
            )
        exact = [call for call in self._flow.calls if call.name == layer]
        found = exact or [c for c in self._flow.calls if c.name.endswith(f"/{layer}")]
        if len(found) == 1 and len(found[0].outputs) == 1:
            return found[0].outputs[0]
        names = ", ".join(call.name for call in self._flow.calls[-_LISTED:])
        count = len(self._flow.calls)
        last = f"the last {_LISTED} of {count}: " if count > _LISTED else ""
        why = (
            "which is none of its layers"
            if not found
            else (
                "which has several outputs"
                if len(found) == 1
                else f"which is used {len(found)} times"
            )
        )
        raise ValueError(
            f"features must name layers of the {self.role} that are used once and have one "
            f"output, got {layer!r}, {why}: {last}{names}"
        )

    def _check_output(self) -> None:
        outputs = None if self._flow is None else _only(graph(self.model).output)
        if isinstance(outputs, (dict, list, tuple)):
            kind = f"a {type(outputs).__name__} of {len(outputs)}"
            raise ValueError(
                f"{self.role} must have one output tensor, got {kind} from {self.model.name!r}"
            )

    def _check_given(self, outputs: Any) -> None:
        if not hasattr(outputs, "shape"):
            raise ValueError(
                f"{self.role} must have one output tensor, got a {type(outputs).__name__} from "
                f"{self.model.name!r}"
            )


def _only(outputs: Any) -> Any:
    """The output of a model that gives a list of one, as one from an `.h5` file may."""
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs


def last_activation(flow: Walk) -> tuple[str, Call] | None:
    """Returns "softmax" or "sigmoid" and the call that ends in it; None: outputs are logits.

    Args:
        flow: The walk through a model with one output.
    """
    wanted = flow.outputs[0]
    for call in reversed(flow.calls):
        if wanted not in call.outputs:
            continue
        activation = getattr(getattr(call.operation, "activation", None), "__name__", "")
        for name in (call.kind.lower(), activation):
            if name in ("softmax", "sigmoid"):
                return name, call
        if call.kind not in _PASSING and (call.kind, activation) != ("Activation", "linear"):
            return None
        wanted = call.inputs[0]
    return None


def graph(model: Any) -> Any:
    """The functional model that a Sequential one keeps; others as they are."""
    return getattr(model, "_functional", None) or model


def _flow(model: Any) -> Walk | None:
    try:
        return walk(model)
    except ValueError:  # a subclassed model
        return None


def _run(flow: Walk, model: Any, x: Any, training: bool | None) -> dict[Value, Any]:
    """All values of a model, each call made as Keras' functional models make it."""
    known = dict(zip(flow.inputs, graph(model)._standardize_inputs(x), strict=True))
    for call in flow.calls:
        args, kwargs = call.arguments([known[value] for value in call.inputs])
        if training is not None and getattr(call.operation, "_call_has_training_arg", False):
            kwargs = {**kwargs, "training": training}
        given = keras.tree.flatten(call.operation(*args, **kwargs))
        known.update(zip(call.outputs, given, strict=True))
    return known
