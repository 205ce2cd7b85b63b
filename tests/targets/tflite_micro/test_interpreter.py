"""Files for TFLite Micro: required operators, unsupported kernels, memory and outputs."""

import copy
import sys
import types

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.targets.tflite_micro.interpreter import MicroMemory, _Buffer, _greedy
from tfnas.tflite.flatbuffer import pack

BUILTIN = schema.BuiltinOperator


def edited(artifact, change):
    """A file after a change of its flatbuffer; an interpreter need not accept it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(artifact.content, 0))
    change(model)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return tfnas.Artifact(bytes(builder.Output()))


def instead_of(old, new, custom=None):
    """A change that renames all operators of one kind."""

    def change(model):
        [code] = [c for c in model.operatorCodes if old in (c.builtinCode, c.deprecatedBuiltinCode)]
        code.builtinCode, code.deprecatedBuiltinCode = new, min(new, 127)
        code.customCode = custom

    return change


@pytest.fixture(scope="module")
def chain():
    """Three dense layers with 4 inputs and 20, 8 and 2 outputs."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), *(layers.Dense(n, "relu") for n in (20, 8)), layers.Dense(2)]
    )


@pytest.fixture(scope="module")
def chain_file(chain):
    return tfnas.to_tflite(chain)


@pytest.fixture(scope="module")
def forked():
    """Two inputs, not in alphabetical order, two outputs, and a skip connection."""
    keras.utils.set_random_seed(0)
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    first = layers.Dense(16, "relu")(zebra)
    last = layers.Dense(16)(layers.Dense(9, "relu")(first))
    joined = layers.Concatenate()([layers.Add()([first, last]), apple])
    return keras.Model([zebra, apple], [layers.Dense(5)(joined), layers.Softmax()(last)])


# --- required operators


def test_operators_in_the_order_of_first_use(artifacts):
    file = artifacts["int8"]
    expected = list(dict.fromkeys(op.name for op in file.graph.operators))
    assert tfnas.micro_operators(file) == expected
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= set(expected)


def test_resolver_code_names_each_operator_once(artifacts):
    first, *rest = tfnas.resolver_code(artifacts["int8"]).splitlines()
    names = tfnas.micro_operators(artifacts["int8"])
    assert first == f"tflite::MicroMutableOpResolver<{len(names)}> resolver;"
    assert len(rest) == len(set(rest)) == len(names)
    assert rest[names.index("CONV_2D")] == "resolver.AddConv2D();"
    assert rest[names.index("DEPTHWISE_CONV_2D")] == "resolver.AddDepthwiseConv2D();"
    moved = tfnas.resolver_code(artifacts["int8"], namespace="tflite::micro").splitlines()
    assert moved == [f"tflite::micro::{first.removeprefix('tflite::')}", *rest]


@pytest.mark.parametrize(
    ("builtin", "method"),
    [
        (BUILTIN.BATCH_MATMUL, "BatchMatMul"),
        (BUILTIN.BATCH_TO_SPACE_ND, "BatchToSpaceNd"),
        (BUILTIN.CUMSUM, "CumSum"),
        (BUILTIN.AVERAGE_POOL_2D, "AveragePool2D"),
        (BUILTIN.L2_NORMALIZATION, "L2Normalization"),
        (BUILTIN.L2_POOL_2D, "L2Pool2D"),
        (BUILTIN.PADV2, "PadV2"),
        (BUILTIN.RELU6, "Relu6"),
        (BUILTIN.REVERSE_V2, "ReverseV2"),
        (BUILTIN.RESIZE_NEAREST_NEIGHBOR, "ResizeNearestNeighbor"),
        (BUILTIN.SVDF, "Svdf"),
        (BUILTIN.UNIDIRECTIONAL_SEQUENCE_LSTM, "UnidirectionalSequenceLSTM"),
    ],
)
def test_irregular_method_names(chain_file, builtin, method):
    file = edited(chain_file, instead_of(BUILTIN.FULLY_CONNECTED, builtin))
    assert f"resolver.Add{method}();" in tfnas.resolver_code(file)


