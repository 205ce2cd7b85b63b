"""Latency on a phone: a fake adb prints the tool's output and logs its own arguments."""

import json
import os
import subprocess
import sys

import keras
import pytest

import tfnas
from tfnas.cli import app
from tfnas.measure.elsewhere import phone as module
from tfnas.measure.elsewhere.benchmark_tool import PhoneOperator, parse_benchmark
from tfnas.measure.latency import reference_artifact
from tfnas.measure.measurement import Measurement

FOLDER = "/data/local/tmp/tfnas-run"
STAND_IN = """#!{python} -IS
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
call, log = " ".join(sys.argv[1:]), here / "calls.txt"
earlier = log.read_text().splitlines() if log.exists() else []
log.write_text("\\n".join([*earlier, call]) + "\\n")
if " push " in call:
    (here / pathlib.Path(sys.argv[-1]).name).write_bytes(pathlib.Path(sys.argv[-2]).read_bytes())
for words, *answers in json.loads((here / "answers.json").read_text()):
    if words in call:
        text, code, seconds = answers[min(sum(words in c for c in earlier), len(answers) - 1)]
        time.sleep(seconds)
        sys.stdout.write(text)
        sys.exit(code)
"""

# Shortened output of an old version of the tool, and of a new one with a delegate.
OLD = """STARTING!
Log parameter values verbosely: [0]
Min num runs: [50]
Num threads: [1]
Graph: [/data/local/tmp/tfnas/model.tflite]
Enable op profiling: [1]
#threads used for CPU inference: [1]
Loaded model /data/local/tmp/tfnas/model.tflite
The input model file size (MB): 16.9008
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding \
150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding \
150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, \
Inference (avg): 2.95034e+06
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE \
to the actual memory footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=4.21094 overall=46.0859
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t            0.000\t    1.356\t    1.356\t100.000%\t100.000%\t\
     0.000\t        1\tAllocateTensors/0

Timings (microseconds): count=1 curr=1356
Memory (bytes): count=0
1 nodes observed



Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.066\t   87.754\t   60.957\t  2.066%\t  2.066%\t\
     0.000\t        1\t[Mobilenet/Conv2d_0/Relu6]:0
\t       DEPTHWISE_CONV_2D\t           61.033\t   53.628\t   49.870\t  1.691%\t  3.757%\t\
     0.000\t        1\t[Mobilenet/Conv2d_1_depthwise/Relu6]:1

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.066\t   87.754\t   60.957\t  2.066%\t  2.066%\t\
     0.000\t        1\t[Mobilenet/Conv2d_0/Relu6]:0

Number of nodes executed: 2
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t\
[times called]
\t                 CONV_2D\t        1\t    60.957\t    54.999%\t    54.999%\t     0.000\t        1

Timings (microseconds): count=50 first=2989660 curr=2912978 min=2727203 max=3189476 \
avg=2.9499e+06 std=109770
Memory (bytes): count=0
2 nodes observed
"""
NEW = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/data/local/tmp/tfnas/model.tflite]
INFO: Loaded model /data/local/tmp/tfnas/model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 2.5ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 150 seconds.
INFO: count=400 first=2100 curr=1100 min=1000 max=2100 avg=1150.5 std=63 p5=1010 median=1140 \
p95=1300

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if \
exceeding 150 seconds.
INFO: count=840 first=1300 curr=1210 min=1100 max=1900 avg=1234.5 std=40 p5=1150 median=1200 \
p95=1400

INFO: Inference timings in us: Init: 2500, First inference: 2100, Warmup (avg): 1150.5, \
Inference (avg): 1234.5
INFO: Memory footprint delta from the start of the tool (MB): init=3.5 overall=5.25
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t                   TfLiteXNNPackDelegate\t    1.290\t    1.200\t 99.000%\t 99.000%\t\
     0.000\t        1\t[model/dense/Relu]:14
\t                                 SOFTMAX\t    0.004\t    0.010\t  1.000%\t100.000%\t\
     0.000\t        1\t[StatefulPartitionedCall:0]:13

============================== Top by Computation Time ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t                   TfLiteXNNPackDelegate\t    1.290\t    1.200\t 99.000%\t 99.000%\t\
     0.000\t        1\t[model/dense/Relu]:14

Timings (microseconds): count=840 first=1294 curr=1200 min=1090 max=1890 avg=1225 std=39
Memory (bytes): count=0
2 nodes observed

Delegate internal:\x20
============================== Run Order ==============================
\t                             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t\
  [mem KB]\t[times called]\t[Name]
\t          Fully Connected (NC, F32) GEMM\t    1.200\t    1.100\t 99.000%\t 99.000%\t\
     0.000\t        1\tDelegate/Fully Connected (NC, F32) GEMM:1
