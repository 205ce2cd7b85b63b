"""`tfnas export --c`: in this process."""

import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

import tfnas


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small-net.keras"
    layers = keras.layers
    keras.utils.set_random_seed(0)
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="first"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="last"),
        ]
    ).save(path)
    return path


def test_c_source_resolver_and_arena(tfnas_command, tmp_path, model, npz):
    target = tmp_path / "small-int8.tflite"
    flags = ("--mode=int8", f"--dataset={npz}", f"--output={target}", "--c")
    code, out, err = tfnas_command("export", model, *flags)
    assert (code, err) == (0, "")
    artifact = tfnas.Artifact.load(target)
    source = tmp_path / "small-int8.c"
    assert {p.name for p in tmp_path.iterdir()} == {target.name, source.name, "small-int8.h"}
    assert f"const unsigned int small_int8_len = {artifact.size};" in source.read_text()
    assert f"{source}, small-int8.h: the file as the array small_int8\n" in out
    code_lines = tfnas.resolver_code(artifact).splitlines()
    assert "\n".join(f"  {line}" for line in code_lines) in out
    assert "resolver.AddConv2D();" in out
    assert f"  planned arena: {tfnas.planned_arena(artifact):,} bytes of activations\n" in out
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine: the source was not compiled")
    subprocess.run(["gcc", "-std=c99", "-c", source, "-o", tmp_path / "small.o"], check=True)


