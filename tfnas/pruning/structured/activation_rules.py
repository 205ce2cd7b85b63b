"""The activation of a layer: an elementwise one keeps its channels apart, any other locks them."""

from __future__ import annotations

from typing import Any

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace

_ACTIVATIONS = {
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "hard_shrink",
    "soft_shrink",
    "tanh_shrink",
    "threshold",
    "squareplus",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
    "exp",
    "log_sigmoid",
    "sparse_plus",
    "sparse_sigmoid",
}
_ACTIVATION_LAYERS = {"ReLU", "LeakyReLU", "ELU"}


def own_activation(
    trace: ChannelTrace, call: Call, outputs: list[Channels | None]
) -> list[Channels | None]:
    """Returns the channels after the activation of a layer; locks them unless it is elementwise.

    Args:
        trace: The state of the trace.
        call: A call of the layer.
        outputs: The channels of the call's outputs before the activation.
    """
    activation = getattr(call.operation, "activation", None)
    if activation is None or _is_elementwise(activation):
        return outputs
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in ("softmax", "log_softmax", "sparsemax", "glu"):
        reason = f"{name} of {call.name!r} is computed over all channels"
    else:
        reason = f"the activation {name} of {call.name!r} is not supported"
    for found in outputs:
        if found is not None:
            trace.ids.lock(found.ids, reason)
    return outputs


def _is_elementwise(activation: Any) -> bool:
    """Whether the activation is an elementwise function or layer of Keras or TensorFlow."""
    known = activation if hasattr(activation, "__name__") else type(activation)
    name, module = known.__name__, str(getattr(known, "__module__", ""))
    allowed = _ACTIVATIONS if known is activation else _ACTIVATION_LAYERS
    return name in allowed and module.split(".")[0] in ("keras", "tensorflow")
