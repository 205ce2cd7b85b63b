"""Minification: a smaller `.tflite` file whose outputs are the same, bit by bit.

A converted file stores much information more than once. Every tensor has its own vector of zero
points (8 bytes per channel, nearly always zeros), its own vector of scales, its own shape, and a
name that lists every operation of every layer that was fused into it. Equal vectors can be stored
once, since a flatbuffer refers to them by offset, and the layers in a name suffice. In a small
network for microcontrollers this saves a tenth of the file.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_validation import check_file
from tfnas.tflite.flatbuffer import PRODUCT, integers, pack, unpack
from tfnas.tflite.metadata import attached_files, with_files
from tfnas.tflite.sharing_builder import SharingBuilder

_NOTES = b"CONVERSION_METADATA"  # the converter's version and options; no runtime reads them


def minify(content: bytes) -> bytes:
    """Returns a smaller `.tflite` file that computes the same, or the file itself.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: The content is not a valid `.tflite` file, or has buffers after its
            flatbuffer.
    """
    check_file(content)
    model = unpack(content)
    _remove_notes(model)
    for graph in model.subgraphs:
        # Inputs and outputs are addressed by name.
        ends = {*integers(graph.inputs), *integers(graph.outputs)}
        for index, tensor in enumerate(graph.tensors or ()):
            if tensor.name and index not in ends:
                data = model.buffers[tensor.buffer].data
                constant = data is not None and len(data) > 0
                tensor.name = short_name(tensor.name.decode(), constant=constant).encode()
    smaller = with_files(pack(model, SharingBuilder()), attached_files(content))
    return min(smaller, content, key=len)


def short_name(tensor_name: str, constant: bool = False) -> str:
    """Shortens a tensor's name to one operation for each layer, and those with a kernel.

    Example:
        >>> short_name("net_1/bn_1/add;net_1/bn_1/mul;net_1/conv_1/convolution;net_1/conv_1/bias")
        'net_1/bn_1/add;net_1/conv_1/convolution'
        >>> short_name("net_1/bn_1/add;net_1/conv_1/convolution", constant=True)
        'net_1/conv_1/convolution'

    Args:
        tensor_name: Names of operations with their scopes, separated by ";". The first one is
            kept in full, since it distinguishes the operators of one layer.
        constant: Whether the tensor is a kernel or a bias; then only operations with a kernel
            are kept.

    Returns:
        The short name.
    """
    kept: dict[str, str] = {}
    for part in tensor_name.split(";"):
        scope, slash, _ = part.rpartition("/")
        if PRODUCT.search(part) or (slash and not kept):
            kept[scope] = part
        elif slash:
            kept.setdefault(scope, scope + slash)
    products = [part for part in kept.values() if PRODUCT.search(part)]
    return ";".join(products if constant and products else kept.values()) or tensor_name


def _remove_notes(model: Any) -> None:
    notes = [item for item in model.metadata or () if item.name == _NOTES]
    model.metadata = [item for item in model.metadata or () if item.name != _NOTES]
    used = {item.buffer for item in model.metadata}
    used.update(t.buffer for graph in model.subgraphs for t in graph.tensors or ())
    for item in notes:
        if item.buffer not in used:
            # Empty, not removed: that would shift the indices of the other buffers.
            model.buffers[item.buffer] = schema.BufferT()
