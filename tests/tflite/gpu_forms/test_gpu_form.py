"""Files in operators that the GPU delegate takes: the same outputs, and nothing is refused."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfnas
from tfnas.compression.device_costs import Target, target_notes
from tfnas.tflite.delegation import delegation
from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.gpu_forms.equal_outputs import largest_difference
from tfnas.tflite.gpu_forms.gpu_form import fitted_for_gpu, gpu_form
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.operator_rules.gpu_delegate import gpu_faults

FLOAT = NumberFormat("float32")
INT8 = NumberFormat("int8", 0.5, 3)
NONE = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}


class File:
    """A file that a test writes: each method adds an operator and returns its output."""

    def __init__(self, form=FLOAT):
        self.model = schema.ModelT()
        self.model.version, self.model.operatorCodes = 3, []
        self.model.subgraphs, self.model.buffers = [], [schema.BufferT()]
        self.writer, self.form, self.inputs = GraphWriter(self.model), form, []

    def input(self, *shape):
        self.inputs.append(self.tensor(shape))
        return self.inputs[-1]

    def tensor(self, shape):
        return self.writer.tensor(shape, self.form, f"net/t{len(self.writer.graph.tensors)}/out")

    def numbers(self, values):
        return self.writer.numbers(values, "numbers")

    def constant(self, *shape):
        values = np.random.default_rng(0).normal(size=shape)
        return self.writer.constant(values, FLOAT, "constant")

    def op(self, name, inputs, *shapes, **options):
        outputs = [self.tensor(shape) for shape in shapes]
        self.writer.operator(name, inputs, outputs, **options)
        return outputs[0] if len(outputs) == 1 else outputs

    def reshape(self, x, *shape):
        return self.op("RESHAPE", [x, self.numbers(shape)], shape)

    def artifact(self, *outputs):
        self.writer.finish(self.inputs, outputs)
        return tfnas.Artifact(pack(self.model))


def unchanged_outputs(artifact):
    """Returns the rewritten file, once its outputs are those of the file."""
    rewritten = gpu_form(artifact)
    assert largest_difference(artifact, rewritten) <= 1e-6
    assert delegation(artifact, gpu_faults).left > 0
    return rewritten


def taken_whole(artifact):
    rewritten = unchanged_outputs(artifact)
    found = delegation(rewritten, gpu_faults)
    assert found.left == 0, found.reasons
    return [op.name for op in rewritten.graph.operators]


def around(make, inside, outside):
    """A file that computes on more axes than four, from images to images."""
    file = File()
    x = file.reshape(file.input(1, *outside), 1, *inside)
    y, size = make(file, x)
    return file.artifact(file.reshape(y, 1, size))


@pytest.mark.parametrize("form", [FLOAT, INT8])
def test_windows_are_two_reshapes_and_a_transpose_of_four_axes(form):
    file = File(form)
    x = file.reshape(file.input(1, 8, 8, 6), 1, 2, 4, 2, 4, 6)
    x = file.op("TRANSPOSE", [x, file.numbers([0, 1, 3, 2, 4, 5])], (1, 2, 2, 4, 4, 6))
    assert taken_whole(file.artifact(file.reshape(x, 1, 64, 6))) == [
        "RESHAPE",
        "TRANSPOSE",
        "RESHAPE",
    ]


def mean(file, x):
    return file.op("MEAN", [x, file.numbers([3, 4])], (1, 2, 4, 3), keepDims=False), 24


def matmul(file, x):
    x = file.reshape(x, 2, 4, 2, 4, 3)
    y = file.op("TRANSPOSE", [x, file.numbers([0, 1, 2, 4, 3])], (2, 4, 2, 3, 4))
    return file.op("BATCH_MATMUL", [x, y], (2, 4, 2, 4, 4), adjX=False, adjY=False), 256


def softmax(file, x):
    return file.op("SOFTMAX", [x], (1, 2, 4, 2, 4, 3), beta=1.0), 192


def scaled(file, x):
    y = file.op("MUL", [x, file.constant(4, 1, 1, 3)], (1, 2, 4, 2, 4, 3))
    return file.op("TANH", [y], (1, 2, 4, 2, 4, 3)), 192


def scaled_by_half(file, x):
    """A constant of float16, as the converter writes weights."""
    half = file.writer.constant(np.full((4, 1, 1, 3), 0.5), NumberFormat("float16"), "half")
    factor = file.op("DEQUANTIZE", [half], (4, 1, 1, 3))
    one = file.writer.constant(np.ones((1, 1, 1, 1, 1)), FLOAT, "one")
    y = file.op("ADD", [file.op("MUL", [x, factor], (1, 2, 4, 2, 4, 3)), one], (1, 2, 4, 2, 4, 3))
    return y, 192


def joined(file, x):
    y = file.reshape(x, 8, 2, 4, 3)
    y = file.op("PACK", [y, y], (8, 2, 2, 4, 3), axis=1, valuesCount=2)
    return file.op("CONCATENATION", [y, y], (8, 2, 2, 8, 3), axis=-2), 768


def parts(file, x):
    y = file.op("SPLIT", [file.numbers(2), x], *[(1, 2, 2, 2, 4, 3)] * 2, numSplits=2)
    z = file.op("UNPACK", [y[1]], *[(1, 2, 2, 4, 3)] * 2, num=2, axis=3)
    return z[1], 48


def dense(file, x):
    weights, bias = file.constant(5, 3), file.constant(5)
    return file.op("FULLY_CONNECTED", [x, weights, bias], (1, 2, 4, 2, 4, 5), keepNumDims=True), 320


@pytest.mark.parametrize(
    "make", [mean, matmul, softmax, scaled, scaled_by_half, joined, parts, dense]
)
def test_operators_of_six_axes_become_ones_of_four(make):
    taken_whole(around(make, (2, 4, 2, 4, 3), (8, 8, 3)))


def shrunk(file):
    x, ends = file.input(1, 5, 4), [file.numbers(each) for each in ((0, -1), (0, 0), (1, 1))]
    return file.op(
        "STRIDED_SLICE",
        [x, *ends],
        (1, 4),
        **NONE | {"beginMask": 1, "endMask": 1, "shrinkAxisMask": 2},
    )


def strided(file):
    x, ends = file.input(1, 9), [file.numbers(each) for each in ((0, 1), (1, 9), (1, 3))]
    return file.op("STRIDED_SLICE", [x, *ends], (1, 3), **NONE)


def sliced(file):
    return file.op("SLICE", [file.input(1, 9), file.numbers([0, 2]), file.numbers([1, -1])], (1, 7))


def broadcast(file):
    x = file.op("BROADCAST_TO", [file.input(1, 1, 4), file.numbers([1, 6, 4])], (1, 6, 4))
    return file.op("CONCATENATION", [x, file.input(1, 6, 4)], (1, 12, 4), axis=1)


def outer(file):
    return file.op("MUL", [file.input(1, 6, 1), file.input(1, 1, 4)], (1, 6, 4))


def outer_with_half(file):
    """LayerNormalization of a float16 file: a constant, and one number a row."""
    half = file.writer.constant(np.full((1, 1, 4), 0.5), NumberFormat("float16"), "half")
    gamma = file.op("DEQUANTIZE", [half], (1, 1, 4))
    return file.op("MUL", [gamma, file.input(1, 6, 1)], (1, 6, 4))


def chosen(file):
    one, other = file.input(1, 6, 4), file.input(1, 1, 4)
    condition = file.writer.tensor((1, 6, 4), NumberFormat("bool"), "net/larger/out")
    file.writer.operator("GREATER", [one, other], [condition])
    return file.op("SELECT_V2", [condition, one, other], (1, 6, 4))


def padded(file):
    return file.op("PAD", [file.input(1, 6), file.numbers([[0, 0], [1, 2]])], (1, 9))


def gathered(file):
    return file.op(
        "GATHER",
        [file.input(1, 6, 4), file.numbers([[0, 5], [2, 2]])],
        (1, 2, 2, 4),
        axis=1,
        batchDims=0,
    )


def reversed_steps(file):
    return file.op("REVERSE_V2", [file.input(1, 6, 4), file.numbers([1])], (1, 6, 4))


def expanded(file):
    x = file.op("EXPAND_DIMS", [file.input(1, 6), file.numbers(1)], (1, 1, 6))
    return file.op("SQUEEZE", [file.op("TANH", [x], (1, 1, 6))], (1, 6), squeezeDims=[1])


def multiplied_channels(file):
    return file.op(
        "DEPTHWISE_CONV_2D",
        [file.input(1, 6, 6, 4), file.constant(1, 3, 3, 8), file.constant(8)],
        (1, 4, 4, 8),
        depthMultiplier=2,
        padding=1,
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )


def log_softmax(file):
    return file.op("LOG_SOFTMAX", [file.input(1, 6)], (1, 6))


@pytest.mark.parametrize(
    "make",
    [
        shrunk,
        strided,
        sliced,
        broadcast,
        outer,
        outer_with_half,
        chosen,
        padded,
        gathered,
        reversed_steps,
        expanded,
        multiplied_channels,
        log_softmax,
    ],
)
def test_operators_that_the_delegate_refuses_have_forms_that_it_takes(make):
    file = File()
    taken_whole(file.artifact(make(file)))


def test_a_sum_broadcasts_itself():
    file = File()
    x, y = file.input(1, 1, 4), file.input(1, 6, 4)
    wide = file.op("BROADCAST_TO", [x, file.numbers([1, 6, 4])], (1, 6, 4))
    assert taken_whole(file.artifact(file.op("ADD", [wide, y], (1, 6, 4)))) == ["ADD"]


def flattened(file, x):
    """Flatten as Keras writes it for an open batch."""
    shape = file.writer.tensor((3,), NumberFormat("int32"), "net/flat/shape")
    batch = file.writer.tensor((), NumberFormat("int32"), "net/flat/batch")
    both = file.writer.tensor((2,), NumberFormat("int32"), "net/flat/both")
    file.writer.operator("SHAPE", [x], [shape], outType=schema.TensorType.INT32)
    ends = [file.numbers([each]) for each in (0, 1, 1)]
    file.writer.operator("STRIDED_SLICE", [shape, *ends], [batch], **NONE | {"shrinkAxisMask": 1})
    file.writer.operator("PACK", [batch, file.numbers(-1)], [both], valuesCount=2, axis=0)
    return file.op("RESHAPE", [x, both], (None, 24))


def test_sizes_of_an_open_batch_become_constants():
    file = File()
    x = file.op("TANH", [file.input(None, 6, 4)], (None, 6, 4))
    artifact = file.artifact(flattened(file, x))
    fitted, fit = fitted_for_gpu(artifact)
    assert [op.name for op in fitted.graph.operators] == ["TANH", "RESHAPE"]
    assert fitted.inputs[0].shape == (1, 6, 4)
    assert fit.rewritten == {"RESHAPE": 1, "SHAPE": 1, "STRIDED_SLICE": 1}
    assert (fit.before.left, fit.after.left, fit.difference) == (3, 0, 0.0)
    assert "100.0% of the MACs in 1 part, 0 operators left" in str(fit)
    x = np.ones((3, 6, 4), "float32")
    np.testing.assert_array_equal(fitted.predict(x), artifact.predict(x))


def test_a_file_that_is_taken_whole_stays_as_it_is():
    file = File()
    artifact = file.artifact(file.op("TANH", [file.input(None, 4)], (None, 4)))
    fitted, fit = fitted_for_gpu(artifact)
    assert fitted is artifact
    assert not fit.note


def test_a_note_says_what_the_chosen_file_is_and_not_what_it_might_become():
    file = File()
    artifact = file.artifact(outer(file))
    [note] = target_notes(Target(fit_for="gpu"), artifact)
    assert note.endswith("1 operators left")


def test_what_has_no_other_form_leaves_the_file_as_it_is():
    file = File()
    artifact = file.artifact(file.op("ROUND", [file.input(1, 4)], (1, 4)))
    fitted, fit = fitted_for_gpu(artifact)
    assert fitted is artifact
    assert fit.note == "no operator has a form that is taken"
    assert fit.record()["share_after"] == 0.0


def test_sizes_that_are_not_known_are_named():
    file = File()
    artifact = file.artifact(file.op("ROUND", [file.input(None, None, 4)], (None, None, 4)))
    assert "must leave no size but the batch open" in fitted_for_gpu(artifact)[1].note


def test_a_rewritten_file_of_other_outputs_is_not_kept(monkeypatch):
    monkeypatch.setattr("tfnas.tflite.gpu_forms.gpu_form.largest_difference", lambda *_: 1e-3)
    file = File()
    artifact = file.artifact(outer(file))
    fitted, fit = fitted_for_gpu(artifact)
    assert fitted is artifact
    assert fit.note == "the outputs of the rewritten file differ by 0.001"


def test_a_form_that_is_refused_too_is_not_kept(monkeypatch):
    def faults(op, graph):
        return gpu_faults(op, graph) + (["no transpositions"] if op.name == "TRANSPOSE" else [])

    monkeypatch.setattr("tfnas.tflite.gpu_forms.gpu_form.gpu_faults", faults)
    file = File()
    x = file.reshape(file.input(1, 8, 8, 6), 1, 2, 4, 2, 4, 6)
    x = file.op("TRANSPOSE", [x, file.numbers([0, 1, 3, 2, 4, 5])], (1, 2, 2, 4, 4, 6))
    x = file.reshape(x, 1, 64, 6)
    artifact = file.artifact(file.op("EXPAND_DIMS", [x, file.numbers(1)], (1, 1, 64, 6)))
    operators = unchanged_outputs(artifact).graph.operators
    [moved] = [op for op in operators if op.name == "TRANSPOSE"]
    assert len(moved.outputs[0].shape) == 6  # as it was, not in four axes
    assert "EXPAND_DIMS" not in [op.name for op in operators]
