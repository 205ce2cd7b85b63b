"""Pass: a file that takes one frame, with its state as inputs and outputs.

The model of the file is a :func:`tfnas.tflite.frame_model.frame_model`. The converter leaves custom
operators for the steps of recurrent layers and for the windows of convolutions. Here they become
operators, and the file gets an input and an output for each state, both of the same name in its
signature. The operators of a step are those that the body of the whole sequence's loop holds.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.graph.batchnorm import layers_of
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.tflite.file_interpreter import STATE
from tfnas.tflite.file_stream import STEPS
from tfnas.tflite.flatbuffer import integers, pack, unpack
from tfnas.tflite.frame_model import FrameStep, FrameWindow, frame_model
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.metadata import set_entry
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.integer_loops import Placeholder, placeholders
from tfnas.tflite.step_operators import StepWriter
from tfnas.tflite.unused_parts import remove_unused


def keep_one_frame(conversion: Conversion) -> Conversion:
    """Makes the model one that takes a frame, where the file is for a stream.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, with the changed model.

    Raises:
        ValueError: A layer needs the frames after it, or the whole sequence.
    """
    if not conversion.streaming:
        return conversion
    try:
        model, steps = frame_model(conversion.model)
    except ValueError:
        if conversion.float_model is not None:
            frame_model(conversion.float_model)  # its error names the user's layer, not a part
        raise
    return dataclasses.replace(conversion, model=model, steps_of_outputs=steps)


def write_states(conversion: Conversion) -> Conversion:
    """Writes the steps and windows of a file for a stream, and its states.

    Args:
        conversion: The converter's file.

    Returns:
        The conversion, with the changed `content`, which holds which outputs are of a frame, and
        the states in `origin["states"]`.

    Raises:
        ValueError: The model has no state: it needs no file for a stream.
        ConversionError: A layer's output has no integer format in the file.
    """
    if not conversion.streaming:
        return conversion
    layers = {layer.name: layer for layer in layers_of(conversion.model, (FrameStep, FrameWindow))}
    if not layers:
        raise ValueError(
            f"streaming must be False for model {conversion.model.name!r}, got True: no layer "
            "looks back at earlier frames"
        )
    model = unpack(conversion.content)
    names: list[str] = []
    steps = {name: layer for name, layer in layers.items() if isinstance(layer, FrameStep)}
    floats = [n for n, step in steps.items() if not isinstance(step.layer, QuantizedRecurrent)]
    for place in placeholders(model, floats):
        layer = layers[place.name]
        if isinstance(layer, FrameWindow):
            _States(model, place, layer, conversion.model.name, names).write_window(layer)
            continue
        step = layer.layer
        own = step.layer if isinstance(step, QuantizedRecurrent) else step
        _States(model, place, own, conversion.model.name, names).write_step(step)
    remove_unused(model)
    set_entry(model, STEPS, json.dumps(conversion.steps_of_outputs).encode())
    origin = {**conversion.origin, "states": names}
    if "recurrent_layers" in origin:
        origin["recurrent_layers"] = "one step; its state is an input and an output"
    return dataclasses.replace(conversion, content=pack(model), origin=origin)


class _States:
    """Writes what is in the place of one placeholder.

    Args:
        model: The file.
        place: The placeholder.
        layer: The layer whose name the states have.
        scope: Name of the model.
        names: The names of the states so far; new ones are added.
    """

    def __init__(
        self, model: Any, place: Placeholder, layer: Any, scope: str, names: list[str]
    ) -> None:
        self.model, self.place, self.names = model, place, names
        self.layer = layer.name
        self.writer = GraphWriter(model, place.graph, f"{scope}/{self.layer}_1/")

    def write_step(self, layer: Any) -> None:
        """Writes the step of a recurrent layer."""
        steps, place = StepWriter(self.writer, layer, 1), self.place
        x, form = place.x, steps.form_of(place.x)
        features = int(self.writer.graph.tensors[x].shape[-1])
        frame = self._reshaped(x, (1, features), form, "frame")
        units, formats = steps.layer.units, steps.state_formats()
        before = [self.writer.tensor((1, units), f, "state") for f in formats]
        new = steps.write(frame, before)
        if steps.form_of(place.outputs[0]) == formats[0]:
            shown = new[0]
        else:
            shown = steps.converted(new[0], steps.form_of(place.outputs[0]), "output")
        shape = [int(size) for size in self.writer.graph.tensors[place.outputs[0]].shape]
        self.writer.operator(
            "RESHAPE", [shown, self.writer.numbers(shape, "output_shape")], [place.outputs[0]]
        )
        place.replace(self.writer.operators)
        for name, old, now in zip(steps.step.states, before, new, strict=True):
            self._add_state(name, old, now)

    def write_window(self, layer: FrameWindow) -> None:
        """Writes the frames before, joined with the new one."""
        writer, x, output = self.writer, self.place.x, self.place.outputs[0]
        form = NumberFormat.of_tensor(writer.graph.tensors[x])
        channels = int(writer.graph.tensors[x].shape[-1])
        shape = (1, layer.size - 1, channels)
        before = writer.tensor(shape, form, "state")
        writer.operator("CONCATENATION", [before, x], [output], axis=1)
        after = writer.tensor(shape, form, "new_state")
        places = [writer.numbers(place, "place") for place in ((0, 1, 0), shape)]
        writer.operator("SLICE", [output, *places], [after])
        self.place.replace(writer.operators)
        self._add_state("before", before, after)

    def _reshaped(self, x: int, shape: tuple[int, ...], form: NumberFormat, name: str) -> int:
        output = self.writer.tensor(shape, form, name)
        self.writer.operator("RESHAPE", [x, self.writer.numbers(shape, f"{name}_shape")], [output])
        return output

    def _add_state(self, part: str, before: int, after: int) -> None:
        """Makes a tensor an input and another one an output of the file."""
        graph, name = self.place.graph, f"{STATE}{self.layer}_{part}"
        while name in self.names:
            name += "_again"
        self.names.append(name)
        graph.inputs = np.array([*integers(graph.inputs), before], np.int32)
        graph.outputs = np.array([*integers(graph.outputs), after], np.int32)
        graph.tensors[before].name = name.encode()
        graph.tensors[after].name = f"new_{name}".encode()
        for signature in self.model.signatureDefs:
            signature.inputs.append(_end(name, before))
            signature.outputs.append(_end(name, after))


def _end(name: str, index: int) -> Any:
    end = schema.TensorMapT()
    end.name, end.tensorIndex = name.encode(), index
    return end
