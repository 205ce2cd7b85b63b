"""Files compiled for Ethos-U accelerators, and the estimates of Arm's compiler."""

import importlib.util
import json
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app
from tfnas.targets import ethos_u as module
from tfnas.targets.ethos_u import VelaError, VelaOperator

needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="no ethos-u-vela on this machine: nothing was compiled",
)


@pytest.fixture(scope="module")
def dense():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
    return tfnas.to_tflite(model, "int8", np.random.default_rng(0).normal(size=(8, 16)))


@needs_vela
def test_an_int8_file_runs_on_the_accelerator(artifacts):
    report = tfnas.vela(artifacts["int8"])
    assert (report.accelerator, report.clock_mhz) == ("ethos-u55-128", 500)
    assert (report.system_config, report.memory_mode) == (
        "Ethos_U55_High_End_Embedded",
        "Shared_Sram",
    )
    assert report.cpu_operators == ()
    names = [(op.name, op.outputs[0].name) for op in artifacts["int8"].graph.operators]
    assert [(op.kind, op.name) for op in report.npu_operators] == names
    assert {"Conv2D", "DepthwiseConv2D", "FullyConnected"} <= {op.kind for op in report.npu_steps}
    assert report.inference_ms == pytest.approx(report.cycles.total / 500e3)
    assert 0 < report.cycles.npu <= report.cycles.total
    assert report.macs > 0
    assert 0 < report.memory.sram < 100_000
    assert 0 < report.memory.off_chip_flash < artifacts["int8"].size
    assert (report.memory.dram, report.memory.on_chip_flash) == (0, 0)


@needs_vela
def test_the_compiled_file_is_for_a_microcontroller(artifacts):
    compiled = tfnas.vela(artifacts["int8"], "ethos-u85-256").compiled
    assert [op.name for op in compiled.graph.operators] == ["ethos-u"]
    assert "resolver.AddEthosU();" in tfnas.resolver_code(compiled)
    tfnas.check_micro(compiled)
    assert (compiled.mode, compiled.origin["accelerator"]) == ("vela", "ethos-u85-256")


@needs_vela
def test_the_compiled_file_keeps_its_labels(dense):
    labels = [f"class {i}" for i in range(8)]
    described = dense.with_metadata(description="a few classes", labels=labels)
    compiled = tfnas.vela(described).compiled
    assert compiled.metadata == described.metadata
    assert tfnas.vela(dense).compiled.metadata is None


@needs_vela
def test_the_report_as_a_record(dense):
    report = tfnas.vela(dense)
    record = report.to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["compiled"] == report.compiled.size
    assert record["cycles"]["total"] == report.cycles.total
    assert record["npu_operators"][0]["kind"] == report.npu_operators[0].kind


@needs_vela
def test_a_float_file_stays_on_the_cpu_and_the_report_has_the_reasons(artifacts, tmp_path):
    path = artifacts["float32"].save(tmp_path / "float.tflite")
    report = tfnas.vela(path)
    operators = artifacts["float32"].graph.operators
    assert report.npu_operators == ()
    assert [op.kind for op in report.cpu_operators] == [op.name for op in operators]
    assert [op.name for op in report.cpu_operators] == [op.outputs[0].name for op in operators]
    assert all("unsupported DataType Float32" in op.reason for op in report.cpu_operators[-2:])
    assert (report.inference_ms, report.cycles.total, report.macs) == (0, 0, 0)
    text = str(report)
    assert f"operators on the CPU  {len(operators):>13,}".split() == text.splitlines()[7].split()
    assert (
        "on the CPU: 1 x SOFTMAX (Operation has tensor with unsupported DataType Float32)" in text
    )


@needs_vela
def test_another_system_and_the_table(dense):
    report = tfnas.vela(
        dense,
        "ethos-u55-32",
        system_config="Ethos_U55_Deep_Embedded",
        memory_mode="Sram_Only",
    )
    assert (report.clock_mhz, report.memory_mode) == (200, "Sram_Only")
    assert report.memory.off_chip_flash == 0 < report.memory.on_chip_flash
    lines = str(report).splitlines()
    assert lines[0] == "ethos-u55-32, 200 MHz"
    assert ["MACs", "128"] in [line.split() for line in lines]
    assert any(line.startswith("bytes of on-chip flash") for line in lines)
    assert lines[-1] == "Ethos_U55_Deep_Embedded, Sram_Only: estimates of the NPU's part alone"


