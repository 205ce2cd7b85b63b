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


def own_activation(trace: ChannelTrace, call: Call, outputs: list[Channels]) -> list[Channels]:
    """Returns the channels after the activation of a layer; locks them unless it is elementwise.

    Args:
        trace: The state of the trace.
        call: A call of the layer.
        outputs: The channels of the call's outputs before the activation.
    """
    reason = locking_activation(getattr(call.operation, "activation", None), call.name)
    for found in outputs if reason else ():
        for ids in found.axes.values():
            trace.ids.lock(ids, reason)
    return outputs


def locking_activation(activation: Any, name: str) -> str:
    """Returns why the channels before an activation have to stay; "" if it is elementwise.

    Args:
        activation: The function or layer; None is elementwise.
        name: The name of the layer that has it.
    """
    if activation is None or _is_elementwise(activation):
        return ""
    kind = getattr(activation, "__name__", type(activation).__name__)
    if kind in ("softmax", "log_softmax", "sparsemax", "glu"):
        return f"{kind} of {name!r} is computed over all channels"
    return f"the activation {kind} of {name!r} is not supported"


def _is_elementwise(activation: Any) -> bool:
    """Whether the activation is an elementwise function or layer of Keras or TensorFlow."""
    known = activation if hasattr(activation, "__name__") else type(activation)
    name, module = known.__name__, str(getattr(known, "__module__", ""))
    allowed = _ACTIVATIONS if known is activation else _ACTIVATION_LAYERS
    return name in allowed and module.split(".")[0] in ("keras", "tensorflow")
