"""Multiply-accumulates counted by TensorFlow's own graph of a model: an independent count.

The model is traced once for one example; every operation of the traced graph that multiplies
matrices or convolves is counted by the shapes of its tensors, in all functions that it calls.
Nothing of tfnas and no attribute of a layer is read.
"""

import math

import keras
import tensorflow as tf

_CONVOLUTIONS = ("Conv2D", "Conv3D")
_TRANSPOSED = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
_PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "MatMul")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_NOT_READ = ("Conv", "StatelessWhile", "While", "XlaDot")


def tensorflow_macs(model):
    """Returns the multiply-accumulates of a functional model for one example."""
    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), tf.as_dtype(tensor.dtype)) for tensor in model.inputs
    ]

    @tf.function(input_signature=specs)
    def called(*tensors):
        packed = keras.tree.pack_sequence_as(model.inputs, list(tensors))
        return model(packed if len(packed) > 1 else packed[0], training=False)

    return _of_graph(called.get_concrete_function().graph)


def _of_graph(graph):
    """Counts the operations that the outputs need; Keras traces others for their shapes alone."""
    waiting, found = [tensor.op for tensor in graph.outputs], {}
    while waiting:
        each = waiting.pop()
        if each.name not in found:
            found[each.name] = each
            waiting += [*(tensor.op for tensor in each.inputs), *each.control_inputs]
    return sum(_of_operation(graph, each) for each in found.values())


def _of_operation(graph, each):
    kind, shapes = each.type, [tuple(tensor.shape) for tensor in each.inputs]
    result = tuple(each.outputs[0].shape) if each.outputs else ()
    assert kind not in _NOT_READ, kind
    if kind in _PRODUCTS:
        turned = each.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        return math.prod(result) * shapes[0][-2 if turned else -1]
    if kind in _CONVOLUTIONS:  # a kernel of (*sizes, channels of a group, filters)
        assert each.get_attr("data_format") in (b"NHWC", b"NDHWC")
        return math.prod(result[:-1]) * math.prod(shapes[1])
    if kind == "DepthwiseConv2dNative":
        return math.prod(result[:-1]) * math.prod(shapes[1])
    if kind in _TRANSPOSED:  # (sizes of the result, kernel, input)
        return math.prod(shapes[2][:-1]) * math.prod(shapes[1])
    if kind == "Einsum":
        terms = each.get_attr("equation").decode().split("->")[0].split(",")
        sizes, free = {}, "ABCDEFGH"
        for term, shape in zip(terms, shapes, strict=True):
            term = term.replace("...", free[: len(shape) - len(term) + 3])
            sizes.update(zip(term, shape, strict=True))
        return math.prod(sizes.values()) if len(terms) > 1 else 0
    if kind in _CALLS:
        return _of_graph(graph._get_function(each.get_attr("f").name).graph)
    return 0
