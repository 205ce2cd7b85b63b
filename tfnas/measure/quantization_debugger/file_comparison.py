"""Compares a quantized file with the float32 file of the same model, operator by operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfnas.measure.model_and_file import names_of_outputs
from tfnas.measure.quantization_debugger.activation_error import (
    Scales,
    Sums,
    TensorPair,
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
    """The kernels of a file, by the operator that reads them.

    Args:
        artifact: The file.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._graph: FileGraph = artifact.graph
        self._scales = Scales(artifact)
        self._found = {kernel.tensor: kernel for kernel in read_kernels(artifact)}

    def of(self, op: OperatorInfo) -> list[FileKernel]:
        """Returns the kernels among an operator's inputs, in their order."""
        constants = (self._graph.constant_behind(tensor) for tensor in op.inputs)
        return [self._found[tensor] for tensor in constants if tensor in self._found]

    def values(self, kernel: FileKernel) -> np.ndarray:
        """Returns the dequantized values of a kernel.

        Raises:
            ValueError: The file has no scale for it.
        """
        return self._scales.dequantized(kernel.tensor, kernel.values)


class Comparison:
    """Runs both files and computes the quantization error of layers and outputs.

    Args:
        model: The float Keras model.
        reference: Its float32 file.
        artifact: The quantized file.
        columns: One array per input of the model, in its order.
    """

    def __init__(
        self, model: Any, reference: Artifact, artifact: Artifact, columns: Sequence[np.ndarray]
    ) -> None:
        self.reference, self.artifact = reference, artifact
        self.columns = columns
        self._names = names_of_outputs(model, [tensor.name for tensor in artifact.outputs])
        named = dict(zip((tensor.name for tensor in model.inputs), columns, strict=True))
        self._columns = [named[name] for name in sorted(named)]
        self.alignment = Alignment(LayerNames(model), reference, artifact)
        self.kernels, self._originals = Kernels(artifact), Kernels(reference)
        self._scales = Scales(artifact)
        self._unpaired = self.alignment.without_counterpart()
        graphs = reference.graph, artifact.graph
        pairs = zip(reference.outputs, artifact.outputs, strict=True)
        self._outputs = [
            TensorPair(graphs[0].tensors[one.index], graphs[1].tensors[other.index], self._scales)
            for one, other in pairs
        ]
        self._pairs: dict[int, TensorPair] = {}  # by the index of the quantized file's tensor
        self._unreadable: dict[int, str] = {}

    def run(self, outputs_alone: bool = False) -> None:
        """Runs both files on all examples.

        Args:
            outputs_alone: Whether to compare outputs only, for :meth:`outputs`.

        Raises:
            RuntimeError: The interpreter can't run a file.
        """
        if not outputs_alone:
            self._add_pairs()
        pairs = [*self._outputs, *self._pairs.values()]
        run_both(self.reference, self.artifact, self._columns, pairs, not outputs_alone)

    def _add_pairs(self) -> None:
        graphs = self.reference.graph, self.artifact.graph
        inputs = sorted_inputs(self.reference), sorted_inputs(self.artifact)
        for one, other in zip(*inputs, strict=True):
            self._add(graphs[0].tensors[one.index], graphs[1].tensors[other.index])
        for pair in self.alignment.pairs:
            for left, right in zip(pair.reference.outputs, pair.operator.outputs, strict=True):
                self._add(left, right)

    def _add(self, left: TensorInfo, right: TensorInfo) -> None:
        settled = self.alignment.right.settled(right)
        if not (carries_numbers(left) and carries_numbers(settled)):
            return
        try:
            self._pairs[right.index] = TensorPair(left, settled, self._scales)
        except ValueError as error:
            self._unreadable[right.index] = str(error)

    def outputs(self) -> tuple[OutputError, ...]:
        """Returns the quantization error of each output."""
        found = []
        for name, pair in zip(self._names, self._outputs, strict=True):
            if pair.fault:
                raise ValueError(
                    f"data must lead to outputs that can be compared, but output {name!r} "
                    f"{pair.fault}"
                )
            sums = pair.sums
            changed = sums.changed / sums.examples if sums.examples else None
            found.append(OutputError(name, sums.relative(sums.noise), changed))
        return tuple(found)

    def layers(self) -> list[LayerError]:
        """Returns one record per operator, the one that adds most noise first."""
        found = [*self._inputs(), *filter(None, map(self._layer_error, self.alignment.pairs))]
        return sorted(found, key=lambda layer: (-layer.added, -layer.noise))

    def unaligned(self) -> tuple[Unaligned, ...]:
        """Returns the operators that :meth:`layers` can't measure, and why."""
        found = list(self.alignment.unaligned())
        for pair in self.alignment.pairs:
            fault = self._fault(pair)
            if fault:
                found.append(Unaligned(pair.layer, pair.operator.name, "quantized", fault))
        return tuple(found)

    def _fault(self, pair: AlignedOperators) -> str:
        """Why the outputs of two operators can't be compared, else empty."""
        for tensor in pair.operator.outputs:
            compared = self._pairs.get(tensor.index)
            if compared is not None and compared.fault:
                return f"its output {compared.fault}"
            if tensor.index in self._unreadable:
                return self._unreadable[tensor.index]
        return ""

    def bits(self) -> dict[str, int]:
        """Returns the fewest bits of each layer's weights in the file."""
        found: dict[str, int] = {}
        paired = [(pair.layer, pair.operator) for pair in self.alignment.pairs]
        unpaired = [(layer, op) for layer, ops in self._unpaired.items() for op in ops]
        for layer, op in [*paired, *unpaired]:
            for kernel in self.kernels.of(op):
                bits = BITS.get(kernel.tensor.dtype, 0)
                found[layer] = min(bits, found.get(layer, bits))
        return found

    def _inputs(self) -> Iterable[LayerError]:
        for tensor in sorted_inputs(self.artifact):
            compared = self._pairs.get(tensor.index)
            if compared is not None and not compared.tensor.dtype.startswith("float"):
                yield _layer_error(tensor.name, "INPUT", compared.tensor, compared.sums, 0.0)

    def _layer_error(self, pair: AlignedOperators) -> LayerError | None:
        parts = [self._pairs.get(tensor.index) for tensor in pair.operator.outputs]
        compared = [part for part in parts if part is not None]
        if not compared or self._fault(pair):
            return None
        sums = Sums.total(part.sums for part in compared)
        input_noise = self._input_noise(pair.operator)
        error = _layer_error(pair.layer, pair.operator.name, compared[0].tensor, sums, input_noise)
        return self._with_weights(error, pair)

    def _input_noise(self, op: OperatorInfo) -> float:
        """The largest noise of an operator's inputs, or of their nearest measured ancestors."""
        flow = self.alignment.right
        pending, seen, most = list(flow.inputs_of(op)), set[int](), 0.0
        while pending:
            index = pending.pop()
            compared, producer = self._pairs.get(index), flow.producers.get(index)
            if compared is not None and not compared.fault:
                most = max(most, compared.sums.relative(compared.sums.noise))
            elif producer is not None and index not in seen:
                pending += flow.inputs_of(producer)
            seen.add(index)
        return most

    def _with_weights(self, error: LayerError, pair: AlignedOperators) -> LayerError:
        own, originals = self.kernels.of(pair.operator), self._originals.of(pair.reference)
        kernels = own or (self._unpaired_kernels(pair.layer) if originals else [])
        if not kernels:
            return error
        return dataclasses.replace(
            error,
            weights=sum(kernel.values.size for kernel in kernels),
            weight_bits=min(BITS.get(kernel.tensor.dtype, 0) for kernel in kernels),
            weight_noise=self._weight_noise(pair, originals, kernels) if own else None,
        )

    def _unpaired_kernels(self, layer: str) -> list[FileKernel]:
        """Kernels of a layer's operators without a counterpart, where only its end has one."""
        return [kernel for op in self._unpaired.get(layer, ()) for kernel in self.kernels.of(op)]

    def _weight_noise(
        self, pair: AlignedOperators, originals: Sequence[FileKernel], kernels: Sequence[FileKernel]
    ) -> float | None:
        shapes = [[kernel.values.shape for kernel in part] for part in (originals, kernels)]
        if shapes[0] != shapes[1]:
            return None
        sums = Sums()
        try:
            for original, kernel in zip(originals, kernels, strict=True):
                x = self._with_factors(
                    self.alignment.left, pair.reference, self._originals, original
                )
                y = self._with_factors(self.alignment.right, pair.operator, self.kernels, kernel)
                sums.signal += float(np.square(x).sum())
                sums.noise += float(np.square(x - y).sum())
        except ValueError:  # the scales have an unknown encoding
            return None
        return sums.relative(sums.noise)

    def _with_factors(
        self, flow: Flow, op: OperatorInfo, kernels: Kernels, kernel: FileKernel
    ) -> np.ndarray:
        """A kernel times the factors per input channel that only its own file applies before it.

        A Rescaling, or a BatchNormalization before a Dense layer, is a factor per input channel:
        the converter multiplies it into the float file's kernel, while quantization-aware
        training keeps it as a depthwise convolution of one weight per channel.
        """
        values = kernels.values(kernel)
        for producer in self.alignment.unpaired_producers(flow, op):
            factors = kernels.of(producer) if producer.name == "DEPTHWISE_CONV_2D" else []
            for factor in (kernels.values(found) for found in factors):
                single = factor.shape[-1] == factor.size  # one weight per channel
                if single and values.shape[-1] % factor.size == 0:  # input channels are last
                    repeats = values.shape[-1] // factor.size
                    values = values * np.repeat(factor.reshape(-1), repeats)
        return values


def _layer_error(
    layer: str, operator: str, tensor: TensorInfo, sums: Sums, input_noise: float
) -> LayerError:
    noise = sums.relative(sums.noise)
    return LayerError(
        layer,
        operator,
        tensor.dtype,
        tensor.shape,
        noise,
        max(noise - input_noise, 0.0),
        sums.outside / max(sums.count, 1),
        sums.relative(sums.grid),
    )
