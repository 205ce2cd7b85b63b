"""A quantized file held against the float32 file of the same model, operator by operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfnas.measure.quantization_debugger.activation_error import (
    Scales,
    Sums,
    Watched,
    run_both,
    sorted_inputs,
)
from tfnas.measure.quantization_debugger.error_report import LayerError, OutputError, Unaligned
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.measure.quantization_debugger.operator_alignment import (
    AlignedOperators,
    Alignment,
    Flow,
    carries_numbers,
)
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import FileKernel, read_kernels
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

BITS = {"int2": 2, "int4": 4, "int8": 8, "uint8": 8, "float16": 16, "float32": 32}


class Kernels:
    """The kernels of a file, by the operator that takes them.

    Args:
        artifact: The file.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._graph: FileGraph = artifact.graph
        self._scales = Scales(artifact)
        self._found = {kernel.tensor: kernel for kernel in read_kernels(artifact)}

    def of(self, op: OperatorInfo) -> list[FileKernel]:
        """Returns the kernels that an operator takes, in its order."""
        constants = (self._graph.constant_behind(tensor) for tensor in op.inputs)
        return [self._found[tensor] for tensor in constants if tensor in self._found]

    def values(self, kernel: FileKernel) -> np.ndarray:
        """Returns a kernel as real numbers.

        Raises:
            ValueError: The file has no scale for it.
        """
        return self._scales.dequantized(kernel.tensor, kernel.values)


