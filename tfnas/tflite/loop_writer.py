"""Loops over time steps in a `.tflite` file: a WHILE whose body holds the operators of one step.

    counter, inputs, (all outputs,) states -> the same after one step, while counter < steps

The inputs pass through unchanged. The outputs are written one step at a time by
DYNAMIC_UPDATE_SLICE; where only the last one is needed, it is the state after the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.step_operators import StepWriter

_INDEX = NumberFormat("int32")


class LoopWriter:
    """Writes the loop of one recurrent layer.

    Args:
        main: Writes the graph that the loop is in.
        layer: The layer, see :class:`StepWriter`.
        x: Index of its input in that graph, (batch, steps, features).
        output: Index of its output there.
    """

    def __init__(self, main: GraphWriter, layer: Any, x: int, output: int) -> None:
        self.main, self.layer, self.x, self.output = main, layer, x, output
        tensor = main.graph.tensors[x]
        signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        self.batch, self.steps, self.features = (
            None if size < 0 else int(size) for size in signature
        )
        self.outer = StepWriter(main, layer, self.batch)
        self.form, self.output_form = self.outer.form_of(x), self.outer.form_of(output)
        self.states = self.outer.state_formats()
        self.units: int = self.outer.layer.units
        self.collects: bool = self.outer.layer.return_sequences

    def write(self) -> None:
        """Adds the loop, and the two graphs of its condition and its body."""
        main = self.main
        start = main.numbers(0, "start")
        given = [start, self.x]
        if self.collects:
            given.append(self._filled((self.steps, self.units), self.output_form, "no_outputs"))
        given += [self._filled((self.units,), form, "first_state") for form in self.states]
        ends = [main.tensor((), _INDEX, "end"), self._like_input(main)]
        if self.collects:
            ends.append(self.output)
        ends += [main.tensor((self.batch, self.units), f, "last_state") for f in self.states]
        condition, body = self._condition(), self._body()
        main.operator("WHILE", given, ends, condSubgraphIndex=condition, bodySubgraphIndex=body)
        if not self.collects:
            hidden = ends[2]
            same = self.states[0] == self.output_form
            operator = "RESHAPE" if same else "QUANTIZE"
            inputs = [hidden]
            if same:
                inputs.append(main.numbers([-1, self.units], "shape"))
            main.operator(operator, inputs, [self.output])

    def _filled(self, sizes: tuple[Any, ...], form: NumberFormat, name: str) -> int:
        """A tensor of zeros."""
        main, shape = self.main, (self.batch, *sizes)
        filler = main.constant(form.integers(np.zeros(())), form, f"{name}/zero")
        if self.batch is not None:
            dimensions = main.numbers(shape, f"{name}/shape")
        else:
            dimensions = main.tensor((len(shape),), _INDEX, f"{name}/shape")
            rest = main.numbers(sizes, f"{name}/sizes")
            main.operator("CONCATENATION", [self._batch_size(), rest], [dimensions], axis=0)
        output = main.tensor(shape, form, name)
        main.operator("FILL", [dimensions, filler], [output])
        return output

    def _batch_size(self) -> int:
        """The size of the batch, a tensor of one number."""
        main = self.main
        shape = main.tensor((3,), _INDEX, "input_shape")
        main.operator("SHAPE", [self.x], [shape], outType=2)
        output = main.tensor((1,), _INDEX, "batch")
        places = [main.numbers([place], f"place_{place}") for place in (0, 1, 1)]
        main.operator("STRIDED_SLICE", [shape, *places], [output])
        return output

    def _like_input(self, writer: GraphWriter) -> int:
        return writer.tensor((self.batch, self.steps, self.features), self.form, "inputs")

    def _carried(self, writer: GraphWriter) -> list[int]:
        """The inputs of the condition and of the body."""
        found = [writer.tensor((), _INDEX, "counter"), self._like_input(writer)]
        if self.collects:
            shape = self.batch, self.steps, self.units
            found.append(writer.tensor(shape, self.output_form, "outputs"))
        return found + [writer.tensor((self.batch, self.units), f, "state") for f in self.states]

    def _condition(self) -> int:
        writer = GraphWriter(self.main.model, scope=f"{self.main.scope}condition/")
        carried = self._carried(writer)
        goes_on = writer.tensor((), NumberFormat("bool"), "goes_on")
        writer.operator("LESS", [carried[0], writer.numbers(self.steps, "steps")], [goes_on])
        return writer.finish(carried, [goes_on])

    def _body(self) -> int:
        writer = GraphWriter(self.main.model, scope=f"{self.main.scope}body/")
        carried = self._carried(writer)
        counter, x = carried[:2]
        place = counter
        if self.outer.layer.go_backwards:
            last = writer.numbers(self.steps - 1, "last")
            place = self._binary(writer, "SUB", last, counter, "at")
        one = writer.tensor((self.batch, self.features), self.form, "input_of_step")
        writer.operator("GATHER", [x, place], [one], axis=1)
        inside = StepWriter(writer, self.layer, self.batch)
        new = inside.write(one, carried[-len(self.states) :])
        done = []
        if self.collects:
            shown = inside.converted(new[0], self.output_form, "output_of_step")
            done = [self._with_output(writer, carried[2], shown, counter)]
        after = self._binary(writer, "ADD", counter, writer.numbers(1, "one"), "next")
        return writer.finish(carried, [after, x, *done, *new])

    def _with_output(self, writer: GraphWriter, done: int, one: int, counter: int) -> int:
        """All outputs so far, with that of a step at its place."""
        row = writer.tensor((self.batch, 1, self.units), self.output_form, "row")
        sizes = [-1 if self.batch is None else self.batch, 1, self.units]
        writer.operator("RESHAPE", [one, writer.numbers(sizes, "row_shape")], [row])
        zero, place = writer.numbers(0, "zero"), writer.tensor((3,), _INDEX, "place")
        writer.operator("PACK", [zero, counter, zero], [place], valuesCount=3, axis=0)
        output = writer.tensor(
            (self.batch, self.steps, self.units), self.output_form, "outputs_so_far"
        )
        writer.operator("DYNAMIC_UPDATE_SLICE", [done, row, place], [output])
        return output

    @staticmethod
    def _binary(writer: GraphWriter, name: str, first: int, second: int, output: str) -> int:
        found = writer.tensor((), _INDEX, output)
        writer.operator(name, [first, second], [found])
        return found