def test_custom_operators(chain_file):
    change = instead_of(BUILTIN.FULLY_CONNECTED, BUILTIN.CUSTOM, "TFLite_Detection_PostProcess")
    known = edited(chain_file, change)
    assert tfnas.micro_operators(known) == ["TFLite_Detection_PostProcess"]
    assert "resolver.AddDetectionPostprocess();" in tfnas.resolver_code(known)
    tfnas.check_micro(known)
    strange = edited(chain_file, instead_of(BUILTIN.FULLY_CONNECTED, BUILTIN.CUSTOM, "Sparkle"))
    for ask in (tfnas.check_micro, tfnas.resolver_code):
        with pytest.raises(ValueError, match=r"got Sparkle: a custom operator$"):
            ask(strange)


# --- unsupported operators


@pytest.mark.parametrize("mode", ["float32", "int8", "int16x8"])
def test_files_that_have_kernels(artifacts, mode):
    tfnas.check_micro(artifacts[mode])


def test_float16_has_none(artifacts):
    with pytest.raises(ValueError, match=r"got DEQUANTIZE: float16 numbers$"):
        tfnas.check_micro(artifacts["float16"])


def test_dynamic_range_has_none(artifacts):
    with pytest.raises(ValueError, match="file must have kernels in TFLite Micro") as raised:
        tfnas.check_micro(artifacts["dynamic"])
    assert ": float32 activations with int8 kernels (dynamic range)" in str(raised.value)


def test_per_channel_scales_are_not_dequantized(artifacts):
    pytest.importorskip("ai_edge_quantizer")
    file = tfnas.apply_recipe(artifacts["float32"], "weight_only_wi8_afp32")
    with pytest.raises(ValueError, match="got DEQUANTIZE: a step a channel, of which it takes"):
        tfnas.check_micro(file)


def test_an_unknown_operator_is_named_beside_the_others(chain_file):
    def change(model):
        instead_of(BUILTIN.FULLY_CONNECTED, BUILTIN.GELU)(model)
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shapeSignature = [-1, -1]

    with pytest.raises(ValueError, match=r"got input '.*': an open shape \[-1, -1\]; GELU: no k"):
        tfnas.check_micro(edited(chain_file, change))


def test_a_clipped_output_of_another_scale(digits):
    layer = keras.layers.ReLU(6.0)
    model = keras.Sequential([keras.Input((4,)), layer])
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * 2
    tfnas.check_micro(tfnas.to_tflite(model))
    with pytest.raises(ValueError, match="got RELU6: another step for its output than for its"):
        tfnas.check_micro(tfnas.to_tflite(model, "int8", x))


@pytest.mark.parametrize(
    ("make", "mode", "message"),
    [
        (keras.ops.exp, "int8", "EXP: int8 numbers"),
        (lambda x: keras.ops.max(x, 1), "int16x8", "REDUCE_MAX: int16 numbers"),
        (lambda x: keras.ops.take(x, np.array([0, 2]), 1), "float32", "GATHER: places as int64"),
        (
            lambda x: keras.ops.cast(
                keras.ops.where(x > 0, keras.ops.cast(x, "int32"), 1), "float32"
            ),
            *("float32", "SELECT_V2: int32 numbers"),
        ),
        (
            lambda x: keras.ops.reshape(x, (-1, 3, 2, 2, 2))[:, ::2],
            *("float32", "STRIDED_SLICE: an input of 5 dimensions"),
        ),
    ],
)
def test_types_that_a_kernel_does_not_take(make, mode, message):
    x = keras.Input((6, 4))
    noise = np.random.default_rng(0).normal(size=(20, 6, 4)).astype(np.float32)
    file = tfnas.to_tflite(keras.Model(x, make(x)), mode, None if mode == "float32" else noise)
    with pytest.raises(ValueError, match=message):
        tfnas.check_micro(file)


def test_shapes_that_an_open_batch_hides():
    """A dilated convolution has an inner batch of 4, which the file does not store."""
    dilated = layers.Conv2D(4, 3, dilation_rate=2, padding="same")
    file = tfnas.to_tflite(keras.Sequential([keras.Input((8, 8, 2)), dilated]))
    with pytest.raises(ValueError, match=r"SPACE_TO_BATCH_ND: the shape \[1, .* computes \[4, "):
        tfnas.check_micro(file)
    fixed = keras.Sequential([keras.Input(batch_shape=(1, 8, 8, 2)), dilated])
    tfnas.check_micro(tfnas.to_tflite(fixed))


