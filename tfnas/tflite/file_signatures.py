"""Signatures: the named functions of a `.tflite` file, each with a graph of its own.

A SavedModel of several functions, such as an encoder and a decoder, becomes one file of several
signatures. Costs, runs and recipes are those of one function, so that an artifact holds one:
:func:`content_of_signature` cuts it out of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.runtime.argument_rules import near
from tfnas.tflite.flatbuffer import unpack
from tfnas.tflite.metadata import BUFFER_NAME, attached_files, with_files
from tfnas.tflite.sharing_builder import pack_as

_CALLS = ("SubgraphIndex", "subgraph")  # ends of the fields that name the body of a loop or call


def signature_names(content: bytes) -> list[str]:
    """Returns the names of a file's signatures; empty where it has none.

    Args:
        content: A validated `.tflite` file.
    """
    model = schema.Model.GetRootAs(content, 0)
    signatures = (model.SignatureDefs(i) for i in range(model.SignatureDefsLength()))
    return [(each.SignatureKey() or b"").decode() for each in signatures]


def content_of_signature(content: bytes, name: str | None, file: str = "the file") -> bytes:
    """Returns a file of one signature: its graph first, then the graphs that it calls.

    Args:
        content: A validated `.tflite` file.
        name: The signature. None: the only one.
        file: What the file is called in messages.

    Returns:
        The content itself where it has no other signature, and its graph is the first one.

    Raises:
        ValueError: The file has several signatures and none is named, has no signature of this
            name, or has buffers after its flatbuffer.
    """
    names = signature_names(content)
    if name is None and len(names) > 1:
        raise ValueError(
            f"signature must name one of {names}, got none: {file} has several, and one is read, "
            f"tfnas.Artifact.load(path, signature={names[0]!r})"
        )
    if name is None:
        if not names:
            return content
        name = names[0]
    if name not in names:
        hint = near(str(name), names)
        raise ValueError(f"signature must be one of {names} in {file}, got {name!r}{hint}")
    model = unpack(content)
    signature = model.signatureDefs[names.index(name)]
    first = signature.subgraphIndex
    if len(names) == 1 and first == 0:
        return content
    model.signatureDefs = [signature]
    _keep_graphs(model, first)
    signature.subgraphIndex = 0
    files = attached_files(content)
    if first:  # the metadata and its files describe the graph that was the first one
        model.metadata = [item for item in model.metadata or () if item.name != BUFFER_NAME]
        files = {}
    _empty_unused_buffers(model)
    return with_files(pack_as(content, model), files)


def check_one_signature(content: bytes) -> None:
    """Raises ValueError for a file of several signatures, which must be read by name.

    Args:
        content: A validated `.tflite` file.
    """
    names = signature_names(content)
    if len(names) > 1:
        raise ValueError(
            f"content must have one signature, got {names}: tfnas.Artifact.load(path, "
            f"signature={names[0]!r}) reads one of them"
        )
    if names and (first := schema.Model.GetRootAs(content, 0).SignatureDefs(0).SubgraphIndex()):
        raise ValueError(
            f"content must have the graph of its signature {names[0]!r} first, got it as number "
            f"{first}: tfnas.Artifact.load(path) reads it"
        )


def _keep_graphs(model: Any, first: int) -> None:
    """Removes the graphs that `first` does not reach, and numbers the others, `first` as 0."""
    kept = [first]
    for index in kept:
        kept += [each for each in dict.fromkeys(_called(model, index)) if each not in kept]
    numbers = {index: number for number, index in enumerate(kept)}
    for index in kept:
        for options, field in _calls(model.subgraphs[index]):
            setattr(options, field, numbers[getattr(options, field)])
    model.subgraphs = [model.subgraphs[index] for index in kept]


def _called(model: Any, index: int) -> Iterator[int]:
    return (getattr(options, field) for options, field in _calls(model.subgraphs[index]))


def _calls(graph: Any) -> Iterator[tuple[Any, str]]:
    """The options of a graph's operators that name a graph, and the field that does."""
    for operator in graph.operators or ():
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for field in () if options is None else vars(options):
                if field.endswith(_CALLS):
                    yield options, field


def _empty_unused_buffers(model: Any) -> None:
    """Empties buffers that nothing reads any more; removing them would shift the others."""
    used = {item.buffer for item in model.metadata or ()}
    used.update(t.buffer for graph in model.subgraphs for t in graph.tensors or ())
    for index in range(len(model.buffers)):
        if index not in used:
            model.buffers[index] = schema.BufferT()