class Comparison:
    """Runs both files, and tells what lies between them.

    Args:
        model: The float Keras model.
        reference: Its float32 file.
        artifact: The quantized file.
        columns: The model's inputs, in its order.
    """

    def __init__(
        self, model: Any, reference: Artifact, artifact: Artifact, columns: Sequence[np.ndarray]
    ) -> None:
        self.reference, self.artifact = reference, artifact
        self.columns = columns
        named = dict(zip((tensor.name for tensor in model.inputs), columns, strict=True))
        self._columns = [named[name] for name in sorted(named)]
        self.alignment = Alignment(LayerNames(model), reference, artifact)
        self.kernels, self._originals = Kernels(artifact), Kernels(reference)
        self._scales = Scales(artifact)
        self._alone = self.alignment.without_counterpart()
        graphs = reference.graph, artifact.graph
        pairs = zip(reference.outputs, artifact.outputs, strict=True)
        self._ends = [
            Watched(graphs[0].tensors[one.index], graphs[1].tensors[other.index], self._scales)
            for one, other in pairs
        ]
        self._watched: dict[int, Watched] = {}  # by the tensor of the quantized file
        self._unread: dict[int, str] = {}

    def run(self, outputs_alone: bool = False) -> None:
        """Runs both files on all examples.

        Args:
            outputs_alone: Whether :meth:`outputs` is all that is wanted.

        Raises:
            RuntimeError: The interpreter refuses a file.
        """
        if not outputs_alone:
            self._watch()
        watched = [*self._ends, *self._watched.values()]
        run_both(self.reference, self.artifact, self._columns, watched, not outputs_alone)

    def _watch(self) -> None:
        graphs = self.reference.graph, self.artifact.graph
        ends = sorted_inputs(self.reference), sorted_inputs(self.artifact)
        for one, other in zip(*ends, strict=True):
            self._add(graphs[0].tensors[one.index], graphs[1].tensors[other.index])
        for pair in self.alignment.pairs:
            for left, right in zip(pair.reference.outputs, pair.operator.outputs, strict=True):
                self._add(left, right)

    def _add(self, left: TensorInfo, right: TensorInfo) -> None:
        settled = self.alignment.right.settled(right)
        if not (carries_numbers(left) and carries_numbers(settled)):
            return
        try:
            self._watched[right.index] = Watched(left, settled, self._scales)
        except ValueError as error:
            self._unread[right.index] = str(error)

    def outputs(self) -> tuple[OutputError, ...]:
        """Returns what quantization does to each output."""
        found = []
        for tensor, end in zip(self.artifact.outputs, self._ends, strict=True):
            if end.fault:
                raise ValueError(
                    f"data must lead to outputs that can be compared, but output {tensor.name!r} "
                    f"{end.fault}"
                )
            sums = end.sums
            changed = sums.changed / sums.examples if sums.examples else None
            found.append(OutputError(tensor.name, sums.share(sums.noise), changed))
        return tuple(found)

    def layers(self) -> list[LayerError]:
        """Returns an entry an operator, the one that adds most noise first."""
        found = [*self._inputs(), *filter(None, map(self._entry, self.alignment.pairs))]
        return sorted(found, key=lambda entry: (-entry.added, -entry.noise))

    def unaligned(self) -> tuple[Unaligned, ...]:
        """Returns the operators that :meth:`layers` knows nothing of, and why."""
        found = list(self.alignment.unaligned())
        for pair in self.alignment.pairs:
            fault = self._fault(pair)
            if fault:
                found.append(Unaligned(pair.layer, pair.operator.name, "quantized", fault))
        return tuple(found)

    def _fault(self, pair: AlignedOperators) -> str:
        """Why the numbers of two operators can't be compared, else empty."""
        for tensor in pair.operator.outputs:
            watched = self._watched.get(tensor.index)
            if watched is not None and watched.fault:
                return f"its output {watched.fault}"
            if tensor.index in self._unread:
                return self._unread[tensor.index]
        return ""

    def bits(self) -> dict[str, int]:
        """Returns the fewest bits of each layer's weights in the file."""
        found: dict[str, int] = {}
        paired = [(pair.layer, pair.operator) for pair in self.alignment.pairs]
        alone = [(layer, op) for layer, ops in self._alone.items() for op in ops]
        for layer, op in [*paired, *alone]:
            for kernel in self.kernels.of(op):
                bits = BITS.get(kernel.tensor.dtype, 0)
                found[layer] = min(bits, found.get(layer, bits))
        return found

    def _inputs(self) -> Iterable[LayerError]:
        for tensor in sorted_inputs(self.artifact):
            watched = self._watched.get(tensor.index)
            if watched is not None and not watched.tensor.dtype.startswith("float"):
                yield _entry(tensor.name, "INPUT", watched.tensor, watched.sums, 0.0)

    def _entry(self, pair: AlignedOperators) -> LayerError | None:
        parts = [self._watched.get(tensor.index) for tensor in pair.operator.outputs]
        watched = [part for part in parts if part is not None]
        if not watched or self._fault(pair):
            return None
        sums = Sums.total(part.sums for part in watched)
        taken = self._noise_taken(pair.operator)
        entry = _entry(pair.layer, pair.operator.name, watched[0].tensor, sums, taken)
        return self._with_weights(entry, pair)

    def _noise_taken(self, op: OperatorInfo) -> float:
        """The largest noise among what an operator takes, as far back as it is known."""
        flow = self.alignment.right
        pending, seen, most = list(flow.taken(op)), set[int](), 0.0
        while pending:
            index = pending.pop()
            watched, maker = self._watched.get(index), flow.makers.get(index)
            if watched is not None and not watched.fault:
                most = max(most, watched.sums.share(watched.sums.noise))
            elif maker is not None and index not in seen:
                pending += flow.taken(maker)
            seen.add(index)
        return most

    def _with_weights(self, entry: LayerError, pair: AlignedOperators) -> LayerError:
        own, originals = self.kernels.of(pair.operator), self._originals.of(pair.reference)
        kernels = own or (self._kernels_before(pair.layer) if originals else [])
        if not kernels:
            return entry
        return dataclasses.replace(
            entry,
            weights=sum(kernel.values.size for kernel in kernels),
            weight_bits=min(BITS.get(kernel.tensor.dtype, 0) for kernel in kernels),
            weight_noise=self._weight_noise(pair, originals, kernels) if own else None,
        )

    def _kernels_before(self, layer: str) -> list[FileKernel]:
        """A layer's kernels where its operator has no counterpart, only what it ends with."""
        return [kernel for op in self._alone.get(layer, ()) for kernel in self.kernels.of(op)]

    def _weight_noise(
        self, pair: AlignedOperators, originals: Sequence[FileKernel], kernels: Sequence[FileKernel]
    ) -> float | None:
        shapes = [[kernel.values.shape for kernel in part] for part in (originals, kernels)]
        if shapes[0] != shapes[1]:
            return None
        sums = Sums()
        try:
            for original, kernel in zip(originals, kernels, strict=True):
                x = self._whole(self.alignment.left, pair.reference, self._originals, original)
                y = self._whole(self.alignment.right, pair.operator, self.kernels, kernel)
                sums.signal += float(np.square(x).sum())
                sums.noise += float(np.square(x - y).sum())
        except ValueError:  # steps in an encoding that is not known here
            return None
        return sums.share(sums.noise)

    def _whole(self, flow: Flow, op: OperatorInfo, held: Kernels, kernel: FileKernel) -> np.ndarray:
        """A kernel with the factors that stand before it in its own file alone.

        A Rescaling, or a BatchNormalization before a Dense layer, is a factor an input channel:
        the converter multiplies it into the float file's kernel, while quantization-aware
        training keeps it as a depthwise convolution of one weight a channel.
        """
        values = held.values(kernel)
        for maker in self.alignment.lone_makers(flow, op):
            factors = held.of(maker) if maker.name == "DEPTHWISE_CONV_2D" else []
            for factor in (held.values(found) for found in factors):
                single = factor.shape[-1] == factor.size  # one weight a channel
                if single and values.shape[-1] % factor.size == 0:  # input channels are last
                    each = values.shape[-1] // factor.size
                    values = values * np.repeat(factor.reshape(-1), each)
        return values


def _entry(layer: str, operator: str, tensor: TensorInfo, sums: Sums, taken: float) -> LayerError:
    noise = sums.share(sums.noise)
    return LayerError(
        layer,
        operator,
        tensor.dtype,
        tensor.shape,
        noise,
        max(noise - taken, 0.0),
        sums.outside / max(sums.count, 1),
        sums.share(sums.grid),
    )