"""
DEVICES = "List of devices attached\n{}\n\n"
DONE = "tfnas-exit-status=0\n"


def simple(us):
    """The tool's output for a file whose runs all took the same time, in us."""
    return (
        f"count=5 curr={us}(all same)\n\ncount=50 curr={us}(all same)\n\nInference timings in us: "
        f"Init: 900, First inference: {us}, Warmup (avg): {us}, Inference (avg): {us}\n{DONE}"
    )


class Phone:
    """A fake adb with a phone."""

    def __init__(self, folder):
        self.adb, self.folder = folder / "adb", folder
        self.binary = folder / "android_aarch64_benchmark_model"
        self.binary.write_bytes(b"\x7fELF tool")
        self.adb.write_text(STAND_IN.format(python=sys.executable))
        self.adb.chmod(0o755)
        self.answers = {
            "devices": [DEVICES.format("4A1\tdevice")],
            "getprop ro.product.model": ["Pixel 6\r\n"],
            "getprop ro.product.cpu.abi": ["arm64-v8a\r\n"],
            f"--graph={FOLDER}/reference.tflite": [simple(1900), simple(2100)],
            f"--graph={FOLDER}/model.tflite": [NEW + DONE],
        }

    def measure(self, file, **options):
        rules = [
            [words, *[a if isinstance(a, list | tuple) else (a, 0, 0) for a in answers]]
            for words, answers in self.answers.items()
        ]
        (self.folder / "answers.json").write_text(json.dumps(rules))
        return tfnas.benchmark_on_phone(file, self.binary, adb=str(self.adb), **options)

    @property
    def calls(self):
        return (self.folder / "calls.txt").read_text().splitlines()


@pytest.fixture
def phone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_run_name", lambda: "run")
    return Phone(tmp_path)


@pytest.fixture(scope="module")
def dense():
    keras.utils.set_random_seed(0)
    return tfnas.to_tflite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))


REMOVED = (
    f"-s 4A1 shell rm -f {FOLDER}/benchmark_model {FOLDER}/model.tflite "
    f"{FOLDER}/reference.tflite; rmdir {FOLDER}"
)


def test_commands_on_the_phone(phone, dense):
    phone.measure(dense, threads=2, runs=70, warmup_runs=3, use_xnnpack=False)
    flags = (
        "--num_threads=2 --num_runs=70 --warmup_runs=3 --use_xnnpack=false "
        "--enable_op_profiling=true 2>&1; echo tfnas-exit-status=$?"
    )
    runs = [
        f"-s 4A1 shell {FOLDER}/benchmark_model --graph={FOLDER}/{name}.tflite {flags}"
        for name in ("reference", "model", "reference")
    ]
    assert phone.calls[0] == "devices"
    assert phone.calls[1].startswith("-s 4A1 shell getprop")
    assert phone.calls[3] == f"-s 4A1 shell mkdir -p {FOLDER}"
    assert phone.calls[4] == f"-s 4A1 push {phone.binary} {FOLDER}/benchmark_model"
    assert [call.split()[-1] for call in phone.calls[5:7]] == [
        f"{FOLDER}/model.tflite",
        f"{FOLDER}/reference.tflite",
    ]
    assert phone.calls[7:] == [f"-s 4A1 shell chmod +x {FOLDER}/benchmark_model", *runs, REMOVED]
    for name, file in (("model", dense), ("reference", reference_artifact())):
        assert (phone.folder / f"{name}.tflite").read_bytes() == file.content


def test_output_of_a_new_tool(phone, dense, tmp_path):
    latency = phone.measure(dense.save(tmp_path / "dense.tflite"))
    assert (latency.device, latency.abi) == ("Pixel 6", "arm64-v8a")
    assert (latency.ms, latency.median_ms, latency.average_ms) == (1.2, 1.2, 1.2345)
    assert (latency.p5_ms, latency.p95_ms) == (1.15, 1.4)
    assert (latency.min_ms, latency.max_ms) == (1.1, 1.9)
    assert (latency.init_ms, latency.first_ms, latency.memory_mb) == (2.5, 2.1, 5.25)
    assert (latency.runs, latency.threads, latency.xnnpack) == (840, 1, True)
    assert latency.reference == reference_artifact().sha256
    assert latency.reference_ms == (1.9, 2.1)
    assert latency.ratio == pytest.approx(0.6)
    assert (latency.ratio_low, latency.ratio_high) == (1.2 / 2.1, 1.2 / 1.9)
    assert str(latency) == "1.2 ms, 0.600x reference [0.571, 0.632] on Pixel 6"
    assert latency.operators == (
        PhoneOperator("TfLiteXNNPackDelegate", "model/dense/Relu", 1.2),
        PhoneOperator("SOFTMAX", "StatefulPartitionedCall:0", 0.01),
        PhoneOperator(
            "Fully Connected (NC, F32) GEMM",
            "Delegate/Fully Connected (NC, F32) GEMM:1",
            1.1,
            inside=True,
        ),
    )
    lines = latency.profile().splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["TfLiteXNNPackDelegate", "", "SOFTMAX"]
    assert lines[2].endswith("1.200")


