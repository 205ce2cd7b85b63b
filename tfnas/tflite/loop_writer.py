"""Loops over time steps in a `.tflite` file: a WHILE whose body holds the operators of one step.

    counter, inputs, (steps,) (mask,) (outputs,) (last output,) states -> the same, while
    counter < steps

The inputs pass through unchanged. The outputs are written one step at a time by
DYNAMIC_UPDATE_SLICE; where only the last one is needed, it is the state after the loop. Beside a
mask and given states the last output is carried on its own: before the first step that counts it
is 0, and the state is what was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.step_operators import StepWriter

_INDEX, _INT32 = NumberFormat("int32"), schema.TensorType.INT32
_BOOL = NumberFormat("bool")


class LoopWriter:
    """Writes the loop of one recurrent layer.

    Args:
        main: Writes the graph that the loop is in.
        layer: The layer, see :class:`StepWriter`.
        x: Index of its input in that graph, (batch, steps, features).
        outputs: Indices of its outputs there: the output, and the states after it where the layer
            returns them. States that nothing reads are floats.
        mask: Index of the mask there, (batch, steps); None: all steps count.
        states: Indices of the states before the first step there, (batch, units); none: zeros.
    """

    def __init__(
        self,
        main: GraphWriter,
        layer: Any,
        x: int,
        outputs: Sequence[int],
        *,
        mask: int | None = None,
        states: Sequence[int] = (),
    ) -> None:
        self.main, self.layer, self.x, self.mask = main, layer, x, mask
        self.output, self.last_states, self.first_states = outputs[0], outputs[1:], states
        tensor = main.graph.tensors[x]
        signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        self.batch, self.steps, self.features = (
            None if size < 0 else int(size) for size in signature
        )
        self.outer = StepWriter(main, layer, self.batch)
        self.form, self.output_form = self.outer.form_of(x), self.outer.form_of(self.output)
        self.states = self.outer.state_formats()
        self.units: int = self.outer.layer.units
        read = self.output_form.scale is not None  # else nothing reads the output
        self.collects: bool = self.outer.layer.return_sequences and read
        self.carries_output = mask is not None and bool(states) and read
        self._sizes: dict[int, int] = {}

    def write(self) -> None:
        """Adds the loop, and the two graphs of its condition and its body."""
        main = self.main
        given = [main.numbers(0, "start"), self.x]
        ends = [main.tensor((), _INDEX, "end"), self._like_input(main)]
        if self.steps is None:  # an open number of steps is handed on too
            given.append(self._scalar(self._size(1)))
            ends.append(main.tensor((), _INDEX, "steps_again"))
        if self.mask is not None:
            given.append(self.mask)
            ends.append(main.tensor((self.batch, self.steps), _BOOL, "mask_again"))
        if self.collects:
            given.append(self._filled((self.steps, self.units), self.output_form, "no_outputs"))
            ends.append(self.output)
        if self.carries_output:
            given.append(self._filled((self.units,), self.states[0], "no_output"))
            ends.append(main.tensor((self.batch, self.units), self.states[0], "last_output"))
        given += self._first_states()
        last = [main.tensor((self.batch, self.units), f, "last_state") for f in self.states]
        condition, body = self._condition(), self._body()
        main.operator(
            "WHILE",
            given,
            [*ends, *last],
            condSubgraphIndex=condition,
            bodySubgraphIndex=body,
        )
        if not self.collects:
            self._show(ends[-1] if self.carries_output else last[0], self.output)
        for state, output in zip(last, self.last_states, strict=False):
            self._show(state, output)

    def _first_states(self) -> list[int]:
        """The states before the first step in the formats of the loop."""
        pairs = zip(self.first_states, self.states, strict=False)
        given = [self.outer.converted(state, form, "first_state") for state, form in pairs]
        return given or [self._filled((self.units,), f, "first_state") for f in self.states]

    def _show(self, state: int, output: int) -> None:
        """Writes a state after the loop to an output, where the output is an integer."""
        main, form = self.main, self.outer.form_of(output)
        if form.scale is None:  # nothing reads it
            return
        if self.outer.form_of(state) == form:
            main.operator("RESHAPE", [state, main.numbers([-1, self.units], "shape")], [output])
        else:
            main.operator("QUANTIZE", [state], [output])

    def _filled(self, sizes: tuple[Any, ...], form: NumberFormat, name: str) -> int:
        """A tensor of zeros, for all examples."""
        main, shape = self.main, (self.batch, *sizes)
        filler = main.constant(form.integers(np.zeros((1,))), form, f"{name}/zero")
        if None not in shape:
            dimensions = main.numbers(shape, f"{name}/shape")
        else:
            dimensions = main.tensor((len(shape),), _INDEX, f"{name}/shape")
            parts = [
                self._size(axis) if size is None else main.numbers([size], f"{name}/size_{axis}")
                for axis, size in enumerate(shape)
            ]
            main.operator("CONCATENATION", parts, [dimensions], axis=0)
        output = main.tensor(shape, form, name)
        # TFLite Micro has no FILL of integers.
        main.operator("BROADCAST_TO", [filler, dimensions], [output])
        return output

    def _size(self, axis: int) -> int:
        """An open size of the input, a tensor of one number."""
        main = self.main
        if axis not in self._sizes:
            shape = main.tensor((3,), _INDEX, "input_shape")
            main.operator("SHAPE", [self.x], [shape], outType=_INT32)
            self._sizes[axis] = main.tensor((1,), _INDEX, f"size_{axis}")
            ends = [main.numbers([place], f"place_{place}") for place in (axis, axis + 1, 1)]
            main.operator("STRIDED_SLICE", [shape, *ends], [self._sizes[axis]])
        return self._sizes[axis]

    def _scalar(self, size: int) -> int:
        main = self.main
        output = main.tensor((), _INDEX, "steps")
        main.operator("RESHAPE", [size, main.numbers(np.zeros((0,)), "no_axes")], [output])
        return output

    def _like_input(self, writer: GraphWriter) -> int:
        return writer.tensor((self.batch, self.steps, self.features), self.form, "inputs")

    def _carried(self, writer: GraphWriter) -> tuple[list[int], int]:
        """The inputs of the condition and of the body, and the number of steps."""
        found = [writer.tensor((), _INDEX, "counter"), self._like_input(writer)]
        if self.steps is None:
            steps = writer.tensor((), _INDEX, "steps")
            found.append(steps)
        else:
            steps = writer.numbers(self.steps, "steps")
        if self.mask is not None:
            found.append(writer.tensor((self.batch, self.steps), _BOOL, "mask"))
        if self.collects:
            shape = self.batch, self.steps, self.units
            found.append(writer.tensor(shape, self.output_form, "outputs"))
        if self.carries_output:
            found.append(writer.tensor((self.batch, self.units), self.states[0], "output_before"))
        found += [writer.tensor((self.batch, self.units), f, "state") for f in self.states]
        return found, steps

    def _condition(self) -> int:
        writer = GraphWriter(self.main.model, scope=f"{self.main.scope}condition_")
        carried, steps = self._carried(writer)
        goes_on = writer.tensor((), _BOOL, "goes_on")
        writer.operator("LESS", [carried[0], steps], [goes_on])
        return writer.finish(carried, [goes_on])

    def _body(self) -> int:
        writer = GraphWriter(self.main.model, scope=f"{self.main.scope}body_")
        carried, steps = self._carried(writer)
        counter, x = carried[:2]
        after = self._binary(writer, "ADD", counter, writer.numbers(1, "one"), "next")
        backwards = self.outer.layer.go_backwards
        place = self._binary(writer, "SUB", steps, after, "place") if backwards else counter
        one = self._input_of_step(writer, x, place)
        inside, count = StepWriter(writer, self.layer, self.batch), len(self.states)
        rest, before = carried[2:-count], carried[-count:]
        shown: list[int] = []
        new = inside.write(one, before)
        if self.carries_output:  # beside the states, of which the first is the output too
            before, new = [rest.pop(), *before], [new[0], *new]
        done = rest.pop() if self.collects else None
        if self.mask is not None:
            counts = self._step_counts(writer, rest[-1], place)
            new = [self._chosen(writer, counts, *pair) for pair in zip(new, before, strict=True)]
        if done is not None:
            output = inside.converted(new[0], self.output_form, "output_of_step")
            shown = [self._with_output(writer, done, output, counter)]
        return writer.finish(carried, [after, x, *rest, *shown, *new])

    def _input_of_step(self, writer: GraphWriter, x: int, place: int) -> int:
        one = writer.tensor((self.batch, self.features), self.form, "input_of_step")
        if self.form.dtype != "int16":
            writer.operator("GATHER", [x, place], [one], axis=1)
            return one
        # TFLite Micro has no GATHER of 16 bits.
        row = writer.tensor((self.batch, 1, self.features), self.form, "input_row")
        start = self._start(writer, place, "input_place")
        sizes = writer.numbers([self._open_batch, 1, self.features], "input_sizes")
        writer.operator("SLICE", [x, start, sizes], [row])
        shape = writer.numbers([self._open_batch, self.features], "input_shape")
        writer.operator("RESHAPE", [row, shape], [one])
        return one

    def _step_counts(self, writer: GraphWriter, mask: int, place: int) -> int:
        """Whether a step counts, (batch, 1)."""
        one = writer.tensor((self.batch,), _BOOL, "mask_of_step")
        writer.operator("GATHER", [mask, place], [one], axis=1)
        counts = writer.tensor((self.batch, 1), _BOOL, "counts")
        shape = writer.numbers([self._open_batch, 1], "counts_shape")
        writer.operator("RESHAPE", [one, shape], [counts])
        return counts

    def _chosen(self, writer: GraphWriter, counts: int, new: int, old: int) -> int:
        """A new state where a step counts, else the old one."""
        form = NumberFormat.of_tensor(writer.graph.tensors[old])
        found = writer.tensor((self.batch, self.units), form, "kept_state")
        writer.operator("SELECT_V2", [counts, new, old], [found])
        return found

    @property
    def _open_batch(self) -> int:
        return -1 if self.batch is None else self.batch

    @staticmethod
    def _start(writer: GraphWriter, step: int, name: str) -> int:
        """Where a step begins: (0, step, 0)."""
        zero, start = writer.numbers(0, "zero"), writer.tensor((3,), _INDEX, name)
        writer.operator("PACK", [zero, step, zero], [start], valuesCount=3, axis=0)
        return start

    def _with_output(self, writer: GraphWriter, done: int, one: int, counter: int) -> int:
        """All outputs so far, with that of a step at its place."""
        row = writer.tensor((self.batch, 1, self.units), self.output_form, "row")
        sizes = [self._open_batch, 1, self.units]
        writer.operator("RESHAPE", [one, writer.numbers(sizes, "row_shape")], [row])
        place = self._start(writer, counter, "output_place")
        shape = self.batch, self.steps, self.units
        output = writer.tensor(shape, self.output_form, "outputs_so_far")
        writer.operator("DYNAMIC_UPDATE_SLICE", [done, row, place], [output])
        return output

    @staticmethod
    def _binary(writer: GraphWriter, name: str, first: int, second: int, output: str) -> int:
        found = writer.tensor((), _INDEX, output)
        writer.operator(name, [first, second], [found])
        return found