def test_without_the_flag_there_is_no_c_source(tfnas_command, tmp_path, model):
    code, out, err = tfnas_command("export", model, f"--output={tmp_path / 'small.tflite'}")
    assert (code, err) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["small.tflite"]
    assert "resolver" not in out


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("small.tflite", ("--mode=float16", "--c"), "got DEQUANTIZE: float16 numbers"),
        ("small.c", ("--c",), "output must not have the suffix of the C source"),
    ],
)
def test_unsupported_output_is_an_error_before_anything_is_written(
    tfnas_command, tmp_path, model, name, flags, message
):
    code, out, err = tfnas_command("export", model, f"--output={tmp_path / name}", *flags)
    assert (code, out) == (2, "")
    assert err.startswith("tfnas export: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_rounding_by_data(tfnas_command, tmp_path, model, npz):
    target = tmp_path / "small-int4.tflite"
    flags = ("--mode=int8x4", "--rounding=second_order", "--eight_bit_share=1")
    flags += ("--budget_seconds=600", f"--dataset={npz}", f"--output={target}")
    code, _, err = tfnas_command("export", model, *flags)
    assert code == 2  # all kernels with 8 bits are no file of 4 bits
    assert "got none" in err
    more = ("--eight_bit_share=0.1", "--calibration_copies=2")
    code, out, err = tfnas_command("export", model, *flags, *more)
    assert (code, err) == (0, "")
    assert re.search(r"layer +bits +error to nearest +error +s\n.*\nfirst +8 .*\nlast +4 ", out)
    assert "error: that of a layer's output on the calibration data" in out
    assert "sparse" not in out  # nothing was pruned
    graph = tfnas.Artifact.load(target).graphs[0]
    bits = [op.inputs[1].dtype for op in graph.operators if "CONV" in op.name]
    assert bits == ["int8", "int4"]


def test_zeros_are_shown_of_a_model_that_was_pruned(tfnas_command, tmp_path, model):
    pruned = keras.models.load_model(model)
    pruned.get_layer("last").kernel.assign(pruned.get_layer("last").kernel * 0)
    pruned.save(tmp_path / "pruned.keras")
    for source, flags, shown in (
        (model, [], False),
        (tmp_path / "pruned.keras", [], True),
    ):
        target = f"--output={tmp_path / 'a.tflite'}"
        code, out, err = tfnas_command("export", source, target, *flags)
        assert (code, err) == (0, "")
        assert ("weights are zero" in out) == shown
        assert ("eligible for sparse kernels" in out) == shown


def test_formats_of_layers_do_not_go_with_mixed(tfnas_command, model, npz):
    flags = ("--mode=mixed", "--size=0.5", f"--dataset={npz}", "--layers=first=int8")
    code, _, err = tfnas_command("export", model, *flags)
    assert code == 2
    assert "--layers must not be given with mode 'mixed', which chooses" in err
    assert "sparse" not in err


def test_a_layer_without_integers_is_refused_with_the_flag_that_leaves_it_float(
    tfnas_command, tmp_path, npz
):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.Resizing(9, 9, interpolation="bicubic", name="bigger")(x)
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    keras.Model(inputs, outputs).save(tmp_path / "bicubic.keras")
    flags = ("--mode=int8", f"--dataset={npz}")
    code, _, err = tfnas_command("export", tmp_path / "bicubic.keras", *flags)
    assert code == 1
    [line] = err.splitlines()  # no warning before that says something else
    assert "has no TFLite kernel in layer bigger; interpolation 'bilinear' and" in line


def test_even_channels_and_ranges(tfnas_command, tmp_path):
    source, target = tmp_path / "text.keras", tmp_path / "text.tflite"
    layers = keras.layers
    norm, head = layers.LayerNormalization(name="norm"), layers.Dense(2, name="head")
    keras.Sequential([keras.Input((4, 6)), norm, head]).save(source)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(40, 4, 6)))
    flags = [source, "--mode=int8", f"--data={tmp_path / 'x.npz'}", f"--output={target}"]
    code, out, err = tfnas_command(
        "export", *flags, "--smooth=0.5", "--ranges=mse", "--dense_scales=per_channel"
    )
    assert (code, err) == (0, "")
    assert out.startswith("1 normalization is smoothed\n")
    operators = tfnas.Artifact.load(target).graph.operators
    assert "CONV_2D" in {op.name for op in operators}
    products = [op for op in operators if op.name == "FULLY_CONNECTED"]
    assert {op.inputs[0].dtype for op in products} == {"int16"}  # means, not the head


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ranges=mse"], "ranges 'mse' needs a mode of integer activations, got 'float32'"),
        (["--mode=int8", "--percentile=99"], "percentile needs ranges 'percentile', got 'moving"),
        (["--dense_scales=per_channel"], "dense_scales per_channel needs a mode of integer"),
        (["--calibration_copies=3"], "calibration_copies 3 needs a mode of integer activations"),
        (["--residual_bits=16"], "residual_bits 16 needs a mode of integer activations, got"),
        (["--equalize"], "equalize needs a mode that quantizes, got 'float32'"),
        (["--smooth=0"], "smooth needs a mode that quantizes, got 'float32'"),
        (["--mode=int8", "--smooth=2"], "smooth must be in [0, 1], got 2.0"),
        (["--mode=dynamic", "--smooth=0.5"], "data must be given for smooth, got none"),
    ],
)
def test_even_channels_and_ranges_that_do_not_fit(tfnas_command, model, flags, message):
    code, _, err = tfnas_command("export", model, *flags)
    assert code == 2
    assert message in err


def test_a_stream(tfnas_command, tmp_path):
    layers = keras.layers
    source, target = tmp_path / "net.keras", tmp_path / "frames.tflite"
    keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(4, name="memory")]).save(source)
    flags = ("--streaming", f"--output={target}")
    code, _, err = tfnas_command("export", source, *flags, "--recipe=weights8")
    assert code == 2
    assert "streaming excludes recipe, mode 'mixed' and errors, got 'weights8'" in err
    code, out, err = tfnas_command("export", source, *flags)
    assert (code, err) == (0, "")
    assert "input state_memory_hidden: float32 (1, 4)" in out
    assert tfnas.FileStream(target)([[0.0, 1.0, 2.0]]).shape == (1, 4)


def test_a_file_for_a_gpu(tfnas_command, tmp_path, model):
    flags = ("--fit_for=gpu", f"--output={tmp_path / 'small.tflite'}")
    code, out, err = tfnas_command("export", model, *flags)
    assert (code, err) == (0, "")
    assert "3 operators left; now 100.0% of the MACs in 1 part, 0 operators left" in out
    code, _, err = tfnas_command("export", model, *flags, "--sparse")
    assert code == 2
    assert "fit_for excludes recipe, mode 'mixed' and sparse, got 'float32'" in err
