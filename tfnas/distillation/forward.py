"""One forward pass that returns a model's outputs, its logits and intermediate activations.

A functional model is run call by call, nested models included, in the same way as Keras runs it.
So intermediate activations need neither a second pass nor a second model. Where neither they nor
the inputs of a softmax followed by other layers are requested, the model is called as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from tfnas.distillation.losses import as_logits
from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.keras_private import (
    call_takes_training,
    functional_inside,
    logits_of,
    standardized_inputs,
)

_MAX_NAMES = 24  # layers that a message lists
# Layers that may follow the softmax of a classifier; FakeQuant rounds for an integer file.
_PASS_THROUGH = ("Reshape", "Flatten", "FakeQuant", *IDLE)


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardResult:
    """The results of one forward pass.

    Args:
        outputs: The model's outputs, (n, ..., classes).
        logits: Float32 logits of the same shape.
        features: Name of each requested layer -> its activations.
    """

    outputs: Any
    logits: Any
    features: dict[str, Any]


class ForwardPass:
    """Runs a model and returns its outputs, logits and chosen activations.

    Args:
        model: A built Keras 3 model with one output.
        role: "student" or "teacher", for messages.
        layers: Names or paths of layers whose activations are requested.
        gives: Whether the outputs are "logits" or "probabilities"; None: inferred from the
            model's last activation.

    Raises:
        ValueError: A layer is unknown, or a subclassed model, whose layers can't be traced,
            leaves `gives` open or has layers requested.
    """

    def __init__(
        self, model: keras.Model, role: str, layers: Sequence[str] = (), gives: str | None = None
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
                f"{role}_gives must be 'logits' or 'probabilities' where {role} is not a "
                f"functional or Sequential model, got None for {model.name!r}"
            )
        found = None if self._flow is None else last_activation_call(self._flow)
        self.activation: str | None = found[0] if found else None
        self.probabilities = (
            self.activation is not None if gives is None else bool(gives == "probabilities")
        )
        self.multi_label: bool | None = None  # None: unknown from the last activation
        if self.probabilities and self.activation:
            self.multi_label = self.activation == "sigmoid"
        self._taps = {name: self._layer_output(name) for name in layers}
        # The softmax's own output, before a FakeQuant rounds it.
        source = found[1].outputs[0] if found and self.probabilities else None
        self._source = source if source and source.shape == self.shape else None

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Shape of the output, (None, ..., classes); None for a subclassed model."""
        return None if self._flow is None else self._flow.outputs[0].shape

    def shape_of(self, layer: str) -> tuple[int | None, ...]:
        """Shape of a layer's activations."""
        return self._taps[layer].shape

    def run(self, x: Any, training: bool | None, multi_label: bool) -> ForwardResult:
        """Runs the model.

        Args:
            x: A batch of its inputs.
            training: As in `keras.Model.call`.
            multi_label: Whether probabilities come from a sigmoid rather than a softmax.
        """
        if self._flow is None or not self._needs_intermediates():
            outputs = _only(self.model(x, training=training))
            tensors: dict[Value, Any] = {}
        else:
            tensors = _run(self._flow, self.model, x, training)
            outputs = tensors[self._flow.outputs[0]]
        if self._flow is None:
            self._check_single_tensor(outputs)
        source = tensors.get(self._source, outputs) if self._source else outputs
        features = {name: tensors[value] for name, value in self._taps.items()}
        return ForwardResult(outputs, self._logits(source, multi_label), features)

    def _needs_intermediates(self) -> bool:
        """Whether tensors other than the model's outputs are requested."""
        assert self._flow is not None
        before_end = self._source is not None and self._source is not self._flow.outputs[0]
        return before_end or bool(self._taps)

    def _logits(self, source: Any, multi_label: bool) -> Any:
        if not self.probabilities:
            return keras.ops.cast(source, "float32")
        logits = logits_of(source)
        if logits is not None:
            return keras.ops.cast(logits, "float32")
        return as_logits(source, multi_label)

    def _layer_output(self, layer: str) -> Value:
        if self._flow is None:
            raise ValueError(
                f"features must come with a functional or Sequential {self.role}, got "
                f"{self.model.name!r} of type {type(self.model).__name__}"
            )
        exact = [call for call in self._flow.calls if call.name == layer]
        calls = exact or [c for c in self._flow.calls if c.name.endswith(f"/{layer}")]
        if len(calls) == 1 and len(calls[0].outputs) == 1:
            return calls[0].outputs[0]
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

    def _check_output(self) -> None:
        outputs = None if self._flow is None else _only(functional_inside(self.model).output)
        if isinstance(outputs, (dict, list, tuple)):
            kind = f"a {type(outputs).__name__} of {len(outputs)}"
            raise ValueError(
                f"{self.role} must have one output tensor, got {kind} from {self.model.name!r}"
            )

    def _check_single_tensor(self, outputs: Any) -> None:
        if not hasattr(outputs, "shape"):
            raise ValueError(
                f"{self.role} must have one output tensor, got a {type(outputs).__name__} from "
                f"{self.model.name!r}"
            )


def _only(outputs: Any) -> Any:
    """Unwraps a list of one output, which a model from an `.h5` file may return."""
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs


def last_activation_call(flow: Walk) -> tuple[str, Call] | None:
    """Returns "softmax" or "sigmoid" and the call that computes it; None: outputs are logits.

    Args:
        flow: The walk through a model with one output.
    """
    value = flow.outputs[0]
    for call in reversed(flow.calls):
        if value not in call.outputs:
            continue
        activation = getattr(getattr(call.operation, "activation", None), "__name__", "")
        for name in (call.kind.lower(), activation):
            if name in ("softmax", "sigmoid"):
                return name, call
        if call.kind not in _PASS_THROUGH and (call.kind, activation) != ("Activation", "linear"):
            return None
        value = call.inputs[0]
    return None


def _flow(model: Any) -> Walk | None:
    try:
        return walk(model)
    except ValueError:  # a subclassed model
        return None


def _run(flow: Walk, model: Any, x: Any, training: bool | None) -> dict[Value, Any]:
    """Returns all tensors of a forward pass, computed as Keras' functional models do."""
    tensors = dict(zip(flow.inputs, standardized_inputs(functional_inside(model), x), strict=True))
    for call in flow.calls:
        args, kwargs = call.arguments([tensors[value] for value in call.inputs])
        if training is not None and call_takes_training(call.operation):
            kwargs = {**kwargs, "training": training}
        outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        tensors.update(zip(call.outputs, outputs, strict=True))
    return tensors