def test_sparse_tensors(chain_file):
    def change(model):
        graph = model.subgraphs[0]
        sparsity = schema.SparsityParametersT()
        kernel = graph.tensors[graph.operators[0].inputs[1]]
        sparsity.traversalOrder, sparsity.dimMetadata = [0, 1], []
        for size in kernel.shape:
            sparsity.dimMetadata.append(schema.DimensionMetadataT())
            sparsity.dimMetadata[-1].denseSize = int(size)
        kernel.sparsity = sparsity

    with pytest.raises(ValueError, match=r"got FULLY_CONNECTED: a sparse tensor$"):
        tfnas.check_micro(edited(chain_file, change))


def test_shapes_that_are_computed():
    file = tfnas.to_tflite(keras.Sequential([keras.Input((3, 2)), layers.ZeroPadding1D(1)]))

    def change(model):
        graph = model.subgraphs[0]
        table = graph.tensors[graph.operators[0].inputs[1]]
        model.buffers[table.buffer].data, table.isVariable = None, True

    tfnas.check_micro(file)
    with pytest.raises(ValueError, match=r"got PADV?2?: a shape that is computed \(input 1 is"):
        tfnas.check_micro(edited(file, change))


# --- the plan


def test_greedy_puts_short_lived_buffers_into_gaps():
    assert _greedy([]) == 0
    one_by_one = [_Buffer(32, i, i + 1) for i in range(5)]  # each meets its neighbors
    assert _greedy(one_by_one) == 64
    assert _greedy([_Buffer(64, 0, 1), _Buffer(16, 0, 4), _Buffer(64, 2, 4)]) == 80
    at_once = [_Buffer(16 * n, 0, 3) for n in range(1, 5)]
    assert _greedy(at_once) == 160


def test_plan_of_a_chain(chain, chain_file):
    # Floats of 4, 20, 8 and 2 numbers: 16, 80, 32 and 16 bytes; 80 meets 16, then 32.
    assert tfnas.planned_arena(chain_file) == 80 + 32
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    # 8 bits: 16, 32, 16 and 16 bytes
    assert tfnas.planned_arena(tfnas.to_tflite(chain, "int8", x)) == 32 + 16


def test_a_plan_needs_shapes(chain_file):
    def change(model):
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape = [-1, 4]

    with pytest.raises(ValueError, match=r"must have a fixed shape, got \(-1, 4\)"):
        tfnas.planned_arena(edited(chain_file, change))


@pytest.mark.parametrize("mode", ["float32", "int8", "int16x8"])
def test_the_plan_equals_that_of_the_interpreter(artifacts, mode):
    pytest.importorskip("tflite_micro")
    planned, memory = tfnas.planned_arena(artifacts[mode]), tfnas.micro_memory(artifacts[mode])
    assert memory.arena == memory.persistent + memory.non_persistent
    assert planned == memory.non_persistent
    widest = max(
        int(np.prod(t.shape)) for op in artifacts[mode].graph.operators for t in op.outputs
    )
    assert planned >= widest


@pytest.mark.parametrize("mode", slow_but(["float32", "int8", "int16x8", "int8x4"], "int8x4"))
def test_scratch_buffers_are_planned(mode):
    """Sums over 100 channels, a transposed convolution and 4-bit kernels need the most."""
    pytest.importorskip("tflite_micro")
    keras.utils.set_random_seed(0)
    body = [layers.Conv2D(8, 3, strides=2), layers.Conv2DTranspose(6, 3, strides=2)]
    wide = [layers.Conv2D(100, 1, activation="relu"), layers.GlobalAveragePooling2D()]
    nets = [[*body, layers.Flatten()], wide, [layers.Flatten(), layers.Dense(50)]]
    x = np.random.default_rng(0).normal(size=(20, 9, 9, 3)).astype(np.float32)
    for net in nets:
        model = keras.Sequential([keras.Input((9, 9, 3)), *net])
        file = tfnas.to_tflite(model, mode, None if mode == "float32" else x)
        assert tfnas.planned_arena(file) == tfnas.micro_memory(file).non_persistent


