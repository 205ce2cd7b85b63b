"""Interleaved rounds on a phone: a fake adb that runs TFLite's benchmark tool."""

import pytest

import tfnas
from tfnas.measure.elsewhere import timing_device
from tfnas.measure.latency import reference_artifact

STAND_IN = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls.txt"
case "$*" in
  devices)
    echo "List of devices attached"
    [ -s "$here/gone" ] || printf '4A1\\tdevice\\n' ;;
  *ro.product.model) echo "Pixel 6" ;;
  *getprop*) echo "arm64-v8a" ;;
  *--graph=*)
    number=${*#*--graph=*file}
    if [ -s "$here/refuses" ] && [ "${number%%.tflite*}" = "$(cat "$here/refuses")" ]; then
      echo "ERROR: no kernel for CUSTOM"
      echo "tfnas-exit-status=1"
      exit
    fi
    us=$((1000 * (1 + ${number%%.tflite*})))
    echo "count=5 curr=$us(all same)"
    echo "Inference timings in us: Init: 9, First inference: $us, Warmup (avg): $us," \\
      "Inference (avg): $us"
    echo "tfnas-exit-status=0" ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    adb, binary = tmp_path / "adb", tmp_path / "benchmark_model"
    adb.write_text(STAND_IN)
    adb.chmod(0o755)
    binary.write_bytes(b"tool")
    (tmp_path / "gone").write_text("")
    monkeypatch.setattr(timing_device, "PAUSES", (0.0,))
    return tfnas.AdbDevice(binary=str(binary), adb=str(adb))


def test_rounds_on_the_phone(phone, tmp_path):
    assert phone.check() == "Pixel 6, arm64-v8a"
    file = reference_artifact()
    first, second = tfnas.benchmark([file, file], rounds=6, threads=2, measure_on=phone)
    assert (first.ratio, second.ratio, first.reference_ms) == (2, 3, 1)
    assert first.device == f"{phone}: Pixel 6, arm64-v8a"
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    runs = [call for call in calls if "--graph=" in call]
    assert len(runs) == 6 * 4  # two files, and the reference before and after them
    assert all("--num_threads=2" in run and "--use_xnnpack=true" in run for run in runs)
    assert "file0.tflite --num" in runs[0]
    assert "file0.tflite --num" in runs[3]
    assert "rm -f" in calls[-1]


@pytest.mark.parametrize(("number", "kind"), [(1, ValueError), (0, RuntimeError)])
def test_a_file_that_the_tool_fails_on_is_refused(phone, tmp_path, number, kind):
    (tmp_path / "refuses").write_text(str(number))
    with pytest.raises(kind, match=r"benchmark_model failed on Pixel 6 .* no kernel for CUSTOM"):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=phone)


def test_a_phone_that_is_gone(phone, tmp_path):
    (tmp_path / "gone").write_text("gone")
    with pytest.raises(ConnectionError, match=r"was lost .* 1 further attempts .* a phone must be"):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=phone)
    with pytest.raises(ConnectionError, match="a phone must be connected"):
        phone.check()