@needs_vela
def test_a_failure_of_the_compiler_is_reported(dense):
    with pytest.raises(RuntimeError, match=r"exit code 1: .*System_Config\.Nope not found"):
        tfnas.vela(dense, system_config="Nope")


@needs_vela
def test_a_compiler_that_takes_too_long_is_stopped(dense):
    with pytest.raises(VelaError, match=r"ethos-u-vela must end within 0\.01 s"):
        tfnas.vela(dense, timeout=0.01)


def test_wrong_arguments(dense):
    with pytest.raises(ValueError, match=r"accelerator must be one of ethos-u55-32, .* got u55"):
        tfnas.vela(dense, "u55")
    with pytest.raises(
        ValueError, match="timeout must be a finite number of seconds above 0, got 0"
    ):
        tfnas.vela(dense, timeout=0)


def test_without_the_package(dense, monkeypatch):
    monkeypatch.setitem(sys.modules, "ethosu", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[micro\]"'):
        tfnas.vela(dense)


def test_a_crash_and_missing_files_are_reported(dense, monkeypatch):
    done = subprocess.CompletedProcess([], -11, "first\n\nlast\n")
    monkeypatch.setattr(module, "check_package", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match=r"signal 11: first \| last$"):
        tfnas.vela(dense)
    done.returncode = 0
    with pytest.raises(RuntimeError, match=r"a summary and a file, got first \| last$"):
        tfnas.vela(dense)


def compiled(*operators):
    """A stand-in for a compiled file, of operators (kind, name of the output)."""
    graph = [
        types.SimpleNamespace(name=kind, outputs=[types.SimpleNamespace(name=name)])
        for kind, name in operators
    ]
    return types.SimpleNamespace(graph=types.SimpleNamespace(operators=graph))


def test_what_runs_where_is_in_the_compiled_file_not_in_the_listing():
    """The compiler may list no operator of the NPU where the file has a part for it."""
    file = compiled(("CONV_2D", "a"), ("CUMSUM", "b"), ("SOFTMAX", "c"))
    output = (
        "Warning (supported operators) operator: CUMSUM, ofm: 'b'\nReason: No kernel (x)\n"
        "CPU operators = 1 (100.0%)\n   CPU: Passthrough = b (outputs [1, 8])\n"
        "NPU operators = 0 (0.0%)\n"
    )
    parts = compiled(("ethos-u", "a"), ("CUMSUM", "b"), ("ethos-u", "c"))
    npu, cpu = module._operators(file, parts, output)
    assert npu == (VelaOperator("CONV_2D", "a"), VelaOperator("SOFTMAX", "c"))
    assert cpu == (VelaOperator("CUMSUM", "b", "No kernel (x)"),)
    npu, cpu = module._operators(file, file, output)
    assert npu == ()
    assert [operator.kind for operator in cpu] == ["CONV_2D", "CUMSUM", "SOFTMAX"]


def test_steps_of_the_listing():
    output = (
        "   NPU: Conv2D = c = d (inputs [1, 8] [8], outputs [1, 8])\n   NPU: LUT = e (outputs [1])"
    )
    assert module._STEP.findall(output) == [("Conv2D", "c = d"), ("LUT", "e")]


# --- the command


@needs_vela
def test_bench_prints_the_report_beside_the_table(dense, tmp_path, capsys):
    path = dense.save(tmp_path / "dense.tflite")
    code = app.main(["bench", str(path), "--rounds=6", "--vela=ethos-u55-64"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    bench_table, report = out.split("\ndense.tflite\n")
    assert "reference model" in bench_table
    assert report == f"{tfnas.vela(dense, 'ethos-u55-64')}\n"


def test_an_unknown_accelerator_is_refused_before_anything_is_measured(dense, tmp_path, capsys):
    path = dense.save(tmp_path / "dense.tflite")
    assert app.main(["bench", str(path), "--vela=u55"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tfnas bench: error: --vela must be one of ethos-u55-32, ")
