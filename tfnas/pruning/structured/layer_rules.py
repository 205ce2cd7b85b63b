"""What each layer or operation does to channels.

A rule takes the :class:`~tfnas.pruning.structured.channel_trace.ChannelTrace` and a call, records
the channels along the axes of the layer's weights, and returns the channels of each output.
An operation without a rule is opaque: the channels of its inputs are locked, with the reason.

| kind of layer                                | output channels                              |
|----------------------------------------------|----------------------------------------------|
| convolution, Dense, Embedding, EinsumDense   | new                                          |
| LSTM, GRU, SimpleRNN, Bidirectional          | new: their units                             |
| TimeDistributed                              | those of the layer inside, at each step      |
| attention with heads                         | new; heads, keys and values inside           |
| depthwise, elementwise, pooling, norms       | those of the input                           |
| sums, products, concatenation over positions | those of all operands, coupled               |
| concatenation over channels                  | those of all operands, one after the other   |
| split, slice, take, roll, flip               | a part of those of the input                 |
| Flatten, Reshape, Permute, depth_to_space    | moved and repeated as the elements are       |
| matmul, einsum, Dot                          | those of the operands; summed ones, coupled  |

A grouped convolution keeps its number of groups: channel j of each group is removed from all
groups or from none.

Each rule keeps the invariant: the model without some channels equals the model in which every
layer and operation gets zeros for them (:mod:`tfnas.pruning.structured.channel_masks`). What
can't keep it locks the channels.
"""

from __future__ import annotations

from tfnas.graph.functional import Call
from tfnas.graph.registered_layers import is_of_keras
from tfnas.pruning.structured.attention_rules import ATTENTION_RULES
from tfnas.pruning.structured.axis_rules import AXIS_RULES
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Rule
from tfnas.pruning.structured.contraction_rules import CONTRACTION_RULES
from tfnas.pruning.structured.elementwise_rules import ELEMENTWISE_RULES
from tfnas.pruning.structured.kernel_rules import KERNEL_RULES
from tfnas.pruning.structured.per_channel_rules import PER_CHANNEL_RULES
from tfnas.pruning.structured.recurrent_rules import RECURRENT_RULES
from tfnas.pruning.structured.registered_rules import registered_rule
from tfnas.pruning.structured.reshape_rules import RESHAPE_RULES
from tfnas.pruning.structured.selection_rules import SELECTION_RULES
from tfnas.pruning.structured.wrapper_rules import time_distributed

_RULES: dict[str, Rule] = {
    **ELEMENTWISE_RULES,
    **AXIS_RULES,
    **SELECTION_RULES,
    **RESHAPE_RULES,
    **CONTRACTION_RULES,
    **KERNEL_RULES,
    **PER_CHANNEL_RULES,
    **ATTENTION_RULES,
    **RECURRENT_RULES,
}
_FOREIGN = ("DropPath", "StochasticDepth")  # custom layers, elementwise in all libraries


def apply_rule(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Applies the rule of a call: returns the channels of its outputs.

    Args:
        trace: The state of the trace; the rule adds channel ids and weights.
        call: The call of a layer or operation.

    Returns:
        The channels of each output.
    """
    registered = registered_rule(trace, call)
    if registered is not None:
        return registered
    found, of_keras = _RULES.get(call.kind), is_of_keras(type(call.operation))
    if found is None or not (of_keras or call.kind in _FOREIGN):
        hint = "" if of_keras else " (tfnas.register_layer can tell how channels pass)"
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported{hint}")
    if getattr(call.operation, "quantization_mode", None):
        return trace.opaque(call, f"{call.kind} {call.name!r} is quantized")
    if getattr(call.operation, "lora_enabled", False):
        return trace.opaque(call, f"{call.kind} {call.name!r} has LoRA weights")
    if id(call.operation) in trace.holds_shared:
        return trace.opaque(call, f"the layer of {call.kind} {call.name!r} is called elsewhere too")
    return found(trace, call)


_RULES["TimeDistributed"] = time_distributed(apply_rule)