def test_a_compilers_own_plan_is_kept(artifacts):
    pytest.importorskip("ethosu")
    compiled = tfnas.vela(artifacts["int8"]).compiled
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(compiled.content, 0))
    names = [bytes(entry.name) for entry in model.metadata]
    entry = model.metadata[names.index(b"OfflineMemoryAllocation")]
    metadata = np.frombuffer(bytes(model.buffers[entry.buffer].data), "<i4").copy()
    planned, places = tfnas.planned_arena(compiled), metadata[3:]
    assert (places >= 0).any()
    places[places >= 0] += 160
    model.buffers[entry.buffer].data = np.frombuffer(metadata.tobytes(), np.uint8)
    assert tfnas.planned_arena(tfnas.Artifact(pack(model))) == planned + 160


def test_one_file_or_another(artifacts, chain, tmp_path):
    path = artifacts["int8"].save(tmp_path / "net.tflite")
    assert tfnas.planned_arena(path) == tfnas.planned_arena(artifacts["int8"])
    assert tfnas.micro_operators(str(path)) == tfnas.micro_operators(artifacts["int8"])
    tfnas.check_micro(path)
    for ask in (tfnas.planned_arena, tfnas.check_micro, tfnas.resolver_code, tfnas.vela):
        with pytest.raises(ValueError, match=r"file must be a tfnas\.Artifact or a path, got Seq"):
            ask(chain)


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_the_plan_of_branches_equals_that_of_the_interpreter(forked, mode):
    pytest.importorskip("tflite_micro")
    rng = np.random.default_rng(0)
    x = {"zebra": rng.normal(size=(20, 4)), "apple": rng.normal(size=(20, 3))}
    file = tfnas.to_tflite(forked, mode, None if mode == "float32" else x)
    # Dense layers, sums and the like ask for no scratch buffers: it is the plan alone.
    assert tfnas.planned_arena(file) == tfnas.micro_memory(file).non_persistent


def test_the_plan_of_a_loop_equals_that_of_the_interpreter():
    pytest.importorskip("tflite_micro")
    keras.utils.set_random_seed(0)
    # The converter takes no open batch here; a loop over time is a WHILE.
    file = tfnas.to_tflite(keras.Sequential([keras.Input(batch_shape=(1, 5, 4)), layers.GRU(8)]))
    assert "WHILE" in tfnas.micro_operators(file)
    assert {"GATHER", "TANH"} <= set(tfnas.micro_operators(file))  # of the loop's body
    assert tfnas.planned_arena(file) == tfnas.micro_memory(file).non_persistent
    x = np.random.default_rng(0).normal(size=(4, 5, 4))
    expected = file.predict(x, reference=True)  # other kernels sum in an order of their own
    np.testing.assert_allclose(tfnas.run_micro(file, x), expected, rtol=0, atol=1e-6)


# --- the interpreter


def test_outputs_must_have_the_batch():
    pytest.importorskip("tflite_micro")
    pair = keras.Input(batch_shape=(2, 4))
    file = tfnas.to_tflite(keras.Model(pair, keras.ops.sum(pair, axis=0)))
    with pytest.raises(
        ValueError, match="file must have the same batch size in the first dimension"
    ):
        tfnas.run_micro(file, np.zeros((2, 4)))


def part(file, first, last):
    """Operators `first` to `last` of a file as a file with the inputs of the first."""
    inputs = [t.index for t in file.graph.operators[first].inputs if t.constant is None]

    def change(model):
        graph = model.subgraphs[0]
        graph.inputs, graph.outputs = inputs, list(graph.operators[last].outputs)
        graph.operators = graph.operators[first : last + 1]
        model.signatureDefs = None

    return edited(file, change)