def test_the_time_of_an_operator_is_that_of_all_its_calls(phone, dense):
    once, often = "0.000\t        1\t[StatefulPartitionedCall", "0.000\t       50\t[Stateful"
    output = NEW.replace(once, often + "PartitionedCall")
    phone.answers[f"--graph={FOLDER}/model.tflite"] = [output + DONE]
    assert phone.measure(dense).operators[1].average_ms == pytest.approx(0.5)


@pytest.mark.parametrize(("there", "instead"), [("[avg ms]", "[mean]"), ("0.010", "soon")])
def test_a_profile_that_cannot_be_parsed(phone, dense, there, instead):
    phone.answers[f"--graph={FOLDER}/model.tflite"] = [NEW.replace(there, instead) + DONE]
    with pytest.raises(RuntimeError, match="benchmark_model must report a profile, got the row"):
        phone.measure(dense)


def test_two_runs_have_folders_of_their_own():
    assert module._run_name() != module._run_name()


def test_output_of_an_old_tool(phone, dense):
    phone.answers[f"--graph={FOLDER}/model.tflite"] = [OLD + DONE]
    latency = phone.measure(dense)
    assert (latency.median_ms, latency.p5_ms, latency.p95_ms) == (None, None, None)
    assert (latency.ms, latency.min_ms, latency.max_ms) == (2950.34, 2727.568, 3189.954)
    assert (latency.init_ms, latency.memory_mb, latency.runs) == (17.187, 46.0859, 50)
    assert latency.operators == (
        PhoneOperator("CONV_2D", "Mobilenet/Conv2d_0/Relu6", 60.957),
        PhoneOperator("DEPTHWISE_CONV_2D", "Mobilenet/Conv2d_1_depthwise/Relu6", 49.870),
    )


def test_runs_that_all_took_the_same_time():
    run = parse_benchmark(simple(1900))
    assert (run.ms, run.median_ms, run.min_ms, run.max_ms) == (1.9, None, 1.9, 1.9)
    assert (run.runs, run.memory_mb, run.operators) == (50, None, ())


# --- errors


def test_no_adb(phone, dense):
    phone.adb = phone.folder / "none" / "adb"
    with pytest.raises(
        FileNotFoundError, match=r"adb must be .*platform-tools, got .*which is no program"
    ):
        phone.measure(dense)


def test_no_binary(phone, dense):
    phone.binary.unlink()
    with pytest.raises(FileNotFoundError, match="binary must be the path of TFLite's benchmark_m"):
        phone.measure(dense)


@pytest.mark.parametrize(
    ("listed", "serial", "message"),
    [
        ("", None, "a phone must be connected, with USB debugging on, got none"),
        (
            "4A1\tdevice\n5B2\tdevice",
            None,
            r"serial must name one of several phones, got None: 4A1 \(dev",
        ),
        ("4A1\tunauthorized", None, "phone 4A1 is unauthorized: allow USB debugging on its"),
        ("4A1\toffline", None, "phone 4A1 must be ready, got 'offline'"),
        ("4A1\tno permissions (udev)", "4A1", r"must be ready, got 'no permissions \(udev\)'"),
        (
            "4A1\tdevice",
            "9Z9",
            r"serial must be that of a connected phone, got '9Z9': 4A1 \(device\)",
        ),
    ],
)
def test_no_phone_that_can_be_used(phone, dense, listed, serial, message):
    started = "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
    phone.answers["devices"] = [started + DEVICES.format(listed)]
    with pytest.raises(RuntimeError, match=message):
        phone.measure(dense, serial=serial)
    assert phone.calls == ["devices"]  # nothing was pushed


