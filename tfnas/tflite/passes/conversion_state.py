"""The record that goes through the passes of a conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.functional import walk
from tfnas.keras_private import followed_graph
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.call_forms import ATTENTION
from tfnas.quantization.layer_roles import activation_name, activation_of, averages_by_mask
from tfnas.quantization.normalization_rules import NORMALIZATIONS
from tfnas.quantization.round_model import RoundedLayer
from tfnas.quantization.spec import QuantSpec
from tfnas.quantization.table_functions import OF_EXPONENTIALS
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.recurrent_layers import recurrent_layers

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import CalibrationData


@dataclasses.dataclass(frozen=True, eq=False)
class Conversion:
    """A model on its way to a file: what was requested, and what the passes so far made of it.

    A pass takes a conversion and returns it with some fields replaced, or as it is where there is
    nothing to do.

    Args:
        model: The Keras 3 or tf_keras model, as the last pass left it.
        spec: The requested formats.
        calibration: Typical inputs, as for :func:`tfnas.to_tflite`.
        sparse: Whether the file is written in TFLite's sparse encoding.
        streaming: Whether the file takes one frame, and its state.
        batch_size: Examples that the file takes at once, where the model leaves it open; None: it
            stays open.
        budget_seconds: Time for fitting the rounding of weights; None: no limit.
        quiet: Whether nothing is logged of what stays float, since nobody asked for the file.
        aware: Whether the model holds the ranges of its activations: it is quantization-aware.
        columns: The calibration data: for each input, in the order of `model.inputs`, an array
            of shape (examples, ...). Empty where none is needed.
        float_model: The model before a pass placed fake quantization; None where none did.
        rounding: How each kernel was rounded; empty where all were rounded to nearest.
        steps_of_outputs: Of a stream, whether each output is that of one frame, not of a last step.
        kept_out: Names of the preprocessing layers that are not in the file.
        content: The file of TensorFlow's converter, not validated yet.
        origin: Record of the conversion, for :class:`tfnas.Artifact`.
        artifact: The file, validated; None before.
    """

    model: keras.Model
    spec: QuantSpec
    calibration: CalibrationData | None = None
    sparse: bool = False
    budget_seconds: float | None = None
    streaming: bool = False
    batch_size: int | None = None
    quiet: bool = False
    aware: bool = False
    columns: tuple[np.ndarray, ...] = ()
    float_model: keras.Model | None = None
    rounding: tuple[RoundedLayer, ...] = ()
    steps_of_outputs: tuple[bool, ...] = ()
    kept_out: tuple[str, ...] = ()
    content: bytes = dataclasses.field(default=b"", repr=False)
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    artifact: Artifact | None = None

    @property
    def uses_recipe(self) -> bool:
        """Whether ai-edge-quantizer quantizes the weights: the converter has no such format."""
        spec = self.spec
        custom = bool(spec.layers) or spec.weights == "int4" or spec.weight_only
        return not spec.needs_calibration and custom

    @property
    def needs_fake_quantization(self) -> bool:
        """Whether integer activations need fake quantization, not the converter's own ranges."""
        # The converter's calibrator ends the process on the loops of recurrent layers.
        if self.aware or not self.spec.needs_calibration:
            return False
        own = self.has_own_formats or self.has_own_layout
        custom = own or self.has_recurrent_layers or self.has_normalizations
        # There is no state to calibrate a file of one frame with.
        return custom or self.attends or self.has_exponentials or self.streaming

    @property
    def has_own_formats(self) -> bool:
        """Whether the specification says more of an integer file than the name of a mode does."""
        spec = self.spec
        custom = bool(spec.layers) or spec.weights == "int4" or spec.correct or spec.rounds
        return custom or (spec.ranges, spec.recurrent) != (QuantSpec().ranges, "loop")

    @property
    def has_own_layout(self) -> bool:
        """Whether the specification asks for integers where the converter puts none by itself.

        Unlike with formats of its own, no layer stays float for that.
        """
        return self.spec.widens_sums or self.spec.has_channel_scales

    @property
    def ranges_of_converter(self) -> bool:
        """Whether TensorFlow's converter finds the ranges of a Keras 3 model by the data."""
        own = not self.aware and self.spec.needs_calibration and not self.sparse
        return own and not is_tf_keras(self.model)

    @property
    def has_normalizations(self) -> bool:
        """Whether a Keras 3 model normalizes each example, which the converter leaves float."""
        if self.sparse or is_tf_keras(self.model) or followed_graph(self.model) is None:
            return False
        return any(call.kind in NORMALIZATIONS for call in walk(self.model).calls)

    @property
    def attends(self) -> bool:
        """Whether a Keras 3 model has attention, or an average over the steps that a mask leaves.

        The converter makes floats of the second, and its ranges of scores reach to a mask's -1e9.
        """
        if self.sparse or is_tf_keras(self.model) or followed_graph(self.model) is None:
            return False
        return any(
            call.kind in ATTENTION or averages_by_mask(call) for call in walk(self.model).calls
        )

    @property
    def has_exponentials(self) -> bool:
        """Whether a Keras 3 model has functions that are tables with 8 bits, as softplus.

        The converter would compute them in parts, one of which is an exponential.
        """
        if self.sparse or is_tf_keras(self.model) or followed_graph(self.model) is None:
            return False
        if self.spec.activations != "int8":
            return False
        calls = walk(self.model).calls
        names = {name for c in calls for name in (activation_name(c), activation_of(c.operation))}
        return not names.isdisjoint(OF_EXPONENTIALS)

    @property
    def has_recurrent_layers(self) -> bool:
        """Whether a Keras 3 model loops over time steps."""
        return not is_tf_keras(self.model) and bool(recurrent_layers(self.model))

    @property
    def converter_spec(self) -> QuantSpec:
        """The formats of the converter's file: float32 where a recipe quantizes it afterwards."""
        return QuantSpec.of("float32") if self.uses_recipe else self.spec

    @property
    def file(self) -> Artifact:
        """The validated file.

        Raises:
            RuntimeError: No pass has written it yet.
        """
        if self.artifact is None:
            raise RuntimeError(f"conversion of {self.model.name!r} must have a file, got none yet")
        return self.artifact