def severed(file):
    """A file's operators side by side, each with its own inputs and outputs."""

    def change(model):
        graph = model.subgraphs[0]
        graph.inputs, graph.outputs, model.signatureDefs = [], [], None
        for number, (op, record) in enumerate(
            zip(graph.operators, file.graph.operators, strict=True)
        ):
            op.inputs = list(op.inputs)
            for place, tensor in enumerate(record.inputs):
                if tensor.constant is None:
                    own = copy.copy(graph.tensors[tensor.index])
                    own.name = f"input_{number}_{place}"
                    op.inputs[place] = len(graph.tensors)
                    graph.inputs.append(len(graph.tensors))
                    graph.tensors.append(own)
            [output] = op.outputs
            graph.tensors[output].name = f"output_{number}"  # `Artifact` sorts by these numbers
            graph.outputs.append(output)

    return edited(file, change)


@pytest.fixture(scope="module", params=["int8", "int16x8"])
def operators(artifacts, digits, request):
    """Names of a file's operators, these side by side, and their inputs in the entire file.

    LiteRT's reference kernels compute what they take, which are the same on any processor.
    """
    file, x = artifacts[request.param], digits.x_test[:50]
    entire = file.interpreter(shapes=[x.shape], keep_all=True, reference=True)
    entire.set_tensor(file.inputs[0].index, file.inputs[0].quantize(x))
    entire.invoke()
    apart = severed(file)
    taken = [t.index for op in file.graph.operators for t in op.inputs if t.constant is None]
    inputs = {
        tensor.name: tensor.dequantize(entire.get_tensor(index))
        for tensor, index in zip(apart.inputs, taken, strict=True)
    }
    names = [op.name for op in file.graph.operators]
    return types.SimpleNamespace(mode=request.param, names=names, file=apart, x=inputs)


def steps_apart(tensors, some, others):
    """Largest difference of each output, in quantization steps."""
    return [
        int(np.round(np.abs(a - b).max() / tensor.scale))
        for tensor, a, b in zip(tensors, some, others, strict=True)
    ]


def test_each_operator_has_the_outputs_of_litert(operators):
    """LiteRT's reference kernels are plain integer code, as TFLite Micro's: no processor matters.

    All are the same but FULLY_CONNECTED, where the two round in other ways (see the next test).
    """
    pytest.importorskip("tflite_micro")
    file = operators.file
    expected, got = file.predict(operators.x, reference=True), tfnas.run_micro(file, operators.x)
    assert [a.shape for a in got] == [b.shape for b in expected]
    assert all(len(np.unique(numbers)) > 10 for numbers in got)
    for name, steps in zip(operators.names, steps_apart(file.outputs, got, expected), strict=True):
        assert steps <= (name == "FULLY_CONNECTED"), name


def test_both_round_what_a_dense_layer_computes(operators):
    """Compared with NumPy: integer sums times a factor, rounded to the nearest integer."""
    pytest.importorskip("tflite_micro")
    file, place = operators.file, operators.names.index("FULLY_CONNECTED")
    op, result = file.graph.operators[place], file.outputs[place]
    [taken] = [tensor for tensor in file.inputs if tensor.index == op.inputs[0].index]
    interpreter = file.interpreter(reference=True)
    kernel, bias = (interpreter.get_tensor(t.index).astype(np.int64) for t in op.inputs[1:])
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    steps = details[op.inputs[1].index]["quantization_parameters"]["scales"].astype(float)
    x = taken.quantize(operators.x[taken.name]).astype(np.int64) - taken.zero_point
    factors = taken.scale * steps / result.scale
    limits = np.iinfo(result.dtype)
    exact = np.clip((x @ kernel.T + bias) * factors + result.zero_point, limits.min, limits.max)
    # Rounding once errs by half a step. TFLite Micro rounds 8 bits twice, the first time to a
    # multiple of at most twice the factor; for 16 bits its factors have 15 bits, an error of up to
    # 2**-15 of themselves. Less than 0.5 + 0.5 + 1 apart, two integers differ by one at most.
    off = 1e-5 + (factors if operators.mode == "int8" else np.abs(exact) * 2.0**-15)
    for outputs in (
        file.predict(operators.x, reference=True),
        tfnas.run_micro(file, operators.x),
    ):
        assert (np.abs(result.quantize(outputs[place]) - exact) <= 0.5 + off).all()