def test_one_of_several_phones(phone, dense):
    phone.answers["devices"] = [DEVICES.format("4A1\tunauthorized\nemulator-5554\tdevice")]
    phone.measure(dense, serial="emulator-5554")
    assert all(call.startswith("-s emulator-5554 ") for call in phone.calls[1:])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "sh: /data/local/tmp/tfnas/benchmark_model: not executable: 64-bit ELF file\n"
            "tfnas-exit-status=126\n",
            "on Pixel 6 with exit code 126; it must be built for the phone's processor, arm64-v8a: "
            "sh: .*64-bit ELF file$",
        ),
        ("STARTING!\nSegmentation fault\ntfnas-exit-status=139\n", r"code 139: STARTING! \| Segm"),
        ("STARTING!\n", "with exit code unknown: no output"),
        (
            "STARTING!\ntfnas-exit-status=0\n",
            "benchmark_model must report its timings, got STARTING!",
        ),
    ],
)
def test_a_tool_that_fails(phone, dense, output, message):
    phone.answers[f"--graph={FOLDER}/model.tflite"] = [output]
    with pytest.raises(RuntimeError, match=message):
        phone.measure(dense)
    assert phone.calls[-1] == REMOVED


def test_a_phone_that_goes_away(phone, dense):
    phone.answers[" push "] = [("adb: error: device '4A1' not found\n", 1, 0)]
    phone.answers[" rm -f "] = [("adb: device '4A1' not found\n", 1, 0)]
    with pytest.raises(RuntimeError, match="adb failed with exit code 1: adb: error: device '4A1'"):
        phone.measure(dense)


def test_a_tool_that_takes_too_long_is_stopped(phone, dense, monkeypatch):
    phone.answers[f"--graph={FOLDER}/model.tflite"] = [("", 0, 600)]
    run = subprocess.run

    def patient(command, *, timeout, **options):  # with all else, however slow this machine is
        assert timeout == 2
        hangs = any("--graph=" in part and "model.tflite" in part for part in command)
        return run(command, timeout=2 if hangs else 600, **options)

    monkeypatch.setattr(subprocess, "run", patient)
    with pytest.raises(TimeoutError, match="adb shell must end within 2 s, got no result"):
        phone.measure(dense, timeout=2)
    ended = f"-s 4A1 shell pkill -f '{FOLDER}/[b]enchmark_model'"
    assert phone.calls[-2:] == [ended, REMOVED]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be a whole number >= 1, got 0"),
        ({"runs": 2.5}, "runs must be a whole number >= 1, got 2.5"),
        ({"warmup_runs": -1}, "warmup_runs must be a whole number >= 0, got -1"),
        ({"threads": True}, "threads must be a whole number >= 1, got True"),
        ({"timeout": float("inf")}, "timeout must be a finite number of seconds above 0, got inf"),
        ({"timeout": "5"}, "timeout must be a finite number of seconds above 0, got '5'"),
        ({"timeout": 0}, "timeout must be a finite number of seconds above 0, got 0"),
    ],
)
def test_wrong_arguments(phone, dense, options, message):
    with pytest.raises(ValueError, match=message):
        phone.measure(dense, **options)


# --- the command


def test_bench_prints_the_phone_beside_this_machine(phone, dense, monkeypatch, capsys):
    phone.measure(dense)
    (phone.folder / "calls.txt").unlink()
    path = dense.save(phone.folder / "dense.tflite")
    monkeypatch.setenv("PATH", str(phone.folder), prepend=os.pathsep)
    flags = ["--rounds=6", "--adb", f"--adb_binary={phone.binary}", "--serial=4A1"]
    flags += [f"--json={phone.folder / 'phone.json'}"]
    code = app.main(["bench", str(path), *flags])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    here, on_phone = out.split("\n\nfile ")[0], out.split("\n\nfile ")[1]
    assert "reference model" in here
    cells = ["dense.tflite", "0.6000x", "[0.5714,", "0.6316]", "1.2000", "1.4000", "2.5", "5.2"]
    assert on_phone.splitlines()[2].split() == cells
    assert (
        "\n\nPixel 6 (arm64-v8a), 1 thread(s), XNNPACK on, reference model 1.9000 and 2.1000 ms\n"
        "\ndense.tflite on the phone\noperator "
    ) in on_phone
    assert "TfLiteXNNPackDelegate" in on_phone
    record = json.loads((phone.folder / "phone.json").read_text())[str(path)]
    measured = Measurement.from_dict(record)
    assert measured.to_dict() == record
    assert measured.phone["median_ms"] == 1.2
    assert measured.phone["ratio"] == pytest.approx(0.6)
    assert [op["kind"] for op in measured.phone["operators"]][1] == "SOFTMAX"
    assert measured.vela is None
    assert any("--num_runs=6 " in call for call in phone.calls)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adb"], "--adb_binary must be given with adb, got none"),
        (["--serial=4A1"], "--adb_binary and serial need adb, got no adb"),
        (["--adb", "--adb_binary=none"], "--adb_binary must be the path of TFLite's"),
    ],
)
def test_flags_that_do_not_go_together(dense, tmp_path, capsys, flags, message):
    path = dense.save(tmp_path / "dense.tflite")
    assert app.main(["bench", str(path), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tfnas bench: error: {message}")