def test_fast_kernels_round_each_operator_in_their_own_way(operators):
    """Each kernel rounds the same real number, on any processor: one step apart at most."""
    file = operators.file
    expected, got = file.predict(operators.x, reference=True), file.predict(operators.x)
    assert max(steps_apart(file.outputs, got, expected)) <= 1


@pytest.mark.parametrize("mode", slow_but(["int8", "int16x8"], "int8"))
def test_outputs_equal_those_of_litert(artifacts, digits, mode):
    """The one dense layer comes last: its steps and no others reach the softmax.

    Tables of a softmax of 16 bits are made in floats, by each of the two in its own way.
    """
    pytest.importorskip("tflite_micro")
    file, x = artifacts[mode], digits.x_test
    last = len(file.graph.operators) - 1
    assert [op.name for op in file.graph.operators[-2:]] == ["FULLY_CONNECTED", "SOFTMAX"]
    dense, softmax = part(file, 0, last - 1), part(file, last, last)
    logits = tfnas.run_micro(dense, x)
    assert steps_apart(dense.outputs, [logits], [dense.predict(x, reference=True)])[0] <= 1
    got = tfnas.run_micro(file, x)
    assert got.shape == (len(x), 10)
    expected = softmax.predict(logits, reference=True)
    assert steps_apart(file.outputs, [got], [expected])[0] <= (mode == "int16x8")
    assert np.ptp(got) > 20 * file.outputs[0].scale  # not all the same


def test_confident_classes_equal_those_of_fast_kernels(artifacts, digits):
    pytest.importorskip("tflite_micro")
    file, x = artifacts["int8"], digits.x_test
    got, fast = tfnas.run_micro(file, x), file.predict(x)
    sure = got.max(axis=1) >= 0.9
    assert sure.mean() > 0.5
    # Another class would take 0.4, a hundred steps, from the first and give them to another.
    np.testing.assert_array_equal(got[sure].argmax(axis=1), fast[sure].argmax(axis=1))


def test_float_outputs_equal_those_of_litert(artifacts, digits):
    pytest.importorskip("tflite_micro")
    x = digits.x_test[:50]
    file = artifacts["float32"]
    expected, got = file.predict(x, reference=True), tfnas.run_micro(file, x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got, file.predict(x), rtol=0, atol=1e-5)  # sums in another order


def test_several_inputs_and_outputs(forked):
    pytest.importorskip("tflite_micro")
    file = tfnas.to_tflite(forked)
    rng = np.random.default_rng(0)
    x = {"zebra": rng.normal(size=(7, 4)), "apple": rng.normal(size=(7, 3))}
    expected, got = file.predict(x, reference=True), tfnas.run_micro(file, x)
    assert [part.shape for part in got] == [(7, 5), (7, 10 + 6)]
    for part, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(part, want, rtol=0, atol=1e-6)


def test_a_refusal_has_the_interpreters_message(chain_file, capfd):
    pytest.importorskip("tflite_micro")
    file = edited(chain_file, instead_of(BUILTIN.FULLY_CONNECTED, BUILTIN.ABS))
    capfd.readouterr()  # the converter's
    with pytest.raises(RuntimeError, match=r"TFLite Micro refuses the file: .*elementwise"):
        tfnas.micro_memory(file)
    assert capfd.readouterr() == ("", "")


def test_files_without_kernels_are_not_run(artifacts, digits):
    pytest.importorskip("tflite_micro")
    for ask in (tfnas.micro_memory, lambda file: tfnas.run_micro(file, digits.x_test[:1])):
        with pytest.raises(ValueError, match="file must have kernels in TFLite Micro"):
            ask(artifacts["float16"])


def test_without_the_package_the_error_says_how_to_install_it(chain_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    for ask in (tfnas.micro_memory, lambda file: tfnas.run_micro(file, np.zeros((1, 4)))):
        with pytest.raises(ImportError, match=r'pip install "\.\[micro\]"'):
            ask(chain_file)


def test_memory_prints_as_a_line():
    text = str(MicroMemory(12_000, 8_000, 4_000))
    assert text == "arena 12,000 bytes: 8,000 persistent, 4,000 shared over time"
